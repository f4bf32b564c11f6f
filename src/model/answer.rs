//! HTTP answers that the gateway words itself, in AWS's form.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response, StatusCode};

use super::body::Body;
use super::id::Id;

pub type Answer = Response<Body>;

/// SDKs choose the exception by this header, not by the status.
pub const X_AMZN_ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
pub const X_AMZN_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// For whoever knows its request's id already, and adds it.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    answer
}

pub fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::Whole(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(X_AMZN_REQUEST_ID, Id::random().header());
    answer
}

pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = plain(status, body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An error of AWS's form; an empty body stays empty.
pub fn error(status: StatusCode, error_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let body = body.into();
    let mut answer = if body.is_empty() { plain(status, body) } else { json(status, body) };
    answer.headers_mut().insert(X_AMZN_ERROR_TYPE, HeaderValue::from_static(error_type));
    answer
}

/// `{"message":"…"}` with the text escaped.
pub fn message(text: &str) -> String {
    serde_json::json!({ "message": text }).to_string()
}

pub fn forbidden() -> Answer {
    error(StatusCode::FORBIDDEN, "ForbiddenException", r#"{"message":"Forbidden"}"#)
}
