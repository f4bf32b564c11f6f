//! What is known of a call when it is over, however it ended: what logs, traces and watchers are told.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method};

use super::call::Happening;
use super::client::{Client, StageKey};
use super::clock::Timestamp;
use super::id::Id;
use super::identity::Identity;
use super::refusal::{Fault, Refusal};
use super::request::HttpRequest;
use super::trace::TraceContext;

/// One call, when it is over.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub what: What<'a>,
    pub stage: &'a StageKey,
    /// `-` where none was found.
    pub route_key: &'a str,
    pub request_id: Id,
    pub at: Timestamp,
    pub identity: Option<&'a Identity>,
    pub trail: &'a Trail,
    /// The HTTP status of the answer, or what it would be.
    pub status: u16,
    /// Why the gateway answered by itself.
    pub refusal: Option<&'a Refusal>,
    /// From the call to its answer; of a request, to the answer's head.
    pub took: Duration,
    /// Bytes of the call's body, and of its answer's.
    pub received: u64,
    pub sent: u64,
    /// Those bodies, as far as they were held; whoever shows them has to be allowed to.
    pub body: &'a [u8],
    pub answer: &'a [u8],
}

#[derive(Clone, Copy)]
pub enum What<'a> {
    /// A handshake, a message, a disconnect.
    Connection(Happening<'a>),
    Request(Requested<'a>),
    Push(Push<'a>),
}

/// A request of an HTTP API.
#[derive(Clone, Copy)]
pub struct Requested<'a> {
    pub request: &'a HttpRequest,
    /// Apart, because the request's own headers may have gone on to the backend.
    pub user_agent: Option<&'a HeaderValue>,
    pub account_id: &'a str,
}

/// A call of the `@connections` API, of whatever method.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    pub method: &'a Method,
    /// As the caller wrote it; it may be none.
    pub connection_id: &'a str,
    /// Whom it was for, if it was there.
    pub client: Option<&'a Client>,
    /// The caller.
    pub source_ip: IpAddr,
    pub user_agent: Option<&'a HeaderValue>,
    pub domain_name: &'a str,
}

/// What is noted of a call while it is on its way.
#[derive(Debug)]
pub struct Trail {
    pub began: Instant,
    pub authorizer: Option<Leg>,
    pub integration: Option<Leg>,
    /// Where the call is traced, or a trace goes through it.
    pub trace: Option<Box<Traced>>,
}

/// The call's own span.
#[derive(Debug)]
pub struct Traced {
    pub context: TraceContext,
    /// The span that it is a part of.
    pub parent: Option<[u8; 8]>,
    pub began: SystemTime,
}

/// One thing that a call had to wait for.
#[derive(Debug, Clone)]
pub struct Leg {
    pub began: Instant,
    pub took: Duration,
    /// What was answered; `None` where nothing that could be used was.
    pub status: Option<u16>,
    /// The span of this leg, where the call is traced.
    pub span: Option<[u8; 8]>,
}

/// How a call ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The caller's fault: it was turned away.
    Refused,
    /// The backend's fault, or ours.
    Failed,
}

impl Leg {
    /// One that has not ended.
    pub fn under_way(began: Instant, span: Option<[u8; 8]>) -> Self {
        Self { began, took: Duration::ZERO, status: None, span }
    }

    /// Whether it was answered with an error.
    pub fn is_error(&self) -> bool {
        self.status.is_some_and(|status| status >= 400)
    }
}

impl Default for Trail {
    fn default() -> Self {
        Self { began: Instant::now(), authorizer: None, integration: None, trace: None }
    }
}

impl Trail {
    /// The context that something called on the way gets: a span of its own in the same trace.
    pub fn next_span(&self) -> Option<TraceContext> {
        self.trace.as_ref().map(|trace| trace.context.next())
    }
}

impl<'a> Record<'a> {
    pub fn outcome(&self) -> Outcome {
        match self.refusal.map(|refusal| refusal.kind.fault()) {
            Some(Fault::Client) => Outcome::Refused,
            Some(Fault::Backend | Fault::Gateway) => Outcome::Failed,
            None if self.status >= 500 => Outcome::Failed,
            None if self.status >= 400 => Outcome::Refused,
            None => Outcome::Ok,
        }
    }

    /// Whose connection it is about, if it is about one.
    pub fn client(&self) -> Option<&'a Client> {
        match self.what {
            What::Connection(happening) => Some(happening.client),
            What::Push(push) => push.client,
            What::Request(_) => None,
        }
    }

    /// Who called, as far as it is known: the principal of an authorizer, or the key of a signature.
    pub fn user(&self) -> Option<&str> {
        self.identity?.user()
    }

    pub fn source_ip(&self) -> IpAddr {
        match self.what {
            What::Connection(happening) => happening.client.source_ip,
            What::Request(requested) => requested.request.source_ip,
            What::Push(push) => push.source_ip,
        }
    }
}
