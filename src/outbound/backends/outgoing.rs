//! A request on its way to a backend, and what of it can be sent twice.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{Request, Uri, Version};
use hyper::body::Body as _;

use super::Error;
use super::head::Headers;
use crate::model::body::{Body, Unread};
use crate::model::forwarded::Added;
use crate::model::limits;
use crate::model::lines;

/// One request. Its URI is in origin form, and its `Host` is set.
pub struct Outgoing {
    pub head: Head,
    pub body: Body,
    /// What is read of the answer's headers.
    pub wanted: Headers,
    /// What is said beside the headers.
    pub added: Option<Box<Added>>,
}

/// A request's head.
pub enum Head {
    /// Boxed, because requests are handed on several times.
    Parts(Box<Parts>),
    /// A POST of HTTP/1.1 whose body is whole, as text: all lines but the length. It is for those who post often and
    /// know most of it beforehand.
    Written(Vec<u8>),
}

impl Outgoing {
    pub fn of(request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        Self { head: Head::Parts(Box::new(parts)), body, wanted: Headers::All, added: None }
    }

    /// A POST whose head is text already.
    pub fn posted(head: Vec<u8>, body: Bytes, wanted: Headers) -> Self {
        Self { head: Head::Written(head), body: Body::Whole(body), wanted, added: None }
    }

    /// Doing it twice is as good as once, and it can be sent twice.
    pub fn is_repeatable(&self) -> bool {
        match &self.head {
            Head::Parts(parts) => parts.method.is_idempotent() && matches!(self.body, Body::Whole(_)),
            Head::Written(_) => false,
        }
    }

    /// The same once more, if it is repeatable.
    pub fn copy(&self) -> Option<Outgoing> {
        match (&self.head, &self.body) {
            (Head::Parts(parts), Body::Whole(whole)) if self.is_repeatable() => {
                let head = Head::Parts(parts.clone());
                let added = self.added.clone();
                Some(Outgoing { head, body: Body::Whole(whole.clone()), wanted: self.wanted, added })
            }
            _ => None,
        }
    }

    /// Whether the body comes soon enough as a whole, so that the request can be repeated.
    pub fn is_short(&self) -> bool {
        let length = self.body.size_hint().exact();
        matches!(&self.head, Head::Parts(parts) if parts.method.is_idempotent())
            && matches!(self.body, Body::Flowing(_))
            && length.is_some_and(|length| length <= limits::REPEATED_BODY as u64)
    }

    /// The same with its body as a whole.
    pub async fn gathered(self) -> Result<Outgoing, Error> {
        match self.body.read(limits::REPEATED_BODY).await {
            Ok(whole) => Ok(Outgoing { body: Body::Whole(whole), ..self }),
            Err(Unread::TooLong(most)) => Err(Error::TooLong(most)),
            Err(Unread::BrokeOff(error)) => Err(Error::BrokeOff(error)),
        }
    }

    /// The same as HTTP/2 has it: the host stands in the target.
    pub fn into_http_2(self, is_secure: bool) -> Request<Body> {
        let Head::Parts(parts) = self.head else { unreachable!("text is only written for HTTP/1.1") };
        let mut request = Request::from_parts(*parts, self.body);
        *request.version_mut() = Version::HTTP_2;
        if let Some(added) = self.added {
            added.put(request.headers_mut());
        }
        let host = request.headers_mut().remove(HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        if authority.is_some() {
            parts.scheme = Some(if is_secure { Scheme::HTTPS } else { Scheme::HTTP });
            parts.authority = authority;
        }
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        for name in [TRANSFER_ENCODING, CONNECTION] {
            request.headers_mut().remove(name);
        }
        request
    }
}

/// Ends a head that is text: the length comes last.
pub fn end_written(head: &mut Vec<u8>, length: usize) {
    lines::write_length(length as u64, head);
    head.extend_from_slice(b"\r\n");
}
