//! Formats, and the lines that are made of them.

use parking_lot::RwLock;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::*;
use crate::model::call::{ConnectionEvent, Handshake, Happening, Incoming};
use crate::model::client::{Client, StageKey};
use crate::model::close::Close;
use crate::model::id::{ConnectionId, Id};
use crate::model::identity::{ApiKey, Granted, Identity};
use crate::model::record::{Leg, Push, Trail, What};
use crate::model::refusal::{Cause, Kind, Refusal};
use Protocol::{Http, WebSocket};

fn key() -> StageKey {
    StageKey { api: "chat".into(), stage: "prod".into() }
}

fn client(user_agent: &str) -> Client {
    let id = ConnectionId::parse("7e8s-43WgB1PFu4=").unwrap();
    Client {
        id,
        id_header: id.text().header(),
        stage: key(),
        domain_name: "rt.example.com:8080".into(),
        callback_url: HeaderValue::from_static("http://rt.example.com:8080/prod/@connections/x"),
        source_ip: [192, 0, 2, 7].into(),
        user_agent: Some(user_agent.into()),
        connected_at: Timestamp(1_763_684_400_118),
        identity: RwLock::default(),
    }
}

/// A call as it may have been.
struct Was<'a> {
    event: ConnectionEvent<'a>,
    refusal: Option<Refusal>,
    identity: Option<Identity>,
    trail: Trail,
}

impl<'a> Was<'a> {
    fn of(event: ConnectionEvent<'a>) -> Self {
        Self { event, refusal: None, identity: None, trail: Trail::default() }
    }

    fn line(&self, format: &str) -> String {
        let client = client("cu\"rl\n\u{1b}[31m\\é\u{2028}");
        let format = Format::parse(&format!("{format} $context.requestId"), WebSocket, &key()).unwrap();
        let record = Record {
            what: What::Connection(Happening { client: &client, event: self.event }),
            stage: &client.stage,
            route_key: "send\"message",
            request_id: Id::random(),
            at: Timestamp(1_763_684_400_118),
            identity: self.identity.as_ref(),
            trail: &self.trail,
            status: self.refusal.as_ref().map_or(200, |refusal| refusal.kind.status()),
            refusal: self.refusal.as_ref(),
            took: Duration::from_micros(12_700),
            received: 5,
            sent: 7,
            body: b"hello",
            answer: b"goodbye",
        };
        let line = format.with_line(&record, |line| String::from_utf8(line.to_vec()).unwrap());
        line.rsplit_once(' ').unwrap().0.to_owned()
    }

    #[track_caller]
    fn check(&self, format: &str, expected: &str) {
        assert_eq!(self.line(format), expected, "{format}");
    }
}

fn message() -> Incoming {
    Incoming { id: Id::random(), body: "hello".into(), binary: false }
}

fn leg(status: Option<u16>) -> Option<Leg> {
    Some(Leg { began: Instant::now(), took: Duration::from_millis(3), status, span: None })
}

#[test]
fn a_message_has_its_variables_and_a_dash_for_all_others() {
    let message = message();
    let was = Was::of(ConnectionEvent::Message(&message));
    was.check("$context.apiId/$context.stage $context.eventType $context.status", "chat/prod MESSAGE 200");
    was.check("$context.connectionId ${context.connectionId}x", "7e8s-43WgB1PFu4= 7e8s-43WgB1PFu4=x");
    was.check("$context.messageId", &message.id.to_string());
    was.check("[$context.requestTime] $context.requestTimeEpoch", "[21/Nov/2025:00:20:00 +0000] 1763684400118");
    was.check("$context.connectedAt $context.domainName", "1763684400118 rt.example.com:8080");
    was.check("$context.responseLatency $context.responseLength $context.dataProcessed", "12 7 12");
    was.check("$context.integrationLatency $context.error.message $context.authorizer.sub", "- - -");
    was.check("$context.disconnectStatusCode $context.disconnectReason $context.path", "- - -");
    was.check("$context.waf.status $context.identity.principalOrgId $context.integration.requestId", "- - -");
    was.check("$context.identity.sourceIp. It was $context.status.", "192.0.2.7. It was 200.");
}

#[test]
fn what_a_client_sends_ends_neither_a_line_nor_its_quotes() {
    let message = message();
    let was = Was::of(ConnectionEvent::Message(&message));
    was.check("$context.identity.userAgent", "cu\\\"rl\\x0a\\x1b[31m\\\\é\\xe2\\x80\\xa8");
    was.check("$context.routeKey", "send\\\"message");
    let line = was.line(r#"{"agent":"$context.identity.userAgent","route":"$context.routeKey"}"#);
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["agent"], "cu\"rl\n\u{1b}[31m\\é\u{2028}");
    assert_eq!(json["route"], "send\"message");
    assert!(!line.contains(['\n', '\u{2028}']), "{line}");
}

#[test]
fn a_refusal_says_what_the_client_was_told_and_the_log_why() {
    let message = message();
    let mut was = Was::of(ConnectionEvent::Message(&message));
    was.refusal = Some(Kind::IntegrationTimeout.because("the backend did not answer within 5s"));
    was.trail.integration = leg(None);
    was.check("$context.status $context.error.message", "504 Endpoint request timed out");
    was.check("$context.error.responseType $context.integrationStatus", "INTEGRATION_TIMEOUT -");
    was.check("$context.integration.error", "the backend did not answer within 5s");
    was.check("$context.error.messageString", "\\\"Endpoint request timed out\\\"");
    was.check("$context.integrationLatency $context.authorizer.error", "3 -");
}

#[test]
fn who_it_is_and_whether_it_may_are_told_apart() {
    let mut headers = http::HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("x"));
    let handshake = Handshake {
        headers,
        path: "/prod".into(),
        query: None,
        host: "rt.example.com".into(),
        scheme: "http",
        port: 80,
        has_certificate: false,
    };
    let format = "$context.authorizer.status $context.authenticate.status $context.authorize.status \
                  $context.authorize.error $context.authenticate.error";
    let check = |refusal: Option<Refusal>, authorizer: Option<u16>, expected: &str| {
        let mut was = Was::of(ConnectionEvent::Connect(&handshake));
        was.refusal = refusal;
        was.trail.authorizer = authorizer.and_then(|status| leg(Some(status)));
        was.check(format, expected);
    };
    check(None, None, "- - - - -");
    check(None, Some(200), "200 200 200 - -");
    check(Some(Kind::Unauthorized.because("expired").by(Cause::Unauthorized)), Some(401), "401 401 - - expired");
    check(Some(Kind::ExplicitDeny.because("no").by(Cause::Denied)), Some(200), "200 200 403 no -");
    check(Some(Kind::AuthorizerFailure.because("down").by(Cause::AuthorizerFailure)), Some(500), "500 200 500 down -");
    check(Some(Kind::Throttled.because("fast").by(Cause::RouteThrottle)), None, "- - - - -");
    let mut was = Was::of(ConnectionEvent::Connect(&handshake));
    was.check("$context.eventType $context.path $context.httpMethod", "CONNECT /prod GET");
    let claims = serde_json::json!({ "sub": "alice", "n": 1, "groups": ["a", "b"] });
    was.identity = Some(Identity {
        granted: Some(Arc::new(Granted::jwt(claims.as_object().unwrap().clone(), None))),
        api_key: Some(ApiKey { id: "acme".into(), value: "secret".into() }),
        ..Identity::default()
    });
    was.check(
        "$context.authorizer.principalId $context.authorizer.claims.n $context.authorizer.claims",
        "alice 1 null",
    );
    was.check("$context.authorizer.claims.groups $context.authorizer.nope", "[a b] -");
    was.check("$context.identity.apiKeyId $context.identity.apiKey $context.identity.caller", "acme secret -");
}

#[test]
fn a_disconnect_and_a_push_have_their_own() {
    let close = Close::by_client(4001, "bye\r\nnow");
    let was = Was::of(ConnectionEvent::Disconnect(&close));
    was.check(
        "$context.eventType $context.disconnectStatusCode $context.disconnectReason",
        "DISCONNECT 4001 bye\\x0d\\x0anow",
    );
    let trail = Trail::default();
    let stage = key();
    let record = Record {
        what: What::Push(Push {
            method: &http::Method::POST,
            connection_id: "no\nid",
            client: None,
            source_ip: [127, 0, 0, 1].into(),
            user_agent: None,
            domain_name: "localhost",
        }),
        stage: &stage,
        route_key: "POST @connections",
        request_id: Id::random(),
        at: Timestamp(0),
        identity: None,
        trail: &trail,
        status: 410,
        refusal: None,
        took: Duration::ZERO,
        received: 2,
        sent: 0,
        body: b"",
        answer: b"",
    };
    let format = "$context.eventType \"$context.routeKey\" $context.connectionId $context.messageDirection \
                  $context.status $context.connectedAt $context.requestId";
    let line = Format::parse(format, WebSocket, &key())
        .unwrap()
        .with_line(&record, |line| String::from_utf8_lossy(line).into_owned());
    assert!(line.starts_with("PUSH \"POST @connections\" no\\x0aid OUT 410 - "), "{line}");
}

#[test]
fn json_and_clf_stand_for_whole_formats() {
    for protocol in [WebSocket, Http] {
        for name in ["json", "clf"] {
            assert!(Format::parse(name, protocol, &key()).is_ok(), "{name}");
        }
    }
}

#[test]
fn a_format_that_cannot_be_one_says_why() {
    let check = |format: &str, protocol, expected: &str| {
        let error = Format::parse(format, protocol, &key()).unwrap_err().to_string();
        assert!(error.contains(expected), "{format}: {error}");
    };
    check("jsonn", WebSocket, "`jsonn` is no format; write `json`, `clf`");
    check("$context.status", WebSocket, "has no `$context.requestId`");
    check("$context.requestID", WebSocket, "did you mean `context.requestId`?");
    check("$context.messageId $context.requestId", Http, "`context.messageId` is unknown");
    check("$request.body.x", WebSocket, "`$request.body.x` is no variable of an access log");
    check("${context.requestId", WebSocket, "never closed");
    check("a\n$context.requestId", WebSocket, "line break");
    check(&"$context.requestId".repeat(400), WebSocket, "shorten it");
    let format = |text| Format::parse(text, WebSocket, &key()).unwrap();
    assert_eq!(format("$context.identity.apiKey $context.extendedRequestId").warning(), Some(Warning::Secret));
    assert_eq!(format("$context.identity.apiKeyId $context.requestId").warning(), None);
}
