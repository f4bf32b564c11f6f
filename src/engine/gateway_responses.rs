//! Refusal → what the client gets: a frame on an open connection, an HTTP answer before that.
//!
//! The only place that words them. The frame's uneven spaces are AWS's own, and clients have been
//! seen to compare them.

use bytes::Bytes;
use http::StatusCode;

use crate::connections::Outgoing;
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
        Kind::BadRequestBody => "BadRequestException",
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
