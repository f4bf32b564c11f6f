//! Everything one routes.toml describes, checked and ready to serve. A reload makes a new one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::directory::Directory;
use super::stage::Stage;
use crate::model::client::StageKey;
use crate::outbound::backends::Backend;
use crate::steps::authorizers::Credentials;

pub struct Gateway {
    pub settings: Settings,
    pub directory: Directory,
    pub credentials: Credentials,
    pub stages: HashMap<StageKey, Arc<Stage>>,
    /// Every backend that an integration calls.
    pub backends: Vec<Arc<Backend>>,
    /// Stages that a reload removed and that still have sockets to say goodbye to.
    pub retired: HashMap<StageKey, Arc<Stage>>,
}

/// What concerns the process as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub listen: Vec<SocketAddr>,
    pub admin_listen: Option<SocketAddr>,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub callback_url: Option<Uri>,
}

impl Gateway {
    pub fn stage_of(&self, key: &StageKey) -> Option<Arc<Stage>> {
        self.stages.get(key).or_else(|| self.retired.get(key)).cloned()
    }

    /// How long a client may take to say what it wants: before that is known, the most patient
    /// stage's time counts.
    pub fn handshake_timeout(&self) -> Duration {
        let longest = self.stages.values().map(|stage| stage.limits.handshake_timeout).max();
        longest.unwrap_or(Duration::from_secs(10))
    }
}
