//! The one way to a backend on the hot path: hyper's HTTP/1.1 over connections that we keep ourselves.
//!
//! A pooled client gives each connection a task and passes requests and answers between tasks. Here the
//! call itself drives the connection that it borrowed (`connection.rs`): nothing has to wake another task,
//! and a message costs the gateway a tenth less CPU. A call that died on a kept connection before a byte of it was
//! sent is repeated on another; nothing else ever is, because only the backend knows what may be done twice.

mod connection;
mod connector;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, response};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::model::clock::Tick;
use crate::model::limits;
use connection::{Connection, Unsent};
use connector::Connector;

pub struct Backends {
    connector: Connector,
}

/// One scheme, host and port that integrations call: its kept connections, and how many calls it may
/// have at a time.
pub struct Backend {
    uri: Uri,
    calls: Semaphore,
    /// The last used is the first used again, so that those not needed grow old and are closed.
    idle: Mutex<Vec<(Tick, Connection)>>,
}

pub struct Answer {
    pub head: response::Parts,
    pub body: Bytes,
}

/// What becomes of the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nobody reads it: a short one is read off so that its connection can be used again.
    Nothing,
    /// The whole of it, which must not be longer than this.
    Whole(usize),
    /// Its beginning, of at most this length.
    Beginning(usize),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no connection to the backend: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the backend closed the connection before it answered: {0}")]
    Lost(#[source] hyper::Error),
    #[error("the backend's answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the backend did not answer within {0:?}")]
    Timeout(Duration),
}

impl Backend {
    /// `uri` says the scheme, the host and the port.
    pub fn new(uri: Uri) -> Self {
        Self { uri, calls: Semaphore::new(limits::BACKEND_CALLS), idle: Mutex::default() }
    }

    /// Closes connections that nobody needed for a while.
    pub fn close_idle(&self, now: Tick) {
        self.idle.lock().retain(|(since, _)| now.since(*since) < limits::BACKEND_IDLE);
    }

    fn borrow(&self) -> Option<Connection> {
        let now = Tick::now();
        let mut idle = self.idle.lock();
        let (since, connection) = idle.pop()?;
        if now.since(since) < limits::BACKEND_IDLE {
            return Some(connection);
        }
        // The youngest is too old, so all are.
        idle.clear();
        None
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() < limits::BACKEND_IDLE_CONNECTIONS {
            idle.push((Tick::now(), connection));
        }
    }
}

impl Backends {
    pub fn new() -> io::Result<Self> {
        Ok(Self { connector: Connector::new()? })
    }

    /// Sends one request, whose URI is in origin form and whose `Host` is set, and reads the whole
    /// answer, all within `timeout`.
    pub async fn call(
        &self,
        backend: &Backend,
        request: Request<Full<Bytes>>,
        keep: Keep,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let exchange = async {
            let _turn = backend.calls.acquire().await.expect("the semaphore is never closed");
            self.exchange(backend, request, keep).await
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(Error::Timeout(timeout)))
    }

    async fn exchange(
        &self,
        backend: &Backend,
        mut request: Request<Full<Bytes>>,
        keep: Keep,
    ) -> Result<Answer, Error> {
        while let Some(mut connection) = backend.borrow() {
            match connection.send(request).await {
                Ok(answer) => return finish(backend, connection, answer, keep).await,
                // The backend had closed it while it was idle.
                Err(Unsent::Request(unsent)) => request = *unsent,
                Err(Unsent::Lost(error)) => return Err(Error::Lost(error)),
            }
        }
        let stream = self.connector.open(&backend.uri).await.map_err(Error::Unreachable)?;
        let mut connection = Connection::open(stream).await.map_err(Error::Lost)?;
        match connection.send(request).await {
            Ok(answer) => finish(backend, connection, answer, keep).await,
            Err(Unsent::Request(_)) => Err(Error::Unreachable(io::ErrorKind::ConnectionReset.into())),
            Err(Unsent::Lost(error)) => Err(Error::Lost(error)),
        }
    }
}

/// Reads the answer's body; the connection goes back if the answer is over and it can be used again.
async fn finish(
    backend: &Backend,
    mut connection: Connection,
    answer: http::Response<hyper::body::Incoming>,
    keep: Keep,
) -> Result<Answer, Error> {
    let (head, body) = answer.into_parts();
    let body = connection.read(body, keep).await?;
    if connection.is_reusable().await {
        backend.give_back(connection);
    }
    Ok(Answer { head, body })
}
