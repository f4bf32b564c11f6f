//! Refusal → what the client gets: a frame on an open connection, an HTTP answer before that.
//!
//! The only place that words them. The frame's uneven spaces are AWS's own, and clients have been
//! seen to compare them.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

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
    /// `WWW-Authenticate` or `Retry-After`.
    pub header: Option<(HeaderName, HeaderValue)>,
}

/// The error frame for a message that was refused.
pub fn frame(refusal: &Refusal, connection: ConnectionId, request: Id, message: Id) -> Outgoing {
    let (name, id) = match refusal.kind {
        Kind::BadRequestBody => ("messageId", message),
        _ => ("requestId", request),
    };
    let message = match refusal.kind {
        // On a connection there is one word for it.
        Kind::AccessDenied | Kind::ExplicitDeny => Kind::Forbidden.message(),
        Kind::AuthorizerFailure => Kind::Internal.message(),
        kind => kind.message(),
    };
    let text = format!("{{\"message\": \"{message}\", \"connectionId\":\"{connection}\", \"{name}\":\"{id}\"}}");
    Outgoing { body: text.into(), binary: false }
}

/// The answer to a handshake that was refused.
pub fn handshake(refusal: &Refusal) -> HttpResponse {
    let kind = refusal.kind;
    let error_type = match kind {
        Kind::Forbidden | Kind::InvalidApiKey => "ForbiddenException",
        Kind::AccessDenied | Kind::ExplicitDeny => "AccessDeniedException",
        Kind::Unauthorized => "UnauthorizedException",
        Kind::AuthorizerFailure => "AuthorizerConfigurationException",
        Kind::Throttled => "TooManyRequestsException",
        Kind::QuotaExceeded | Kind::OutboxFull => "LimitExceededException",
        Kind::Gone => "GoneException",
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
        body: body(refusal).into(),
        header: refusal.header().cloned(),
    }
}

/// AWS spells one of its answers with a capital, and has nothing to say in another.
fn body(refusal: &Refusal) -> String {
    let (name, message) = match refusal.kind {
        Kind::AccessDenied | Kind::ExplicitDeny => ("Message", Value::from(refusal.message())),
        Kind::AuthorizerFailure => ("message", Value::Null),
        _ => ("message", Value::from(refusal.message())),
    };
    format!("{{\"{name}\":{message}}}")
}

/// The answer to a request of an HTTP API that was refused: AWS tells of two kinds of failure only.
pub fn request(refusal: &Refusal) -> Reply<Body> {
    let (status, message) = match refusal.kind {
        Kind::IntegrationUnreachable | Kind::IntegrationTimeout | Kind::Busy => (503, "Service Unavailable"),
        Kind::IntegrationFailure | Kind::AuthorizerFailure | Kind::Internal => (500, "Internal Server Error"),
        Kind::BadRequestBody => (400, "Bad Request"),
        Kind::AccessDenied | Kind::ExplicitDeny => (403, "Forbidden"),
        Kind::Forbidden
        | Kind::Unauthorized
        | Kind::InvalidApiKey
        | Kind::Throttled
        | Kind::QuotaExceeded
        | Kind::Gone
        | Kind::OutboxFull
        | Kind::NotFound
        | Kind::BadRequest
        | Kind::RequestTooLarge
        | Kind::TooSlow => (refusal.kind.status(), refusal.message()),
    };
    let status = StatusCode::from_u16(status).expect("the table of refusals holds statuses");
    let mut reply = Reply::new(status, format!("{{\"message\":{}}}", Value::from(message)));
    reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((name, value)) = refusal.header() {
        reply.headers.insert(name, value.clone());
    }
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
        check(Kind::Throttled, "Too Many Requests", "requestId");
        check(Kind::QuotaExceeded, "Limit Exceeded", "requestId");
        check(Kind::Unauthorized, "Unauthorized", "requestId");
    }

    #[test]
    fn refused_handshakes_are_worded_as_aws_words_them() {
        let check = |kind: Kind, status: u16, error_type: &str, body: &str| {
            let response = handshake(&kind.because("x"));
            assert_eq!((response.status.as_u16(), response.error_type), (status, error_type));
            assert_eq!(response.body, body);
        };
        check(Kind::Unauthorized, 401, "UnauthorizedException", r#"{"message":"Unauthorized"}"#);
        let denied = "User is not authorized to access this resource";
        check(Kind::AccessDenied, 403, "AccessDeniedException", &format!(r#"{{"Message":"{denied}"}}"#));
        let explicit = format!(r#"{{"Message":"{denied} with an explicit deny"}}"#);
        check(Kind::ExplicitDeny, 403, "AccessDeniedException", &explicit);
        check(Kind::InvalidApiKey, 403, "ForbiddenException", r#"{"message":"Forbidden"}"#);
        check(Kind::Throttled, 429, "TooManyRequestsException", r#"{"message":"Too Many Requests"}"#);
        check(Kind::QuotaExceeded, 429, "LimitExceededException", r#"{"message":"Limit Exceeded"}"#);
        check(Kind::AuthorizerFailure, 500, "AuthorizerConfigurationException", r#"{"message":null}"#);
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let check = |milliseconds: u64, seconds: &str| {
            let refusal = Kind::Throttled.because("x").until(Some(std::time::Duration::from_millis(milliseconds)));
            assert_eq!(request(&refusal).headers["retry-after"], seconds);
            assert_eq!(handshake(&refusal).header.expect("a header").1, seconds);
        };
        check(1, "1");
        check(1000, "1");
        check(1001, "2");
        assert!(handshake(&Kind::Throttled.because("x").until(None)).header.is_none());
    }
}
