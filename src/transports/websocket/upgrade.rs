//! The handshake: an HTTP request becomes a connection, once its `$connect` was answered.
//!
//! The rules are RFC 6455's; where the request breaks them the client is told how. Nothing is sent
//! to the client until `$connect` has ended, and a client that leaves meanwhile does not cancel it:
//! a backend that said yes is owed a `$disconnect`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::socket;
use crate::api::directory::{Host, Place};
use crate::connections::{Connection, When};
use crate::engine::gateway_responses::HttpResponse;
use crate::engine::{CallbackBase, Engine, Opening, gateway_responses};
use crate::model::answer::{self, Answer};
use crate::model::call::{Handshake, Reply};
use crate::model::client::Client;
use crate::model::clock::Timestamp;
use crate::model::close::Close;
use crate::model::headers;
use crate::model::id::ConnectionId;
use crate::model::limits;
use crate::model::refusal::Kind;

/// The accepted connection that a request came on.
#[derive(Clone, Copy)]
pub struct Peer {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub scheme: &'static str,
    /// Gives back the bare socket, and what was read behind the handshake.
    pub release: fn(Upgraded) -> Option<(TcpStream, Bytes)>,
}

/// Whether a request asks for a WebSocket.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    has_token(headers, UPGRADE, "websocket")
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

/// Answers an upgrade request; with 101 if all goes well, and then a socket's task is at work.
pub async fn accept(engine: &Arc<Engine>, place: &Place, mut request: Request<Incoming>, peer: Peer) -> Answer {
    if engine.is_draining() {
        let text = "The gateway is stopping; connect again to reach another";
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", answer::message(text));
    }
    if let Err(answer) = check(&request) {
        return *answer;
    }
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    let accept_key = derive_accept_key(head.headers[SEC_WEBSOCKET_KEY].as_bytes());
    let connection = Arc::new(Connection::new(client(place, &engine.callback(), &head.headers, peer)));
    let handshake = Handshake {
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        scheme: peer.scheme,
        port: peer.local.port(),
    };
    let opening = Handover { engine: engine.clone(), place: place.clone(), connection, on_upgrade, peer };
    let accepted = if place.stage.routes.connect.is_none() {
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
        Ok(subprotocol) => switching_protocols(&accept_key, subprotocol),
        Err(answer) => *answer,
    }
}

struct Handover {
    engine: Arc<Engine>,
    place: Place,
    connection: Arc<Connection>,
    on_upgrade: OnUpgrade,
    peer: Peer,
}

impl Handover {
    /// Asks the backend; if it agrees, the connection is open and its socket's task waits for the 101.
    async fn settle(self, handshake: Handshake) -> Result<Option<HeaderValue>, Box<Answer>> {
        let Handover { engine, place, connection, on_upgrade, peer } = self;
        let stage = place.stage;
        let opening = Box::pin(engine.connect(&stage, &connection.client, &handshake)).await;
        let subprotocol = match opening {
            Ok(Opening::Accepted(subprotocol)) => subprotocol,
            Ok(Opening::Declined(reply)) => return Err(Box::new(declined(reply))),
            Err(refusal) => return Err(Box::new(refused(gateway_responses::handshake(&refusal)))),
        };
        engine.opened(&stage, &connection);
        if engine.is_draining() {
            // The drain may have looked for sockets before this one opened.
            connection.outbox.close(Close::GOING_AWAY, When::AfterReplies);
        }
        let tasks = engine.tasks.clone();
        // A task of its own, so that nothing of the handshake is kept for the life of the socket.
        tasks.spawn(async move {
            let socket = on_upgrade.await.ok().and_then(peer.release);
            match socket {
                Some((socket, already_read)) => socket::run(engine, connection, stage, socket, already_read).await,
                // The 101 could not be written.
                None => engine.disconnected(connection, Close::LOST),
            }
        });
        Ok(subprotocol)
    }
}

fn check(request: &Request<Incoming>) -> Result<(), Box<Answer>> {
    let headers = request.headers();
    let bad = |text: &str| {
        Err(Box::new(answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(text))))
    };
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return bad("A WebSocket handshake is a GET request of HTTP/1.1");
    }
    if !has_token(headers, CONNECTION, "upgrade") {
        return bad("A WebSocket handshake needs the header `Connection: Upgrade`");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = required();
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(answer));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().and_then(|key| STANDARD.decode(key.as_bytes()).ok());
    if key.is_none_or(|key| key.len() != 16) || keys.next().is_some() {
        return bad("A WebSocket handshake needs one `Sec-WebSocket-Key`: 16 bytes as base64");
    }
    Ok(())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

fn client(place: &Place, fallback: &CallbackBase, request: &HeaderMap, peer: Peer) -> Client {
    let id = ConnectionId::random(0);
    let host = request.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (domain_name, base) = if is_trusted(host, &place.host, peer) {
        let default_port = if peer.scheme == "https" { ":443" } else { ":80" };
        let host = host.strip_suffix(default_port).unwrap_or(host).to_ascii_lowercase();
        let base = format!("{}://{host}", peer.scheme);
        (host, base)
    } else {
        (fallback.host.clone(), fallback.url.clone())
    };
    let callback_url = format!("{base}{}/@connections/{}", place.path(), id.path_segment());
    Client {
        id,
        id_header: id.header(),
        stage: place.stage.key.clone(),
        domain_name: domain_name.into(),
        // A URL keeps its own escapes, so it is not encoded once more.
        callback_url: HeaderValue::from_str(&callback_url).expect("hosts, paths and ids are visible ASCII"),
        source_ip: peer.remote.ip().to_canonical(),
        user_agent: headers::last(request, USER_AGENT.as_str()).map(|agent| agent.into_owned().into()),
        connected_at: Timestamp::now(),
    }
}

/// A Host header says where backends send signed pushes, so a stranger's word does not count: it
/// must be one of the API's domains, or this machine's own address with the port that was reached.
fn is_trusted(host: &str, domain: &Host, peer: Peer) -> bool {
    if !matches!(domain, Host::Any) {
        return true;
    }
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let default_port = if peer.scheme == "https" { 443 } else { 80 };
    if authority.port_u16().unwrap_or(default_port) != peer.local.port() {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == peer.local.ip().to_canonical())
}

fn switching_protocols(accept_key: &str, subprotocol: Option<HeaderValue>) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept_key = HeaderValue::from_str(accept_key).expect("base64 is a header value");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_our_own_are_trusted() {
        let peer = Peer {
            remote: ([10, 0, 0, 9], 5000).into(),
            local: ([10, 0, 0, 5], 8080).into(),
            scheme: "http",
            release: |_| None,
        };
        let check = |host: &str, trusted: bool| assert_eq!(is_trusted(host, &Host::Any, peer), trusted, "{host}");
        check("localhost:8080", true);
        check("127.0.0.1:8080", true);
        check("[::1]:8080", true);
        check("10.0.0.5:8080", true);
        check("10.0.0.6:8080", false);
        check("evil.example", false);
        check("evil.example:8080", false);
        check("127.0.0.1:9999", false);
        check("localhost:8080@evil.example", false);
        check("user@localhost:8080", false);
        check("", false);
        assert!(is_trusted("chat.example.com:9", &Host::Exact("chat.example.com".into()), peer));
    }
}
