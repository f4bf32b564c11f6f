//! Throttles, resource policies and origins: from their tables to what a route asks of its callers.

use std::sync::Arc;

use http::HeaderName;

use super::Building;
use crate::api::admission::{Admission, ApiKeySource, Entrance};
use crate::api::file::{self, File};
use crate::expressions::scope::StageVariables;
use crate::expressions::variables::{Allowed, Variable};
use crate::model::client::StageKey;
use crate::model::settings::{Expression, Text};
use crate::steps::authorizers::Authorizer;
use crate::steps::authorizers::credentials::Credentials;
use crate::steps::origins::Origins;
use crate::steps::resource_policies::{self, ResourcePolicy};
use crate::steps::throttles::api_keys::ApiKeys;
use crate::steps::throttles::{Bucket, Limits, Rate};

/// What every stage of the file shares.
pub(super) struct Shared {
    pub api_keys: Arc<ApiKeys>,
    pub credentials: Arc<Credentials>,
    pub gateway_throttle: Option<Arc<Bucket>>,
    pub account_id: Arc<str>,
    region: String,
}

impl Building<'_> {
    pub(super) fn shared(&mut self, file: &File, credentials: Option<Credentials>) -> Shared {
        Shared {
            api_keys: Arc::new(self.api_keys(file)),
            credentials: Arc::new(credentials.unwrap_or_default()),
            gateway_throttle: self.bucket("gateway", file.gateway.throttle.0.as_ref()),
            account_id: file.gateway.account_id.value.as_str().into(),
            region: file.gateway.region.value.clone(),
        }
    }

    /// The bucket of this name, with what was in it before a reload; another rate starts full.
    pub(super) fn bucket(&mut self, name: &str, written: Option<&file::Throttle>) -> Option<Arc<Bucket>> {
        let rate = self.rate(written?)?;
        Some(self.kept.buckets.of(name, rate))
    }

    fn rate(&mut self, written: &file::Throttle) -> Option<Rate> {
        let rate = Rate::new(written.rate.0, written.burst());
        rate.map_err(|error| self.problems.problem(&written.place, error.to_string())).ok()
    }

    pub(super) fn address_limits(&mut self, written: &file::StageLimits) -> Limits {
        Limits {
            connections: written.connections_per_address.0.map(|most| most.0),
            connects: written.connects_per_address.0.as_ref().and_then(|rate| self.rate(rate)),
            requests: written.requests_per_address.0.as_ref().and_then(|rate| self.rate(rate)),
        }
    }

    /// What one connection may send: messages, and bytes.
    pub(super) fn connection_rates(&mut self, stage: &file::Stage) -> (Option<Rate>, Option<Rate>) {
        let limits = &stage.limits;
        let messages = limits.messages_per_connection.0.as_ref().and_then(|rate| self.rate(rate));
        let bytes = limits.bytes_per_connection.0.as_ref().and_then(|rate| self.rate(rate));
        let largest = super::size(&stage.max_message);
        if let (Some(written), Some(bytes)) = (&limits.bytes_per_connection.0, bytes)
            && (bytes.burst() as usize) < largest
        {
            let found = format!("messages of more than {} bytes never get through", bytes.burst());
            let help = format!("write a `burst` of at least {largest}, the stage's max_message, or lower that");
            self.problems.warning_with_help(&written.place, found, help);
        }
        (messages, bytes)
    }

    pub(super) fn entrance(
        &mut self,
        key: &StageKey,
        api: &file::Api,
        stage: &file::Stage,
        shared: &Shared,
    ) -> Entrance {
        Entrance {
            gateway_throttle: shared.gateway_throttle.clone(),
            addresses: self.kept.addresses.of(key),
            address_limits: self.address_limits(&stage.limits),
            origins: self.origins(stage),
            api_keys: shared.api_keys.clone(),
            api_key_source: self.api_key_source(&api.api_key_selection_expression),
            credentials: shared.credentials.clone(),
            fetch: self.kept.fetch.clone(),
            account_id: shared.account_id.clone(),
            arn: format!("arn:aws:execute-api:{}:{}:{}/{}", shared.region, shared.account_id, key.api, key.stage),
        }
    }

    fn origins(&mut self, stage: &file::Stage) -> Origins {
        let Some(written) = &stage.allowed_origins else { return Origins::default() };
        let mut patterns = Vec::new();
        for text in written.iter().filter(|text| !text.unresolved) {
            match crate::steps::origins::Pattern::parse(&text.value) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.problems.problem_with_help(&text.place, error.found, error.help),
            }
        }
        Origins { list: Some(patterns) }
    }

    fn api_key_source(&mut self, written: &Expression) -> ApiKeySource {
        let usual = || ApiKeySource::Request(Variable::Header("x-api-key".into()));
        if written.unresolved {
            return usual();
        }
        if written.text == "$context.authorizer.usageIdentifierKey" {
            return ApiKeySource::Authorizer;
        }
        let name = written.text.strip_prefix('$').unwrap_or(&written.text);
        match Variable::parse(name, Allowed::REQUEST) {
            Ok(variable @ (Variable::Header(_) | Variable::Query(_))) => ApiKeySource::Request(variable),
            _ => {
                let found = format!("no API key is found by `{}`", written.text);
                let help = "write `$request.header.x-api-key`, `$request.querystring.NAME` or \
                            `$context.authorizer.usageIdentifierKey`";
                self.problems.problem_with_help(&written.place, found, help);
                usual()
            }
        }
    }

    /// The policies that a call has to pass, the API's first.
    pub(super) fn policies(&mut self, levels: [&[file::PolicyStatement]; 3]) -> Vec<ResourcePolicy> {
        let mut policies = Vec::new();
        for statements in levels.into_iter().filter(|statements| !statements.is_empty()) {
            policies.push(ResourcePolicy { statements: statements.iter().map(statement).collect() });
        }
        policies
    }

    /// What a route of an HTTP API, or `$connect`, asks of its callers.
    pub(super) fn admission(
        &mut self,
        key: &StageKey,
        api: &file::Api,
        stage: &file::Stage,
        route: Option<(&str, &file::Route)>,
        variables: &StageVariables,
    ) -> Admission {
        let route_policy = route.map_or(&[][..], |(_, route)| &route.resource_policy);
        let name = route.map_or("$connect", |(name, _)| name);
        let written = route.map(|(_, route)| route);
        let throttle = throttle(stage, written);
        let admission = Admission {
            throttle: self.bucket(&format!("route {} {} {name:?}", key.api, key.stage), throttle),
            policies: self.policies([&api.resource_policy, &stage.resource_policy, route_policy]),
            wants_api_key: written.is_some_and(|route| route.api_key_required),
            authorizer: written.and_then(|route| self.authorization(key, route, variables)),
        };
        if let Some(route) = written {
            self.check_admission(api, route, &admission);
        }
        admission
    }

    /// What a route of messages asks: its connection was admitted already.
    pub(super) fn message_admission(
        &mut self,
        key: &StageKey,
        stage: &file::Stage,
        (name, route): (&str, &file::Route),
        has_authorizer: bool,
    ) -> Admission {
        let throttle = throttle(stage, Some(route)).filter(|_| name != "$disconnect");
        let policies = self.policies([&[], &[], &route.resource_policy]);
        if policies.iter().any(ResourcePolicy::needs_authorizer) && !has_authorizer {
            let found = "a resource policy asks what the authorizer said, and `$connect` has none";
            self.problems.warning_with_help(&route.place, found, "add `authorizer` to `$connect`");
        }
        if policies.iter().any(ResourcePolicy::needs_headers) {
            let found = "messages have no headers: those of the handshake are `$connect`'s";
            self.problems.problem_with_help(
                &route.place,
                found,
                "move the statement to `$connect`, or leave out `headers`",
            );
        }
        Admission {
            throttle: self.bucket(&format!("route {} {} {name:?}", key.api, key.stage), throttle),
            policies,
            ..Admission::default()
        }
    }

    /// Whoever brings a fresh token must have shown one when the connection opened.
    pub(super) fn check_refreshes(&mut self, api: &file::Api, connect: &Admission) {
        let is_jwt = |authorizer: &Authorizer| matches!(authorizer, Authorizer::Jwt(_));
        if connect.authorizer.as_ref().is_some_and(|authorization| is_jwt(&authorization.authorizer)) {
            return;
        }
        // An authorizer that could not be built was blamed already.
        let is_built = api.routes.get("$connect").is_none_or(|connect| connect.value.authorizer.is_none())
            || connect.authorizer.is_some();
        for entry in api.routes.iter().filter(|entry| entry.value.refreshes_authorization && is_built) {
            let found = "there is no token to refresh: `$connect` has no authorizer of type `jwt`";
            let help = "add one to `$connect`, or leave out `refreshes_authorization`";
            self.problems.problem_with_help(&entry.value.place, found, help);
        }
    }

    fn check_admission(&mut self, api: &file::Api, route: &file::Route, admission: &Admission) {
        let by_authorizer = *api.api_key_selection_expression.text == *"$context.authorizer.usageIdentifierKey";
        if admission.wants_api_key && by_authorizer && route.authorizer.is_none() {
            let found = "the API key comes from the authorizer, and this route has none";
            self.problems.problem_with_help(&route.place, found, "add `authorizer`, or leave out `api_key_required`");
        }
        if admission.policies.iter().any(ResourcePolicy::needs_authorizer) && route.authorizer.is_none() {
            let found = "a resource policy asks what the authorizer said, and this route has none";
            self.problems.warning_with_help(&route.place, found, "add `authorizer`");
        }
    }
}

/// The route's own, or the stage's.
fn throttle<'f>(stage: &'f file::Stage, route: Option<&'f file::Route>) -> Option<&'f file::Throttle> {
    route.and_then(|route| route.throttle.as_ref()).unwrap_or(&stage.throttle).0.as_ref()
}

fn statement(written: &file::PolicyStatement) -> resource_policies::Statement {
    use crate::steps::resource_policies::{Effect, Glob, Statement};
    let globs = |values: &[Text]| values.iter().map(|value| Glob::new(&value.value)).collect::<Vec<_>>();
    let header = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
    Statement {
        effect: match written.effect {
            file::Effect::Allow => Effect::Allow,
            file::Effect::Deny => Effect::Deny,
        },
        source_ip: written.source_ip.iter().flat_map(|networks| networks.iter()).map(|cidr| cidr.0).collect(),
        headers: written.headers.iter().filter_map(|entry| Some((header(&entry.name)?, globs(&entry.value)))).collect(),
        authorizer: written.authorizer.iter().map(|entry| (entry.name.clone(), globs(&entry.value))).collect(),
    }
}
