//! Who may call, and how much: the steps in front of every integration.
//!
//! A handshake and a request pass the same list once their own throttles have let them through (`admit`); a message
//! passes a shorter one, since its connection was admitted already. Narrow throttles come before wide ones, so that a
//! flood of one address or connection costs the others nothing, and what costs least comes first.

use std::sync::Arc;
use std::time::Instant;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use super::Engine;
use crate::api::admission::{Admission, ApiKeySource, Entrance};
use crate::api::http_stage::{HttpRoute, HttpStage};
use crate::api::paths;
use crate::api::routes::Route;
use crate::api::stage::Stage;
use crate::expressions::scope::{Scope, StageVariables};
use crate::model::call::{Call, Event, Handshake, Happening};
use crate::model::client::Client;
use crate::model::headers;
use crate::model::identity::{ApiKey, Identity};
use crate::model::record::{Leg, Trail};
use crate::model::refusal::{Cause, Kind, Refusal};
use crate::model::request::HttpRequest;
use crate::outbound::sigv4;
use crate::steps::authorizers::identity_source::token_among;
use crate::steps::authorizers::{Asked, Authorizer, Passed, iam};
use crate::steps::resource_policies::{Caller, ResourcePolicy, Verdict};
use crate::steps::throttles::{self, Bucket, Place};

impl Engine {
    /// A client of a WebSocket API, before its `$connect` integration.
    pub(super) async fn let_in(
        &self,
        stage: &Stage,
        call: &mut Call<'_>,
        client: &Client,
        handshake: &Handshake,
        trail: &mut Trail,
    ) -> Result<Place, Refusal> {
        let entrance = &stage.entrance;
        check_origin(entrance, &handshake.headers, (handshake.scheme, &handshake.host), handshake.has_certificate)?;
        let place = entrance.addresses.connect(client.source_ip, &entrance.address_limits).map_err(too_many)?;
        throttle(stage.connect.throttle.as_deref(), Cause::RouteThrottle)?;
        throttle(entrance.gateway_throttle.as_deref(), Cause::GatewayThrottle)?;
        let signed = Signed {
            method: "GET",
            path: &handshake.path,
            query: handshake.query.as_deref(),
            headers: &handshake.headers,
            body: b"",
        };
        let (admission, variables) = (&stage.connect, &stage.variables);
        let at = At { entrance, admission, variables, tail: "$connect", otherwise: &[], signed };
        if !admission.is_open() {
            // Boxed, because a handshake that anybody may make should not keep room for it.
            Box::pin(at.admit(call, trail)).await?;
        }
        *client.identity.write() = call.identity.clone();
        Ok(place)
    }

    /// A message of an admitted client.
    pub(super) async fn let_pass(
        &self,
        stage: &Stage,
        route: &Route,
        client: &Client,
        call: &mut Call<'_>,
    ) -> Result<(), Refusal> {
        throttle(route.admission.throttle.as_deref(), Cause::RouteThrottle)?;
        throttle(stage.entrance.gateway_throttle.as_deref(), Cause::GatewayThrottle)?;
        if route.refreshes {
            Box::pin(refresh(stage, client, call)).await?;
        }
        for policy in &route.admission.policies {
            pass(policy, call)?;
        }
        let Some(identity) = &call.identity else { return Ok(()) };
        if let Some(key) = &identity.api_key {
            stage.entrance.api_keys.still_good(&key.id, &stage.key)?.take(moment(call))?;
        }
        Ok(())
    }

    /// What a request has to pass before its body is looked at; one without a route, and a preflight, passes its address's
    /// and the gateway's throttles.
    pub(super) fn throttle_request(
        &self,
        stage: &HttpStage,
        route: Option<&HttpRoute>,
        request: &HttpRequest,
    ) -> Result<(), Refusal> {
        let entrance = &stage.entrance;
        entrance.addresses.request(request.source_ip, &entrance.address_limits).map_err(|throttled| {
            Kind::Throttled
                .because("the address asks too often")
                .by(Cause::AddressRequests)
                .until(throttled.retry_after)
        })?;
        throttle(route.and_then(|route| route.admission.throttle.as_deref()), Cause::RouteThrottle)?;
        throttle(entrance.gateway_throttle.as_deref(), Cause::GatewayThrottle)
    }

    /// Whoever is turned away whatever his body is, or did not sign it, need not send it first.
    pub(super) fn precheck(
        &self,
        stage: &HttpStage,
        route: &HttpRoute,
        request: &HttpRequest,
        call: &Call<'_>,
    ) -> Result<(), Refusal> {
        let headers = &request.head.headers;
        let signed = Signed { method: "", path: "", query: None, headers, body: b"" };
        let (entrance, admission, variables) = (&stage.entrance, &route.admission, &stage.variables);
        At { entrance, admission, variables, tail: "", otherwise: &[], signed }.ask_first(call)?;
        let signed = sigv4::Request {
            method: request.head.method.as_str(),
            path: request.path(),
            query: request.head.uri.query(),
            headers: &request.head.headers,
            body: b"",
        };
        iam::precheck(&stage.entrance.credentials, &signed)
    }

    /// A request of an HTTP API, before its integration. Its body is there if the authorizer needs it.
    pub(super) async fn admit_request(
        &self,
        stage: &HttpStage,
        route: &HttpRoute,
        request: &HttpRequest,
        headers: &HeaderMap,
        (call, trail): (&mut Call<'_>, &mut Trail),
    ) -> Result<(), Refusal> {
        if route.admission.is_open() {
            return Ok(());
        }
        let method = request.head.method.as_str();
        // Escapes that nobody needs are undone, or `/%61dmin` would not be what a policy says of `/admin`.
        let tail = format!("{method}{}", paths::plain(request.route_path()));
        let otherwise = other_readings(method, request.route_path(), &tail);
        let signed =
            Signed { method, path: request.path(), query: request.head.uri.query(), headers, body: &request.body };
        let (entrance, admission, variables) = (&stage.entrance, &route.admission, &stage.variables);
        let otherwise = &otherwise;
        Box::pin(At { entrance, admission, variables, tail: &tail, otherwise, signed }.admit(call, trail)).await
    }
}

/// A handshake or a request, and what it is asked for.
struct At<'a> {
    entrance: &'a Entrance,
    admission: &'a Admission,
    variables: &'a StageVariables,
    /// The end of its ARN: `$connect`, or `<METHOD>/<path>`.
    tail: &'a str,
    /// What else the path may be read as.
    otherwise: &'a [String],
    signed: Signed<'a>,
}

/// What a signature is about.
struct Signed<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl At<'_> {
    /// What can be said without the authorizer, and without the body.
    fn ask_first(&self, call: &Call<'_>) -> Result<(), Refusal> {
        let Self { entrance, admission, .. } = self;
        for policy in &admission.policies {
            ask_before(policy, call, self.signed.headers)?;
        }
        if admission.wants_api_key && entrance.api_key_source != ApiKeySource::Authorizer {
            let shown = entrance.api_key_source.shown(&self.scope(call));
            entrance.api_keys.identify(shown.as_deref(), call.stage())?;
        }
        Ok(())
    }

    async fn admit(&self, call: &mut Call<'_>, trail: &mut Trail) -> Result<(), Refusal> {
        let Self { entrance, admission, .. } = self;
        self.ask_first(call)?;
        let mut shown = None;
        let by_authorizer = entrance.api_key_source == ApiKeySource::Authorizer;
        let mut key = None;
        if admission.wants_api_key && !by_authorizer {
            shown = entrance.api_key_source.shown(&self.scope(call));
            key = Some(entrance.api_keys.identify(shown.as_deref(), call.stage())?);
        }
        let mut identity = Identity::default();
        if let Some(authorization) = &admission.authorizer {
            let began = Instant::now();
            call.trace = trail.next_span();
            let passed = self.authorize(&authorization.authorizer, &authorization.scopes, call).await;
            let (took, span) = (began.elapsed(), call.trace.as_ref().map(|trace| trace.span_id));
            trail.authorizer = Some(Leg { began, took, status: Some(said(&passed)), span });
            let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let passed = passed?;
            let Passed { granted, signer, expiry, usage_identifier_key } = passed;
            let is_asked = matches!(*authorization.authorizer, Authorizer::Http(_));
            identity =
                Identity { granted, signer, expiry, authorizer_latency_ms: is_asked.then_some(took), api_key: None };
            if admission.wants_api_key && by_authorizer {
                shown = usage_identifier_key.map(|key| key.to_string());
                key = Some(entrance.api_keys.identify(shown.as_deref(), call.stage())?);
            }
        }
        if let Some(key) = &key {
            let value = shown.unwrap_or_default().into();
            identity.api_key = Some(ApiKey { id: key.id.clone(), value });
        }
        call.identity = Some(Arc::new(identity));
        for policy in admission.policies.iter().filter(|policy| policy.needs_authorizer()) {
            ask_after(policy, call, Some(self.signed.headers))?;
        }
        match key {
            Some(key) => key.take(moment(call)),
            None => Ok(()),
        }
    }

    async fn authorize(&self, authorizer: &Authorizer, scopes: &[String], call: &Call<'_>) -> Result<Passed, Refusal> {
        let (arn, resource) = self.entrance.names(call.stage(), self.tail);
        let otherwise: Vec<_> = self.otherwise.iter().map(|tail| self.entrance.names(call.stage(), tail)).collect();
        let asked = Asked {
            scope: self.scope(call),
            scopes,
            arn: &arn,
            account_id: &self.entrance.account_id,
            resource: &resource,
            otherwise: &otherwise,
            signed: sigv4::Request {
                method: self.signed.method,
                path: self.signed.path,
                query: self.signed.query,
                headers: self.signed.headers,
                body: self.signed.body,
            },
            credentials: &self.entrance.credentials,
            fetch: &self.entrance.fetch,
        };
        authorizer.authorize(&asked).await
    }

    fn scope<'c>(&'c self, call: &'c Call<'c>) -> Scope<'c> {
        Scope { call, stage_variables: self.variables }
    }
}

/// What an authorizer said, as a status: one that denies has answered as well as one that allows.
fn said(passed: &Result<Passed, Refusal>) -> u16 {
    match passed {
        Err(refusal) if refusal.cause != Some(Cause::Denied) => refusal.kind.status(),
        _ => 200,
    }
}

/// The path with every escape undone, and with several slashes as one, where that is another.
fn other_readings(method: &str, path: &str, tail: &str) -> Vec<String> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut merged = String::with_capacity(decoded.len());
    for character in decoded.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    let mut readings = vec![format!("{method}{decoded}"), format!("{method}{merged}")];
    readings.dedup();
    readings.retain(|reading| reading != tail);
    readings
}

/// The fresh token of a message takes the place of the one that opened the connection.
async fn refresh(stage: &Stage, client: &Client, call: &mut Call<'_>) -> Result<(), Refusal> {
    let unwanted = || Kind::Internal.because("the connection was opened without a token");
    let authorization = stage.connect.authorizer.as_ref().ok_or_else(unwanted)?;
    let Authorizer::Jwt(jwt) = &*authorization.authorizer else { return Err(unwanted()) };
    let before = call.identity.clone().unwrap_or_default();
    let scope = Scope { call, stage_variables: &stage.variables };
    let passed = jwt.refresh(&scope, &authorization.scopes, before.granted.as_deref(), &stage.entrance.fetch).await?;
    let renewed = Identity { granted: passed.granted, expiry: passed.expiry, ..(*before).clone() };
    call.identity = Some(Arc::new(renewed));
    // Whoever would not be let in as he is now does not stay by that; headers are the handshake's alone.
    for policy in stage.connect.policies.iter().filter(|policy| policy.needs_authorizer() && !policy.needs_headers()) {
        ask_after(policy, call, None)?;
    }
    *client.identity.write() = call.identity.clone();
    Ok(())
}

/// The subprotocol of the answer where the backend chooses none: one that was offered beside a token, or browsers would
/// hang up; the token itself, if nothing else was offered.
pub(super) fn subprotocol(stage: &Stage, handshake: &Handshake) -> Option<HeaderValue> {
    let authorizer = &stage.connect.authorizer.as_ref()?.authorizer;
    let Authorizer::Jwt(jwt) = &**authorizer else { return None };
    if !jwt.reads_subprotocols() {
        return None;
    }
    let offered: Vec<_> = headers::members(&handshake.headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let token = offered.iter().find_map(|member| token_among(member))?;
    let chosen = offered.iter().find(|member| **member != token).copied().unwrap_or(token);
    HeaderValue::from_str(chosen).ok()
}

/// Whether a page of another origin may open a WebSocket here.
pub(super) fn check_origin(
    entrance: &Entrance,
    request: &HeaderMap,
    (scheme, host): (&str, &str),
    has_certificate: bool,
) -> Result<(), Refusal> {
    // Written by us, or by a proxy whose word counts: what the browser itself asked for.
    let forwarded = headers::last(request, "x-forwarded-host");
    let host = forwarded.as_deref().and_then(|hosts| hosts.split(',').next()).map_or(host, str::trim);
    entrance
        .origins
        .check(request, scheme, host, has_certificate)
        .map_err(|refused| Kind::Forbidden.because(&refused).by(Cause::Origin).with_message(refused.to_string()))
}

fn throttle(bucket: Option<&Bucket>, cause: Cause) -> Result<(), Refusal> {
    let Some(bucket) = bucket else { return Ok(()) };
    bucket.take().map_err(|throttled| {
        Kind::Throttled.because("more calls than the throttle lets through").by(cause).until(throttled.retry_after)
    })
}

fn too_many(refused: throttles::Refused) -> Refusal {
    match refused {
        throttles::Refused::TooManyConnections(_) => {
            Kind::Throttled.because(refused).by(Cause::AddressConnections).until(Some(A_WHILE))
        }
        throttles::Refused::TooFast(throttled) => {
            Kind::Throttled.because(refused).by(Cause::AddressConnects).until(throttled.retry_after)
        }
    }
}

/// Nobody knows when one of the address's connections will end.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(30);

fn ask_before(policy: &ResourcePolicy, call: &Call<'_>, headers: &HeaderMap) -> Result<(), Refusal> {
    let caller = Caller { source_ip: source_ip(call), headers: Some(headers), authorizer: &|_| Vec::new() };
    match policy.before(&caller) {
        Verdict::Open | Verdict::Undecided => Ok(()),
        Verdict::Refused(refused) => Err(Kind::Forbidden.because(refused).by(Cause::ResourcePolicy)),
    }
}

fn ask_after(policy: &ResourcePolicy, call: &Call<'_>, headers: Option<&HeaderMap>) -> Result<(), Refusal> {
    let granted = call.granted();
    let authorizer = |name: &str| granted.map_or_else(Vec::new, |granted| granted.values(name));
    let caller = Caller { source_ip: source_ip(call), headers, authorizer: &authorizer };
    policy.after(&caller).map_err(|refused| Kind::Forbidden.because(refused).by(Cause::ResourcePolicy))
}

/// A message: it has no headers, and its authorizer was asked when its connection opened.
fn pass(policy: &ResourcePolicy, call: &Call<'_>) -> Result<(), Refusal> {
    ask_after(policy, call, None)
}

fn source_ip(call: &Call<'_>) -> std::net::IpAddr {
    match call.event {
        Event::Connection(Happening { client, .. }) => client.source_ip,
        Event::Request(request) => request.source_ip,
    }
}

fn moment(call: &Call<'_>) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(call.at.0 as i64).unwrap_or(jiff::Timestamp::MAX)
}
