//! The one way to a backend on the hot path: our own connections of HTTP/1.1, and hyper's of HTTP/2.
//!
//! A pooled client gives each connection a task and passes requests and answers between tasks. Here the
//! call itself drives the connection that it borrowed (`connection.rs`): nothing has to wake another task. An answer
//! that is not there at once flows, and drives the connection on (`answer.rs`). `outgoing.rs` is a request and knows
//! what may be sent twice, `head.rs` writes and reads heads, `sending.rs` sends a body that still comes, `framing.rs`
//! finds the end of an answer's. Which server gets a call, and which may get it again, is decided in `pool/`;
//! `kept.rs` has a server's open connections, `connector.rs` opens them, `checks.rs` asks servers whether they
//! are well, and `patience.rs` keeps the time.

mod answer;
mod broken;
mod checks;
mod connection;
mod connector;
mod framing;
mod head;
mod kept;
mod outgoing;
mod patience;
pub mod pool;
mod sending;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::uri::Authority;

use crate::model::body::{Body, BodyError, Unread};
use crate::model::call::Reply;
use crate::model::clock::Tick;
use crate::model::limits;
use answer::{Answering, Carrier};
use broken::Broken;
pub use checks::{Check, check_forever};
use connection::{Connection, Unsent};
pub use connector::{Stream, Tls};
use head::AnswerHead;
pub use head::Headers;
pub use kept::Kept;
use kept::Refused;
pub use outgoing::Outgoing;
use parking_lot::Mutex;
pub use patience::Patience;
pub use pool::Condition;
use pool::{Address, Change, Failure, Permit, Picked, Pool, Rules, Server, Tried};

/// What integrations call: a pool of servers, or the one server that a URL names.
pub struct Backend {
    /// As the file says it: the pool's name, or the URL's host and port.
    name: String,
    pool: Pool<Kept>,
    way: Way,
    check: Option<Check>,
}

/// Every server in use, over all reloads.
#[derive(Default)]
pub struct Servers(Mutex<HashMap<Spoken, Weak<Server<Kept>>>>);

/// A server, and in which way it is spoken to.
type Spoken = (Address, String);

impl Servers {
    /// The server at this address; the same one again for whoever speaks to it in the same way.
    pub fn get(&self, address: Address, way: &str) -> Arc<Server<Kept>> {
        let mut all = self.0.lock();
        all.retain(|_, server| server.strong_count() > 0);
        let key = (address, way.to_owned());
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let server = Arc::new(Server::new(key.0.clone(), Kept::default()));
        all.insert(key, Arc::downgrade(&server));
        server
    }
}

/// How every server of a backend is spoken to.
#[derive(Clone)]
pub struct Way {
    pub tls: Option<Tls>,
    pub http2: bool,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
}

/// How much goes on at a backend.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub busy: usize,
    pub idle: usize,
    pub waiting: usize,
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
    #[error("the backend did not answer: {0}")]
    Lost(#[source] Broken),
    #[error("the backend's answer broke off: {0}")]
    BrokeOff(BodyError),
    #[error("the backend's answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the backend did not answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Busy(#[from] pool::Busy),
}

/// A stream that now speaks another protocol. It counts among the calls of its backend for as long as this lives.
pub struct Switched {
    pub stream: Stream,
    /// What the backend has said on it already.
    pub already_said: Bytes,
    pub lease: Lease,
}

/// A call's hold on its backend: its place among the calls, and the server that its connection goes back to.
pub struct Lease {
    picked: Picked<Kept>,
    _turn: Permit,
}

impl Lease {
    fn give_back(self, connection: Box<Connection>) {
        self.picked.server().kept.give_back(connection);
    }
}

impl Backend {
    /// Servers that are in use already are so with what is known of them, and with their connections.
    pub fn new(name: String, servers: Vec<Arc<Server<Kept>>>, rules: Rules, way: Way, check: Option<Check>) -> Self {
        Self { name, pool: Pool::new(servers, rules), way, check }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its servers are asked whether they are well.
    pub fn is_checked(&self) -> bool {
        self.check.is_some()
    }

    /// Its servers, and how each stands.
    pub fn servers(&self) -> Vec<(String, Condition)> {
        self.pool.servers().iter().map(|server| (server.address.to_string(), server.condition())).collect()
    }

    /// Calls in progress, connections that wait for the next one, and calls that wait for their turn.
    pub fn figures(&self) -> Figures {
        let servers = self.pool.servers();
        Figures {
            busy: servers.iter().map(|server| server.in_progress()).sum(),
            idle: servers.iter().map(|server| server.kept.count()).sum(),
            waiting: self.pool.waiting(),
        }
    }

    pub fn speaks_http_2(&self) -> bool {
        self.way.http2
    }

    /// The one server that a URL names, with the rules of those that have no table of their own.
    pub fn single(authority: &Authority, tls: Option<Tls>, known: &Servers) -> Self {
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let rules = Rules {
            balance: pool::Balance::RoundRobin,
            ejection: None,
            checks: pool::Thresholds { healthy: 1, unhealthy: 1 },
            retries: 0,
            retry_budget: 0,
            max_connections: limits::BACKEND_CALLS,
            queue: limits::BACKEND_QUEUE,
            queue_timeout: None,
        };
        let way =
            Way { tls, http2: false, connect_timeout: limits::BACKEND_CONNECT, idle_timeout: limits::BACKEND_IDLE };
        let spoken = if way.tls.is_some() { "https" } else { "http" };
        let server = known.get(Address::Tcp { host, port }, &format!("{spoken}://{authority}"));
        Self::new(authority.to_string(), vec![server], rules, way, None)
    }

    /// Closes connections that nobody needed for a while.
    pub fn close_idle(&self, now: Tick) {
        for server in self.pool.servers() {
            server.kept.close_idle(now, self.way.idle_timeout);
        }
    }

    /// Sends one request and reads what `keep` says of the answer, all within `timeout`.
    pub async fn call(&self, outgoing: Outgoing, keep: Keep, timeout: Duration) -> Result<Reply, Error> {
        let patience = Patience::new(timeout, None);
        let Reply { status, headers, body } = self.forward(outgoing, patience).await?;
        // What is there already needs no timer.
        let body = match body {
            Body::Whole(_) => read(body, keep).await?,
            Body::Flowing(_) => patience.bound(pin!(read(body, keep))).await?,
        };
        Ok(Reply { status, headers, body })
    }

    /// Sends one request and waits for the answer's head; a body that is not there yet flows.
    pub async fn forward(&self, mut outgoing: Outgoing, patience: Patience<'_>) -> Result<Reply<Body>, Error> {
        if self.pool.servers().len() > 1 && outgoing.is_short() {
            outgoing = patience.bound(Box::pin(outgoing.gathered()).as_mut()).await?;
        }
        let mut turn = Some(self.enter(patience).await?);
        let mut tried = Tried::new(outgoing.is_repeatable());
        let copy = if self.pool.servers().len() > 1 { outgoing.copy() } else { None };
        let mut next = None;
        loop {
            let picked = next.take().or_else(|| self.pool.pick(Tick::now(), &mut tried));
            let Some(picked) = picked else { return Err(gone(None)) };
            let attempt = self.attempt(&picked, outgoing, patience).await;
            let (error, failure, unsent) = match attempt {
                Ok(Attempt::Answered(carrier, answer)) => {
                    let is_failure = is_gateway_failure(answer.status);
                    let now = Tick::now();
                    let change = if is_failure { picked.failed(now) } else { picked.succeeded(now) };
                    self.note(picked.server(), change);
                    let repeat = copy
                        .as_ref()
                        .filter(|_| is_failure && self.pool.may_try_again(Tick::now(), &mut tried, Failure::Sent));
                    // The answer that there is beats none, should nobody else be left to ask.
                    next = repeat.and_then(|_| self.pool.pick(Tick::now(), &mut tried));
                    let Some(copy) = repeat.filter(|_| next.is_some()).and_then(Outgoing::copy) else {
                        let turn = turn.take().expect("a call that was answered is over");
                        return Ok(begin(carrier, answer, Lease { picked, _turn: turn }).await);
                    };
                    outgoing = copy;
                    continue;
                }
                Ok(Attempt::Unsent(error, unsent)) => (error, Failure::Unsent, unsent),
                // The request's body broke off, or was too long: the client's doing.
                Ok(Attempt::Lost(error)) if error.is_of_request() => return Err(Error::Lost(error)),
                Ok(Attempt::Lost(error)) => (Error::Lost(error), Failure::Sent, None),
                Err(error) => (error, Failure::Sent, None),
            };
            let is_late = matches!(error, Error::Timeout(_));
            if patience.progress.is_some_and(|progress| progress.is_to_blame(is_late)) {
                // Whoever sends the body: no server is worse for it.
                return Err(error);
            }
            self.note(picked.server(), picked.failed(Tick::now()));
            if is_late {
                // A connection of HTTP/2 on which nothing comes any more would be everybody's.
                picked.server().kept.share_no_more();
            } else {
                picked.server().kept.close_all();
            }
            if is_late || !self.pool.may_try_again(Tick::now(), &mut tried, failure) {
                return Err(error);
            }
            match unsent.or_else(|| copy.as_ref().and_then(Outgoing::copy)) {
                Some(again) => outgoing = again,
                None => return Err(error),
            }
        }
    }

    async fn enter(&self, patience: Patience<'_>) -> Result<Permit, Error> {
        // As a rule there is a turn at once, and nothing to wait for.
        if let Some(permit) = self.pool.enter_at_once() {
            return Ok(permit);
        }
        patience.bound(Box::pin(async { Ok(self.pool.enter().await?) }).as_mut()).await
    }

    /// One try on one server.
    async fn attempt(
        &self,
        picked: &Picked<Kept>,
        mut outgoing: Outgoing,
        patience: Patience<'_>,
    ) -> Result<Attempt, Error> {
        if self.way.http2 {
            let attempt = Box::pin(async { Ok(self.attempt_http_2(picked, outgoing).await) });
            return patience.bound(pin!(attempt)).await;
        }
        let kept = &picked.server().kept;
        let now = Tick::now();
        while let Some(mut connection) = kept.borrow(now, self.way.idle_timeout) {
            match connection.send(outgoing, patience).await {
                Ok(answer) => return Ok(Attempt::Answered(Carrier::Own(connection), answer)),
                // The server had closed it while it was idle.
                Err(Unsent::Request(unsent)) => outgoing = *unsent,
                Err(Unsent::Lost(error)) => return Ok(Attempt::Lost(error)),
                Err(Unsent::Late) => return Err(Error::Timeout(patience.timeout())),
            }
        }
        // Boxed, because most calls find a connection open.
        Box::pin(self.attempt_anew(picked, outgoing, patience)).await
    }

    /// The same on a connection that is opened for it.
    async fn attempt_anew(
        &self,
        picked: &Picked<Kept>,
        outgoing: Outgoing,
        patience: Patience<'_>,
    ) -> Result<Attempt, Error> {
        let mut connection = match patience.bound(pin!(async { Ok(self.connect(picked).await) })).await? {
            Ok(stream) => Connection::new(stream),
            Err(error) => return Ok(Attempt::Unsent(Error::Unreachable(error), Some(outgoing))),
        };
        Ok(match connection.send(outgoing, patience).await {
            Ok(answer) => Attempt::Answered(Carrier::Own(connection), answer),
            Err(Unsent::Request(unsent)) => Attempt::Unsent(gone(None), Some(*unsent)),
            Err(Unsent::Lost(error)) => Attempt::Lost(error),
            Err(Unsent::Late) => return Err(Error::Timeout(patience.timeout())),
        })
    }

    async fn attempt_http_2(&self, picked: &Picked<Kept>, outgoing: Outgoing) -> Attempt {
        let kept = &picked.server().kept;
        let mut request = outgoing.into_http_2(self.way.tls.is_some());
        while let Some(mut shared) = kept.share() {
            match shared.send(request).await {
                Ok(answer) => return Attempt::of_http_2(answer, shared),
                Err(Refused::Unsent(unsent)) => request = *unsent,
                Err(Refused::Lost(error)) => return Attempt::Lost(error),
            }
        }
        let opened = match self.connect(picked).await {
            Ok(stream) => kept.open_shared(stream).await.map_err(io::Error::other),
            Err(error) => Err(error),
        };
        let mut shared = match opened {
            Ok(shared) => shared,
            Err(error) => return Attempt::Unsent(Error::Unreachable(error), Some(Outgoing::of(request))),
        };
        match shared.send(request).await {
            Ok(answer) => Attempt::of_http_2(answer, shared),
            Err(Refused::Unsent(unsent)) => Attempt::Unsent(gone(None), Some(Outgoing::of(*unsent))),
            Err(Refused::Lost(error)) => Attempt::Lost(error),
        }
    }

    async fn connect(&self, picked: &Picked<Kept>) -> io::Result<Stream> {
        self.open(&picked.server().address).await
    }

    async fn open(&self, address: &Address) -> io::Result<Stream> {
        let opening = tokio::time::timeout(self.way.connect_timeout, connector::open(address, self.way.tls.as_ref()));
        opening.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Asks for another protocol on a connection of its own. With a 101 comes the stream that now speaks it.
    pub async fn upgrade(
        &self,
        outgoing: Outgoing,
        patience: Patience<'_>,
    ) -> Result<(Reply<Body>, Option<Switched>), Error> {
        let turn = self.enter(patience).await?;
        let mut tried = Tried::new(false);
        let mut last = None;
        loop {
            let Some(picked) = self.pool.pick(Tick::now(), &mut tried) else { return Err(gone(last)) };
            let opened = patience.bound(pin!(async { Ok(self.connect(&picked).await) })).await;
            let stream = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => stream,
                Err(error) => {
                    self.note(picked.server(), picked.failed(Tick::now()));
                    last = Some(error);
                    if self.pool.may_try_again(Tick::now(), &mut tried, Failure::Unsent) {
                        continue;
                    }
                    return Err(gone(last));
                }
            };
            let mut connection = Connection::new(stream);
            let outcome = match connection.send(outgoing, patience).await {
                Ok(answer) => Ok((connection, answer)),
                Err(Unsent::Request(_)) => Err(gone(None)),
                Err(Unsent::Lost(error)) => Err(Error::Lost(error)),
                Err(Unsent::Late) => Err(Error::Timeout(patience.timeout())),
            };
            let is_failure = outcome.as_ref().map_or(true, |(_, answer)| is_gateway_failure(answer.status));
            let now = Tick::now();
            self.note(picked.server(), if is_failure { picked.failed(now) } else { picked.succeeded(now) });
            let (connection, answer) = outcome?;
            let lease = Lease { picked, _turn: turn };
            if answer.status == StatusCode::SWITCHING_PROTOCOLS {
                let (stream, already_said) = connection.release();
                let reply = Reply { status: answer.status, headers: answer.headers, body: Body::default() };
                return Ok((reply, Some(Switched { stream, already_said, lease })));
            }
            return Ok((begin(Carrier::Own(connection), answer, lease).await, None));
        }
    }

    /// What changed about a server is worth a line.
    fn note(&self, server: &Server<Kept>, change: Option<Change>) {
        let (backend, address) = (self.name.as_str(), &server.address);
        match change {
            None => {}
            Some(Change::Up) => tracing::info!(backend, server = %address, "a server is well again"),
            Some(Change::Down) => tracing::warn!(backend, server = %address, "a server fails its checks"),
            Some(Change::Returned) => tracing::info!(backend, server = %address, "an ejected server answers again"),
            Some(Change::Ejected(time)) => {
                tracing::warn!(backend, server = %address, "a server failed several calls and gets none for {time:?}");
            }
        }
    }
}

/// What became of one try.
enum Attempt {
    Answered(Carrier, AnswerHead),
    Unsent(Error, Option<Outgoing>),
    Lost(Broken),
}

impl Attempt {
    fn of_http_2(answer: http::Response<hyper::body::Incoming>, shared: kept::Shared) -> Self {
        let (parts, body) = answer.into_parts();
        let head = AnswerHead { status: parts.status, headers: parts.headers };
        Attempt::Answered(Carrier::Shared(Box::new(body), shared), head)
    }
}

/// Said by a server that cannot serve, or by a proxy in front of one.
fn is_gateway_failure(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

fn gone(error: Option<io::Error>) -> Error {
    Error::Unreachable(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))
}

async fn begin(carrier: Carrier, answer: AnswerHead, lease: Lease) -> Reply<Body> {
    let mut answering = Some(Answering::new(carrier, lease));
    let body = poll_fn(|cx| Poll::Ready(answering.take().map(|answering| answering.begin(cx)))).await;
    Reply { status: answer.status, headers: answer.headers, body: body.unwrap_or_default() }
}

/// Reads of a body what is wanted. One that is left in its midst takes its connection with it.
async fn read(body: Body, keep: Keep) -> Result<Bytes, Error> {
    match keep {
        Keep::Nothing => {
            // Short as a rule, and then the connection can be used again; a long one is nobody's loss.
            let _ = body.read(limits::REFUSAL_BODY).await;
            Ok(Bytes::new())
        }
        Keep::Whole(most) => body.read(most).await.map_err(|unread| match unread {
            Unread::TooLong(most) => Error::TooLong(most),
            Unread::BrokeOff(error) => Error::BrokeOff(error),
        }),
        Keep::Beginning(most) => body.read_beginning(most).await.map_err(Error::BrokeOff),
    }
}
