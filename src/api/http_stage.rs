//! A stage of an HTTP API, ready to serve: its routes by method and path, and what is done to all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::paths::Paths;
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
    pub metrics: Arc<StageMetrics>,
    /// A reload removed the stage: what it still carries ends.
    pub retired: CancellationToken,
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
}

impl HttpRoute {
    /// What the client sent is looked at beside what is passed on of it.
    pub fn reads_headers(&self) -> bool {
        let is_proxied = matches!(&self.integration, RequestIntegration::HttpProxy(_));
        !is_proxied || !self.request_parameters.is_empty() || !self.response_parameters.is_empty()
    }

    /// The request's body must be there as a whole before anything is sent.
    pub fn needs_body(&self) -> bool {
        self.request_parameters.reads_body() || self.integration.reads_body()
    }
}
