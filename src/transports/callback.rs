//! The `@connections` API: backends push to connections, look at them, and close them.
//!
//! The order of the checks is part of the contract: size, then who calls, then what it may do, then how often (whoever may
//! not push uses up nothing), then whether the id can be one, then whether it is open. Every error names itself in
//! `x-amzn-ErrorType`, because that header, not the status, is what AWS's SDKs raise.

use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use crate::api::gateway::Gateway;
use crate::api::stage::Stage;
use crate::connections::{Connection, Error, Outgoing, discard};
use crate::engine::Engine;
use crate::model::answer::{self, Answer};
use crate::model::close::Close;
use crate::model::id::ConnectionId;
use crate::model::limits;
use crate::model::refusal::Cause;
use crate::outbound::sigv4;
use crate::steps::authorizers::{allow, credentials, push};

/// Answers one call for the connection that the path names.
pub async fn answer(engine: &Engine, gateway: &Gateway, stage: &Stage, id: &str, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let counters = &stage.metrics.pushes;
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let body = match read(body, declared, stage.limits.max_message).await {
        Ok(body) => body,
        Err(Unread::TooLarge) => {
            counters.too_large.increment(1);
            return answer::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "PayloadTooLargeException",
                answer::message("Payload too large"),
            );
        }
        Err(Unread::TooSlow) => {
            counters.invalid.increment(1);
            return answer::error(
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeoutException",
                answer::message("The body did not arrive in time"),
            );
        }
        Err(Unread::Lost) => {
            counters.invalid.increment(1);
            return answer::error(
                StatusCode::BAD_REQUEST,
                "BadRequestException",
                answer::message("The body could not be read"),
            );
        }
    };
    let began = Instant::now();
    let signed = sigv4::Request {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        body: &body,
    };
    let resource = allow::resource(&stage.key.api, &stage.key.stage, head.method.as_str(), id);
    let authorized = push::authorize(
        stage.connections_api,
        &gateway.credentials,
        &signed,
        credentials::MANAGE_CONNECTIONS,
        &resource,
        SystemTime::now(),
    );
    if let Err(denied) = authorized {
        counters.refused.increment(1);
        tracing::debug!(
            api = &*stage.key.api,
            stage = &*stage.key.stage,
            "refused a call of @connections: {}",
            denied.detail
        );
        return answer::error(credentials::Denied::STATUS, denied.error_type.name(), answer::message(&denied.message));
    }
    let throttles =
        [(&stage.push_throttle, Cause::PushThrottle), (&stage.entrance.gateway_throttle, Cause::GatewayThrottle)];
    for (throttle, cause) in throttles {
        let Some(Err(throttled)) = throttle.as_ref().map(|throttle| throttle.take()) else { continue };
        stage.metrics.refusals(cause).increment(1);
        counters.throttled.increment(1);
        let mut answer = answer::error(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", Bytes::new());
        if let Some(seconds) = throttled.retry_after_seconds() {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        return answer;
    }
    let answer = perform(engine, stage, id, &head.method, head.uri.path(), body);
    stage.metrics.push_latency.record(began.elapsed().as_secs_f64());
    answer
}

fn perform(engine: &Engine, stage: &Stage, id: &str, method: &Method, path: &str, body: Bytes) -> Answer {
    let counters = &stage.metrics.pushes;
    let Some(known) = ConnectionId::parse(id) else {
        counters.invalid.increment(1);
        return answer::error(
            StatusCode::BAD_REQUEST,
            "BadRequestException",
            answer::message(&format!("Invalid connectionId: {id}")),
        );
    };
    if !matches!(*method, Method::POST | Method::GET | Method::DELETE) {
        counters.invalid.increment(1);
        return no_method(path, method);
    }
    // An id of another stage is as good as none: this stage's callers have no business with it.
    let found = engine.connections.find(&known).ok().filter(|connection| connection.client.stage == stage.key);
    let Some(connection) = found else {
        counters.gone.increment(1);
        return gone();
    };
    match *method {
        Method::POST => push(engine, stage, &connection, body),
        Method::DELETE => {
            engine.connections.close(&connection, Close::DELETED);
            counters.ok.increment(1);
            answer::plain(StatusCode::NO_CONTENT, Bytes::new())
        }
        _ => {
            counters.ok.increment(1);
            answer::json(StatusCode::OK, describe(&connection))
        }
    }
}

fn push(engine: &Engine, stage: &Stage, connection: &Connection, body: Bytes) -> Answer {
    let counters = &stage.metrics.pushes;
    let is_text = std::str::from_utf8(&body).is_ok();
    if !is_text && !stage.limits.binary {
        counters.invalid.increment(1);
        let text = "The data is not UTF-8, and this stage does not carry binary messages";
        return answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(text));
    }
    let length = body.len();
    match engine.connections.send(connection, Outgoing { body, binary: !is_text }, &stage.limits.outbox()) {
        Ok(()) => {
            stage.metrics.outbox_bytes.increment(length as f64);
            counters.ok.increment(1);
            answer::plain(StatusCode::OK, Bytes::new())
        }
        Err(Error::Full) => {
            counters.full.increment(1);
            answer::error(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", Bytes::new())
        }
        Err(Error::Gone) => {
            counters.gone.increment(1);
            gone()
        }
    }
}

fn describe(connection: &Connection) -> String {
    let client = &connection.client;
    let mut identity = json!({ "sourceIp": client.source_ip.to_string() });
    if let Some(agent) = &client.user_agent {
        identity["userAgent"] = json!(agent);
    }
    json!({
        "connectedAt": client.connected_at.iso8601(),
        "identity": identity,
        "lastActiveAt": connection.last_active_at().iso8601(),
    })
    .to_string()
}

fn gone() -> Answer {
    answer::error(StatusCode::GONE, "GoneException", Bytes::new())
}

/// Nothing is at this path, or it does not know the method.
pub fn no_method(path: &str, method: &Method) -> Answer {
    let text = format!("No method found matching route {path} for http method {method}");
    answer::error(StatusCode::NOT_FOUND, "NotFoundException", answer::message(&text))
}

enum Unread {
    TooLarge,
    TooSlow,
    Lost,
}

/// Reads a body of at most `bound` bytes.
async fn read(mut body: Incoming, declared: Option<u64>, bound: usize) -> Result<Bytes, Unread> {
    if declared.is_some_and(|length| length > bound as u64) {
        discard(body);
        return Err(Unread::TooLarge);
    }
    let reading = async {
        let (mut whole, mut length) = (BytesMut::new(), 0);
        let mut first = Bytes::new();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| Unread::Lost)?.into_data() else { continue };
            length += piece.len();
            if length > bound {
                return Err(Unread::TooLarge);
            }
            if length == piece.len() {
                // Most bodies are one piece, which needs no copy.
                first = piece;
            } else {
                whole.extend_from_slice(&std::mem::take(&mut first));
                whole.extend_from_slice(&piece);
            }
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    };
    let read = tokio::time::timeout(limits::BODY, reading).await.unwrap_or(Err(Unread::TooSlow));
    if matches!(read, Err(Unread::TooLarge)) {
        discard(body);
    }
    read
}
