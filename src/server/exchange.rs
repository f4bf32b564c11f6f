//! The HTTP that is spoken on one accepted connection: HTTP/1.1, or HTTP/2 if TLS agreed on it or the client
//! begins with its preface.
//!
//! Requests of the usual kind are answered without hyper (`direct/`). hyper goes on where it is needed, and when nothing has
//! happened on its connection for a while, it gives that back: all that is left of it then is a task that waits for the next
//! byte.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Version};
use hyper::body::{Body as _, Incoming};
use hyper::ext::Protocol;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::direct::{self, Unusual};
use super::front_door::{FrontDoor, Memory};
use super::pace::{Pace, Paced, Served, Serving};
use crate::connections::{Handover, Peer, Speaking, Wire};
use crate::model::answer::Answer;
use crate::model::body::Body;
use crate::model::clock::Tick;
use crate::model::limits;
use crate::model::request::ClientCertificate;

/// What one connection's requests share.
struct Exchange {
    door: Arc<FrontDoor>,
    peer: Peer,
    pace: Arc<Pace>,
    memory: Memory,
}

/// What becomes of an HTTP/1.1 connection.
enum Ended {
    Over,
    /// Nothing was asked for that long; the connection may go on. Of what comes next the beginning may have been read.
    Resting(Wire, Bytes, Duration),
    /// It began with HTTP/2's preface.
    Http2(Wire, Bytes),
}

/// What is known of a connection before a word of HTTP.
pub struct Accepted {
    pub wire: Wire,
    pub remote: IpAddr,
    pub local: SocketAddr,
    pub scheme: &'static str,
    pub certificate: Option<Arc<ClientCertificate>>,
    pub is_http_2: bool,
}

/// Begins a task for a connection, which is counted as the door's until another protocol is spoken on it.
pub fn begin(door: &FrontDoor, serving: impl Future<Output = Option<Speaking>> + Send + 'static) {
    let counted = door.connections().token();
    // Boxed, so that nothing of it is kept for the life of a socket, and because tasks are moved several times.
    let serving = Box::pin(serving);
    tokio::spawn(async move {
        let speaking = serving.await;
        drop(counted);
        if let Some(speaking) = speaking {
            speaking.await;
        }
    });
}

/// Serves one connection until it ends, or speaks another protocol.
pub async fn serve(accepted: Accepted, door: Arc<FrontDoor>) -> Option<Speaking> {
    let Accepted { mut wire, remote, local, scheme, certificate, is_http_2 } = accepted;
    let peer = Peer { remote, local, scheme, certificate };
    let exchange = Arc::new(Exchange { door, peer, pace: Arc::new(Pace::new()), memory: Memory::default() });
    if is_http_2 {
        Box::pin(exchange.http_2(wire, Bytes::new())).await;
        return None;
    }
    let (mut first, mut since) = (Bytes::new(), Instant::now());
    loop {
        let unusual = match first.is_empty() {
            true => match direct::serve(&*exchange, wire, since).await {
                direct::Ended::Over => return None,
                direct::Ended::Speaks(speaking) => return Some(speaking),
                direct::Ended::Unusual(unusual) => unusual,
            },
            false => Unusual { wire, first, answer: None },
        };
        match Box::pin(exchange.clone().http_1(unusual)).await {
            Ended::Over => return None,
            Ended::Resting(resting, read, quiet) => {
                let now = Instant::now();
                (wire, first, since) = (resting, read, now.checked_sub(quiet).unwrap_or(now));
            }
            Ended::Http2(wire, first) => {
                Box::pin(exchange.http_2(wire, first)).await;
                return None;
            }
        }
    }
}

impl direct::Service for Exchange {
    async fn answer(&self, request: Box<Request<Body>>, handover: Option<Handover>) -> Answer {
        let mut answer = self.door.answer(request, &self.peer, &self.memory, handover).await;
        if self.door.engine().is_draining() && !answer.headers().contains_key(CONNECTION) {
            close(&mut answer);
        }
        answer
    }

    fn closing(&self) -> &CancellationToken {
        self.door.closing()
    }

    fn cut(&self) -> &CancellationToken {
        &self.door.engine().cut
    }
}

fn close(answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

impl Exchange {
    /// Answers what hyper has read.
    async fn answer_hyper(&self, mut request: Request<Incoming>) -> Result<Answer, Infallible> {
        let length_seen = self.pace.take_length_seen();
        let serving = self.pace.begin_serving();
        self.pace.note_body(!request.body().is_end_stream());
        let is_http_1 = request.version() != Version::HTTP_2;
        // Who sends both says two things about where the body ends, and whoever stands in front of us may have
        // believed the other (RFC 9112 section 6.1).
        let is_ambiguous = length_seen && request.headers().contains_key(TRANSFER_ENCODING);
        let may_upgrade = request.headers().contains_key(UPGRADE) || request.extensions().get::<Protocol>().is_some();
        let handover = may_upgrade.then(|| {
            let pace = self.pace.clone();
            Handover::Hyper(hyper::upgrade::on(&mut request), Box::new(move |upgraded| release(upgraded, &pace)))
        });
        let mut answer =
            self.door.answer(Box::new(request.map(Body::of_hyper)), &self.peer, &self.memory, handover).await;
        if is_http_1 && (is_ambiguous || self.door.engine().is_draining()) && !answer.headers().contains_key(CONNECTION)
        {
            close(&mut answer);
        }
        Ok(answer.map(|body| Served::wrap(body, serving)))
    }

    async fn http_1(self: Arc<Self>, unusual: Unusual) -> Ended {
        let Unusual { wire, first, answer } = unusual;
        self.pace.begin_http_1();
        let answered = Mutex::new(answer);
        let io = TokioIo::new(Paced { first, wire, pace: self.pace.clone() });
        let exchange = self.clone();
        let service = service_fn(move |request| {
            let (exchange, answered) = (exchange.clone(), answered.lock().take());
            async move {
                match answered {
                    // Served as any other from its head on, which hyper has just read.
                    Some(answer) => {
                        let serving = exchange.pace.begin_serving();
                        Ok(answer.map(|body| Served::wrap(body, serving)))
                    }
                    None => exchange.answer_hyper(request).await,
                }
            }
        });
        let mut connection =
            http1::Builder::new().max_header_size(limits::REQUEST_HEAD).serve_connection(io, service).with_upgrades();
        let mut closing = pin!(self.door.closing().cancelled());
        let mut is_closing = false;
        loop {
            let patience = self.door.handshake_timeout();
            let idle = self.pace.idle_for(Tick::now()).unwrap_or_default();
            let until_rest = if self.pace.may_rest() { limits::REST.saturating_sub(idle) } else { Duration::MAX };
            let look = self.pace.next_look(patience).min(until_rest.max(Duration::from_millis(1)));
            tokio::select! {
                // First of all what is there already: an answer that hyper is given to write has begun before any closing.
                biased;
                ended = &mut connection => {
                    // Any other error is the client's leaving, or a request that hyper has answered itself.
                    let Err(error) = ended else { return Ended::Over };
                    if !error.is_parse_version_h2() {
                        return Ended::Over;
                    }
                    let Some(parts) = connection.into_parts() else { return Ended::Over };
                    let (wire, first) = parts.io.into_inner().rest(parts.read_buf);
                    return Ended::Http2(wire, first);
                }
                () = tokio::time::sleep(look) => {
                    if self.pace.is_over(patience) {
                        return Ended::Over;
                    }
                    let quiet = self.pace.idle_for(Tick::now()).filter(|quiet| *quiet >= limits::REST);
                    if let Some(quiet) = quiet && self.pace.may_rest() && !is_closing {
                        let Some(parts) = connection.into_parts() else { return Ended::Over };
                        let (wire, first) = parts.io.into_inner().rest(parts.read_buf);
                        return Ended::Resting(wire, first, quiet);
                    }
                }
                () = closing.as_mut() => {
                    if is_closing {
                        return Ended::Over;
                    }
                    is_closing = true;
                    // From now on it is waited for the end of all patience.
                    closing.set(self.door.engine().cut.cancelled());
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    }

    async fn http_2(self: Arc<Self>, wire: Wire, first: Bytes) {
        let io = TokioIo::new(Paced { first, wire, pace: self.pace.clone() });
        let exchange = self.clone();
        let service = service_fn(move |request| {
            let exchange = exchange.clone();
            async move { exchange.answer_hyper(request).await }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .max_concurrent_streams(limits::HTTP_2_STREAMS)
            .max_header_list_size(limits::HTTP_2_HEADERS)
            .enable_connect_protocol();
        let mut connection = pin!(builder.serve_connection(io, service));
        self.pace.begin_http_2();
        let mut closing = pin!(self.door.closing().cancelled());
        let mut is_closing = false;
        loop {
            let patience = self.door.handshake_timeout();
            let idle = self.pace.idle_for(Tick::now());
            // A client that was told to go and asks for nothing has had its second.
            let look = if is_closing && idle.is_some() { limits::CLOSE_WAIT } else { self.pace.next_look(patience) };
            tokio::select! {
                _ = connection.as_mut() => return,
                () = tokio::time::sleep(look) => {
                    self.pace.let_go_of_stalled(Tick::now());
                    if is_closing && idle.is_some() && self.pace.idle_for(Tick::now()).is_some() {
                        return;
                    }
                    if self.pace.is_over(patience) {
                        if is_closing {
                            return;
                        }
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
                () = closing.as_mut(), if !is_closing => {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Gives back what carried an upgraded HTTP/1.1 connection, and what was read with the handshake.
fn release(upgraded: Upgraded, pace: &Arc<Pace>) -> (Wire, Bytes) {
    match upgraded.downcast::<TokioIo<Paced>>() {
        Ok(parts) => parts.io.into_inner().rest(parts.read_buf),
        // A stream of an HTTP/2 connection, which is not idle as long as this one lives.
        Err(upgraded) => {
            let stream = StreamInUse { wire: TokioIo::new(upgraded), _serving: pace.begin_serving() };
            (Wire::Other(Box::new(stream)), Bytes::new())
        }
    }
}

/// A stream of an HTTP/2 connection that speaks another protocol now.
struct StreamInUse {
    wire: TokioIo<Upgraded>,
    _serving: Serving,
}

impl AsyncRead for StreamInUse {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for StreamInUse {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
