//! The handshake: an HTTP request becomes a connection, once its `$connect` was answered.
//!
//! The rules are RFC 6455's; where the request breaks them the client is told how. Nothing is sent
//! to the client until `$connect` has ended, and a client that leaves meanwhile does not cancel it:
//! a backend that said yes is owed a `$disconnect`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Body as _;
use hyper::ext::Protocol;
use parking_lot::RwLock;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::socket;
use crate::api::directory::Place;
use crate::api::stage::Stage;
use crate::connections::{Connection, Handover, Peer, When};
use crate::engine::gateway_responses::HttpResponse;
use crate::engine::reached::Reached;
use crate::engine::{Accepted, Engine, Opening, gateway_responses};
use crate::model::answer::{self, Answer};
use crate::model::body::Body;
use crate::model::call::{Handshake, Reply};
use crate::model::client::Client;
use crate::model::clock::Timestamp;
use crate::model::close::Close;
use crate::model::headers;
use crate::model::id::ConnectionId;
use crate::model::limits;
use crate::model::refusal::Kind;

/// Whether a request asks for a WebSocket: by `Upgrade`, or over HTTP/2 by an extended CONNECT (RFC 8441).
pub fn is_asked_for<B>(request: &Request<B>) -> bool {
    match request.version() {
        Version::HTTP_2 => is_extended_connect(request),
        _ => request.headers().get_all(UPGRADE).iter().any(|value| names_token(value, "websocket")),
    }
}

fn is_extended_connect<B>(request: &Request<B>) -> bool {
    request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// The answer to a request without `Upgrade` on a stage's path.
pub fn required() -> Answer {
    let mut answer = answer::error(
        StatusCode::UPGRADE_REQUIRED,
        "UpgradeRequiredException",
        answer::message("This is a WebSocket API: connect with a WebSocket client"),
    );
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer
}

/// A handshake that leads to a stage.
pub struct Asked<'a> {
    pub request: Box<Request<Body>>,
    /// As the client wrote it.
    pub host: &'a str,
    pub reached: Reached,
    pub place: &'a Place,
    pub stage: &'a Arc<Stage>,
    /// The client, and how it reached us, as far as that can be believed.
    pub peer: Peer,
    /// What gives the connection to the socket's task.
    pub handover: Handover,
}

/// Answers an upgrade request; with 101 (over HTTP/2: 200) if all goes well, and then a socket's task is at work.
pub async fn accept(engine: &Arc<Engine>, asked: Asked<'_>) -> Answer {
    let Asked { request, host, reached, place, stage, peer, handover } = asked;
    // Before it is asked whether there is a drain: one that begins after that waits until the socket's task is counted.
    let _counted = engine.tasks.token();
    if engine.is_draining() {
        let text = "The gateway is stopping; connect again to reach another";
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", answer::message(text));
    }
    let accept_key = match check(&request) {
        Ok(accept_key) => accept_key,
        Err(answer) => return *answer,
    };
    let (mut head, _) = (*request).into_parts();
    headers::name_host(&mut head);
    let client = client(place, stage, reached, &head.headers, &peer);
    let connection = Arc::new(Connection::new(client));
    let handshake = Handshake {
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        host: host.to_owned(),
        headers: head.headers,
        scheme: peer.scheme,
        port: peer.local.port(),
        has_certificate: peer.certificate.is_some(),
    };
    let opening = Settling { engine: engine.clone(), stage: stage.clone(), connection, handover };
    let accepted = if !stage.asks_about_handshakes() {
        opening.settle(handshake).await
    } else {
        let (sender, receiver) = oneshot::channel();
        engine.tasks.spawn(async move {
            // The client may have left; then nobody listens, and the socket's task finds out.
            let _ = sender.send(opening.settle(handshake).await);
        });
        match receiver.await {
            Ok(accepted) => accepted,
            Err(_) => {
                let refusal = Kind::Internal.because("a step panicked");
                Err(Box::new(refused(gateway_responses::handshake(&refusal))))
            }
        }
    };
    match accepted {
        Ok(subprotocol) => opened(accept_key.as_deref(), subprotocol),
        Err(answer) => *answer,
    }
}

struct Settling {
    engine: Arc<Engine>,
    stage: Arc<Stage>,
    connection: Arc<Connection>,
    handover: Handover,
}

impl Settling {
    /// Asks the backend; if it agrees, the connection is open and its socket's task waits for the 101.
    async fn settle(self, handshake: Handshake) -> Result<Option<HeaderValue>, Box<Answer>> {
        let Settling { engine, stage, connection, handover } = self;
        let opening = Box::pin(engine.connect(&stage, &connection.client, &handshake)).await;
        let Accepted { subprotocol, place } = match opening {
            Ok(Opening::Accepted(accepted)) => accepted,
            Ok(Opening::Declined(reply)) => return Err(Box::new(declined(reply))),
            Err(refusal) => return Err(Box::new(refused(gateway_responses::handshake(&refusal)))),
        };
        engine.opened(&stage, &connection);
        if engine.is_draining() {
            // The drain may have looked for sockets before this one opened.
            connection.outbox.close(Close::GOING_AWAY, When::AfterReplies);
        }
        let tasks = engine.tasks.clone();
        handover.go(&tasks, move |socket| match socket {
            Some((socket, already_read)) => {
                socket::run(engine, connection, stage, place, (socket, already_read)).left_future()
            }
            // The 101 could not be written.
            None => {
                engine.disconnected(connection, Close::LOST);
                std::future::ready(()).right_future()
            }
        });
        Ok(subprotocol)
    }
}

/// Gives the answer to the request's key, which HTTP/2 does without.
fn check(request: &Request<Body>) -> Result<Option<String>, Box<Answer>> {
    let bad = |text: &str| {
        Err(Box::new(answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(text))))
    };
    let is_http_2 = is_extended_connect(request);
    let said = Said::of(request.headers());
    if !is_http_2 && (request.method() != Method::GET || request.version() != Version::HTTP_11) {
        return bad("A WebSocket handshake is a GET request of HTTP/1.1");
    }
    if !is_http_2 && !said.upgrade {
        return bad("A WebSocket handshake needs the header `Connection: Upgrade`");
    }
    if !request.body().is_end_stream() && !is_http_2 {
        return bad("A WebSocket handshake has no body");
    }
    if said.version.only().is_none_or(|version| version != "13") {
        let mut answer = required();
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(answer));
    }
    if is_http_2 {
        return Ok(None);
    }
    match said.key.only().filter(|key| is_key(key)) {
        Some(key) => Ok(Some(derive_accept_key(key.as_bytes()))),
        None => bad("A WebSocket handshake needs one `Sec-WebSocket-Key`: 16 bytes as base64"),
    }
}

fn is_key(key: &HeaderValue) -> bool {
    // Room for what 24 characters may be.
    let mut bytes = [0; 18];
    key.len() == 24 && STANDARD.decode_slice(key.as_bytes(), &mut bytes) == Ok(16)
}

/// What the headers say of a handshake, found in one go.
#[derive(Default)]
struct Said<'h> {
    /// `Connection` names `upgrade`.
    upgrade: bool,
    version: Lines<'h>,
    key: Lines<'h>,
}

/// The lines of a header that may stand there once.
#[derive(Default)]
struct Lines<'h> {
    first: Option<&'h HeaderValue>,
    are_more: bool,
}

impl<'h> Said<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            if *name == CONNECTION {
                said.upgrade |= names_token(value, "upgrade");
            } else if *name == SEC_WEBSOCKET_KEY {
                said.key.note(value);
            } else if *name == SEC_WEBSOCKET_VERSION {
                said.version.note(value);
            }
        }
        said
    }
}

impl<'h> Lines<'h> {
    fn note(&mut self, value: &'h HeaderValue) {
        self.are_more = self.first.is_some();
        self.first.get_or_insert(value);
    }

    fn only(&self) -> Option<&'h HeaderValue> {
        self.first.filter(|_| !self.are_more)
    }
}

fn names_token(value: &HeaderValue, token: &str) -> bool {
    // As a rule it is the only one.
    value.as_bytes().eq_ignore_ascii_case(token.as_bytes())
        || value.to_str().is_ok_and(|list| list.split(',').any(|found| found.trim().eq_ignore_ascii_case(token)))
}

fn client(place: &Place, stage: &Stage, reached: Reached, request: &HeaderMap, peer: &Peer) -> Client {
    let id = ConnectionId::random(0);
    let text = id.text();
    let ([base, slash, segment], [own, end]) = (place.path_pieces(), text.path_segment());
    let callback_url = [&*reached.url, base, slash, segment, "/@connections/", own, end].concat();
    Client {
        id,
        id_header: text.header(),
        stage: stage.key.clone(),
        domain_name: reached.domain_name,
        // A URL keeps its own escapes, so it is not encoded once more.
        callback_url: HeaderValue::from_maybe_shared(Bytes::from(callback_url))
            .expect("hosts, paths and ids are visible ASCII"),
        source_ip: peer.remote,
        user_agent: headers::last(request, USER_AGENT.as_str()).map(|agent| agent.into_owned().into()),
        connected_at: Timestamp::now(),
        identity: RwLock::default(),
    }
}

fn opened(accept_key: Option<&str>, subprotocol: Option<HeaderValue>) -> Answer {
    let mut answer = Response::new(Body::default());
    if let Some(accept_key) = accept_key {
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        // In one go, because few by few they would grow it twice.
        headers.reserve(4);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let accept_key = HeaderValue::from_str(accept_key).expect("base64 is a header value");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
    }
    let headers = answer.headers_mut();
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    answer
}

/// The gateway said no, in AWS's words.
fn refused(response: HttpResponse) -> Answer {
    let mut answer = answer::error(response.status, response.error_type, response.body);
    let id = answer.headers()[&answer::X_AMZN_REQUEST_ID].clone();
    answer.headers_mut().insert("x-amz-apigw-id", id);
    if let Some((name, value)) = response.header {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// The backend said no: the client gets its status, its body and what is needed to read that.
fn declined(mut reply: Reply) -> Answer {
    reply.body.truncate(limits::REFUSAL_BODY);
    let mut answer = answer::plain(reply.status, reply.body);
    for name in [CONTENT_TYPE, CONTENT_ENCODING] {
        if let Some(value) = reply.headers.get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}
