//! Refusal → what the client gets: a frame on an open connection, an HTTP answer before that.
//!
//! The only place that words them. The frame's uneven spaces are AWS's own, and clients have been
//! seen to compare them.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use crate::connections::Outgoing;
use crate::model::body::Body;
use crate::model::call::Reply;
use crate::model::id::{ConnectionId, Id};
use crate::model::refusal::{Kind, Refusal};

/// An HTTP answer of the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    pub status: StatusCode,
    pub error_type: &'static str,
    pub body: Bytes,
}

/// The error frame for a message that was refused.
pub fn frame(refusal: &Refusal, connection: ConnectionId, request: Id, message: Id) -> Outgoing {
    let (name, id) = match refusal.kind {
        Kind::BadRequestBody => ("messageId", message),
        _ => ("requestId", request),
    };
    let text = format!(
        "{{\"message\": \"{}\", \"connectionId\":\"{connection}\", \"{name}\":\"{id}\"}}",
        refusal.kind.message(),
    );
    Outgoing { body: text.into(), binary: false }
}

/// The answer to a handshake that was refused.
pub fn handshake(refusal: &Refusal) -> HttpResponse {
    let kind = refusal.kind;
    let error_type = match kind {
        Kind::Forbidden => "ForbiddenException",
        Kind::NotFound => "NotFoundException",
        Kind::BadRequest | Kind::BadRequestBody => "BadRequestException",
        Kind::RequestTooLarge => "PayloadTooLargeException",
        Kind::TooSlow => "RequestTimeoutException",
        Kind::Busy => "ServiceUnavailableException",
        Kind::IntegrationUnreachable | Kind::IntegrationFailure | Kind::IntegrationTimeout | Kind::Internal => {
            "InternalServerErrorException"
        }
    };
    HttpResponse {
        status: StatusCode::from_u16(kind.status()).expect("the table of refusals holds statuses"),
        error_type,
        body: format!("{{\"message\":\"{}\"}}", kind.message()).into(),
    }
}

/// The answer to a request of an HTTP API that was refused: AWS tells of two kinds of failure only.
pub fn request(refusal: &Refusal) -> Reply<Body> {
    let (status, message) = match refusal.kind {
        Kind::IntegrationUnreachable | Kind::IntegrationTimeout | Kind::Busy => (503, "Service Unavailable"),
        Kind::IntegrationFailure | Kind::Internal => (500, "Internal Server Error"),
        Kind::BadRequestBody => (400, "Bad Request"),
        Kind::Forbidden | Kind::NotFound | Kind::BadRequest | Kind::RequestTooLarge | Kind::TooSlow => {
            (refusal.kind.status(), refusal.kind.message())
        }
    };
    let status = StatusCode::from_u16(status).expect("the table of refusals holds statuses");
    let mut reply = Reply::new(status, format!("{{\"message\":\"{message}\"}}"));
    reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spelled_byte_for_byte_as_aws_spells_them() {
        let connection = ConnectionId::parse("7e8s-43WgB1PFu4=").expect("an id");
        let id = Id::random();
        let check = |kind: Kind, begin: &str, name: &str| {
            let frame = frame(&kind.because("x"), connection, id, id);
            let expected =
                format!("{{\"message\": \"{begin}\", \"connectionId\":\"7e8s-43WgB1PFu4=\", \"{name}\":\"{id}\"}}");
            assert_eq!(frame.body, expected);
        };
        check(Kind::Forbidden, "Forbidden", "requestId");
        check(Kind::IntegrationUnreachable, "Internal server error", "requestId");
        check(Kind::IntegrationFailure, "Internal server error", "requestId");
        check(Kind::IntegrationTimeout, "Endpoint request timed out", "requestId");
        check(Kind::BadRequestBody, "Bad request body", "messageId");
    }
}
