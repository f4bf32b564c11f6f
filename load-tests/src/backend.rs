//! `backend`: a lean HTTP/1.1 backend that echoes.
//!
//! With `--service-time` it writes into each echo how long the message was with it, where the message leaves room for that.
//!
//! It answers GET with `ok` or as much as --answer says, a body that holds `whoami` with the connection's id from one of
//! `--id-header`, `/authorize` like an authorizer that lets everybody pass, and speaks Pushpin's WebSocket-over-HTTP
//! (`application/websocket-events`).

use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::http1::Framing;
use crate::net;
use crate::publish::write_service_time;

/// Only a short message is searched for `whoami`: the payloads of a measured run are echoed unread.
const LONGEST_QUESTION: usize = 100;

/// What a Lambda authorizer would answer; gateways pass its context on with every message.
const POLICY: &[u8] = br#"{
    "principalId": "user-1",
    "policyDocument": {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"}]
    },
    "context": {"tenant": "acme", "plan": "gold"}
}"#;

#[derive(Args, Debug)]
pub struct BackendArgs {
    /// 0 is any free port
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// Milliseconds to wait before each answer
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Write into every body with the room for it how long it was here (`echo --own` makes that room)
    #[arg(long)]
    pub service_time: bool,
    /// Bytes of the answer to a request without a body (0: `ok`)
    #[arg(long, default_value_t = 0)]
    pub answer: usize,
    /// Request headers that may carry the connection's id
    #[arg(long, value_delimiter = ',', default_value = "connectionid,x-livegate-connection-id,connection-id")]
    pub id_header: Vec<String>,
}

pub async fn run(args: BackendArgs) -> anyhow::Result<()> {
    let listener = net::listen(args.port)?;
    let args = Rc::new(args);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let args = args.clone();
        spawn_local(async move {
            if let Err(e) = serve(stream, &args).await
                && e.kind() != std::io::ErrorKind::ConnectionReset
            {
                eprintln!("backend: {e}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream, args: &BackendArgs) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf: Vec<u8> = Vec::with_capacity(4096);
    let mut out: Vec<u8> = Vec::with_capacity(1024);
    let mut came = Instant::now();
    loop {
        out.clear();
        let mut used = 0;
        while let Some(n) = answer(&buf[used..], &mut out, args)? {
            used += n;
        }
        buf.drain(..used);
        if !out.is_empty() {
            if args.delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(args.delay_ms)).await;
            }
            if args.service_time {
                write_service_time(&mut out, came.elapsed());
            }
            stream.write_all(&out).await?;
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
        came = Instant::now();
    }
}

/// Answers the request that `bytes` begin with: how many bytes it had, or nothing while it is incomplete.
fn answer(bytes: &[u8], out: &mut Vec<u8>, args: &BackendArgs) -> std::io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(std::io::Error::other)? else {
        return Ok(None);
    };
    let Some((body, n)) = Framing::of(request.headers).read(&bytes[head..]) else {
        let waits = request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("expect"));
        if waits && bytes.len() == head {
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        return Ok(None);
    };
    let (mut events, mut id) = (false, &b""[..]);
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-type") {
            events = header.value.starts_with(b"application/websocket-events");
        } else if args.id_header.iter().any(|name| name.eq_ignore_ascii_case(header.name)) {
            id = header.value;
        }
    }
    if events {
        let reply = websocket_events(&body, request.path.unwrap_or("/"));
        let kind = "application/websocket-events\r\nSec-WebSocket-Extensions: grip; message-prefix=\"\"";
        return respond(out, kind, &reply).map(|()| Some(head + n));
    }
    if request.path == Some("/v1/traces") {
        // A collector of OpenTelemetry's that has nothing to object to.
        return respond(out, "application/x-protobuf", b"").map(|()| Some(head + n));
    }
    if request.path == Some("/authorize") {
        return respond(out, "application/json", POLICY).map(|()| Some(head + n));
    }
    let asked = body.len() <= LONGEST_QUESTION && memchr::memmem::find(&body, b"whoami").is_some();
    let filling;
    let reply = match &body[..] {
        b"" if args.answer > 0 => {
            filling = vec![b'x'; args.answer];
            &filling
        }
        b"" => &b"ok"[..],
        _ if asked && !id.is_empty() => id,
        body => body,
    };
    respond(out, "text/plain", reply)?;
    Ok(Some(head + n))
}

fn respond(out: &mut Vec<u8>, content_type: &str, body: &[u8]) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    out.extend_from_slice(body);
    Ok(())
}

/// Accepts an OPEN, echoes TEXT and BINARY, accepts CLOSE. What follows `/sub/` in the path is the channel that the
/// connection is subscribed to.
fn websocket_events(body: &[u8], path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 64);
    let event = |out: &mut Vec<u8>, kind: &str, content: &[u8]| {
        out.extend_from_slice(format!("{kind} {:x}\r\n", content.len()).as_bytes());
        out.extend_from_slice(content);
        out.extend_from_slice(b"\r\n");
    };
    let mut at = 0;
    while let Some(len) = memchr::memmem::find(&body[at..], b"\r\n") {
        let line = String::from_utf8_lossy(&body[at..at + len]).into_owned();
        at += len + 2;
        let (kind, size) = line.split_once(' ').unwrap_or((&line, ""));
        let mut content = &b""[..];
        if let Ok(size) = usize::from_str_radix(size, 16) {
            content = body.get(at..at + size).unwrap_or_default();
            at = (at + size + 2).min(body.len());
        }
        match kind {
            "OPEN" => {
                out.extend_from_slice(b"OPEN\r\n");
                if let Some((_, channel)) = path.rsplit_once("/sub/") {
                    let subscribe = format!("c:{{\"type\":\"subscribe\",\"channel\":\"{channel}\"}}");
                    event(&mut out, "TEXT", subscribe.as_bytes());
                }
            }
            "TEXT" | "BINARY" | "CLOSE" => event(&mut out, kind, content),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, body: &str, expected: &str) {
        let args = BackendArgs {
            port: 0,
            delay_ms: 0,
            service_time: false,
            answer: 0,
            id_header: vec!["connectionid".into()],
        };
        let head = format!("POST {path} HTTP/1.1\r\nconnectionId: abc=\r\nContent-Length: {}", body.len());
        let request = format!("{head}\r\n\r\n{body}");
        let mut out = Vec::new();
        assert_eq!(answer(request.as_bytes(), &mut out, &args).unwrap(), Some(request.len()));
        assert_eq!(String::from_utf8(out).unwrap().split_once("\r\n\r\n").unwrap().1, expected);
    }

    #[test]
    fn it_echoes_and_names_connections() {
        check("/", "hello", "hello");
        check("/", "", "ok");
        check("/", r#"{"action":"whoami"}"#, "abc=");
    }

    #[test]
    fn it_lets_everybody_pass() {
        check("/authorize", r#"{"type":"REQUEST"}"#, std::str::from_utf8(POLICY).unwrap());
    }

    #[test]
    fn websocket_over_http_is_echoed() {
        assert_eq!(websocket_events(b"OPEN\r\n", "/"), b"OPEN\r\n");
        assert_eq!(websocket_events(b"TEXT 5\r\nhello\r\n", "/"), b"TEXT 5\r\nhello\r\n");
    }
}
