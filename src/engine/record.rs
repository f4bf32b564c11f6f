//! What is written down of every call, however it ended: the metrics and one debug line.

use std::time::Instant;

use crate::model::call::{Call, Reply};
use crate::model::client::Client;
use crate::model::close::Close;
use crate::model::id::Id;
use crate::model::refusal::{Fault, Kind, Refusal};
use crate::telemetry::metrics::StageMetrics;

/// A call of an integration came back, after `began`.
pub fn integration(metrics: &StageMetrics, call: &Call<'_>, began: Option<Instant>, outcome: &Result<Reply, Refusal>) {
    if let Some(began) = began {
        metrics.integration_latency.record(began.elapsed().as_secs_f64());
    }
    match outcome {
        Ok(reply) if reply.status.is_client_error() || reply.status.is_server_error() => {
            metrics.integration_errors.increment(1);
            tracing::debug!(
                connection_id = %call.client.id, route_key = call.route_key, request_id = %call.request_id,
                status = reply.status.as_u16(), "the backend answered with an error"
            );
        }
        Ok(_) => {}
        Err(refusal) => refused(metrics, call.client, call.route_key, call.request_id, refusal),
    }
}

/// A call was refused, or failed.
pub fn refused(metrics: &StageMetrics, client: &Client, route_key: &str, request_id: Id, refusal: &Refusal) {
    match refusal.kind {
        Kind::IntegrationUnreachable => metrics.execution_errors.unreachable.increment(1),
        Kind::IntegrationTimeout => metrics.execution_errors.timeout.increment(1),
        Kind::IntegrationFailure => metrics.execution_errors.bad_answer.increment(1),
        Kind::Internal => metrics.execution_errors.internal.increment(1),
        Kind::Forbidden | Kind::BadRequestBody => metrics.client_errors.increment(1),
    }
    let (api, stage) = (&*client.stage.api, &*client.stage.stage);
    match refusal.kind.fault() {
        Fault::Client => tracing::debug!(
            api, stage, connection_id = %client.id, route_key, %request_id, "refused a call: {refusal}"
        ),
        Fault::Backend | Fault::Gateway => tracing::warn!(
            api, stage, connection_id = %client.id, route_key, %request_id, "a call failed: {refusal}"
        ),
    }
}

pub fn opened(metrics: &StageMetrics, client: &Client) {
    metrics.open.increment(1.0);
    metrics.opened.increment(1);
    tracing::debug!(connection_id = %client.id, stage = &*client.stage.stage, "a connection opened");
}

pub fn closed(metrics: &StageMetrics, client: &Client, close: &Close) {
    metrics.open.decrement(1.0);
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
