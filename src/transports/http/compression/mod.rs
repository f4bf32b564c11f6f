//! Compression: answers made smaller for clients that accept it, where a stage has a `minimum_compression_size`.
//!
//! This file knows which answers qualify and what their headers then say; `negotiation` finds the coding,
//! `encoder` has the three of them, and `flow` compresses a body while it flows.
//!
//! A page that shows a secret beside text of a stranger's choosing tells the secret by its compressed length (BREACH),
//! so that this is off unless a stage asks for it, as at AWS.

mod encoder;
mod flow;
mod negotiation;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::body::Body as _;

use crate::model::body::Body;
use crate::model::headers;
use encoder::Encoder;
use flow::Compressed;
use negotiation::Coding;

/// What a stage wants compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// Shorter bodies stay as they are; one whose length nobody knows counts as long enough.
    pub minimum_size: u64,
    /// Whether `text/event-stream` is compressed too. Each event then still goes out at once, but some clients and
    /// proxies wait for more of a compressed stream before they show any of it.
    pub event_streams: bool,
}

/// How much is compressed in one go, about a millisecond of work: other calls wait for this thread meanwhile.
const AT_ONCE: usize = 64 * 1024;

/// Checksums of the body or of the representation, which are others once it is compressed.
const CHECKSUMS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Compresses `answer` if it qualifies and `request`, the headers it answers, accepts a coding of ours.
pub fn compress(compression: Compression, method: &Method, request: &HeaderMap, answer: &mut Response<Body>) {
    if answer.status() == StatusCode::NOT_MODIFIED {
        repeat_weak_tag(request, answer.headers_mut());
    }
    if !compression.is_for(method, request, answer) {
        return;
    }
    headers::add_vary(answer.headers_mut(), ACCEPT_ENCODING);
    if method == Method::HEAD {
        return;
    }
    let Some(coding) = negotiation::choose(request) else { return };
    let Some(body) = encoded(coding, answer.body_mut()) else { return };
    *answer.body_mut() = body;
    describe(coding, answer.headers_mut());
}

impl Compression {
    /// Whether the answer would be compressed for a client that accepts all codings.
    fn is_for(&self, method: &Method, request: &HeaderMap, answer: &Response<Body>) -> bool {
        let headers = answer.headers();
        let is_whole_answer = !answer.status().is_informational()
            && !matches!(
                answer.status(),
                StatusCode::NO_CONTENT
                    | StatusCode::RESET_CONTENT
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::NOT_MODIFIED
            );
        let may_transform = |headers| {
            headers::members(headers, &CACHE_CONTROL).all(|directive| !directive.eq_ignore_ascii_case("no-transform"))
        };
        is_whole_answer
            && !headers.contains_key(CONTENT_ENCODING)
            && length(method, answer).is_none_or(|length| length >= self.minimum_size)
            && self.is_for_type(headers)
            && may_transform(headers)
            && may_transform(request)
    }

    fn is_for_type(&self, headers: &HeaderMap) -> bool {
        let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "text/event-stream" => self.event_streams,
            "application/ecmascript"
            | "application/javascript"
            | "application/json"
            | "application/wasm"
            | "application/x-javascript"
            | "application/x-ndjson"
            | "application/xml" => true,
            _ => essence.starts_with("text/") || essence.ends_with("+json") || essence.ends_with("+xml"),
        }
    }
}

/// The length of the body; of an answer to `HEAD`, that of the body it does without.
fn length(method: &Method, answer: &Response<Body>) -> Option<u64> {
    let said = || answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    if method == Method::HEAD { said() } else { answer.body().size_hint().exact().or_else(said) }
}

/// The body in `coding`; `None`, with `body` untouched, if it would not be smaller.
fn encoded(coding: Coding, body: &mut Body) -> Option<Body> {
    match body {
        Body::Whole(whole) if whole.len() <= AT_ONCE => {
            let smaller = encoder::whole(coding, whole).ok().filter(|smaller| smaller.len() < whole.len())?;
            Some(Body::from(smaller))
        }
        _ => {
            let encoder = Encoder::new(coding, None).ok()?;
            Some(Body::flowing(Compressed::new(encoder, std::mem::take(body))))
        }
    }
}

/// Has the headers say what the body has become. Its length is left to the one who sends it.
fn describe(coding: Coding, answer: &mut HeaderMap) {
    answer.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    answer.remove(CONTENT_LENGTH);
    // A part of the answer, asked for later, would be a part of the plain one.
    answer.remove(ACCEPT_RANGES);
    for name in &CHECKSUMS {
        answer.remove(name);
    }
    if let Some(weak) = answer.get(ETAG).and_then(weakened) {
        answer.insert(ETAG, weak);
    }
}

/// The weak form of a strong tag: compressed and plain are the same answer, but not byte for byte.
fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    if !tag.as_bytes().starts_with(b"\"") {
        return None;
    }
    HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()
}

/// A client that got its answer compressed has the weak tag, and a 304 with the strong one would be about another
/// answer: it may then neither use nor refresh what it has.
fn repeat_weak_tag(request: &HeaderMap, answer: &mut HeaderMap) {
    let Some(weak) = answer.get(ETAG).and_then(weakened) else { return };
    if headers::members(request, &IF_NONE_MATCH).any(|tag| weak == tag) {
        answer.insert(ETAG, weak);
        headers::add_vary(answer, ACCEPT_ENCODING);
    }
}

#[cfg(test)]
mod tests;
