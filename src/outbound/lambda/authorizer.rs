//! The events that Lambda authorizers get: those of the integration with another head and without a body.
//!
//! WebSocket APIs have one form, HTTP APIs two; a `TOKEN` event is the same for all.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Format, Origin, http_v1, http_v2, websocket};
use crate::model::call::{Call, Happening};
use crate::model::request::HttpRequest;

/// What an authorizer is asked about, besides the call.
pub struct Asked<'a> {
    /// `arn:aws:execute-api:<region>:<account>:<api>/<stage>/…`
    pub arn: &'a str,
    /// What identifies the caller, in the order of the setting.
    pub identity: &'a [String],
}

/// The token alone.
pub fn token(asked: &Asked<'_>) -> Bytes {
    let token = asked.identity.first();
    bytes(&json!({ "type": "TOKEN", "authorizationToken": token, "methodArn": asked.arn }))
}

/// The handshake of a client of a WebSocket API.
pub fn of_handshake(asked: &Asked<'_>, call: &Call<'_>, happening: Happening<'_>) -> Bytes {
    let mut event = map(&websocket::write(call, happening, &Default::default(), &call.trace_id()));
    event.remove("isBase64Encoded");
    // What the integration's event leaves out of the handshake, this one has.
    for (name, value) in [("Connection", "upgrade"), ("Upgrade", "websocket"), ("content-length", "0")] {
        event["headers"][name] = value.into();
        event["multiValueHeaders"][name] = json!([value]);
    }
    for name in ["queryStringParameters", "multiValueQueryStringParameters", "stageVariables"] {
        event.entry(name).or_insert_with(|| json!({}));
    }
    event.insert("type".into(), "REQUEST".into());
    event.insert("methodArn".into(), asked.arn.into());
    let members = event.iter().map(|(name, value)| match value {
        Value::Object(headers) if name == "headers" || name == "multiValueHeaders" => (name, in_order(headers)),
        value => (name, value.to_string()),
    });
    Bytes::from(object(members))
}

/// AWS lists headers without regard to case.
fn in_order(headers: &Map<String, Value>) -> String {
    let mut headers: Vec<_> = headers.iter().collect();
    headers.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    object(headers.into_iter().map(|(name, value)| (name, value.to_string())))
}

fn object<'a>(members: impl Iterator<Item = (&'a String, String)>) -> String {
    let members: Vec<_> = members.map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
    format!("{{{}}}", members.join(","))
}

/// A request of an HTTP API.
pub fn of_request(
    format: Format,
    asked: &Asked<'_>,
    call: &Call<'_>,
    request: &HttpRequest,
    origin: &Origin<'_>,
) -> Bytes {
    let mut event = match format {
        Format::V1 => map(&http_v1::write(call, request, b"", origin)),
        Format::V2 => map(&http_v2::write(call, request, b"", origin)),
    };
    for name in ["body", "isBase64Encoded", "multiValueHeaders", "multiValueQueryStringParameters"] {
        event.remove(name);
    }
    correct_length(&mut event["headers"], request);
    event.insert("type".into(), "REQUEST".into());
    match format {
        Format::V1 => {
            for name in ["queryStringParameters", "pathParameters", "stageVariables"] {
                if event[name].is_null() {
                    event.insert(name.into(), json!({}));
                }
            }
            let identity = (!asked.identity.is_empty()).then(|| asked.identity.join(","));
            event.insert("methodArn".into(), asked.arn.into());
            event.insert("identitySource".into(), identity.clone().into());
            event.insert("authorizationToken".into(), identity.into());
        }
        Format::V2 => {
            let identity = (!asked.identity.is_empty()).then_some(asked.identity);
            event.insert("routeArn".into(), asked.arn.into());
            event.insert("identitySource".into(), json!(identity));
        }
    }
    bytes(&Value::Object(event))
}

/// The body is not there yet, so its length is what the client says.
fn correct_length(headers: &mut Value, request: &HttpRequest) {
    let Some(headers) = headers.as_object_mut() else { return };
    let said = request.head.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    for name in ["content-length", "Content-Length"] {
        match said {
            Some(said) => headers.entry(name).and_modify(|length| *length = said.into()),
            None => {
                headers.remove(name);
                continue;
            }
        };
    }
}

fn map(event: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(event).expect("an event is an object")
}

fn bytes(event: &Value) -> Bytes {
    Bytes::from(event.to_string())
}
