//! One listening socket, and the HTTP connections that it accepts.
//!
//! A client that is slow to say what it wants costs no more than its socket: the time of a request's
//! head runs from its first byte, and a connection that is kept alive between requests has a longer one.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::front_door::FrontDoor;
use crate::model::clock::Tick;
use crate::model::limits;
use crate::transports::websocket::upgrade::Peer;

/// Accepts until it is dropped; what it accepted lives on.
pub struct Listener {
    address: SocketAddr,
    _accepting: DropGuard,
}

/// Binds without accepting yet, so that a reload can still be refused.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

impl Listener {
    pub fn open(socket: std::net::TcpListener, door: FrontDoor) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let listener = TcpListener::from_std(socket)?;
        let accepting = CancellationToken::new();
        let stop = accepting.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, Arc::new(door)) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Self { address, _accepting: accepting.drop_guard() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, door: Arc<FrontDoor>) {
    loop {
        match listener.accept().await {
            Ok((socket, remote)) => {
                let Ok(local) = prepare(&socket) else { continue };
                tokio::spawn(serve(socket, remote, local, door.clone()));
            }
            Err(error) => {
                door.accept_failed(&error);
                // Out of open files, most likely: wait for some to be closed instead of spinning.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A client that vanished without a word is noticed by TCP within two minutes, whatever its timeouts.
fn prepare(socket: &TcpStream) -> io::Result<SocketAddr> {
    socket.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    let options = socket2::SockRef::from(socket);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(Duration::from_secs(120)))?;
    socket.local_addr()
}

async fn serve(socket: TcpStream, remote: SocketAddr, local: SocketAddr, door: Arc<FrontDoor>) {
    let peer = Peer { remote, local, scheme: "http", release };
    let pace = Arc::new(Pace::new());
    let io = TokioIo::new(Paced { socket, pace: pace.clone() });
    let service = {
        let (door, pace) = (door.clone(), pace.clone());
        service_fn(move |request| {
            let (door, pace) = (door.clone(), pace.clone());
            pace.begin_serving();
            async move {
                let answer = door.answer(request, peer).await;
                pace.begin_waiting();
                Ok::<_, std::convert::Infallible>(answer)
            }
        })
    };
    let connection =
        http1::Builder::new().max_header_size(limits::REQUEST_HEAD).serve_connection(io, service).with_upgrades();
    let mut connection = pin!(connection);
    let closing = door.closing();
    let mut closed = pin!(closing.cancelled());
    let mut is_closing = false;
    loop {
        let patience = door.handshake_timeout();
        tokio::select! {
            // An error is the client's leaving, or a request that hyper has answered itself.
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(pace.time_left(patience)) => {
                if pace.is_over(patience) {
                    return;
                }
            }
            () = closed.as_mut(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Gives back the bare socket behind an upgrade, and what was read with the handshake.
fn release(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Paced>>().ok()?;
    // A copy of what was read, mostly nothing: the original is a view of hyper's whole buffer, and would
    // keep its 8 KiB for as long as the socket lives.
    Some((parts.io.into_inner().socket, Bytes::from(parts.read_buf.to_vec())))
}

/// What an HTTP connection is doing, and since when: one word, so that reading and serving can tell.
struct Pace(AtomicU64);

const WAITING: u64 = 0;
const READING: u64 = 1;
const SERVING: u64 = 2;

impl Pace {
    fn new() -> Self {
        let pace = Self(AtomicU64::new(0));
        pace.set(WAITING);
        pace
    }

    fn set(&self, doing: u64) {
        self.0.store(Tick::now().0 << 2 | doing, Relaxed);
    }

    fn begin_serving(&self) {
        self.set(SERVING);
    }

    fn begin_waiting(&self) {
        self.set(WAITING);
    }

    /// Bytes came: the head of a request has begun, unless one is being read or served already.
    fn note_read(&self) {
        if self.0.load(Relaxed) & 3 == WAITING {
            self.set(READING);
        }
    }

    /// `None` while a request is served, which has deadlines of its own.
    fn deadline(&self, patience: Duration) -> Option<(Tick, Duration)> {
        let word = self.0.load(Relaxed);
        let since = Tick(word >> 2);
        match word & 3 {
            WAITING => Some((since, limits::KEEP_ALIVE)),
            READING => Some((since, patience)),
            _ => None,
        }
    }

    fn is_over(&self, patience: Duration) -> bool {
        self.deadline(patience).is_some_and(|(since, time)| Tick::now().since(since) >= time)
    }

    /// When to look again: a head may begin right now, so never later than its whole time.
    fn time_left(&self, patience: Duration) -> Duration {
        let left = self
            .deadline(patience)
            .map_or(patience, |(since, time)| time.saturating_sub(Tick::now().since(since)).min(patience));
        left.max(Duration::from_millis(1))
    }
}

/// A socket that notes when bytes come.
struct Paced {
    socket: TcpStream,
    pace: Arc<Pace>,
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pace.note_read();
        }
        polled
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
