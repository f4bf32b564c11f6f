//! Call and Reply: one thing asked, one answer, over any transport.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::body::Body;
use super::client::{Client, StageKey};
use super::clock::Timestamp;
use super::close::Close;
use super::id::{ConnectionId, Id};
use super::identity::{Granted, Identity};
use super::request::HttpRequest;
use super::signature;
use super::trace::{self, TraceContext};

/// One thing asked, as the engine and its steps see it.
pub struct Call<'a> {
    pub event: Event<'a>,
    pub route_key: &'a str,
    pub request_id: Id,
    pub at: Timestamp,
    /// Who is calling, as far as the steps so far have found out.
    pub identity: Option<Arc<Identity>>,
    /// What is called next is told of this span, where there is a trace.
    pub trace: Option<TraceContext>,
}

#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// Something happened on a client's connection.
    Connection(Happening<'a>),
    /// An HTTP request came.
    Request(&'a HttpRequest),
}

/// What happened on a client's connection.
#[derive(Clone, Copy)]
pub struct Happening<'a> {
    pub client: &'a Client,
    pub event: ConnectionEvent<'a>,
}

#[derive(Clone, Copy)]
pub enum ConnectionEvent<'a> {
    Connect(&'a Handshake),
    Message(&'a Incoming),
    Disconnect(&'a Close),
}

/// The client's upgrade request.
pub struct Handshake {
    pub headers: HeaderMap,
    /// As it was on the wire, and so is the query.
    pub path: String,
    pub query: Option<String>,
    /// As the client wrote it, with its port if it named one.
    pub host: String,
    /// `http` or `https`, and the port the client reached.
    pub scheme: &'static str,
    pub port: u16,
    /// The client showed a certificate.
    pub has_certificate: bool,
}

impl Handshake {
    /// What the backend gets to see of a handshake that was signed.
    pub fn without_signature(&self) -> Handshake {
        let mut headers = self.headers.clone();
        signature::drop_from_headers(&mut headers);
        let query = self.query.as_deref().and_then(signature::without);
        let (path, host) = (self.path.clone(), self.host.clone());
        let Self { scheme, port, has_certificate, .. } = *self;
        Handshake { headers, path, query, host, scheme, port, has_certificate }
    }
}

/// One whole message of a client.
pub struct Incoming {
    pub id: Id,
    pub body: Bytes,
    pub binary: bool,
}

impl Incoming {
    /// The body as text; a binary message that is not UTF-8 reads as empty.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }
}

impl<'a> Call<'a> {
    /// The same call, about an event that was changed on the way.
    pub fn about<'b>(&self, event: Event<'b>) -> Call<'b>
    where
        'a: 'b,
    {
        let Self { route_key, request_id, at, .. } = *self;
        Call { event, route_key, request_id, at, identity: self.identity.clone(), trace: self.trace.clone() }
    }

    pub fn subject(&self) -> Subject<'a> {
        let connection = match self.event {
            Event::Connection(happening) => Some(happening.client.id),
            Event::Request(_) => None,
        };
        Subject { stage: self.stage(), connection, route_key: self.route_key, request_id: self.request_id }
    }

    /// What the authorizer said of the caller.
    pub fn granted(&self) -> Option<&Granted> {
        self.identity.as_ref()?.granted.as_deref()
    }

    /// Tells whoever is called of the trace, in the headers of W3C's; AWS's own is `trace_id`.
    pub fn pass_trace_on(&self, headers: &mut HeaderMap) {
        if self.trace.as_ref().is_some_and(|trace| trace.state.is_none()) {
            headers.remove(trace::TRACESTATE);
        }
        self.trace_headers(|name, value| {
            headers.insert(name.clone(), value.clone());
        });
    }

    /// The headers of W3C's that tell of the trace, where there is one.
    pub fn trace_headers(&self, mut each: impl FnMut(&HeaderName, &HeaderValue)) {
        let Some(trace) = &self.trace else { return };
        each(&trace::TRACEPARENT, &trace.traceparent());
        if let Some(state) = &trace.state {
            each(&trace::TRACESTATE, state);
        }
    }

    /// `Root=1-{time}-{random}`, as AWS makes one for each call; the same whoever asks. Within a trace it is that.
    pub fn trace_id(&self) -> HeaderValue {
        if let Some(trace) = &self.trace {
            return trace.amzn();
        }
        HeaderValue::from_bytes(&self.root()).expect("hexadecimal digits are a header value")
    }

    /// The same as text, of a call without a trace.
    pub fn root(&self) -> [u8; 40] {
        let mut text = *b"Root=1-00000000-000000000000000000000000";
        let mut write = |mut at: usize, bytes: &[u8]| {
            for byte in bytes {
                text[at] = DIGITS[usize::from(byte >> 4)];
                text[at + 1] = DIGITS[usize::from(byte & 15)];
                at += 2;
            }
        };
        write(7, &((self.at.0 / 1000) as u32).to_be_bytes());
        write(16, self.request_id.bytes());
        text
    }

    pub fn stage(&self) -> &'a StageKey {
        match self.event {
            Event::Connection(happening) => &happening.client.stage,
            Event::Request(request) => &request.stage,
        }
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// What a log line says about a call.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub stage: &'a StageKey,
    pub connection: Option<ConnectionId>,
    pub route_key: &'a str,
    pub request_id: Id,
}

impl ConnectionEvent<'_> {
    /// AWS's word for it.
    pub fn name(&self) -> &'static str {
        match self {
            ConnectionEvent::Connect(_) => "CONNECT",
            ConnectionEvent::Message(_) => "MESSAGE",
            ConnectionEvent::Disconnect(_) => "DISCONNECT",
        }
    }

    /// The message's bytes; empty on `$connect` and `$disconnect`.
    pub fn body(&self) -> Bytes {
        match self {
            ConnectionEvent::Message(message) => message.body.clone(),
            _ => Bytes::new(),
        }
    }
}

/// What parameter mappings took from a call for the backend's request. Values of `query` and `path` are
/// plain text, not yet encoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mapped {
    /// They replace headers of the same name; one that is here twice is to be sent twice.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub query: Vec<(String, String)>,
    pub path: Vec<(String, String)>,
}

/// What a backend, or a mock, answered: to a message as a whole, to a request perhaps still flowing.
#[derive(Debug)]
pub struct Reply<B = Bytes> {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty also when a proxy answer had no `body` at all.
    pub body: B,
}

impl<B> Reply<B> {
    pub fn new(status: StatusCode, body: impl Into<B>) -> Self {
        Self { status, headers: HeaderMap::new(), body: body.into() }
    }

    pub fn content_type(&self) -> Option<&HeaderValue> {
        self.headers.get(http::header::CONTENT_TYPE)
    }
}

impl Reply {
    /// The same, where a body may also flow.
    pub fn with_body(self) -> Reply<Body> {
        Reply { status: self.status, headers: self.headers, body: Body::Whole(self.body) }
    }
}
