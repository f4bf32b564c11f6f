//! What is written down of every call, however it ended: the metrics, and what `execution`, `live` and `spans` make of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::{Engine, execution, live, spans};
use crate::api::stage::Stage;
use crate::api::watch::{Level, RouteWatch, StageWatch};
use crate::connections::Connection;
use crate::model::call::{Call, ConnectionEvent, Reply, Subject};
use crate::model::client::Client;
use crate::model::clock::Tick;
use crate::model::close::Close;
use crate::model::record::{Leg, Outcome, Record, Trail, What};
use crate::model::refusal::{Cause, Fault, Kind, Refusal};
use crate::telemetry::log::OncePerSecond;
use crate::telemetry::metrics::StageMetrics;

/// A backend that is down fails every call: one line a second says so, with how many were left out. Each stage and
/// reason has a place of its own, as far as there are places, so that one storm hides no other.
static FAILURES: [OncePerSecond; 32] = [const { OncePerSecond::new() }; 32];

/// A page that may not connect is mostly the operator's own, on a host that was forgotten; so it is said aloud.
static ORIGINS: OncePerSecond = OncePerSecond::new();

fn failures((api, stage): (&str, &str), detail: &str) -> &'static OncePerSecond {
    let mut hasher = DefaultHasher::new();
    (api, stage, detail).hash(&mut hasher);
    &FAILURES[hasher.finish() as usize % FAILURES.len()]
}

/// A call of an integration came back, after `began`.
pub fn integration<B>(
    metrics: &StageMetrics,
    call: &Call<'_>,
    trail: &mut Trail,
    began: Option<Instant>,
    outcome: &Result<Reply<B>, Refusal>,
) {
    let status = outcome.as_ref().ok().map(|reply| reply.status.as_u16());
    if let Some(began) = began {
        let took = began.elapsed();
        metrics.integration_latency.record(took);
        trail.integration = Some(Leg { began, took, status, span: call.trace.as_ref().map(|trace| trace.span_id) });
    }
    match outcome {
        Ok(reply) if reply.status.is_client_error() || reply.status.is_server_error() => {
            metrics.integration_errors.increment(1);
            tracing::debug!(
                route_key = call.route_key, request_id = %call.request_id,
                status = reply.status.as_u16(), "the backend answered with an error"
            );
        }
        Ok(_) => {}
        Err(refusal) => refused(metrics, call.subject(), refusal),
    }
}

/// A call was refused, or failed.
pub fn refused(metrics: &StageMetrics, subject: Subject<'_>, refusal: &Refusal) {
    match refusal.kind {
        Kind::IntegrationUnreachable => metrics.execution_errors.unreachable.increment(1),
        Kind::Busy => metrics.execution_errors.busy.increment(1),
        Kind::IntegrationTimeout => metrics.execution_errors.timeout.increment(1),
        Kind::IntegrationFailure => metrics.execution_errors.bad_answer.increment(1),
        Kind::Internal => metrics.execution_errors.internal.increment(1),
        Kind::AuthorizerFailure => metrics.execution_errors.authorizer.increment(1),
        Kind::Forbidden
        | Kind::AccessDenied
        | Kind::ExplicitDeny
        | Kind::Unauthorized
        | Kind::InvalidApiKey
        | Kind::Throttled
        | Kind::QuotaExceeded
        | Kind::Gone
        | Kind::OutboxFull
        | Kind::NotFound
        | Kind::BadRequest
        | Kind::BadRequestBody
        | Kind::RequestTooLarge
        | Kind::TooSlow => {
            metrics.client_errors.increment(1);
        }
    }
    if let Some(cause) = refusal.cause {
        metrics.refusals(cause).increment(1);
    }
    let Subject { stage, connection, route_key, request_id } = subject;
    let (api, stage, connection_id) = (&*stage.api, &*stage.stage, connection.map(tracing::field::display));
    if refusal.cause == Some(Cause::Origin)
        && let Some(unsaid) = ORIGINS.is_worth_a_line(Tick::now())
    {
        tracing::info!(api, stage, unsaid, "a browser's handshake was turned away: {}", refusal.detail);
    }
    match refusal.kind.fault() {
        Fault::Client => tracing::debug!(
            api, stage, connection_id, route_key, %request_id, "refused a call: {refusal}"
        ),
        Fault::Backend | Fault::Gateway => match failures((api, stage), &refusal.detail).is_worth_a_line(Tick::now()) {
            Some(unsaid) => tracing::warn!(
                api, stage, connection_id, route_key, %request_id, unsaid, "a call failed: {refusal}"
            ),
            None => tracing::debug!(
                api, stage, connection_id, route_key, %request_id, "a call failed: {refusal}"
            ),
        },
    }
}

impl Engine {
    /// Whether anybody looks at more of a call of `@connections` than the counters do.
    pub fn tells_of_pushes(&self, stage: &Stage) -> bool {
        is_told(self, &stage.watch, &stage.watch.pushes)
    }

    /// A call of `@connections` was answered.
    pub fn pushed(&self, stage: &Stage, record: &Record<'_>) {
        ended(self, &stage.watch, &stage.watch.pushes, record);
    }
}

/// A call is over, and told of: to its route's counters, the access log, the gateway's own log, whoever watches, and the
/// collector of traces.
pub fn ended(engine: &Engine, watch: &StageWatch, route: &RouteWatch, record: &Record<'_>) {
    count(watch, route, record);
    if let Some(log) = &watch.access_log {
        log.format.with_line(record, |line| log.write(line));
    }
    if route.level == Level::Info || route.level == Level::Error && record.outcome() != Outcome::Ok {
        execution::log(watch, route, record);
    }
    if engine.tail.is_watched() {
        live::tell(&engine.tail, watch, route, record);
    }
    if record.trail.trace.is_some()
        && let Some(tracer) = &*engine.tracer.load()
    {
        spans::end(tracer, route, record);
    }
}

/// Whether anybody but the counters may be told of a call.
pub fn is_told(engine: &Engine, watch: &StageWatch, route: &RouteWatch) -> bool {
    watch.access_log.is_some()
        || route.level != Level::Off
        || engine.tail.is_watched()
        || engine.tracer.load().is_some()
}

fn count(watch: &StageWatch, route: &RouteWatch, record: &Record<'_>) {
    let is_of_client = match record.what {
        What::Push(_) => false,
        // It may have been delivered at the third attempt, a minute later.
        What::Connection(happening) => !matches!(happening.event, ConnectionEvent::Disconnect(_)),
        What::Request(_) => true,
    };
    if is_of_client {
        watch.metrics.latency.record(record.took);
    }
    if route.key == watch.nowhere.key && *record.route_key != *route.key {
        // A connect or a disconnect that no route is there for.
        return;
    }
    let metrics = &route.metrics;
    metrics.calls.increment(1);
    metrics.latency.record(record.took);
    if let Some(exported) = &route.exported {
        exported.latency.record(record.took);
    }
    match record.refusal.map(|refusal| refusal.kind.fault()) {
        Some(Fault::Client) => {
            metrics.client_errors.increment(1);
            let is_throttle = record.refusal.and_then(|refusal| refusal.cause).is_some_and(Cause::is_throttle);
            metrics.throttled.increment(is_throttle.into());
        }
        Some(Fault::Backend | Fault::Gateway) => metrics.execution_errors.increment(1),
        None if record.trail.integration.as_ref().is_some_and(Leg::is_error) => metrics.integration_errors.increment(1),
        None => {}
    }
}

/// The connection remembers what went wrong last, for whoever looks at it.
pub fn note_error(connection: &Connection, record: &Record<'_>) {
    if let Some(refusal) = record.refusal {
        connection.note_error(record.at, refusal.to_string());
    }
}

/// An HTTP request got its answer's head.
pub fn requested(metrics: &StageMetrics, took: Duration, status: u16) {
    metrics.request_latency.record(took);
    metrics.requests(status).increment(1);
}

pub fn opened(metrics: &StageMetrics, client: &Client) {
    metrics.open.up(1);
    metrics.opened.increment(1);
    tracing::debug!(connection_id = %client.id, stage = &*client.stage.stage, "a connection opened");
}

pub fn closed(metrics: &StageMetrics, client: &Client, close: &Close) {
    metrics.open.down(1);
    metrics.closed(close.code).increment(1);
    tracing::debug!(
        connection_id = %client.id, stage = &*client.stage.stage, code = close.code, reason = &*close.reason,
        "a connection closed"
    );
}

pub fn disconnect_retried(metrics: &StageMetrics, client: &Client, error: &str) {
    metrics.disconnect_retries.increment(1);
    tracing::debug!(connection_id = %client.id, error, "a $disconnect failed and will be repeated");
}

pub fn disconnect_lost(metrics: &StageMetrics, client: &Client, why: &str) {
    metrics.disconnects_lost.increment(1);
    tracing::error!(
        api = &*client.stage.api, stage = &*client.stage.stage, connection_id = %client.id,
        "a $disconnect was lost: {why}"
    );
}
