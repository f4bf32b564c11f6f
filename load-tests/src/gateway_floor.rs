//! The hand-written gateway that is the floor: one syscall for each read and write, no routing, no limits, no checks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::http1::{Framing, HttpConnection};
use crate::ws::{self, SCRATCH};

/// The answer to RFC 6455's sample key, which is what every client of this package sends.
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The connections, and the idle ones to the backend.
pub struct Hub {
    backend: SocketAddr,
    echo: bool,
    connections: RefCell<HashMap<u64, Rc<TcpStream>>>,
    next_id: Cell<u64>,
    idle: RefCell<Vec<HttpConnection>>,
}

/// What a connection asks for first.
enum Asked {
    Upgrade,
    Publish { path: String, body: Vec<u8>, used: usize },
    NotYet,
}

impl Hub {
    /// A hub that asks `backend`, or with `echo` nobody.
    pub fn new(backend: SocketAddr, echo: bool) -> Self {
        let (connections, idle) = (RefCell::default(), RefCell::default());
        Hub { backend, echo, connections, next_id: Cell::new(1), idle }
    }

    /// An upgrade becomes a WebSocket; everything else is the publishing side.
    pub async fn serve(self: Rc<Self>, mut stream: TcpStream) -> io::Result<()> {
        let mut buf: Vec<u8> = Vec::with_capacity(1024);
        loop {
            match parse(&buf)? {
                Asked::Upgrade => {
                    drop(buf);
                    stream.write_all(UPGRADED).await?;
                    return self.hold(Rc::new(stream)).await;
                }
                Asked::Publish { path, body, used } => {
                    buf.drain(..used);
                    let reply = format!("HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n", self.publish(&path, &body));
                    stream.write_all(reply.as_bytes()).await?;
                }
                Asked::NotYet if stream.read_buf(&mut buf).await? == 0 => return Ok(()),
                Asked::NotYet => {}
            }
        }
    }

    async fn hold(self: Rc<Self>, stream: Rc<TcpStream>) -> io::Result<()> {
        let id = self.next_id.replace(self.next_id.get() + 1);
        self.connections.borrow_mut().insert(id, stream.clone());
        let lived = self.exchange(id, &stream).await;
        self.connections.borrow_mut().remove(&id);
        lived
    }

    /// Reads messages and writes replies until the client leaves. An idle connection keeps no buffer.
    async fn exchange(&self, id: u64, stream: &TcpStream) -> io::Result<()> {
        let mut rest: Vec<u8> = Vec::new();
        loop {
            stream.readable().await?;
            SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    rest.extend_from_slice(&scratch[..n]);
                    Ok(())
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(e) => Err(e),
            })?;
            for message in take_messages(&mut rest)? {
                let reply = if self.echo { message } else { self.ask_backend(id, &message).await? };
                let mut frame = Vec::with_capacity(reply.len() + 10);
                ws::encode(&mut frame, ws::TEXT, &reply, false);
                write_all(stream, &frame).await?;
            }
        }
    }

    async fn ask_backend(&self, id: u64, message: &[u8]) -> io::Result<Vec<u8>> {
        let idle = self.idle.borrow_mut().pop();
        let mut connection = idle.unwrap_or_else(|| HttpConnection::new(self.backend));
        let answer = connection.post("backend", "/message", &format!("connectionId: {id}\r\n"), message).await?;
        self.idle.borrow_mut().push(connection);
        Ok(answer.body)
    }

    fn publish(&self, path: &str, body: &[u8]) -> &'static str {
        let mut frame = Vec::with_capacity(body.len() + 10);
        ws::encode(&mut frame, ws::TEXT, body, false);
        if path.ends_with("/broadcast") {
            for stream in self.connections.borrow().values() {
                write_soon(stream, &frame);
            }
            return "200 OK";
        }
        let id = path.rsplit('/').next().and_then(|id| id.parse().ok());
        match id.and_then(|id: u64| self.connections.borrow().get(&id).cloned()) {
            Some(stream) => {
                write_soon(&stream, &frame);
                "200 OK"
            }
            None => "410 Gone",
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(io::Error::other)? else {
        return Ok(Asked::NotYet);
    };
    if request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("upgrade")) {
        return Ok(Asked::Upgrade);
    }
    let Some((body, n)) = Framing::of(request.headers).read(&bytes[head..]) else { return Ok(Asked::NotYet) };
    Ok(Asked::Publish { path: request.path.unwrap_or("/").to_string(), body, used: head + n })
}

/// Takes the whole messages off `rest`; a Close is the end.
fn take_messages(rest: &mut Vec<u8>) -> io::Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    let mut at = 0;
    while let Some(header) = ws::parse_header(&rest[at..]) {
        let start = at + header.head;
        let Some(body) = rest.get(start..start + header.len) else { break };
        match header.opcode {
            ws::CLOSE => return Err(io::ErrorKind::ConnectionAborted.into()),
            ws::TEXT | ws::BINARY if !header.is_final => {
                let Some((message, n)) = ws::join_fragments(&rest[at..]) else { break };
                messages.push(message);
                at += n;
                continue;
            }
            ws::TEXT | ws::BINARY => {
                let mut message = body.to_vec();
                if let Some(key) = header.mask {
                    ws::unmask(&mut message, key);
                }
                messages.push(message);
            }
            _ => {}
        }
        at = start + header.len;
    }
    if at == rest.len() {
        *rest = Vec::new();
    } else {
        rest.drain(..at);
    }
    Ok(messages)
}

/// Writes at once where the socket has room, as it does here.
fn write_soon(stream: &Rc<TcpStream>, frame: &[u8]) {
    let done = match stream.try_write(frame) {
        Ok(n) => n,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
        // The task that reads this connection sees the same error, and removes it.
        Err(_) => return,
    };
    if done < frame.len() {
        let (stream, rest) = (stream.clone(), frame[done..].to_vec());
        spawn_local(async move { write_all(&stream, &rest).await });
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
