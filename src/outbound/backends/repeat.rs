//! Requests that can be sent once more: idempotent ones, whose body is at hand.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use hyper::body::Body as _;

use super::Error;
use crate::model::body::{Body, Unread};
use crate::model::limits;

/// A request that can be sent once more.
pub struct Copy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Copy {
    pub fn of(request: &Request<Body>) -> Self {
        let body = match request.body() {
            Body::Whole(whole) => whole.clone(),
            Body::Flowing(_) => Bytes::new(),
        };
        let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
        Self { method, uri, headers, body }
    }

    pub fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::Whole(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Doing it twice is as good as once, and it can be sent twice.
pub fn is_repeatable(request: &Request<Body>) -> bool {
    request.method().is_idempotent() && matches!(request.body(), Body::Whole(_))
}

/// A body that comes soon enough as a whole, so that its request can be repeated.
pub fn is_short(request: &Request<Body>) -> bool {
    let length = request.body().size_hint().exact();
    request.method().is_idempotent()
        && matches!(request.body(), Body::Flowing(_))
        && length.is_some_and(|length| length <= limits::REPEATED_BODY as u64)
}

pub async fn gathered(request: Request<Body>) -> Result<Request<Body>, Error> {
    let (head, body) = request.into_parts();
    match body.read(limits::REPEATED_BODY).await {
        Ok(whole) => Ok(Request::from_parts(head, Body::Whole(whole))),
        Err(Unread::TooLong(most)) => Err(Error::TooLong(most)),
        Err(Unread::BrokeOff(error)) => Err(Error::BrokeOff(error)),
    }
}
