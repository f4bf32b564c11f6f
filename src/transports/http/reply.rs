//! What the engine gave back becomes the answer on the wire.

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::compression::{self, Compression};

use crate::api::http_stage::HttpLimits;
use crate::model::answer::Answer;
use crate::model::body::Body;
use crate::model::call::Reply;
use crate::model::id::Id;

/// What of the request an answer is shaped by.
pub struct Wanted {
    method: Method,
    /// Nothing, where nothing is compressed.
    headers: HeaderMap,
}

impl Wanted {
    pub fn of(head: &Parts, limits: &HttpLimits) -> Self {
        let headers = if limits.minimum_compression_size.is_some() { head.headers.clone() } else { HeaderMap::new() };
        Self { method: head.method.clone(), headers }
    }
}

pub fn answer(reply: Reply<Body>, wanted: &Wanted, limits: &HttpLimits) -> Answer {
    let mut answer = Answer::new(reply.body);
    *answer.status_mut() = reply.status;
    *answer.headers_mut() = reply.headers;
    if let Some(minimum_size) = limits.minimum_compression_size {
        let settings = Compression { minimum_size, event_streams: limits.compress_event_streams };
        compression::compress(settings, &wanted.method, &wanted.headers, &mut answer);
    }
    answer
}

/// The host is ours, but nothing is at this path.
pub fn not_found() -> Answer {
    refused(StatusCode::NOT_FOUND, r#"{"message":"Not Found"}"#)
}

/// Nobody here answers to the host.
pub fn unknown_host() -> Answer {
    refused(StatusCode::FORBIDDEN, r#"{"message":"Forbidden"}"#)
}

fn refused(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = Answer::new(Body::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert("apigw-requestid", Id::random().header());
    answer
}
