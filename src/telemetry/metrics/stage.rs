//! What is counted for one stage.

use std::sync::Arc;

use super::count::{Count, Latency, Level};
use super::list::*;
use super::{Exporter, StageKey, Timing, Totals};
use crate::model::close::Close;
use crate::model::refusal::Cause;

/// The counters of one stage.
pub struct StageMetrics {
    pub open: Arc<Level>,
    pub opened: Arc<Count>,
    pub connects_refused: Arc<Count>,
    pub connects_failed: Arc<Count>,
    closed: Vec<(u16, Arc<Count>)>,
    closed_other: Arc<Count>,
    pub messages_in: Arc<Count>,
    pub messages_out: Arc<Count>,
    pub bytes_in: Arc<Count>,
    pub bytes_out: Arc<Count>,
    /// Messages and requests being answered.
    pub in_flight: Arc<Level>,
    requests: [Arc<Count>; 5],
    /// Requests whose client left before the answer.
    pub cancelled: Arc<Count>,
    pub data_processed: Arc<Count>,
    pub request_latency: Arc<Latency>,
    /// Of handshakes, messages and requests alike, for the dashboard.
    pub latency: Timing,
    pub pushes: Pushes,
    pub push_latency: Arc<Latency>,
    pub integration_latency: Arc<Latency>,
    pub integration_errors: Arc<Count>,
    pub execution_errors: ExecutionErrors,
    pub client_errors: Arc<Count>,
    /// In the order of `Cause::ALL`.
    refusals: Vec<Arc<Count>>,
    pub outbox_bytes: Arc<Level>,
    pub outbox_messages: Arc<Level>,
    pub outbox_stalls: Arc<Count>,
    pub disconnect_retries: Arc<Count>,
    pub disconnects_lost: Arc<Count>,
}

pub struct Pushes {
    pub ok: Arc<Count>,
    pub gone: Arc<Count>,
    pub full: Arc<Count>,
    pub throttled: Arc<Count>,
    pub refused: Arc<Count>,
    pub invalid: Arc<Count>,
    pub too_large: Arc<Count>,
}

pub struct ExecutionErrors {
    pub unreachable: Arc<Count>,
    pub busy: Arc<Count>,
    pub timeout: Arc<Count>,
    pub bad_answer: Arc<Count>,
    pub authorizer: Arc<Count>,
    pub internal: Arc<Count>,
}

impl StageMetrics {
    pub(super) fn new(exporter: &Exporter, key: &StageKey) -> Self {
        let (api, stage): (&str, &str) = (&key.api, &key.stage);
        let plain = |name| exporter.count(name, &[("api", api), ("stage", stage)]);
        let with = |name, label, value: &str| exporter.count(name, &[("api", api), ("stage", stage), (label, value)]);
        let level = |name| exporter.level(name, &[("api", api), ("stage", stage)]);
        let latency = |name| exporter.latency(name, &[("api", api), ("stage", stage)]);
        let closed = |code: &str| with(CONNECTIONS_CLOSED, "code", code);
        Self {
            open: level(CONNECTIONS_OPEN),
            opened: with(CONNECTS, "outcome", "opened"),
            connects_refused: with(CONNECTS, "outcome", "refused"),
            connects_failed: with(CONNECTS, "outcome", "failed"),
            closed: Close::ALL.iter().map(|close| (close.code, closed(&close.code.to_string()))).collect(),
            closed_other: closed("other"),
            messages_in: with(MESSAGES, "direction", "in"),
            messages_out: with(MESSAGES, "direction", "out"),
            bytes_in: with(BYTES, "direction", "in"),
            bytes_out: with(BYTES, "direction", "out"),
            in_flight: level(IN_FLIGHT),
            requests: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| with(REQUESTS, "status", class)),
            cancelled: with(REQUESTS, "status", "cancelled"),
            data_processed: plain(DATA_PROCESSED),
            request_latency: latency(REQUEST_LATENCY),
            latency: Timing::default(),
            pushes: Pushes {
                ok: with(PUSHES, "outcome", "ok"),
                gone: with(PUSHES, "outcome", "gone"),
                full: with(PUSHES, "outcome", "full"),
                throttled: with(PUSHES, "outcome", "throttled"),
                refused: with(PUSHES, "outcome", "refused"),
                invalid: with(PUSHES, "outcome", "invalid"),
                too_large: with(PUSHES, "outcome", "too_large"),
            },
            push_latency: latency(PUSH_LATENCY),
            integration_latency: latency(INTEGRATION_LATENCY),
            integration_errors: plain(INTEGRATION_ERRORS),
            execution_errors: ExecutionErrors {
                unreachable: with(EXECUTION_ERRORS, "reason", "unreachable"),
                busy: with(EXECUTION_ERRORS, "reason", "busy"),
                timeout: with(EXECUTION_ERRORS, "reason", "timeout"),
                bad_answer: with(EXECUTION_ERRORS, "reason", "bad_answer"),
                authorizer: with(EXECUTION_ERRORS, "reason", "authorizer"),
                internal: with(EXECUTION_ERRORS, "reason", "internal"),
            },
            client_errors: plain(CLIENT_ERRORS),
            refusals: Cause::ALL.iter().map(|cause| with(REFUSALS, "cause", cause.name())).collect(),
            outbox_bytes: level(OUTBOX_BYTES),
            outbox_messages: level(OUTBOX_MESSAGES),
            outbox_stalls: plain(OUTBOX_STALLS),
            disconnect_retries: plain(DISCONNECT_RETRIES),
            disconnects_lost: plain(DISCONNECTS_LOST),
        }
    }

    /// A message was queued for a client.
    pub fn queued(&self, length: usize) {
        self.outbox_bytes.up(length);
        self.outbox_messages.up(1);
    }

    /// Messages were taken from their queue.
    pub fn unqueued(&self, bytes: usize, messages: usize) {
        self.outbox_bytes.down(bytes);
        self.outbox_messages.down(messages);
    }

    /// Messages were written to a client's socket.
    pub fn written(&self, messages: u32, bytes: usize) {
        self.messages_out.increment(messages.into());
        self.bytes_out.increment(bytes as u64);
    }

    /// The counter of a status's class.
    pub fn requests(&self, status: u16) -> &Count {
        &self.requests[usize::from(status / 100).clamp(1, 5) - 1]
    }

    pub fn all_requests(&self) -> u64 {
        self.requests.iter().map(|count| count.get()).sum::<u64>() + self.cancelled.get()
    }

    /// The counter of one cause of refusals.
    pub fn refusals(&self, cause: Cause) -> &Count {
        &self.refusals[cause as usize]
    }

    /// The counter of one close code.
    pub fn closed(&self, code: u16) -> &Count {
        self.closed.iter().find(|(known, _)| *known == code).map_or(&self.closed_other, |(_, count)| count)
    }

    /// Close codes that were seen, with how often; `None` stands for all others.
    pub fn closes(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let known = self.closed.iter().map(|(code, count)| (Some(*code), count.get()));
        known.chain([(None, self.closed_other.get())]).filter(|(_, count)| *count > 0)
    }

    /// Adds what is shown of all stages together.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        totals.connections += self.open.get();
        totals.messages_in += self.messages_in.get();
        totals.messages_out += self.messages_out.get();
        totals.pushes += self.pushes.all();
        totals.requests += self.all_requests();
        let of = |cause| self.refusals(cause).get();
        let throttled: u64 = Cause::ALL.iter().filter(|cause| cause.is_throttle()).map(|cause| of(*cause)).sum();
        let denied: u64 = Cause::ALL.iter().filter(|cause| cause.is_denial()).map(|cause| of(*cause)).sum();
        // Pushes that were throttled are none of the client's errors.
        let of_clients = throttled - of(Cause::PushThrottle) + denied;
        let errors = [
            throttled,
            denied,
            self.client_errors.get().saturating_sub(of_clients),
            self.integration_errors.get(),
            self.execution_errors.unreachable.get() + self.execution_errors.busy.get(),
            self.execution_errors.timeout.get(),
            self.execution_errors.bad_answer.get(),
            self.execution_errors.authorizer.get(),
            self.execution_errors.internal.get(),
        ];
        for (total, errors) in totals.errors.iter_mut().zip(errors) {
            *total += errors;
        }
        totals.latency.add(&self.latency.snapshot());
    }
}

impl Pushes {
    fn all(&self) -> u64 {
        let Self { ok, gone, full, throttled, refused, invalid, too_large } = self;
        [ok, gone, full, throttled, refused, invalid, too_large].iter().map(|count| count.get()).sum()
    }
}
