//! A call as spans of a trace: one for itself, and one for each thing it waited for.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use http::HeaderMap;

use crate::api::watch::RouteWatch;
use crate::model::call::ConnectionEvent;
use crate::model::record::{Leg, Outcome, Record, Traced, What};
use crate::model::trace::Parent;
use crate::telemetry::tracer::{Kind, Span, Tracer, Value};

/// The trace of a call that came with these headers; nothing if nobody traces it. Backends are ours, clients are not.
pub fn begin(tracer: &Tracer, headers: Option<&HeaderMap>, is_ours: bool) -> Option<Box<Traced>> {
    let parent = headers.and_then(Parent::from_headers);
    let context = tracer.begin(parent.as_ref(), is_ours)?;
    let parent = parent.and_then(|parent| parent.span_id);
    Some(Box::new(Traced { context, parent, began: SystemTime::now() }))
}

pub fn end(tracer: &Tracer, route: &RouteWatch, record: &Record<'_>) {
    let Some(trace) = record.trail.trace.as_deref().filter(|trace| trace.context.sampled) else { return };
    let legs = [
        (&record.trail.authorizer, Kind::Internal, "authorizer"),
        (&record.trail.integration, Kind::Client, "integration"),
    ];
    for (leg, kind, what) in legs {
        if let Some(leg) = leg
            && let Some(span) = leg_span(trace, record, leg, kind, name_of_leg(what, route), route)
        {
            tracer.end(span);
        }
    }
    let mut attributes = vec![
        ("livegate.api", text(&record.stage.api)),
        ("livegate.stage", text(&record.stage.stage)),
        ("livegate.route_key", text(record.route_key)),
        ("livegate.request_id", owned(record.request_id.to_string())),
        ("client.address", owned(record.source_ip().to_string())),
    ];
    if let Some(cause) = record.refusal.and_then(|refusal| refusal.cause) {
        attributes.push(("livegate.refusal.cause", Value::Text(cause.name().into())));
    }
    let (name, kind) = of_what(record, &mut attributes);
    tracer.end(Span {
        context: trace.context.clone(),
        parent: trace.parent,
        kind,
        name,
        began: trace.began,
        took: record.took,
        attributes,
        error: error(record),
    });
}

fn of_what(record: &Record<'_>, attributes: &mut Vec<(&'static str, Value)>) -> (Cow<'static, str>, Kind) {
    let status = ("http.response.status_code", Value::Number(record.status.into()));
    match record.what {
        What::Request(requested) => {
            let request = requested.request;
            attributes.push(("http.request.method", text(request.head.method.as_str())));
            attributes.push(("url.path", text(request.path())));
            attributes.push(("url.scheme", text(request.scheme)));
            attributes.push(("server.address", text(&request.domain_name)));
            // The key of a route is its method and its path, or `$default`.
            if let Some((_, path)) = record.route_key.split_once(' ') {
                attributes.push(("http.route", text(path)));
            }
            attributes.push(status);
            let name = match record.route_key {
                "-" => request.head.method.to_string(),
                key => key.to_owned(),
            };
            (name.into(), Kind::Server)
        }
        What::Connection(happening) => {
            attributes.push(("livegate.connection_id", owned(happening.client.id.to_string())));
            attributes.push(("livegate.event_type", text(happening.event.name())));
            match happening.event {
                ConnectionEvent::Connect(_) => attributes.push(status),
                ConnectionEvent::Message(_) => {
                    attributes.push(("network.protocol.name", text("websocket")));
                    attributes.push(("livegate.message.size", Value::Number(record.received as i64)));
                }
                ConnectionEvent::Disconnect(close) => {
                    attributes.push(("livegate.close_code", Value::Number(close.code.into())));
                }
            }
            (record.route_key.to_owned().into(), Kind::Server)
        }
        What::Push(push) => {
            attributes.push(("livegate.connection_id", text(push.connection_id)));
            attributes.push(("http.request.method", text(push.method.as_str())));
            attributes.push(status);
            (record.route_key.to_owned().into(), Kind::Server)
        }
    }
}

fn name_of_leg(what: &'static str, route: &RouteWatch) -> Cow<'static, str> {
    match (what, &route.authorizer) {
        ("authorizer", name) => format!("authorizer {}", name.as_deref().unwrap_or("aws_iam")).into(),
        (what, _) => what.into(),
    }
}

fn leg_span(
    trace: &Traced,
    record: &Record<'_>,
    leg: &Leg,
    kind: Kind,
    name: Cow<'static, str>,
    route: &RouteWatch,
) -> Option<Span> {
    let mut attributes = Vec::new();
    if kind == Kind::Client {
        // Where it went, without a query, which may hold what is nobody's business.
        let address = route.integration.split(['?', ' ']).next().unwrap_or_default();
        attributes.push(("livegate.integration", text(address)));
    }
    if let Some(status) = leg.status {
        attributes.push(("http.response.status_code", Value::Number(status.into())));
    }
    let is_failed = leg.status.is_none_or(|status| status >= 400);
    let refused = record.refusal.map(|refusal| refusal.detail.clone());
    Some(Span {
        context: trace.context.with_span(leg.span?),
        parent: Some(trace.context.span_id),
        kind,
        name,
        began: at(trace, record, leg.began),
        took: leg.took,
        attributes,
        error: is_failed.then(|| refused.unwrap_or_else(|| why_failed(leg).to_owned())),
    })
}

fn why_failed(leg: &Leg) -> &'static str {
    if leg.is_error() { "the backend answered with an error" } else { "nobody waited for the answer" }
}

/// When a leg began, on the clock that the trace began by.
fn at(trace: &Traced, record: &Record<'_>, began: Instant) -> SystemTime {
    trace.began + began.saturating_duration_since(record.trail.began)
}

/// A client's mistake is no error of a server's span.
fn error(record: &Record<'_>) -> Option<String> {
    let is_failed = record.outcome() == Outcome::Failed;
    is_failed.then(|| {
        record.refusal.map_or("the backend answered with an error".to_owned(), |refusal| refusal.detail.clone())
    })
}

fn text(text: &str) -> Value {
    owned(text.to_owned())
}

fn owned(text: String) -> Value {
    Value::Text(text.into())
}
