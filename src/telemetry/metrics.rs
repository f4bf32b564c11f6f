//! Every metric of the gateway, in one list, with AWS's name where AWS has one.
//!
//! Handles are kept, not looked up: a macro call with labels costs fifty times a kept counter.
//! Labels are the operator's own words (API, stage) or a short list of ours, never a connection,
//! a path or a key.

use std::sync::Arc;

use dashmap::DashMap;
use metrics::{Counter, Gauge, Histogram, Label, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::model::client::StageKey;
use crate::model::close::Close;
use crate::model::refusal::Cause;

/// Seconds; from a fast backend on the same machine to the longest timeout.
const LATENCY_BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// One metric as operators meet it.
pub struct About {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static str,
    pub help: &'static str,
}

macro_rules! metrics_list {
    ($($(#[$doc:meta])* $constant:ident = $name:literal $kind:literal ($labels:literal) $help:literal;)*) => {
        $($(#[$doc])* const $constant: &str = $name;)*

        /// The reference that `docs/metrics.md` is printed from.
        pub const ALL: &[About] =
            &[$(About { name: $name, kind: $kind, labels: $labels, help: $help }),*];
    };
}

metrics_list! {
    CONNECTIONS_OPEN = "livegate_connections_open" "gauge" ("api, stage")
        "Connections open now: WebSockets, and upgraded connections of HTTP APIs";
    CONNECTS = "livegate_connects_total" "counter" ("api, stage, outcome")
        "Handshakes by outcome: opened, refused (by the backend or before it was asked), failed (AWS: ConnectCount)";
    CONNECTIONS_CLOSED = "livegate_connections_closed_total" "counter" ("api, stage, code")
        "Connections closed, by close code; client codes outside the gateway's own list count as other";
    MESSAGES = "livegate_messages_total" "counter" ("api, stage, direction")
        "Messages from clients (in) and frames of data written to clients (out) (AWS: MessageCount)";
    REQUESTS = "livegate_requests_total" "counter" ("api, stage, status")
        "Requests of HTTP APIs by the answer's status, 1xx to 5xx, or cancelled by their client (AWS: Count, 4xx, 5xx)";
    REQUEST_LATENCY = "livegate_request_latency_seconds" "histogram" ("api, stage")
        "Time from the head of a request of an HTTP API to the head of its answer (AWS: Latency)";
    PUSHES = "livegate_pushes_total" "counter" ("api, stage, outcome")
        "Calls of the @connections API by outcome: ok, gone, full, throttled, refused, invalid, too_large";
    PUSH_LATENCY = "livegate_push_latency_seconds" "histogram" ("api, stage")
        "Time from a whole @connections request to its answer";
    INTEGRATION_LATENCY = "livegate_integration_latency_seconds" "histogram" ("api, stage")
        "Time from the call of a backend to its whole answer (AWS: IntegrationLatency)";
    INTEGRATION_ERRORS = "livegate_integration_errors_total" "counter" ("api, stage")
        "Backend answers with a status of 4xx or 5xx (AWS: IntegrationError)";
    EXECUTION_ERRORS = "livegate_execution_errors_total" "counter" ("api, stage, reason")
        "Calls of a backend or an authorizer that failed: unreachable, timeout, bad_answer, authorizer, internal (AWS: ExecutionError)";
    REFUSALS = "livegate_refusals_total" "counter" ("api, stage, cause")
        "Calls not let in, by cause: origin, resource_policy, api_key, unauthorized, denied, authorizer_failure, quota, and what was throttled by which limit: gateway_throttle, route_throttle, usage_plan_throttle, push_throttle, address_connections, address_connects, address_requests, connection_messages, connection_bytes";
    KEY_FETCHES = "livegate_authorizer_key_fetches_total" "counter" ("authorizer, outcome")
        "Fetches of an issuer's keys for an authorizer of type jwt: ok, failed (the old keys then go on serving)";
    CLIENT_ERRORS = "livegate_client_errors_total" "counter" ("api, stage")
        "Messages, handshakes and requests turned away before any backend was called (AWS: ClientError)";
    OUTBOX_BYTES = "livegate_outbox_bytes" "gauge" ("api, stage")
        "Bytes queued for clients and not yet handed to their sockets";
    DISCONNECT_RETRIES = "livegate_disconnect_retries_total" "counter" ("api, stage")
        "$disconnect calls that failed and were repeated";
    DISCONNECTS_LOST = "livegate_disconnects_lost_total" "counter" ("api, stage")
        "$disconnect calls given up after disconnect_retry, at the end of a drain, or for want of room";
    RELOADS = "livegate_reloads_total" "counter" ("outcome")
        "Reloads of routes.toml by outcome: ok, unchanged, problems";
    CERTIFICATE_ORDERS = "livegate_certificate_orders_total" "counter" ("domain, outcome")
        "Orders of an ACME certificate by outcome: ok, failed; the domain is its first";
    CERTIFICATE_EXPIRATION = "livegate_certificate_expiration_timestamp_seconds" "gauge" ("domain")
        "When the ACME certificate expires, in seconds since 1970; 0 while there is none";
    HANDSHAKE_ERRORS = "livegate_handshake_errors_total" "counter" ("")
        "Connections that ended in their TLS handshake or PROXY protocol header";
    ACCEPT_ERRORS = "livegate_accept_errors_total" "counter" ("")
        "Connections that could not be accepted, for want of open files above all";
}

/// The recorder of one gateway. Several may live in one process, as they do in tests.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    stages: Arc<DashMap<StageKey, Arc<StageMetrics>>>,
    pub reloads: Arc<Reloads>,
    pub accept_errors: Counter,
    pub handshake_errors: Counter,
}

pub struct Reloads {
    pub ok: Counter,
    pub unchanged: Counter,
    pub problems: Counter,
}

/// The kept handles of the certificate that is ordered for a domain.
pub struct CertificateMetrics {
    pub ordered: Counter,
    pub failed: Counter,
    /// Seconds since 1970.
    pub expiration: Gauge,
}

/// The kept handles of one stage.
pub struct StageMetrics {
    pub open: Gauge,
    pub opened: Counter,
    pub connects_refused: Counter,
    pub connects_failed: Counter,
    closed: Vec<(u16, Counter)>,
    closed_other: Counter,
    pub messages_in: Counter,
    pub messages_out: Counter,
    requests: [Counter; 5],
    /// Requests whose client left before the answer.
    pub cancelled: Counter,
    pub request_latency: Histogram,
    pub pushes: Pushes,
    pub push_latency: Histogram,
    pub integration_latency: Histogram,
    pub integration_errors: Counter,
    pub execution_errors: ExecutionErrors,
    pub client_errors: Counter,
    /// In the order of `Cause::ALL`.
    refusals: Vec<Counter>,
    pub outbox_bytes: Gauge,
    pub disconnect_retries: Counter,
    pub disconnects_lost: Counter,
}

pub struct Pushes {
    pub ok: Counter,
    pub gone: Counter,
    pub full: Counter,
    pub throttled: Counter,
    pub refused: Counter,
    pub invalid: Counter,
    pub too_large: Counter,
}

pub struct ExecutionErrors {
    pub unreachable: Counter,
    pub timeout: Counter,
    pub bad_answer: Counter,
    pub authorizer: Counter,
    pub internal: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)
            .expect("the list of buckets is not empty");
        let recorder = builder.build_recorder();
        for about in ALL {
            let unit = about.name.ends_with("_seconds").then_some(Unit::Seconds);
            let (name, help) = (about.name.into(), about.help.into());
            match about.kind {
                "counter" => recorder.describe_counter(name, unit, help),
                "gauge" => recorder.describe_gauge(name, unit, help),
                _ => recorder.describe_histogram(name, unit, help),
            }
        }
        let with = |outcome| counter(&recorder, RELOADS, &[("outcome", outcome)]);
        let reloads = Reloads { ok: with("ok"), unchanged: with("unchanged"), problems: with("problems") };
        Self {
            handle: recorder.handle(),
            stages: Arc::default(),
            reloads: Arc::new(reloads),
            accept_errors: counter(&recorder, ACCEPT_ERRORS, &[]),
            handshake_errors: counter(&recorder, HANDSHAKE_ERRORS, &[]),
            recorder: Arc::new(recorder),
        }
    }
}

impl Metrics {
    /// The handles of a stage; the same ones again after a reload.
    pub fn stage(&self, key: &StageKey) -> Arc<StageMetrics> {
        self.stages.entry(key.clone()).or_insert_with(|| Arc::new(self.stage_handles(key))).clone()
    }

    /// The handles of the certificate whose first domain this is.
    pub fn certificate(&self, domain: &str) -> CertificateMetrics {
        let orders = |outcome| counter(&self.recorder, CERTIFICATE_ORDERS, &[("domain", domain), ("outcome", outcome)]);
        let expiration = key_of(CERTIFICATE_EXPIRATION, &[("domain", domain)]);
        CertificateMetrics {
            ordered: orders("ok"),
            failed: orders("failed"),
            expiration: self.recorder.register_gauge(&expiration, &METADATA),
        }
    }

    /// Fetches of the keys of an authorizer's issuer: those that went well, and those that did not.
    pub fn key_fetches(&self, authorizer: &str) -> (Counter, Counter) {
        let with = |outcome| counter(&self.recorder, KEY_FETCHES, &[("authorizer", authorizer), ("outcome", outcome)]);
        (with("ok"), with("failed"))
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Samples of histograms pile up until this runs.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn stage_handles(&self, key: &StageKey) -> StageMetrics {
        let recorder = &*self.recorder;
        let (api, stage): (&str, &str) = (&key.api, &key.stage);
        let plain = |name| counter(recorder, name, &[("api", api), ("stage", stage)]);
        let with =
            |name, label, value: &str| counter(recorder, name, &[("api", api), ("stage", stage), (label, value)]);
        let gauge = |name| recorder.register_gauge(&key_of(name, &[("api", api), ("stage", stage)]), &METADATA);
        let histogram = |name| recorder.register_histogram(&key_of(name, &[("api", api), ("stage", stage)]), &METADATA);
        let closed = |code: &str| with(CONNECTIONS_CLOSED, "code", code);
        StageMetrics {
            open: gauge(CONNECTIONS_OPEN),
            opened: with(CONNECTS, "outcome", "opened"),
            connects_refused: with(CONNECTS, "outcome", "refused"),
            connects_failed: with(CONNECTS, "outcome", "failed"),
            closed: Close::ALL.iter().map(|close| (close.code, closed(&close.code.to_string()))).collect(),
            closed_other: closed("other"),
            messages_in: with(MESSAGES, "direction", "in"),
            messages_out: with(MESSAGES, "direction", "out"),
            requests: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| with(REQUESTS, "status", class)),
            cancelled: with(REQUESTS, "status", "cancelled"),
            request_latency: histogram(REQUEST_LATENCY),
            pushes: Pushes {
                ok: with(PUSHES, "outcome", "ok"),
                gone: with(PUSHES, "outcome", "gone"),
                full: with(PUSHES, "outcome", "full"),
                throttled: with(PUSHES, "outcome", "throttled"),
                refused: with(PUSHES, "outcome", "refused"),
                invalid: with(PUSHES, "outcome", "invalid"),
                too_large: with(PUSHES, "outcome", "too_large"),
            },
            push_latency: histogram(PUSH_LATENCY),
            integration_latency: histogram(INTEGRATION_LATENCY),
            integration_errors: plain(INTEGRATION_ERRORS),
            execution_errors: ExecutionErrors {
                unreachable: with(EXECUTION_ERRORS, "reason", "unreachable"),
                timeout: with(EXECUTION_ERRORS, "reason", "timeout"),
                bad_answer: with(EXECUTION_ERRORS, "reason", "bad_answer"),
                authorizer: with(EXECUTION_ERRORS, "reason", "authorizer"),
                internal: with(EXECUTION_ERRORS, "reason", "internal"),
            },
            client_errors: plain(CLIENT_ERRORS),
            refusals: Cause::ALL.iter().map(|cause| with(REFUSALS, "cause", cause.name())).collect(),
            outbox_bytes: gauge(OUTBOX_BYTES),
            disconnect_retries: plain(DISCONNECT_RETRIES),
            disconnects_lost: plain(DISCONNECTS_LOST),
        }
    }
}

impl StageMetrics {
    /// The counter of a status's class.
    pub fn requests(&self, status: u16) -> &Counter {
        &self.requests[usize::from(status / 100).clamp(1, 5) - 1]
    }

    /// The counter of one cause of refusals.
    pub fn refusals(&self, cause: Cause) -> &Counter {
        &self.refusals[cause as usize]
    }

    /// The counter of one close code.
    pub fn closed(&self, code: u16) -> &Counter {
        self.closed.iter().find(|(known, _)| *known == code).map_or(&self.closed_other, |(_, counter)| counter)
    }
}

static METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new("livegate", metrics::Level::INFO, Some("livegate"));

fn counter(recorder: &PrometheusRecorder, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
    recorder.register_counter(&key_of(name, labels), &METADATA)
}

fn key_of(name: &'static str, labels: &[(&'static str, &str)]) -> metrics::Key {
    let labels: Vec<_> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    metrics::Key::from_parts(name, labels)
}

/// The table of `docs/metrics.md`.
pub fn reference() -> String {
    let mut table = String::from("| metric | type | labels | counts |\n|---|---|---|---|\n");
    for about in ALL {
        let labels = if about.labels.is_empty() { "none" } else { about.labels };
        table += &format!("| `{}` | {} | {} | {} |\n", about.name, about.kind, labels, about.help);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_list_is_rendered_once_used() {
        let metrics = Metrics::default();
        let stage = metrics.stage(&StageKey { api: "chat".into(), stage: "prod".into() });
        metrics.certificate("chat.example.com").expiration.set(1.0);
        metrics.key_fetches("users").0.increment(1);
        stage.open.increment(1.0);
        stage.outbox_bytes.increment(0.0);
        stage.push_latency.record(0.01);
        stage.request_latency.record(0.01);
        stage.integration_latency.record(0.01);
        let text = metrics.render();
        for about in ALL {
            assert!(text.contains(&format!("# TYPE {} {}", about.name, about.kind)), "{} in {text}", about.name);
        }
    }
}
