//! A stage, ready to serve: its routes, its limits, who may push to its connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::admission::{Admission, Entrance};
use super::routes::Routes;
use super::watch::StageWatch;
use crate::connections::Bounds;
use crate::expressions::scope::StageVariables;
use crate::model::client::StageKey;
use crate::steps::authorizers::push::Authorization;
use crate::steps::throttles::{Bucket, Rate};
use crate::telemetry::metrics::StageMetrics;

pub struct Stage {
    pub key: StageKey,
    pub routes: Routes,
    /// What `${stageVariables.x}` stands for.
    pub variables: StageVariables,
    pub limits: Limits,
    /// `$disconnect` calls at a time, so that a mass disconnect does not flood the backend, and one that
    /// hangs does not keep those of other stages waiting.
    pub disconnect_turns: Semaphore,
    pub connections_api: Authorization,
    /// One bucket for all pushes.
    pub push_throttle: Option<Arc<Bucket>>,
    pub entrance: Entrance,
    /// What `$connect` asks of its callers, be there such a route or not.
    pub connect: Admission,
    pub metrics: Arc<StageMetrics>,
    /// What is written down of its calls.
    pub watch: StageWatch,
}

impl Stage {
    /// Whether anybody outside is asked about a handshake, and gets to see it.
    pub fn asks_about_handshakes(&self) -> bool {
        self.routes.connect.is_some() || self.connect.authorizer.is_some()
    }
}

/// Sizes, times and bounds of a stage's connections. "none" in the file is `None`, or the largest number.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub idle_timeout: Option<Duration>,
    pub max_duration: Option<Duration>,
    pub max_message: usize,
    pub max_frame: usize,
    pub binary: bool,
    pub ordering: Ordering,
    pub max_in_flight: u32,
    pub outbox_bytes: usize,
    pub outbox_messages: usize,
    pub slow_consumer_timeout: Option<Duration>,
    pub ping_interval: Option<Duration>,
    pub pong_timeout: Duration,
    pub handshake_timeout: Duration,
    pub idle_counts_pings: bool,
    pub disconnect_retry: Duration,
    /// Messages of one connection, and their bytes.
    pub messages: Option<Rate>,
    pub bytes: Option<Rate>,
}

/// How the messages of one connection run beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// At once, as at AWS: answers may come in another order.
    None,
    /// One after the other, as the client sent them.
    Connection,
}

impl Limits {
    pub fn outbox(&self) -> Bounds {
        Bounds { bytes: self.outbox_bytes, messages: self.outbox_messages, max_frame: self.max_frame }
    }
}
