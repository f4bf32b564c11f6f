//! A small chat backend behind an API gateway: it serves the page, answers the routes of `routes.toml`
//! and pushes to browsers by posting to the callback URLs the gateway hands it. Browsers never come here themselves.
//!
//! Nothing here knows how the gateway is made. A caller is two headers, `X-Livegate-Connection-Id` and
//! `X-Livegate-Callback-Url`; the socket itself lives in the gateway, so this process may be restarted freely.
//! `rooms.rs` says who is where and what they are told, `push.rs` takes it to them.

mod push;
mod rooms;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use rooms::{Caller, Refused, Rooms};

type Answer = Response<Full<Bytes>>;

/// What the gateway lets through, so that only strangers meet this bound: their connection ends with it.
const MAX_BODY_BYTES: usize = 128 * 1024;

/// Everything comes from one origin, the socket too, and only its own script runs, so that a slip in the page cannot
/// become an XSS.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where the page finds its socket: the stage `prod`, seen from the page. Whatever host, port and scheme brought the
/// page through the gateway will bring the socket as well.
const WEBSOCKET_URL: &str = "prod";

/// Serves the chat until the future is dropped, which also ends its connections and pushes.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let rooms = Rooms::new();
    let mut connections = JoinSet::new();
    loop {
        // Finished connections are taken out as we go, or the set would grow with every request ever made.
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("chat: cannot accept a connection: {error}");
                // Out of file descriptors, most likely: trying again at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Best effort: without it a small answer may wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let rooms = rooms.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(rooms.clone(), request));
            // No read timeout: the gateway keeps its connections open between two messages. What goes wrong on a
            // connection is the peer's to notice, so the error is dropped.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(rooms: Arc<Rooms>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, _) => page(&rooms, &path),
        (&Method::POST, "/connect" | "/disconnect" | "/join" | "/message") => {
            call(&rooms, &path, request).await.unwrap_or_else(refuse)
        }
        _ => refuse(Refused::new(404, format!("there is no {} {path} here", request.method()))),
    })
}

fn page(rooms: &Rooms, path: &str) -> Answer {
    let (content_type, body) = match path {
        "/" => ("text/html; charset=utf-8", Bytes::from_static(include_bytes!("../page/index.html"))),
        "/chat.css" => ("text/css; charset=utf-8", Bytes::from_static(include_bytes!("../page/chat.css"))),
        "/chat.js" => ("text/javascript; charset=utf-8", Bytes::from_static(include_bytes!("../page/chat.js"))),
        "/config.json" => ("application/json", json!({ "websocket_url": WEBSOCKET_URL }).to_string().into()),
        "/rooms" => ("application/json", rooms.list().to_string().into()),
        _ => return refuse(Refused::new(404, format!("there is no page {path} here; try /"))),
    };
    let mut answer = respond(StatusCode::OK, content_type, body);
    answer.headers_mut().insert("content-security-policy", header::HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    answer
}

/// One route of the gateway. What it answers on `/join` and `/message` becomes a frame to the caller, because those
/// routes are two-way: nothing when all went well (the pushes say the rest), the error when it did not.
async fn call(rooms: &Arc<Rooms>, path: &str, request: Request<Incoming>) -> Result<Answer, Refused> {
    let caller = caller(&request)?;
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|_| Refused::new(413, format!("a message may have {MAX_BODY_BYTES} bytes")))?.to_bytes();
    match path {
        "/join" => {
            let message = object(&body)?;
            rooms.join(caller, &text(&message, "name")?, &text(&message, "room")?)?;
        }
        "/message" => rooms.say(&caller.id, &text(&object(&body)?, "text")?)?,
        // It may come twice, and for somebody who never joined: both are fine.
        "/disconnect" => rooms.leave(&caller.id),
        // Everybody may connect. A backend that is choosier answers 401 or 403, and the browser gets no socket.
        _ => {}
    }
    Ok(respond(StatusCode::OK, "application/json", Bytes::new()))
}

fn caller(request: &Request<Incoming>) -> Result<Caller, Refused> {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
        value.ok_or_else(|| Refused::new(400, format!("the header {name} is missing; call this through the gateway")))
    };
    let id = header("X-Livegate-Connection-Id")?.to_owned();
    let callback_url = header("X-Livegate-Callback-Url")?;
    let callback_url = callback_url.parse::<Uri>();
    let callback_url = callback_url.map_err(|_| Refused::new(400, "X-Livegate-Callback-Url is no URL".into()))?;
    Ok(Caller { id, callback_url })
}

fn object(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::new(400, format!("the message is no JSON: {error}")))
}

fn text(message: &Value, key: &str) -> Result<String, Refused> {
    let text = message.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| Refused::new(400, format!("the message needs a text `{key}`")))
}

fn refuse(refused: Refused) -> Answer {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = json!({ "type": "error", "message": refused.message }).to_string();
    respond(status, "application/json", body.into())
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    answer
}
