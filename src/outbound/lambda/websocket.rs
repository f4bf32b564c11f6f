//! `payload = "event"`: the AWS proxy event as a Lambda handler knows it, and its proxy answer.
//!
//! Field for field what Amazon API Gateway sends since 2022: absent values are left out, never null.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::expressions::scope::StageVariables;
use crate::model::call::{Call, ConnectionEvent, Handshake, Happening, Reply};
use crate::model::client::Client;
use crate::model::close::Close;
use crate::model::headers::{self, title_case};
use crate::model::identity::Identity;
use crate::model::json;

type Single = BTreeMap<Spelling, String>;
type Multi = BTreeMap<Spelling, Vec<String>>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Proxied<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Single>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<Multi>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_query_string_parameters: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage_variables: Option<&'a StageVariables>,
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    route_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    event_type: &'static str,
    extended_request_id: String,
    request_time: String,
    message_direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    stage: &'a str,
    connected_at: u64,
    request_time_epoch: u64,
    identity: Caller<'a>,
    request_id: String,
    domain_name: &'a str,
    connection_id: String,
    api_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Caller<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    source_ip: String,
}

/// A header's name as it is spelled; ordered without regard to case, as AWS orders them.
#[derive(Serialize, PartialEq, Eq)]
#[serde(transparent)]
struct Spelling(String);

impl Ord for Spelling {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let lower = |spelling: &Self| spelling.0.to_ascii_lowercase();
        lower(self).cmp(&lower(other))
    }
}

impl PartialOrd for Spelling {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The event as JSON.
pub fn write(
    call: &Call<'_>,
    happening: Happening<'_>,
    stage_variables: &StageVariables,
    trace_id: &HeaderValue,
) -> Bytes {
    let client = happening.client;
    let mut event = Proxied {
        headers: None,
        multi_value_headers: None,
        query_string_parameters: None,
        multi_value_query_string_parameters: None,
        stage_variables: (!stage_variables.is_empty()).then_some(stage_variables),
        request_context: request_context(call, happening),
        body: None,
        is_base64_encoded: false,
    };
    match happening.event {
        ConnectionEvent::Connect(handshake) => {
            let (single, multi) = connect_headers(handshake, client, trace_id);
            (event.headers, event.multi_value_headers) = (Some(single), Some(multi));
            if let Some(query) = handshake.query.as_deref().filter(|query| !query.is_empty()) {
                let (single, multi) = query_parameters(query);
                event.query_string_parameters = Some(single);
                event.multi_value_query_string_parameters = Some(multi);
            }
        }
        ConnectionEvent::Message(message) => {
            event.is_base64_encoded = message.binary;
            event.body = Some(if message.binary { STANDARD.encode(&message.body) } else { message.text().to_owned() });
        }
        ConnectionEvent::Disconnect(close) => {
            let (single, multi) = disconnect_headers(client);
            (event.headers, event.multi_value_headers) = (Some(single), Some(multi));
            let context = &mut event.request_context;
            (context.disconnect_status_code, context.disconnect_reason) = (Some(close.code), Some(reason(close)));
        }
    }
    Bytes::from(serde_json::to_vec(&event).expect("maps with text keys are JSON"))
}

fn reason(close: &Close) -> &str {
    &close.reason
}

fn request_context<'a>(call: &'a Call<'_>, happening: Happening<'a>) -> RequestContext<'a> {
    let client = happening.client;
    let request_id = call.request_id.to_string();
    let is_connect = matches!(happening.event, ConnectionEvent::Connect(_));
    RequestContext {
        route_key: call.route_key,
        authorizer: call.identity.as_ref().and_then(|identity| identity.shown_on_connection(is_connect)),
        message_id: match happening.event {
            ConnectionEvent::Message(message) => Some(message.id.to_string()),
            _ => None,
        },
        disconnect_status_code: None,
        event_type: happening.event.name(),
        extended_request_id: request_id.clone(),
        request_time: call.at.clf(),
        message_direction: "IN",
        disconnect_reason: None,
        stage: &client.stage.stage,
        connected_at: client.connected_at.0,
        request_time_epoch: call.at.0,
        identity: caller(call.identity.as_deref(), client),
        request_id,
        domain_name: &client.domain_name,
        connection_id: client.id.to_string(),
        api_id: &client.stage.api,
    }
}

fn caller<'a>(identity: Option<&'a Identity>, client: &'a Client) -> Caller<'a> {
    let signer = identity.and_then(|identity| identity.signer.as_deref());
    let api_key = identity.and_then(|identity| identity.api_key.as_ref());
    Caller {
        access_key: signer.map(|signer| &*signer.access_key),
        account_id: signer.map(|signer| &*signer.account_id),
        api_key: api_key.map(|key| &*key.value),
        api_key_id: api_key.map(|key| &*key.id),
        caller: signer.map(|signer| &*signer.user),
        user: signer.map(|signer| &*signer.user),
        user_arn: signer.map(|signer| &*signer.user_arn),
        user_agent: client.user_agent.as_deref(),
        source_ip: client.source_ip.to_string(),
    }
}

fn connect_headers(handshake: &Handshake, client: &Client, trace_id: &HeaderValue) -> (Single, Multi) {
    let mut multi = Multi::new();
    for (name, value) in &handshake.headers {
        let dropped = matches!(name.as_str(), "connection" | "upgrade" | "content-length" | "host")
            || headers::is_forwarding(name)
            || headers::is_ours(name);
        if !dropped {
            let values = multi.entry(Spelling(title_case(name.as_str()))).or_default();
            values.push(headers::text(value).into_owned());
        }
    }
    let mut add = |name: &str, value: String| multi.insert(Spelling(name.to_owned()), vec![value]);
    add("Host", client.domain_name.to_string());
    add("X-Amzn-Trace-Id", headers::text(trace_id).into_owned());
    add("X-Forwarded-For", client.source_ip.to_string());
    add("X-Forwarded-Port", handshake.port.to_string());
    add("X-Forwarded-Proto", handshake.scheme.to_owned());
    (last_of_each(&multi), multi)
}

/// AWS sends exactly these four, three of them empty.
fn disconnect_headers(client: &Client) -> (Single, Multi) {
    let host = client.domain_name.to_string();
    let pairs = [
        ("Host", host),
        ("x-api-key", String::new()),
        ("X-Forwarded-For", String::new()),
        ("x-restapi", String::new()),
    ];
    let multi = pairs.into_iter().map(|(name, value)| (Spelling(name.to_owned()), vec![value])).collect();
    (last_of_each(&multi), multi)
}

fn last_of_each(multi: &Multi) -> Single {
    multi.iter().filter_map(|(name, values)| Some((Spelling(name.0.clone()), values.last()?.clone()))).collect()
}

fn query_parameters(query: &str) -> (BTreeMap<String, String>, BTreeMap<String, Vec<String>>) {
    let mut single = BTreeMap::new();
    let mut multi: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        single.insert(name.clone().into_owned(), value.clone().into_owned());
        multi.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    (single, multi)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Answer {
    status_code: u16,
    #[serde(default)]
    headers: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(default)]
    multi_value_headers: Option<BTreeMap<String, Vec<serde_json::Value>>>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

/// Reads a proxy answer; the error says what is wrong with it, for the log.
pub fn read(answer: &[u8]) -> Result<Reply, String> {
    if answer.trim_ascii().is_empty() {
        return Ok(Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::new() });
    }
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|error| format!("no proxy answer: {}", json::fault(&error)))?;
    let status = StatusCode::from_u16(answer.status_code)
        .ok()
        .filter(|status| (100..600).contains(&status.as_u16()))
        .ok_or_else(|| format!("no HTTP status: {}", answer.status_code))?;
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers.into_iter().flatten() {
        insert(&mut headers, &name, &value)?;
    }
    for (name, values) in answer.multi_value_headers.into_iter().flatten() {
        values.iter().try_for_each(|value| insert(&mut headers, &name, value))?;
    }
    let body = match answer.body {
        Some(body) if answer.is_base64_encoded == Some(true) => {
            STANDARD.decode(body).map_err(|_| "`body` is no base64 although `isBase64Encoded` is true")?.into()
        }
        body => Bytes::from(body.unwrap_or_default()),
    };
    Ok(Reply { status, headers, body })
}

fn insert(headers: &mut HeaderMap, name: &str, value: &serde_json::Value) -> Result<(), String> {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
        _ => return Err(format!("header `{name}` is neither text, number nor boolean")),
    };
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
    let text =
        HeaderValue::from_str(&text).map_err(|_| format!("header `{name}` has characters that no header may have"))?;
    headers.append(name, text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_answers_that_are_well_formed() {
        let check = |answer: &str, status: u16, body: &str| {
            let reply = read(answer.as_bytes()).expect(answer);
            assert_eq!((reply.status.as_u16(), &*reply.body), (status, body.as_bytes()), "{answer}");
        };
        check("", 200, "");
        check(r#"{"statusCode":200}"#, 200, "");
        check(r#"{"statusCode":403,"body":"no"}"#, 403, "no");
        check(r#"{"statusCode":200,"body":""}"#, 200, "");
        check(r#"{"statusCode":200,"body":null,"headers":null}"#, 200, "");
        check(r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true}"#, 200, "hi");
        check(r#"{"statusCode":200,"headers":{"a":true,"B":1},"multiValueHeaders":{"c":["x","y"]}}"#, 200, "");
    }

    #[test]
    fn proxy_answers_that_are_malformed() {
        let malformed = [
            "null",
            "\"hi\"",
            "[]",
            "hello",
            "{}",
            r#"{"statusCode":"200"}"#,
            r#"{"statusCode":200.5}"#,
            r#"{"statusCode":200,"body":{}}"#,
            r#"{"statusCode":200,"ConnectionId":"x"}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":200,"body":"!","isBase64Encoded":true}"#,
            r#"{"statusCode":200,"headers":{"a":[]}}"#,
            r#"{"statusCode":200,"headers":{"a":"x\r\ny"}}"#,
        ];
        for answer in malformed {
            assert!(read(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
