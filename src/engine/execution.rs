//! Execution logs: one line of the gateway's own log for a call, with the steps it took and why it was refused.
//!
//! Bodies only where the stage has `data_trace`; headers, tokens and keys never.

use std::fmt;

use crate::api::watch::{Level, RouteWatch, StageWatch};
use crate::model::call::ConnectionEvent;
use crate::model::record::{Outcome, Record, What};
use crate::model::refusal::Cause;

/// AWS cuts its lines at this length.
const SHOWN_BODY: usize = 1024;

pub fn log(watch: &StageWatch, route: &RouteWatch, record: &Record<'_>) {
    let is_fine = record.outcome() == Outcome::Ok;
    let (api, stage) = (&*watch.key.api, &*watch.key.stage);
    let connection_id = record.client().map(|client| tracing::field::display(client.id));
    let (status, request_id, route_key) = (record.status, record.request_id, record.route_key);
    let took_seconds = record.took.as_secs_f64();
    let kind = kind(record);
    let shows_bodies = watch.data_trace && route.level == Level::Info;
    let body = shows_bodies.then(|| tracing::field::display(Cut(record.body)));
    let answer = shows_bodies.then(|| tracing::field::display(Cut(record.answer)));
    let steps = Steps { route, record };
    if is_fine {
        tracing::info!(
            target: "livegate::execution",
            api, stage, route_key, connection_id, %request_id, status, took_seconds, body, answer, "{kind}: {steps}"
        );
    } else {
        tracing::warn!(
            target: "livegate::execution",
            api, stage, route_key, connection_id, %request_id, status, took_seconds, body, answer, "{kind}: {steps}"
        );
    }
}

fn kind(record: &Record<'_>) -> &'static str {
    match record.what {
        What::Connection(happening) => match happening.event {
            ConnectionEvent::Connect(_) => "connect",
            ConnectionEvent::Message(_) => "message",
            ConnectionEvent::Disconnect(_) => "disconnect",
        },
        What::Request(_) => "request",
        What::Push(_) => "push",
    }
}

/// What happened to a call, in its order.
struct Steps<'a> {
    route: &'a RouteWatch,
    record: &'a Record<'a>,
}

impl fmt::Display for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.record;
        let trail = record.trail;
        if let Some(key) = record.identity.and_then(|identity| identity.api_key.as_ref()) {
            write!(f, "API key `{}`, ", key.id)?;
        }
        if let Some(leg) = &trail.authorizer {
            let name = self.route.authorizer.as_deref().unwrap_or("aws_iam");
            let said = match record.refusal.and_then(|refusal| refusal.cause) {
                Some(Cause::Unauthorized) => "did not know the caller",
                Some(Cause::Denied) => "denied it",
                Some(Cause::AuthorizerFailure) => "failed",
                _ => "let it pass",
            };
            write!(f, "authorizer `{name}` {said} in {:.1?}, ", leg.took)?;
        }
        if let Some(leg) = &trail.integration {
            match leg.status {
                Some(status) => {
                    write!(f, "integration {} answered {status} in {:.1?}, ", self.route.integration, leg.took)?
                }
                None => write!(f, "integration {} failed after {:.1?}, ", self.route.integration, leg.took)?,
            }
        }
        match record.refusal {
            None => write!(f, "answered {}", record.status),
            Some(refusal) => {
                write!(f, "answered {}: {}", record.status, refusal.kind.name())?;
                if let Some(cause) = refusal.cause {
                    write!(f, " ({})", cause.name())?;
                }
                write!(f, ": {}", refusal.detail.escape_debug())
            }
        }
    }
}

/// The beginning of a body, on one line.
struct Cut<'a>(&'a [u8]);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = String::from_utf8_lossy(&self.0[..self.0.len().min(SHOWN_BODY)]);
        write!(f, "{}", shown.escape_debug())?;
        if self.0.len() > SHOWN_BODY { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}
