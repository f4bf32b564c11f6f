//! The event of an HTTP request in format 2.0: what is empty is left out, never null.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use http::HeaderMap;
use http::header::COOKIE;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Origin;
use super::pairs::Joined;
use super::shown::{self, ClientCert};
use crate::expressions::scope::StageVariables;
use crate::model::call::Call;
use crate::model::headers;
use crate::model::request::HttpRequest;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    route_key: &'a str,
    raw_path: &'a str,
    raw_query_string: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<String>,
    headers: Joined<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<Joined<'a>>,
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_parameters: Option<Joined<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage_variables: Option<&'a StageVariables>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    account_id: &'a str,
    api_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication: Option<Authentication<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<&'a RawValue>,
    domain_name: &'a str,
    domain_prefix: &'a str,
    http: Http<'a>,
    request_id: &'a str,
    route_key: &'a str,
    stage: &'a str,
    time: String,
    time_epoch: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authentication<'a> {
    client_cert: ClientCert<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    source_ip: IpAddr,
    user_agent: Cow<'a, str>,
}

/// The event as JSON; `body` is the whole of what the client sent.
pub fn write(call: &Call<'_>, request: &HttpRequest, body: &[u8], origin: &Origin<'_>) -> Bytes {
    // Raw only by name: AWS decodes it.
    let path = request.event_path();
    let path = shown::decoded(&path);
    let request_id = call.request_id.text();
    let shown_body = shown::body(&request.head.headers, body);
    let event = Event {
        version: "2.0",
        route_key: call.route_key,
        raw_path: &path,
        raw_query_string: request.query().unwrap_or_default(),
        cookies: cookies(&request.head.headers),
        headers: Joined(shown::headers(request, body, origin, |name| {
            (name != COOKIE.as_str()).then_some(Cow::Borrowed(name))
        })),
        query_string_parameters: shown::query(request).map(Joined),
        request_context: RequestContext {
            account_id: origin.account_id,
            api_id: &request.stage.api,
            authentication: shown::client_cert(request).map(|client_cert| Authentication { client_cert }),
            authorizer: origin.authorizer,
            domain_name: &request.domain_name,
            domain_prefix: request.domain_prefix(),
            http: Http {
                method: request.head.method.as_str(),
                path: &path,
                protocol: shown::PROTOCOL,
                source_ip: request.source_ip,
                user_agent: shown::user_agent(request),
            },
            request_id: request_id.as_str(),
            route_key: call.route_key,
            stage: &request.stage.stage,
            time: call.at.clf(),
            time_epoch: call.at.0,
        },
        path_parameters: shown::path_parameters(request).map(Joined),
        stage_variables: (!origin.stage_variables.is_empty()).then_some(origin.stage_variables),
        body: shown_body.text,
        is_base64_encoded: shown_body.is_base64,
    };
    shown::json(&event, body)
}

/// One for each part of each `Cookie` line.
fn cookies(headers: &HeaderMap) -> Vec<String> {
    let mut cookies = Vec::new();
    for line in headers.get_all(COOKIE) {
        let line = headers::text(line);
        cookies.extend(line.split(';').map(str::trim).filter(|cookie| !cookie.is_empty()).map(str::to_owned));
    }
    cookies
}
