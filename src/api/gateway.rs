//! Everything one routes.toml describes, checked and ready to serve. A reload makes a new one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;

use super::acme::Acme;
use super::directory::Directory;
use super::http_stage::HttpStage;
use super::stage::Stage;
use super::tls::Material;
use crate::model::address::ListenAt;
use crate::model::client::StageKey;
use crate::model::periods::Quota;
use crate::outbound::backends::Backend;
use crate::steps::authorizers::Authorizer;
use crate::steps::authorizers::credentials::Credentials;
use crate::telemetry::tracer;

pub struct Gateway {
    pub settings: Settings,
    /// What TLS on the listeners is made of.
    pub tls: Option<Material>,
    /// Which certificates are to be ordered.
    pub acme: Option<Acme>,
    pub directory: Directory,
    pub credentials: Arc<Credentials>,
    pub stages: HashMap<StageKey, Arc<Stage>>,
    pub http_stages: HashMap<StageKey, Arc<HttpStage>>,
    /// The quotas of usage plans, for who reports what was used.
    pub quotas: BTreeMap<String, Quota>,
    /// The authorizers that routes name.
    pub authorizers: Vec<Arc<Authorizer>>,
    /// Every backend that an integration or an authorizer calls.
    pub backends: Vec<Arc<Backend>>,
    /// Stages that a reload removed and that still have sockets to say goodbye to.
    pub retired: HashMap<StageKey, Arc<Stage>>,
}

/// What concerns the process as a whole.
#[derive(Clone, Default, PartialEq)]
pub struct Settings {
    pub listen: Vec<ListenAt>,
    pub admin_listen: Option<ListenAt>,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub callback_url: Option<Uri>,
    /// Whose word about the client counts.
    pub trusted_proxies: Vec<IpNet>,
    pub proxy_protocol: bool,
    pub reuse_port: bool,
    /// What operators show to be let in.
    pub admin_token: Option<Arc<str>>,
    /// Operators may look, and change nothing.
    pub admin_read_only: bool,
    pub tracing: Option<tracer::Settings>,
    /// For what outlives the process.
    pub data_dir: PathBuf,
}

impl Gateway {
    pub fn stage_of(&self, key: &StageKey) -> Option<Arc<Stage>> {
        self.stages.get(key).or_else(|| self.retired.get(key)).cloned()
    }

    pub fn speaks_http(&self) -> bool {
        !self.http_stages.is_empty()
    }

    /// How long a client may take to say what it wants: before that is known, the most patient
    /// stage's time counts.
    pub fn handshake_timeout(&self) -> Duration {
        let of_sockets = self.stages.values().map(|stage| stage.limits.handshake_timeout);
        let longest = self.http_stages.values().map(|stage| stage.limits.handshake_timeout).chain(of_sockets).max();
        longest.unwrap_or(Duration::from_secs(10))
    }
}
