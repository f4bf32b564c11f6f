//! What stands between a call and its integration: the same pieces for a handshake and for a request.

use std::sync::Arc;

use crate::expressions::scope::Scope;
use crate::expressions::variables::{Source as _, Variable};
use crate::model::client::StageKey;
use crate::outbound::fetch::Web;
use crate::steps::authorizers::Authorizer;
use crate::steps::authorizers::credentials::Credentials;
use crate::steps::origins::Origins;
use crate::steps::resource_policies::ResourcePolicy;
use crate::steps::throttles::api_keys::ApiKeys;
use crate::steps::throttles::{Addresses, Bucket, Limits};

/// What the routes of a stage have in common.
pub struct Entrance {
    /// One bucket for all calls of the gateway.
    pub gateway_throttle: Option<Arc<Bucket>>,
    pub addresses: Arc<Addresses>,
    pub address_limits: Limits,
    pub origins: Origins,
    pub api_keys: Arc<ApiKeys>,
    pub api_key_source: ApiKeySource,
    pub credentials: Arc<Credentials>,
    pub fetch: Web,
    pub account_id: Arc<str>,
    /// `arn:aws:execute-api:<region>:<account>:<api>/<stage>`
    pub arn: String,
}

/// What one route asks of its callers.
#[derive(Default)]
pub struct Admission {
    pub throttle: Option<Arc<Bucket>>,
    /// The API's, the stage's and the route's, as far as there are any.
    pub policies: Vec<ResourcePolicy>,
    pub wants_api_key: bool,
    pub authorizer: Option<Authorization>,
}

impl Admission {
    /// Nothing is asked of anybody, throttles aside.
    pub fn is_open(&self) -> bool {
        self.policies.is_empty() && !self.wants_api_key && self.authorizer.is_none()
    }

    /// A signature covers the body, which must be there then.
    pub fn needs_body(&self) -> bool {
        self.authorizer.as_ref().is_some_and(|authorization| authorization.authorizer.needs_body())
    }
}

/// A route's authorizer.
pub struct Authorization {
    /// Its name in the file.
    pub name: String,
    pub authorizer: Arc<Authorizer>,
    pub scopes: Vec<String>,
}

/// Where an API key is found.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiKeySource {
    Request(Variable),
    /// The authorizer's answer names it: `$context.authorizer.usageIdentifierKey`.
    Authorizer,
}

impl ApiKeySource {
    pub fn shown(&self, scope: &Scope<'_>) -> Option<String> {
        match self {
            // Of several headers the last counts, as in AWS's events.
            ApiKeySource::Request(Variable::Header(name)) => scope.headers(name).pop().map(|value| value.into_owned()),
            ApiKeySource::Request(variable) => variable.text(scope).map(|value| value.into_owned()),
            ApiKeySource::Authorizer => None,
        }
    }
}

impl Entrance {
    /// The ARN of a route and its name in `allow`: `tail` is `$connect`, or `<METHOD>/<path>`.
    pub fn names(&self, stage: &StageKey, tail: &str) -> (String, String) {
        (format!("{}/{tail}", self.arn), format!("{}/{}/{tail}", stage.api, stage.stage))
    }
}
