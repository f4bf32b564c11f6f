//! The event of an HTTP request in format 1.0: what is empty is null, and every map stands there twice, with the
//! last and with all of the values.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Origin;
use super::pairs::{All, Last};
use super::shown::{self, ClientCert};
use crate::expressions::scope::StageVariables;
use crate::model::call::Call;
use crate::model::headers::title_case;
use crate::model::request::HttpRequest;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    resource: &'a str,
    path: &'a str,
    http_method: &'a str,
    headers: Last<'a>,
    multi_value_headers: All<'a>,
    query_string_parameters: Option<Last<'a>>,
    multi_value_query_string_parameters: Option<All<'a>>,
    request_context: RequestContext<'a>,
    path_parameters: Option<Last<'a>>,
    stage_variables: Option<&'a StageVariables>,
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    account_id: &'a str,
    api_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<&'a RawValue>,
    domain_name: &'a str,
    domain_prefix: &'a str,
    extended_request_id: &'a str,
    http_method: &'a str,
    identity: Identity<'a>,
    path: Cow<'a, str>,
    protocol: &'static str,
    request_id: &'a str,
    request_time: String,
    request_time_epoch: u64,
    resource_id: &'a str,
    resource_path: &'a str,
    stage: &'a str,
}

/// Most of it is known only of a caller who signs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    access_key: Option<&'a str>,
    account_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_id: Option<&'a str>,
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cert: Option<ClientCert<'a>>,
    cognito_authentication_provider: Option<&'a str>,
    cognito_authentication_type: Option<&'a str>,
    cognito_identity_id: Option<&'a str>,
    cognito_identity_pool_id: Option<&'a str>,
    principal_org_id: Option<&'a str>,
    source_ip: IpAddr,
    user: Option<&'a str>,
    user_agent: Cow<'a, str>,
    user_arn: Option<&'a str>,
}

/// The event as JSON; `body` is the whole of what the client sent.
pub fn write(call: &Call<'_>, request: &HttpRequest, body: &[u8], origin: &Origin<'_>) -> Bytes {
    let path = request.event_path();
    let resource = resource(call.route_key);
    let request_id = call.request_id.text();
    let headers = shown::headers(request, body, origin, |name| Some(Cow::Owned(title_case(name))));
    let query = shown::query(request);
    let path_parameters = shown::path_parameters(request);
    let shown_body = shown::body(&request.head.headers, body);
    let event = Event {
        version: "1.0",
        resource,
        path: &path,
        http_method: request.head.method.as_str(),
        headers: Last(&headers),
        multi_value_headers: All(&headers),
        query_string_parameters: query.as_ref().map(Last),
        multi_value_query_string_parameters: query.as_ref().map(All),
        request_context: RequestContext {
            account_id: origin.account_id,
            api_id: &request.stage.api,
            authorizer: origin.authorizer,
            domain_name: &request.domain_name,
            domain_prefix: request.domain_prefix(),
            extended_request_id: request_id.as_str(),
            http_method: request.head.method.as_str(),
            identity: identity(call, request),
            path: shown::decoded(&path),
            protocol: shown::PROTOCOL,
            request_id: request_id.as_str(),
            request_time: call.at.clf(),
            request_time_epoch: call.at.0,
            resource_id: call.route_key,
            resource_path: resource,
            stage: &request.stage.stage,
        },
        path_parameters: path_parameters.as_ref().map(Last),
        stage_variables: (!origin.stage_variables.is_empty()).then_some(origin.stage_variables),
        body: shown_body.text,
        is_base64_encoded: shown_body.is_base64,
    };
    shown::json(&event, body)
}

/// A route key's path; `$default` has none and stands for itself.
fn resource(route_key: &str) -> &str {
    route_key.split_once(' ').map_or(route_key, |(_, path)| path)
}

fn identity<'a>(call: &'a Call<'_>, request: &'a HttpRequest) -> Identity<'a> {
    let signer = call.identity.as_ref().and_then(|identity| identity.signer.as_deref());
    let api_key = call.identity.as_ref().and_then(|identity| identity.api_key.as_ref());
    Identity {
        access_key: signer.map(|signer| &*signer.access_key),
        account_id: signer.map(|signer| &*signer.account_id),
        api_key: api_key.map(|key| &*key.value),
        api_key_id: api_key.map(|key| &*key.id),
        caller: signer.map(|signer| &*signer.user),
        client_cert: shown::client_cert(request),
        cognito_authentication_provider: None,
        cognito_authentication_type: None,
        cognito_identity_id: None,
        cognito_identity_pool_id: None,
        principal_org_id: None,
        source_ip: request.source_ip,
        user: signer.map(|signer| &*signer.user),
        user_agent: shown::user_agent(request),
        user_arn: signer.map(|signer| &*signer.user_arn),
    }
}
