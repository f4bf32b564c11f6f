//! What is written down of the calls of a stage and of its routes.

use std::sync::{Arc, OnceLock};

use crate::expressions::log_format::Format;
use crate::model::client::StageKey;
use crate::telemetry::metrics::{Detailed, RouteMetrics, StageMetrics};
use crate::telemetry::sink::{self, Sink};

pub struct StageWatch {
    pub key: StageKey,
    pub metrics: Arc<StageMetrics>,
    pub access_log: Option<AccessLog>,
    /// Bodies may be shown.
    pub data_trace: bool,
    /// Calls that lead to no route.
    pub nowhere: Arc<RouteWatch>,
    /// Calls of `@connections`.
    pub pushes: Arc<RouteWatch>,
}

pub struct AccessLog {
    pub format: Format,
    pub settings: sink::Settings,
    /// Opened before the stage is served.
    pub sink: OnceLock<Arc<Sink>>,
}

pub struct RouteWatch {
    pub key: Arc<str>,
    pub metrics: Arc<RouteMetrics>,
    /// Where the stage has `detailed_metrics`.
    pub exported: Option<Detailed>,
    pub level: Level,
    /// The authorizer's name, for those who ask who decided.
    pub authorizer: Option<Arc<str>>,
    /// What answers for the route, in one line.
    pub integration: String,
}

/// What the gateway's own log says about single calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Off,
    Error,
    Info,
}

impl AccessLog {
    /// Takes a line, where the log is open.
    pub fn write(&self, line: &[u8]) {
        if let Some(sink) = self.sink.get() {
            sink.write(line);
        }
    }
}
