//! A client on the operator's behalf: browsers cannot put headers on a WebSocket, so the gateway opens it itself, to its
//! own client side, where it is a client like any other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dashmap::DashMap;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Message, protocol};

use super::connections::{close_of, message};
use super::{Dashboard, Operator, error, lines, shown};
use crate::api::directory::{Host, Place, Served};
use crate::model::answer::Answer;
use crate::model::body::Body;
use crate::model::clock::Timestamp;
use crate::model::headers;
use crate::model::id::Id;

/// Sockets that all operators together may have open.
const SESSIONS: usize = 16;

/// Messages that wait to be sent on one.
const WAITING: usize = 64;

/// How long a handshake may take: as long as the slowest `$connect`.
const HANDSHAKE: Duration = Duration::from_secs(35);

const SILENCE: Duration = Duration::from_secs(15);

/// How much is shown of an answer that refused the handshake.
const SHOWN: usize = 4096;

/// A message goes out in frames of this length, which every stage takes that is not told otherwise.
const FRAME: usize = 16 * 1024;

/// The sockets that are open.
pub struct Sessions {
    open: DashMap<String, mpsc::Sender<Message>>,
    places: Arc<Semaphore>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { open: DashMap::new(), places: Arc::new(Semaphore::new(SESSIONS)) }
    }
}

/// Opens a socket; what comes of it is told line by line for as long as somebody reads.
pub async fn open(dashboard: &Dashboard, asked: &Value, operator: &Operator) -> Answer {
    let gateway = dashboard.engine.gateway();
    let text = |key: &str| asked.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api, stage) = (text("api"), text("stage"));
    let is_asked = |place: &&Place| {
        matches!(place.served, Served::Sockets(_)) && *place.key().api == *api && *place.key().stage == *stage
    };
    let Some(place) = gateway.directory.places().iter().find(is_asked) else {
        return error(StatusCode::NOT_FOUND, &format!("no WebSocket stage `{stage}` of an API `{api}` is served"));
    };
    let request = match request(&dashboard.engine.listeners(), place, asked) {
        Ok(request) => request,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    let Ok(place) = dashboard.sessions.places.clone().try_acquire_owned() else {
        let text = format!("{SESSIONS} sockets are open in playgrounds already; close one of them");
        return error(StatusCode::SERVICE_UNAVAILABLE, &text);
    };
    let (by, via) = (operator.address, operator.access.name());
    tracing::info!(target: "livegate::operators", api, stage, %by, via, "an operator opened a socket in the playground");
    let began = Instant::now();
    let dialled = tokio_tungstenite::client_async(request, (dashboard.dial)(operator.address));
    let (socket, response) = match tokio::time::timeout(HANDSHAKE, dialled).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(tungstenite::Error::Http(response))) => return told_once(refused(&response)),
        Ok(Err(failed)) => {
            return told_once(json!({ "refused": { "status": null, "headers": [], "body": failed.to_string() } }));
        }
        Err(_) => {
            let text = "the handshake was not answered in time";
            return told_once(json!({ "refused": { "status": null, "headers": [], "body": text } }));
        }
    };
    let session = Id::random().to_string();
    let (sender, receiver) = mpsc::channel(WAITING);
    dashboard.sessions.open.insert(session.clone(), sender);
    let ending = Ending { session: session.clone(), sessions: dashboard.sessions.clone(), _place: place };
    let open = Open { _ending: ending, socket, receiver, is_closing: false, ended: false };
    let opened = json!({ "opened": {
        "session": session,
        "status": response.status().as_u16(),
        "headers": shown_headers(response.headers()),
        "ms": began.elapsed().as_secs_f64() * 1000.0,
    } });
    let first = stream::once(async move { Ok(Frame::data(line(&opened))) });
    let (closed, watching) = (dashboard.engine.closed.clone(), dashboard.engine.watching());
    let rest = stream::unfold((open, closed, watching), |(mut open, closed, watching)| async move {
        let next = tokio::select! {
            next = open.next() => next?,
            () = closed.cancelled() => return None,
            () = watching.cancelled() => return None,
        };
        Some((Ok::<_, Infallible>(Frame::data(next)), (open, closed, watching)))
    });
    let body = StreamBody::new(first.chain(rest));
    lines(Body::flowing(http_body_util::BodyExt::map_err(body, |never| match never {})))
}

/// The handshake as the operator wants it.
fn request(
    listeners: &[String],
    place: &Place,
    asked: &Value,
) -> Result<tungstenite::handshake::client::Request, String> {
    let listener = listeners.iter().find_map(|at| at.split_once("://")).map(|(_, host)| host);
    let host = match &place.host {
        Host::Exact(host) => host.clone(),
        Host::Wildcard(rest) => format!("playground{rest}"),
        // Whoever listens on a socket file has no name of its own.
        Host::Any => listener.unwrap_or("localhost").to_owned(),
    };
    let query = asked.get("query").and_then(Value::as_str).unwrap_or_default().trim_start_matches('?');
    let path = match place.path() {
        path if path.is_empty() => "/".to_owned(),
        path => path,
    };
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let mut request = format!("ws://{host}{path}{query}")
        .into_client_request()
        .map_err(|wrong| format!("no handshake can be made of this: {wrong}"))?;
    let pairs = match asked.get("headers") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(pairs)) => pairs.as_slice(),
        Some(_) => return Err("write headers as `[[\"name\", \"value\"], …]`".to_owned()),
    };
    for pair in pairs {
        let (Some(name), Some(value)) = (pair[0].as_str(), pair[1].as_str()) else {
            return Err("write headers as `[[\"name\", \"value\"], …]`".to_owned());
        };
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        let (Ok(name), Ok(value)) = parsed else {
            return Err(format!("`{name}` with that value cannot be a header"));
        };
        let is_of_handshake = matches!(name.as_str(), "connection" | "upgrade" | "host" | "content-length")
            || name.as_str().starts_with("sec-websocket-");
        if is_of_handshake {
            return Err(format!("`{name}` is the handshake's own"));
        }
        request.headers_mut().append(name, value);
    }
    let offered: Vec<&str> =
        asked.get("subprotocols").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if !offered.is_empty() {
        let offered = HeaderValue::from_str(&offered.join(", ")).map_err(|_| "that is no list of subprotocols")?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offered);
    }
    Ok(request)
}

fn refused(response: &http::Response<Option<Vec<u8>>>) -> Value {
    let body = response.body().as_deref().unwrap_or_default();
    json!({ "refused": {
        "status": response.status().as_u16(),
        "headers": shown_headers(response.headers()),
        "body": String::from_utf8_lossy(&body[..body.len().min(SHOWN)]),
    } })
}

fn shown_headers(all: &http::HeaderMap) -> Vec<[String; 2]> {
    all.iter().map(|(name, value)| [name.to_string(), headers::text(value).into_owned()]).collect()
}

fn told_once(value: Value) -> Answer {
    lines(Body::Whole(line(&value)))
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

/// A socket, and who reads of it.
struct Open {
    _ending: Ending,
    socket: WebSocketStream<DuplexStream>,
    receiver: mpsc::Receiver<Message>,
    /// The operator closed it, and the gateway's answer is waited for.
    is_closing: bool,
    ended: bool,
}

/// Nobody can send on a socket that is gone.
struct Ending {
    session: String,
    sessions: Arc<Sessions>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.sessions.open.remove(&self.session);
    }
}

impl Open {
    /// The next line.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            tokio::select! {
                came = self.socket.next() => {
                    let Some(told) = self.tell(came) else { continue };
                    return Some(line(&told));
                }
                Some(message) = self.receiver.recv() => {
                    self.is_closing |= message.is_close();
                    if self.send(message).await.is_err() {
                        self.ended = true;
                        return Some(line(&json!({ "closed": { "code": 1006, "reason": "", "by": "gateway" } })));
                    }
                }
                () = tokio::time::sleep(SILENCE) => return Some(Bytes::from_static(b"\n")),
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), tungstenite::Error> {
        let (mut rest, mut kind) = match message {
            Message::Text(text) => (Bytes::from(text), Data::Text),
            Message::Binary(bytes) => (bytes, Data::Binary),
            other => return self.socket.send(other).await,
        };
        loop {
            let piece = rest.split_to(rest.len().min(FRAME));
            let is_final = rest.is_empty();
            let frame = protocol::frame::Frame::message(piece, OpCode::Data(kind), is_final);
            self.socket.feed(Message::Frame(frame)).await?;
            if is_final {
                return self.socket.flush().await;
            }
            kind = Data::Continue;
        }
    }

    fn tell(&mut self, came: Option<Result<Message, tungstenite::Error>>) -> Option<Value> {
        let frame = |text: Option<&str>, base64: Option<String>, bytes: usize| {
            json!({ "frame": {
                "direction": "in", "text": text, "base64": base64, "bytes": bytes, "at": Timestamp::now().0,
            } })
        };
        match came {
            Some(Ok(Message::Text(text))) => Some(frame(Some(&text), None, text.len())),
            Some(Ok(Message::Binary(bytes))) => Some(frame(None, Some(STANDARD.encode(&bytes)), bytes.len())),
            Some(Ok(Message::Close(close))) => {
                self.ended = true;
                let (code, reason) =
                    close.map_or((1005, String::new()), |close| (close.code.into(), close.reason.to_string()));
                let by = if self.is_closing { "you" } else { "gateway" };
                Some(json!({ "closed": { "code": code, "reason": reason, "by": by } }))
            }
            Some(Ok(_)) => None,
            Some(Err(_)) | None => {
                self.ended = true;
                Some(json!({ "closed": { "code": 1006, "reason": "", "by": "gateway" } }))
            }
        }
    }
}

impl Sessions {
    /// Sends a message, or a Close frame, on an open socket.
    pub async fn tell(&self, session: &str, is_message: bool, asked: &Value) -> Answer {
        let decoded = percent_encoding::percent_decode_str(session).decode_utf8_lossy();
        let Some(sender) = self.open.get(&*decoded).map(|sender| sender.clone()) else {
            return error(StatusCode::NOT_FOUND, "no such socket is open in the playground");
        };
        let told = match is_message {
            true => message(asked).map(|message| match message.binary {
                true => Message::Binary(message.body),
                false => Message::text(String::from_utf8_lossy(&message.body).into_owned()),
            }),
            false => close_of(asked).map(|close| {
                Message::Close(Some(CloseFrame { code: close.code.into(), reason: (&*close.reason).into() }))
            }),
        };
        match told {
            Err(wrong) => error(StatusCode::BAD_REQUEST, &wrong),
            Ok(told) => match sender.try_send(told) {
                Ok(()) => shown(StatusCode::OK, &json!({ "at": Timestamp::now().0 })),
                Err(_) => error(StatusCode::TOO_MANY_REQUESTS, "too much waits to be sent on this socket"),
            },
        }
    }
}
