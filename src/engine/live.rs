//! A call that is over, for whoever watches live.

use crate::api::watch::{RouteWatch, StageWatch};
use crate::connections::Connection;
use crate::model::call::ConnectionEvent;
use crate::model::clock::Timestamp;
use crate::model::record::{Outcome, Record, What};
use crate::model::refusal::Cause;
use crate::telemetry::tail::{Direction, Event, Kind, Tail};

pub fn tell(tail: &Tail, watch: &StageWatch, route: &RouteWatch, record: &Record<'_>) {
    let connection = match record.what {
        What::Push(push) => Some(push.connection_id.to_owned()),
        _ => record.client().map(|client| client.id.to_string()),
    };
    let request = record.request_id.to_string();
    let (kind, direction, bytes) = match record.what {
        What::Connection(happening) => match happening.event {
            ConnectionEvent::Connect(_) => (Kind::Connect, None, None),
            ConnectionEvent::Message(_) => (Kind::Message, Some(Direction::In), Some(record.received)),
            ConnectionEvent::Disconnect(_) => (Kind::Disconnect, None, None),
        },
        What::Request(_) => (Kind::Request, Some(Direction::In), Some(record.received + record.sent)),
        What::Push(_) => (Kind::Push, Some(Direction::Out), Some(record.received)),
    };
    let cause = record.refusal.and_then(|refusal| refusal.cause);
    let error = record.refusal.map(ToString::to_string);
    let mut event = Event {
        at: record.at,
        kind,
        api: &watch.key.api,
        stage: &watch.key.stage,
        route: Some(record.route_key),
        connection: connection.as_deref(),
        request: Some(&request),
        user: record.user(),
        address: Some(record.source_ip()),
        outcome: record.outcome(),
        status: Some(record.status),
        latency: Some(record.took),
        integration: record.trail.integration.as_ref().map(|leg| leg.took),
        direction,
        bytes,
        error: error.as_deref(),
        cause: cause.map(Cause::name),
        authorizer: None,
        payload: (watch.data_trace && !record.body.is_empty()).then_some(record.body),
    };
    if let Some(leg) = &record.trail.authorizer {
        let is_refusal = matches!(cause, Some(Cause::Unauthorized | Cause::Denied | Cause::AuthorizerFailure));
        tail.tell(&Event {
            kind: Kind::Authorizer,
            outcome: match cause {
                Some(Cause::Unauthorized | Cause::Denied) => Outcome::Refused,
                Some(Cause::AuthorizerFailure) => Outcome::Failed,
                _ => Outcome::Ok,
            },
            status: leg.status,
            latency: Some(leg.took),
            integration: None,
            direction: None,
            bytes: None,
            error: event.error.filter(|_| is_refusal),
            authorizer: Some(route.authorizer.as_deref().unwrap_or("aws_iam")),
            payload: None,
            ..event
        });
    }
    if let What::Connection(happening) = record.what
        && let ConnectionEvent::Disconnect(close) = happening.event
    {
        let how = format!("{} {}", close.code, close.reason);
        event.cause = event.cause.or(Some(how.trim_end()));
        return tail.tell(&event);
    }
    tail.tell(&event);
}

/// A message on its way to or from a client, whatever becomes of it.
pub fn tell_frame(tail: &Tail, connection: &Connection, direction: Direction, payload: &[u8], may_show: bool) {
    let client = &connection.client;
    let id = client.id.to_string();
    let identity = client.identity.read().clone();
    let user = identity.as_ref().and_then(|identity| identity.user());
    tail.tell(&Event {
        at: Timestamp::now(),
        kind: Kind::Frame,
        api: &client.stage.api,
        stage: &client.stage.stage,
        route: None,
        connection: Some(&id),
        request: None,
        user,
        address: Some(client.source_ip),
        outcome: Outcome::Ok,
        status: None,
        latency: None,
        integration: None,
        direction: Some(direction),
        bytes: Some(payload.len() as u64),
        error: None,
        cause: None,
        authorizer: None,
        payload: may_show.then_some(payload),
    });
}
