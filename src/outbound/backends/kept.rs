//! What is kept of one server between calls: its open connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::broken::Broken;
use super::connection::Connection;
use super::connector::Stream;
use crate::model::body::Body;
use crate::model::clock::Tick;
use crate::model::limits;

#[derive(Default)]
pub struct Kept {
    /// The last used is the first used again, so that those not needed grow old and are closed.
    idle: Mutex<Vec<(Tick, Box<Connection>)>>,
    /// HTTP/2 connections carry several calls each.
    shared: Mutex<Vec<Shared>>,
}

/// An HTTP/2 connection.
#[derive(Clone)]
pub struct Shared {
    sender: http2::SendRequest<Body>,
    /// Counted, with the one that is kept itself: who else has it, has a stream open. It holds the tick of the last
    /// use.
    streams: Arc<AtomicU64>,
}

impl Kept {
    /// Closes connections that nobody needed for a while.
    pub fn close_idle(&self, now: Tick, idle_timeout: Duration) {
        self.idle.lock().retain(|(since, _)| now.since(*since) < idle_timeout);
        self.shared.lock().retain(|shared| {
            let since = now.since(Tick(shared.streams.load(Relaxed)));
            !shared.sender.is_closed() && (Arc::strong_count(&shared.streams) > 1 || since < idle_timeout)
        });
    }

    /// Connections that wait for a call, and those that are shared by several.
    pub fn count(&self) -> usize {
        self.idle.lock().len() + self.shared.lock().len()
    }

    /// The server is gone, and so is the other end of all of them.
    pub fn close_all(&self) {
        self.idle.lock().clear();
    }

    /// Streams that are open go on; no other is opened beside them.
    pub fn share_no_more(&self) {
        self.shared.lock().clear();
    }

    pub fn borrow(&self, now: Tick, idle_timeout: Duration) -> Option<Box<Connection>> {
        let mut idle = self.idle.lock();
        let (since, connection) = idle.pop()?;
        if now.since(since) < idle_timeout {
            return Some(connection);
        }
        // The youngest is too old, so all are.
        idle.clear();
        None
    }

    pub fn give_back(&self, connection: Box<Connection>) {
        let mut idle = self.idle.lock();
        if idle.len() < limits::BACKEND_IDLE_CONNECTIONS {
            idle.push((Tick::now(), connection));
        }
    }

    /// An HTTP/2 connection that takes one more stream.
    pub fn share(&self) -> Option<Shared> {
        let mut all = self.shared.lock();
        all.retain(|shared| !shared.sender.is_closed());
        let found = all.iter().find(|shared| shared.has_room())?;
        found.streams.store(Tick::now().0, Relaxed);
        Some(found.clone())
    }

    pub async fn open_shared(&self, stream: Stream) -> hyper::Result<Shared> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // A server that vanished without a word is noticed.
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(limits::BACKEND_PING)
            .keep_alive_timeout(limits::BACKEND_PING)
            .keep_alive_while_idle(true);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // It ends when the last stream is done and nobody keeps it, or when the server ends it.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection to a backend ended");
            }
        });
        let shared = Shared { sender, streams: Arc::new(AtomicU64::new(Tick::now().0)) };
        self.shared.lock().push(shared.clone());
        Ok(shared)
    }
}

impl Shared {
    fn has_room(&self) -> bool {
        Arc::strong_count(&self.streams) <= limits::BACKEND_STREAMS
    }

    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Refused> {
        self.sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
            Some(request) => Refused::Unsent(Box::new(request)),
            None => Refused::Lost(Broken::Http2(error.into_error())),
        })
    }
}

/// Why a stream has no answer.
pub enum Refused {
    /// Not a byte was sent.
    Unsent(Box<Request<Body>>),
    Lost(Broken),
}
