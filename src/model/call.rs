//! Call and Reply: one thing asked, one answer, over any transport.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::client::Client;
use super::clock::Timestamp;
use super::close::Close;
use super::id::Id;

/// What happens on a connection, as the engine and its steps see it.
pub struct Call<'a> {
    pub event: Event<'a>,
    pub client: &'a Client,
    pub route_key: &'a str,
    pub request_id: Id,
    pub at: Timestamp,
}

pub enum Event<'a> {
    Connect(&'a Handshake),
    Message(&'a Incoming),
    Disconnect(&'a Close),
}

/// The client's upgrade request.
pub struct Handshake {
    pub headers: HeaderMap,
    pub query: Option<String>,
    /// `http` or `https`, and the port the client reached.
    pub scheme: &'static str,
    pub port: u16,
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

impl Call<'_> {
    pub fn event_type(&self) -> &'static str {
        match self.event {
            Event::Connect(_) => "CONNECT",
            Event::Message(_) => "MESSAGE",
            Event::Disconnect(_) => "DISCONNECT",
        }
    }

    /// The message's bytes; empty on `$connect` and `$disconnect`.
    pub fn body(&self) -> Bytes {
        match self.event {
            Event::Message(message) => message.body.clone(),
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

/// What a backend, or a mock, answered.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty also when a proxy answer had no `body` at all.
    pub body: Bytes,
}

impl Reply {
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), body: body.into() }
    }

    pub fn content_type(&self) -> Option<&HeaderValue> {
        self.headers.get(http::header::CONTENT_TYPE)
    }
}
