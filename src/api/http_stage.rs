//! A stage of an HTTP API, ready to serve: its routes by method and path, and what is done to all of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Entrance};
use super::paths::Paths;
use super::watch::{RouteWatch, StageWatch};
use crate::expressions::scope::StageVariables;
use crate::model::client::StageKey;
use crate::steps::cors::Cors;
use crate::steps::integrations::RequestIntegration;
use crate::steps::transforms::http_parameters::{RequestParameters, ResponseParameters};
use crate::telemetry::metrics::StageMetrics;

pub struct HttpStage {
    pub key: StageKey,
    pub routes: Paths<HttpRoute>,
    /// What `${stageVariables.x}` stands for.
    pub variables: StageVariables,
    pub cors: Option<Arc<Cors>>,
    pub limits: HttpLimits,
    pub entrance: Entrance,
    pub metrics: Arc<StageMetrics>,
    /// What is written down of its requests.
    pub watch: StageWatch,
    /// The same over all reloads that keep the stage.
    retired: OnceLock<CancellationToken>,
}

/// Sizes and times of a stage's requests. "none" in the file is `None`, or the largest number.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpLimits {
    pub max_body: usize,
    /// An upgraded connection without a byte either way.
    pub idle_timeout: Option<Duration>,
    /// An upgraded connection, whatever it does.
    pub max_duration: Option<Duration>,
    pub handshake_timeout: Duration,
    /// Answers from this length on are compressed.
    pub minimum_compression_size: Option<u64>,
    pub compress_event_streams: bool,
}

/// One route: what answers for it.
pub struct HttpRoute {
    pub key: String,
    pub request_parameters: RequestParameters,
    pub integration: RequestIntegration,
    pub response_parameters: ResponseParameters,
    /// Carries upgraded connections to a backend that speaks their protocol itself.
    pub upgrade: bool,
    pub admission: Admission,
    pub watch: Arc<RouteWatch>,
}

/// What a stage is made of; everything in it has been checked.
pub struct Parts {
    pub key: StageKey,
    pub routes: Paths<HttpRoute>,
    pub variables: StageVariables,
    pub cors: Option<Arc<Cors>>,
    pub limits: HttpLimits,
    pub entrance: Entrance,
    pub watch: StageWatch,
}

impl HttpStage {
    pub fn new(parts: Parts) -> Self {
        let Parts { key, routes, variables, cors, limits, entrance, watch } = parts;
        let metrics = watch.metrics.clone();
        Self { key, routes, variables, cors, limits, entrance, metrics, watch, retired: OnceLock::new() }
    }

    /// Ends when a reload has removed the stage: what it still carries ends then.
    pub fn retired(&self) -> &CancellationToken {
        self.retired.get_or_init(CancellationToken::new)
    }

    /// The stage as a reload made it carries on what this one carried.
    pub fn succeed(&self, before: &HttpStage) {
        // A stage that is served for the first time has not been asked yet.
        let _ = self.retired.set(before.retired().clone());
    }
}

impl HttpRoute {
    /// What the client sent is looked at beside what is passed on of it.
    pub fn reads_headers(&self) -> bool {
        let is_proxied = matches!(&self.integration, RequestIntegration::HttpProxy(_));
        !is_proxied || !self.request_parameters.is_empty() || !self.response_parameters.is_empty()
    }

    /// Nobody but the backend looks at the headers.
    pub fn passes_on_unread(&self) -> bool {
        !self.reads_headers() && !self.upgrade && self.admission.is_open() && !self.needs_body()
    }

    /// The request's body must be there as a whole before anything is sent.
    pub fn needs_body(&self) -> bool {
        self.request_parameters.reads_body() || self.integration.reads_body()
    }
}
