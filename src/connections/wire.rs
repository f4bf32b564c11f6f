//! What a client is connected by, and what is known of its other end before it has said a word.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::model::body::Body;
use crate::model::limits;
use crate::model::request::ClientCertificate;

/// A client's connection. Plain TCP stands in it as it is, because there are many of those.
pub enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// TLS, or a stream of an HTTP/2 connection.
    Other(Box<dyn Stream>),
}

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The two ends of an accepted connection.
#[derive(Clone)]
pub struct Peer {
    /// The client, or the proxy nearest to us.
    pub remote: IpAddr,
    /// The address it reached.
    pub local: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What the client showed in the TLS handshake.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// Gives an upgraded HTTP connection to whoever is to speak on it, once the answer that agrees was written.
pub enum Handover {
    /// From whoever reads requests without hyper, whose task goes on with it.
    Own(Slot),
    Hyper(OnUpgrade, Release),
}

/// What a connection's task goes on with.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Speaker>>>);

type Speaker = Box<dyn FnOnce(Wire, Bytes) -> Speaking + Send>;
pub type Speaking = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Finds the connection in what hyper gives back, and what was read behind the request.
pub type Release = Box<dyn FnOnce(Upgraded) -> (Wire, Bytes) + Send>;

impl Handover {
    /// `speak` gets the connection, and what was read behind the request; nothing if the answer could not be written. It is
    /// one of the `tasks` while it does.
    pub fn go<F>(self, tasks: &TaskTracker, speak: impl FnOnce(Option<(Wire, Bytes)>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Handover::Own(slot) => {
                let mut waiting = Waiting(Some((speak, tasks.token())));
                *slot.0.lock() = Some(Box::new(move |wire, first| waiting.begin(Some((wire, first)))));
            }
            Handover::Hyper(upgrading, release) => {
                tasks.spawn(async move { speak(upgrading.await.ok().map(release)).await });
            }
        }
    }
}

impl Slot {
    /// The connection is there.
    pub fn speak(&self, wire: Wire, first: Bytes) -> Option<Speaking> {
        let speaker = self.0.lock().take()?;
        Some(speaker(wire, first))
    }
}

/// Somebody who waits for a connection, and gets to know if there will be none. It counts as a task already: a drain that
/// begins meanwhile waits for it.
struct Waiting<S: FnOnce(Option<(Wire, Bytes)>) -> F, F: Future<Output = ()> + Send + 'static>(
    Option<(S, TaskTrackerToken)>,
);

impl<S: FnOnce(Option<(Wire, Bytes)>) -> F, F: Future<Output = ()> + Send + 'static> Waiting<S, F> {
    fn begin(&mut self, connection: Option<(Wire, Bytes)>) -> Speaking {
        match self.0.take() {
            Some((speak, token)) => Box::pin(token.task_tracker().track_future(speak(connection))),
            None => Box::pin(std::future::ready(())),
        }
    }
}

impl<S: FnOnce(Option<(Wire, Bytes)>) -> F, F: Future<Output = ()> + Send + 'static> Drop for Waiting<S, F> {
    fn drop(&mut self) {
        // Without a runtime there is nobody left to tell.
        if let (Some(_), Ok(runtime)) = (&self.0, Handle::try_current()) {
            runtime.spawn(self.begin(None));
        }
    }
}

impl Peer {
    pub fn is_default_port(&self) -> bool {
        self.local.port() == if self.scheme == "https" { 443 } else { 80 }
    }
}

macro_rules! either {
    ($wire:expr, $inner:ident => $call:expr) => {
        match $wire.get_mut() {
            Wire::Tcp($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Wire::Unix($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Wire::Other($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Tcp(_) | Wire::Unix(_) => true,
            Wire::Other(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_shutdown(cx))
    }
}

/// Reads on behind a refused body while the answer is on its way: closing the connection at once would
/// reset it, and its sender would never see the 413.
pub fn discard(mut body: Body) {
    if matches!(body, Body::Whole(_)) {
        return;
    }
    let rest = async move {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > limits::TOO_LARGE_BODY {
                break;
            }
        }
    };
    tokio::spawn(tokio::time::timeout(limits::CLOSE_WAIT, rest));
}
