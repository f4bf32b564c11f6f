//! The HTTP that is spoken on one accepted connection: HTTP/1.1, or HTTP/2 if TLS agreed on it or the client
//! begins with its preface.
//!
//! A kept-alive connection on which nothing happens gives its buffers back: all that is left of it then is a
//! task that waits for the next byte.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::front_door::{FrontDoor, Memory};
use super::pace::{Pace, Paced, Served, Serving};
use crate::connections::{Peer, Wire};
use crate::model::answer::Answer;
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
    /// Nothing was asked for a while; the connection may go on.
    Resting(Wire),
    /// It began with HTTP/2's preface.
    Http2(Wire),
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

/// Serves one connection until it ends.
pub async fn serve(accepted: Accepted, door: Arc<FrontDoor>) {
    let Accepted { mut wire, remote, local, scheme, certificate, is_http_2 } = accepted;
    let pace = Arc::new(Pace::new());
    let of_release = pace.clone();
    let release = Arc::new(move |upgraded| release(upgraded, &of_release));
    let peer = Peer { remote, local, scheme, certificate, release };
    let exchange = Arc::new(Exchange { door, peer, pace, memory: Memory::default() });
    if is_http_2 {
        return Box::pin(exchange.http_2(wire)).await;
    }
    loop {
        match Box::pin(exchange.clone().http_1(wire)).await {
            Ended::Over => return,
            Ended::Resting(resting) => match exchange.next_byte(resting).await {
                Some(awake) => wire = awake,
                None => return,
            },
            Ended::Http2(wire) => return Box::pin(exchange.http_2(wire)).await,
        }
    }
}

impl Exchange {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let length_seen = self.pace.take_length_seen();
        let serving = self.pace.begin_serving();
        self.pace.note_body(!request.body().is_end_stream());
        let is_http_1 = request.version() != Version::HTTP_2;
        // Who sends both says two things about where the body ends, and whoever stands in front of us may have
        // believed the other (RFC 9112 section 6.1).
        let is_ambiguous = length_seen && request.headers().contains_key(TRANSFER_ENCODING);
        let mut answer = self.door.answer(request, &self.peer, &self.memory).await;
        if is_http_1 && (is_ambiguous || self.door.engine().is_draining()) && !answer.headers().contains_key(CONNECTION)
        {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer.map(|body| Served::wrap(body, serving)))
    }

    async fn http_1(self: Arc<Self>, wire: Wire) -> Ended {
        let can_rest = !matches!(wire, Wire::Other(_));
        let io = TokioIo::new(Paced { wire, pace: self.pace.clone() });
        let exchange = self.clone();
        let service = service_fn(move |request| {
            let exchange = exchange.clone();
            async move { exchange.answer(request).await }
        });
        let mut connection =
            http1::Builder::new().max_header_size(limits::REQUEST_HEAD).serve_connection(io, service).with_upgrades();
        let mut closing = pin!(self.door.closing().cancelled());
        let mut is_closing = false;
        loop {
            let patience = self.door.handshake_timeout();
            let idle = self.pace.idle_for(Tick::now()).unwrap_or_default();
            let until_rest =
                if can_rest && self.pace.may_rest() { limits::REST.saturating_sub(idle) } else { Duration::MAX };
            let look = self.pace.next_look(patience).min(until_rest.max(Duration::from_millis(1)));
            tokio::select! {
                ended = &mut connection => {
                    // Any other error is the client's leaving, or a request that hyper has answered itself.
                    let Err(error) = ended else { return Ended::Over };
                    if !error.is_parse_version_h2() {
                        return Ended::Over;
                    }
                    let Some(parts) = connection.into_parts() else { return Ended::Over };
                    let wire = parts.io.into_inner().wire;
                    return Ended::Http2(Wire::Other(Box::new(Replayed { first: parts.read_buf, wire })));
                }
                () = tokio::time::sleep(look) => {
                    if self.pace.is_over(patience) {
                        return Ended::Over;
                    }
                    if can_rest && self.pace.may_rest() && !is_closing && self.pace.idle_for(Tick::now()).is_some_and(|idle| idle >= limits::REST) {
                        match connection.into_parts() {
                            Some(parts) if parts.read_buf.is_empty() => {
                                return Ended::Resting(parts.io.into_inner().wire);
                            }
                            Some(parts) => {
                                let wire = parts.io.into_inner().wire;
                                return Ended::Resting(Wire::Other(Box::new(Replayed { first: parts.read_buf, wire })));
                            }
                            None => return Ended::Over,
                        }
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

    /// Waits for a resting connection to be used again; `None` if it was not in time.
    async fn next_byte(&self, wire: Wire) -> Option<Wire> {
        match &wire {
            Wire::Tcp(socket) => self.is_in_time(socket.readable()).await.then_some(wire),
            Wire::Unix(socket) => self.is_in_time(socket.readable()).await.then_some(wire),
            Wire::Other(_) => Some(wire),
        }
    }

    async fn is_in_time(&self, readable: impl Future<Output = io::Result<()>>) -> bool {
        tokio::select! {
            came = readable => came.is_ok(),
            () = tokio::time::sleep(limits::KEEP_ALIVE - limits::REST) => false,
            () = self.door.closing().cancelled() => false,
        }
    }

    async fn http_2(self: Arc<Self>, wire: Wire) {
        let io = TokioIo::new(Paced { wire, pace: self.pace.clone() });
        let exchange = self.clone();
        let service = service_fn(move |request| {
            let exchange = exchange.clone();
            async move { exchange.answer(request).await }
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
        // A copy of what was read, mostly nothing: the original is a view of hyper's whole buffer, and would
        // keep its 8 KiB for as long as the socket lives.
        Ok(parts) => (parts.io.into_inner().wire, Bytes::from(parts.read_buf.to_vec())),
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

/// A connection of which the first bytes were read already.
struct Replayed {
    first: Bytes,
    wire: Wire,
}

impl AsyncRead for Replayed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.wire).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for StreamInUse {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

/// Writing goes through to the `wire` within.
macro_rules! write_through {
    () => {
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
    };
}

impl AsyncWrite for Replayed {
    write_through!();
}

impl AsyncWrite for StreamInUse {
    write_through!();
}
