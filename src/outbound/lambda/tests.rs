//! Events of HTTP requests, against requests as they are on the wire.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::model::call::Event;
use crate::model::client::StageKey;
use crate::model::clock::Timestamp;
use crate::model::id::Id;
use crate::model::request::ClientCertificate;

/// A request, and what its route and stage are.
#[derive(Clone, Copy)]
struct Sent<'a> {
    /// Request line and headers, an empty line, the body.
    text: &'a str,
    route_key: &'a str,
    stage: &'a str,
    path_parameters: &'a [(&'a str, &'a str)],
    stage_variables: &'a [(&'a str, &'a str)],
    authorizer: Option<&'a str>,
    has_certificate: bool,
}

const PLAIN: Sent<'_> = Sent {
    text: "GET /ping",
    route_key: "GET /ping",
    stage: "$default",
    path_parameters: &[],
    stage_variables: &[],
    authorizer: None,
    has_certificate: false,
};

impl Sent<'_> {
    fn event(self, format: Format) -> Value {
        let (head, body) = self.text.split_once("\n\n").unwrap_or((self.text, ""));
        let mut lines = head.lines();
        let (method, target) = lines.next().and_then(|line| line.split_once(' ')).expect("a request line");
        let mut head = http::Request::builder().method(method).uri(target);
        for (name, value) in lines.map(|line| line.split_once(": ").expect(line)) {
            head = head.header(name, value);
        }
        self.event_of(format, head.body(()).expect(self.text).into_parts().0, body.as_bytes())
    }

    fn event_of(self, format: Format, head: http::request::Parts, body: &[u8]) -> Value {
        let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).to_owned());
        let request = HttpRequest {
            stamp: None,
            hidden_stage: None,
            stage: StageKey { api: "pets".into(), stage: self.stage.into() },
            head,
            base_path: 0,
            stage_path: if self.stage == "$default" { 0 } else { self.stage.len() + 1 },
            path_parameters: self.path_parameters.iter().map(owned).collect(),
            body: Bytes::new(),
            domain_name: "pets.example.com".into(),
            source_ip: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 4)),
            scheme: "https",
            port: 8443,
            client_certificate: self.has_certificate.then(|| Arc::new(certificate())),
        };
        let call = Call {
            event: Event::Request(&request),
            route_key: self.route_key,
            request_id: Id::random(),
            at: Timestamp(1_763_684_400_118),
            identity: None,
            trace: None,
        };
        let stage_variables =
            self.stage_variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let authorizer = self.authorizer.map(|json| RawValue::from_string(json.to_owned()).expect(json));
        let origin = Origin {
            account_id: "000000000000",
            stage_variables: &stage_variables,
            trace_id: &HeaderValue::from_static("Root=1-691faf30-000000000000000000000001"),
            forwarded_for: "198.51.100.4",
            authorizer: authorizer.as_deref(),
        };
        let event = format.write(&call, &request, body, &origin);
        let mut event: Value = serde_json::from_slice(&event).expect("an event is JSON");
        // An id is random; every place has the same.
        let context = &mut event["requestContext"];
        assert_eq!(context["requestId"], *call.request_id.text().as_str());
        context["requestId"] = "ID".into();
        if format == Format::V1 {
            assert_eq!(context["extendedRequestId"], *call.request_id.text().as_str());
            context["extendedRequestId"] = "ID".into();
        }
        event
    }
}

fn certificate() -> ClientCertificate {
    ClientCertificate {
        pem: "-----BEGIN CERTIFICATE-----\n".into(),
        subject_dn: "CN=shop".into(),
        issuer_dn: "CN=shops".into(),
        serial_number: "2a".into(),
        not_before: "Jan  1 00:00:00 2025 GMT".into(),
        not_after: "Jan  1 00:00:00 2035 GMT".into(),
    }
}

fn cert_in_events() -> Value {
    json!({ "clientCertPem": "-----BEGIN CERTIFICATE-----\n", "subjectDN": "CN=shop", "issuerDN": "CN=shops",
        "serialNumber": "2a",
        "validity": { "notBefore": "Jan  1 00:00:00 2025 GMT", "notAfter": "Jan  1 00:00:00 2035 GMT" } })
}

/// What stands at a place of the event, `None` if the place is not there.
#[track_caller]
fn shows(format: Format, sent: Sent<'_>, place: &str, expected: impl Into<Option<Value>>) {
    let event = sent.event(format);
    assert_eq!(event.pointer(place).cloned(), expected.into(), "{place} of {event:#}");
}

fn text(text: &str) -> Sent<'_> {
    Sent { text, ..PLAIN }
}

const FULL: Sent<'_> = Sent {
    text: "PUT /dev/pets/red%20fox/toys?size=s&size=l&name=b%C3%A4r+x\n\
        Host: ignored.example.com\nCookie: sid=7;theme=dark\nCookie: lang=de\nX-Tag: one\nX-Tag: two\n\
        User-Agent: probe/2\nContent-Type: application/json\nX-Forwarded-For: 203.0.113.1\nX-Livegate-Api: fake\n\
        Transfer-Encoding: chunked\nConnection: keep-alive\nX-Amzn-Trace-Id: mine\n\n{\"a\": \"ü\"}",
    route_key: "PUT /pets/{pet}/toys",
    stage: "dev",
    path_parameters: &[("pet", "red%20fox")],
    stage_variables: &[("color", "blue")],
    authorizer: Some(r#"{"lambda":{"level":3}}"#),
    has_certificate: true,
};

#[test]
fn a_request_in_format_2_0() {
    let expected = json!({
        "version": "2.0",
        "routeKey": "PUT /pets/{pet}/toys",
        "rawPath": "/dev/pets/red fox/toys",
        "rawQueryString": "size=s&size=l&name=b%C3%A4r+x",
        "cookies": ["sid=7", "theme=dark", "lang=de"],
        "headers": {
            "content-length": "11",
            "content-type": "application/json",
            "host": "pets.example.com",
            "user-agent": "probe/2",
            "x-amzn-trace-id": "Root=1-691faf30-000000000000000000000001",
            "x-forwarded-for": "198.51.100.4",
            "x-forwarded-port": "8443",
            "x-forwarded-proto": "https",
            "x-tag": "one,two",
        },
        "queryStringParameters": { "name": "bär x", "size": "s,l" },
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "pets",
            "authentication": { "clientCert": cert_in_events() },
            "authorizer": { "lambda": { "level": 3 } },
            "domainName": "pets.example.com",
            "domainPrefix": "pets",
            "http": {
                "method": "PUT",
                "path": "/dev/pets/red fox/toys",
                "protocol": "HTTP/1.1",
                "sourceIp": "198.51.100.4",
                "userAgent": "probe/2",
            },
            "requestId": "ID",
            "routeKey": "PUT /pets/{pet}/toys",
            "stage": "dev",
            "time": "21/Nov/2025:00:20:00 +0000",
            "timeEpoch": 1_763_684_400_118_u64,
        },
        "pathParameters": { "pet": "red fox" },
        "stageVariables": { "color": "blue" },
        "body": "{\"a\": \"ü\"}",
        "isBase64Encoded": false,
    });
    assert_eq!(FULL.event(Format::V2), expected);
}

#[test]
fn a_request_in_format_1_0() {
    let lists = json!({
        "Content-Length": ["11"],
        "Content-Type": ["application/json"],
        "Cookie": ["sid=7;theme=dark", "lang=de"],
        "Host": ["pets.example.com"],
        "User-Agent": ["probe/2"],
        "X-Amzn-Trace-Id": ["Root=1-691faf30-000000000000000000000001"],
        "X-Forwarded-For": ["198.51.100.4"],
        "X-Forwarded-Port": ["8443"],
        "X-Forwarded-Proto": ["https"],
        "X-Tag": ["one", "two"],
    });
    let mut last = lists.clone();
    for values in last.as_object_mut().expect("a map").values_mut() {
        *values = values.as_array().and_then(|values| values.last()).cloned().expect("values");
    }
    let expected = json!({
        "version": "1.0",
        "resource": "/pets/{pet}/toys",
        "path": "/dev/pets/red%20fox/toys",
        "httpMethod": "PUT",
        "headers": last,
        "multiValueHeaders": lists,
        "queryStringParameters": { "name": "bär x", "size": "l" },
        "multiValueQueryStringParameters": { "name": ["bär x"], "size": ["s", "l"] },
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "pets",
            "authorizer": { "lambda": { "level": 3 } },
            "domainName": "pets.example.com",
            "domainPrefix": "pets",
            "extendedRequestId": "ID",
            "httpMethod": "PUT",
            "identity": {
                "accessKey": null,
                "accountId": null,
                "caller": null,
                "clientCert": cert_in_events(),
                "cognitoAuthenticationProvider": null,
                "cognitoAuthenticationType": null,
                "cognitoIdentityId": null,
                "cognitoIdentityPoolId": null,
                "principalOrgId": null,
                "sourceIp": "198.51.100.4",
                "user": null,
                "userAgent": "probe/2",
                "userArn": null,
            },
            "path": "/dev/pets/red fox/toys",
            "protocol": "HTTP/1.1",
            "requestId": "ID",
            "requestTime": "21/Nov/2025:00:20:00 +0000",
            "requestTimeEpoch": 1_763_684_400_118_u64,
            "resourceId": "PUT /pets/{pet}/toys",
            "resourcePath": "/pets/{pet}/toys",
            "stage": "dev",
        },
        "pathParameters": { "pet": "red fox" },
        "stageVariables": { "color": "blue" },
        "body": "{\"a\": \"ü\"}",
        "isBase64Encoded": false,
    });
    assert_eq!(FULL.event(Format::V1), expected);
}

#[test]
fn what_is_empty_is_absent_in_2_0_and_null_in_1_0() {
    for place in ["/body", "/pathParameters", "/queryStringParameters", "/stageVariables"] {
        shows(Format::V2, PLAIN, place, None);
        shows(Format::V1, PLAIN, place, json!(null));
    }
    shows(Format::V1, PLAIN, "/multiValueQueryStringParameters", json!(null));
    shows(Format::V2, PLAIN, "/cookies", None);
    shows(Format::V2, PLAIN, "/requestContext/authentication", None);
    shows(Format::V1, PLAIN, "/requestContext/identity/clientCert", None);
    shows(Format::V2, PLAIN, "/rawQueryString", json!(""));
    shows(Format::V2, PLAIN, "/requestContext/http/userAgent", json!(""));
    shows(Format::V1, PLAIN, "/requestContext/identity/userAgent", json!(""));
    shows(Format::V2, PLAIN, "/headers/content-length", json!("0"));
    shows(Format::V1, PLAIN, "/headers/Content-Length", json!("0"));
    for format in [Format::V1, Format::V2] {
        shows(format, PLAIN, "/requestContext/authorizer", None);
        shows(format, PLAIN, "/isBase64Encoded", json!(false));
    }
    for sent in [text("GET /ping?"), text("GET /ping?&")] {
        shows(Format::V2, sent, "/queryStringParameters", None);
        shows(Format::V1, sent, "/queryStringParameters", json!(null));
    }
}

#[test]
fn the_default_route_is_called_so() {
    let sent = Sent { text: "GET /dev/any%2Fthing", route_key: "$default", stage: "dev", ..PLAIN };
    shows(Format::V2, sent, "/routeKey", json!("$default"));
    shows(Format::V2, sent, "/rawPath", json!("/dev/any/thing"));
    shows(Format::V1, sent, "/resource", json!("$default"));
    shows(Format::V1, sent, "/requestContext/resourcePath", json!("$default"));
    shows(Format::V1, sent, "/requestContext/resourceId", json!("$default"));
}

#[test]
fn paths_are_decoded_but_for_the_path_of_1_0() {
    let sent = |path| Sent { text: path, path_parameters: &[("a", "%F0%9F%A6%8A%25"), ("proxy", "")], ..PLAIN };
    shows(Format::V2, sent("GET /%F0%9F%A6%8A%25/%ff+"), "/rawPath", json!("/🦊%/\u{fffd}+"));
    shows(Format::V2, sent("GET /"), "/pathParameters", json!({ "a": "🦊%", "proxy": "" }));
    shows(Format::V1, sent("GET /"), "/pathParameters", json!({ "a": "🦊%", "proxy": "" }));
    shows(Format::V1, sent("GET /%F0%9F%A6%8A"), "/path", json!("/%F0%9F%A6%8A"));
    shows(Format::V1, sent("GET /%F0%9F%A6%8A"), "/requestContext/path", json!("/🦊"));
}

#[test]
fn parameters_are_decoded_and_gathered() {
    let sent = text("GET /?b=1&a&b=&%62=x%2Cy&c=%26");
    shows(Format::V2, sent, "/rawQueryString", json!("b=1&a&b=&%62=x%2Cy&c=%26"));
    shows(Format::V2, sent, "/queryStringParameters", json!({ "a": "", "b": "1,,x,y", "c": "&" }));
    shows(Format::V1, sent, "/queryStringParameters", json!({ "a": "", "b": "x,y", "c": "&" }));
    let lists = json!({ "a": [""], "b": ["1", "", "x,y"], "c": ["&"] });
    shows(Format::V1, sent, "/multiValueQueryStringParameters", lists);
}

#[test]
fn cookies_of_2_0_are_one_for_each_part() {
    let check = |line: &str, expected: Option<Value>| {
        let sent = format!("GET /\nCookie: {line}");
        shows(Format::V2, text(&sent), "/cookies", expected);
        shows(Format::V2, text(&sent), "/headers/cookie", None);
    };
    check("a=1", Some(json!(["a=1"])));
    check("a=1; b=x=y;c", Some(json!(["a=1", "b=x=y", "c"])));
    check("; ;", None);
}

#[test]
fn text_stays_text_and_all_else_is_base64() {
    let check = |content_type: &str, is_base64: bool| {
        let sent = format!("POST /\nContent-Type: {content_type}\n\nhi");
        for format in [Format::V1, Format::V2] {
            shows(format, text(&sent), "/isBase64Encoded", json!(is_base64));
            shows(format, text(&sent), "/body", json!(if is_base64 { "aGk=" } else { "hi" }));
        }
    };
    check("text/plain", false);
    check("Text/CSV; charset=utf-8", false);
    check("application/json", false);
    check("application/json;charset=utf-8", false);
    check("application/xml", false);
    check("application/javascript", false);
    check("application/problem+json", false);
    check("image/svg+xml", false);
    check("application/octet-stream", true);
    check("application/x-www-form-urlencoded", true);
    check("multipart/form-data; boundary=x", true);
    check("application/jsonl", true);
    shows(Format::V2, text("POST /\n\nhi"), "/body", json!("hi"));
    shows(Format::V2, text("POST /\nContent-Type: image/png"), "/isBase64Encoded", json!(false));
}

#[test]
fn an_answer_of_another_status_is_the_functions_error() {
    let body = Bytes::from_static(br#"{"statusCode":201}"#);
    for format in [Format::V1, Format::V2] {
        let check = |transport: u16, expected: Option<u16>| {
            let status = StatusCode::from_u16(transport).expect("a status");
            assert_eq!(format.read(status, &body).ok().map(|reply| reply.status.as_u16()), expected, "{transport}");
        };
        check(200, Some(201));
        check(202, Some(201));
        check(302, None);
        check(404, None);
        check(500, None);
    }
}

proptest! {
    #[test]
    fn no_body_is_lost(body: Vec<u8>, content_type in "text/plain|image/png|application/json; charset=latin1") {
        for format in [Format::V1, Format::V2] {
            let head = http::Request::builder().header("content-type", &content_type).body(()).expect("a head");
            let event = PLAIN.event_of(format, head.into_parts().0, &body);
            let shown = event["body"].as_str().unwrap_or_default();
            let received = match event["isBase64Encoded"] {
                Value::Bool(true) => STANDARD.decode(shown).expect("base64"),
                _ => shown.as_bytes().to_vec(),
            };
            prop_assert_eq!(&received, &body);
        }
    }
}
