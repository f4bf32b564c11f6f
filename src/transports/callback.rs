//! The `@connections` API: backends push to connections, look at them, and close them.
//!
//! The order of the checks is part of the contract: size, then who calls, then what it may do, then how often (whoever may
//! not push uses up nothing), then whether the id can be one, then whether it is open. Every error names itself in
//! `x-amzn-ErrorType`, because that header, not the status, is what AWS's SDKs raise.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, RETRY_AFTER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::api::gateway::Gateway;
use crate::api::stage::Stage;
use crate::connections::{Connection, Error, Outgoing, discard};
use crate::engine::Engine;
use crate::model::answer::{self, Answer};
use crate::model::body::Body;
use crate::model::clock::Timestamp;
use crate::model::close::Close;
use crate::model::id::{ConnectionId, Id};
use crate::model::identity::{Identity, Signer};
use crate::model::limits;
use crate::model::record::{Push, Record, What};
use crate::model::refusal::{Cause, Kind, Refusal};
use crate::outbound::sigv4;
use crate::steps::authorizers::{allow, credentials, push};
use crate::telemetry::metrics::Pushes;

/// A call of `@connections` as it came in.
pub struct Called<'a> {
    pub stage: &'a Stage,
    /// What the path names, decoded.
    pub id: &'a str,
    pub source_ip: IpAddr,
    /// The host that the caller reached.
    pub domain_name: &'a str,
}

/// An answer, and what is written down of it besides.
struct Answered {
    answer: Answer,
    refusal: Option<Refusal>,
    connection: Option<Arc<Connection>>,
}

/// Answers one call for the connection that the path names.
pub async fn answer(engine: &Engine, gateway: &Gateway, called: Called<'_>, request: Box<Request<Body>>) -> Answer {
    let Called { stage, id, source_ip, domain_name } = called;
    let (head, body) = (*request).into_parts();
    let (at, trail) = (Timestamp::now(), engine.set_out_for_backend(&head.headers));
    let request_id = Id::random();
    let (mut caller, mut received, mut payload) = (None, 0, Bytes::new());
    let is_told = engine.tells_of_pushes(stage);
    let answered = match read(body, &head, stage.limits.max_message).await {
        Ok(body) => {
            received = body.len() as u64;
            if is_told {
                payload = body.clone();
            }
            respond(engine, gateway, stage, id, &head, body, &mut caller)
        }
        Err(unread) => unread.answer(&stage.metrics.pushes),
    };
    let Answered { mut answer, refusal, connection } = answered;
    answer.headers_mut().insert(answer::X_AMZN_REQUEST_ID, request_id.header());
    let identity = caller.filter(|_| is_told).map(|name: &str| identity(name, &stage.entrance.account_id));
    let route_key = match head.method {
        Method::POST => "POST @connections",
        Method::GET => "GET @connections",
        Method::DELETE => "DELETE @connections",
        // A stranger's method is no key.
        _ => "@connections",
    };
    engine.pushed(
        stage,
        &Record {
            what: What::Push(Push {
                method: &head.method,
                connection_id: id,
                client: connection.as_ref().map(|connection| &connection.client),
                source_ip,
                user_agent: head.headers.get(USER_AGENT),
                domain_name,
            }),
            stage: &stage.key,
            route_key,
            request_id,
            at,
            identity: identity.as_ref(),
            trail: &trail,
            status: answer.status().as_u16(),
            refusal: refusal.as_ref(),
            took: trail.began.elapsed(),
            received,
            sent: 0,
            body: &payload,
            answer: b"",
        },
    );
    answer
}

/// Everything behind the body's bound. `caller` is whose credential it was.
fn respond<'c>(
    engine: &Engine,
    gateway: &'c Gateway,
    stage: &Stage,
    id: &str,
    head: &Parts,
    body: Bytes,
    caller: &mut Option<&'c str>,
) -> Answered {
    let counters = &stage.metrics.pushes;
    let began = Instant::now();
    let signed = sigv4::Request {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        body: &body,
    };
    let resource = || allow::resource(&stage.key.api, &stage.key.stage, head.method.as_str(), id);
    let authorized = push::authorize(
        stage.connections_api,
        &gateway.credentials,
        &signed,
        credentials::MANAGE_CONNECTIONS,
        resource,
        SystemTime::now,
    );
    match authorized {
        Ok(credential) => *caller = credential.map(|credential| credential.name.as_str()),
        Err(denied) => {
            counters.refused.increment(1);
            tracing::debug!(
                api = &*stage.key.api,
                stage = &*stage.key.stage,
                "refused a call of @connections: {}",
                denied.detail
            );
            let error_type = denied.error_type.name();
            let answer = answer::error(credentials::Denied::STATUS, error_type, answer::message(&denied.message));
            return refused(answer, Kind::Forbidden.because(denied.detail).by(Cause::Unauthorized));
        }
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
        return refused(answer, Kind::Throttled.because("more calls than the throttle lets through").by(cause));
    }
    let answered = perform(engine, stage, id, &head.method, head.uri.path(), body);
    stage.metrics.push_latency.record(began.elapsed());
    answered
}

fn refused(answer: Answer, refusal: Refusal) -> Answered {
    Answered { answer, refusal: Some(refusal), connection: None }
}

/// Whoever called, as IAM would name it.
fn identity(name: &str, account_id: &str) -> Identity {
    let user_arn = format!("arn:aws:iam::{account_id}:user/{name}");
    let (user, account_id) = (name.to_owned(), account_id.to_owned());
    let signer = Signer { access_key: String::new(), account_id, user, user_arn };
    Identity { signer: Some(Arc::new(signer)), ..Identity::default() }
}

fn perform(engine: &Engine, stage: &Stage, id: &str, method: &Method, path: &str, body: Bytes) -> Answered {
    let counters = &stage.metrics.pushes;
    let Some(known) = ConnectionId::parse(id) else {
        counters.invalid.increment(1);
        let text = format!("Invalid connectionId: {id}");
        let answer = answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(&text));
        return refused(answer, Kind::BadRequest.because("the connection id cannot be one").with_message(text));
    };
    if !matches!(*method, Method::POST | Method::GET | Method::DELETE) {
        counters.invalid.increment(1);
        return refused(no_method(path, method), Kind::NotFound.because("no such method"));
    }
    // An id of another stage is as good as none: this stage's callers have no business with it.
    let found = engine.connections.find(&known).ok().filter(|connection| connection.client.stage == stage.key);
    let Some(connection) = found else {
        counters.gone.increment(1);
        return gone();
    };
    let (answer, refusal) = match *method {
        Method::POST => match push(engine, stage, &connection, body) {
            Ok(answer) => (answer, None),
            Err(answered) => return Answered { connection: Some(connection), ..*answered },
        },
        Method::DELETE => {
            engine.connections.close(&connection, Close::DELETED);
            counters.ok.increment(1);
            (answer::empty(StatusCode::NO_CONTENT), None)
        }
        _ => {
            counters.ok.increment(1);
            (answer::json(StatusCode::OK, describe(&connection)), None)
        }
    };
    Answered { answer, refusal, connection: Some(connection) }
}

fn push(engine: &Engine, stage: &Stage, connection: &Connection, body: Bytes) -> Result<Answer, Box<Answered>> {
    let counters = &stage.metrics.pushes;
    let is_text = std::str::from_utf8(&body).is_ok();
    if !is_text && !stage.limits.binary {
        counters.invalid.increment(1);
        let text = "The data is not UTF-8, and this stage does not carry binary messages";
        let answer = answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(text));
        return Err(Box::new(refused(answer, Kind::BadRequest.because("the data is not UTF-8"))));
    }
    let length = body.len();
    match engine.connections.send(connection, Outgoing { body, binary: !is_text }, &stage.limits.outbox()) {
        Ok(()) => {
            stage.metrics.queued(length);
            counters.ok.increment(1);
            Ok(answer::empty(StatusCode::OK))
        }
        Err(Error::Full) => {
            counters.full.increment(1);
            stage.metrics.outbox_stalls.increment(1);
            let answer = answer::error(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", Bytes::new());
            Err(Box::new(refused(answer, Kind::OutboxFull.because("the connection's outbox is full"))))
        }
        Err(Error::Gone) => {
            counters.gone.increment(1);
            Err(Box::new(gone()))
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

fn gone() -> Answered {
    let answer = answer::error(StatusCode::GONE, "GoneException", Bytes::new());
    refused(answer, Kind::Gone.because("no such connection is open"))
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

impl Unread {
    fn answer(self, counters: &Pushes) -> Answered {
        let (counter, status, error_type, text, kind) = match self {
            Unread::TooLarge => (
                &counters.too_large,
                StatusCode::PAYLOAD_TOO_LARGE,
                "PayloadTooLargeException",
                "Payload too large",
                Kind::RequestTooLarge,
            ),
            Unread::TooSlow => (
                &counters.invalid,
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeoutException",
                "The body did not arrive in time",
                Kind::TooSlow,
            ),
            Unread::Lost => (
                &counters.invalid,
                StatusCode::BAD_REQUEST,
                "BadRequestException",
                "The body could not be read",
                Kind::BadRequest,
            ),
        };
        counter.increment(1);
        refused(answer::error(status, error_type, answer::message(text)), kind.because(text))
    }
}

fn declared(head: &Parts) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body of at most `bound` bytes.
async fn read(mut body: Body, head: &Parts, bound: usize) -> Result<Bytes, Unread> {
    if let Body::Whole(whole) = body {
        return if whole.len() > bound { Err(Unread::TooLarge) } else { Ok(whole) };
    }
    if declared(head).is_some_and(|length| length > bound as u64) {
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
