//! `payload = "event"` on a route of an HTTP API: the backend gets AWS's proxy event, as a Lambda function would,
//! and what it answers is read as a function's answer.
//!
//! Parameter mappings change what the event shows, not the POST that carries it.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::forward::{Forward, Outgoing};
use super::{X_AMZN_TRACE_ID, X_FORWARDED_FOR, X_LIVEGATE_REQUEST_ID, event_answer_bound, refusal};
use crate::expressions::scope::StageVariables;
use crate::expressions::target::has_dot_segment;
use crate::model::body::Body;
use crate::model::call::{Call, Reply};
use crate::model::headers;
use crate::model::identity::Identity;
use crate::model::limits;
use crate::model::refusal::{Kind, Refusal};
use crate::model::request::HttpRequest;
use crate::outbound::backends::{self, Keep};
use crate::outbound::lambda::{Format, Origin};

/// A backend that is called like a Lambda function.
pub struct Function {
    pub way: Forward,
    pub format: Format,
    pub account_id: Arc<str>,
}

impl Function {
    /// What the event would show of the request without mappings. `headers` are those that came with it.
    pub fn outgoing(&self, request: &HttpRequest, headers: HeaderMap) -> Result<Outgoing, Refusal> {
        // The event shows the path decoded, and a step that was hidden in an escape would be one there.
        if has_dot_segment(request.route_path()) {
            return Err(Kind::BadRequest.because("a dot segment in the path of an event"));
        }
        Ok(Outgoing {
            method: request.head.method.clone(),
            headers,
            path: request.event_path().into_owned(),
            query: request.query().map(str::to_owned),
            added: None,
        })
    }

    /// Posts the event; `seen` is what it shows.
    pub async fn invoke(
        &self,
        call: &Call<'_>,
        request: &HttpRequest,
        mut seen: Outgoing,
        stage_variables: &StageVariables,
    ) -> Result<Reply<Body>, Refusal> {
        let shown = seen.headers.remove(X_AMZN_TRACE_ID).filter(|_| call.trace.is_none());
        let trace_id = shown.unwrap_or_else(|| call.trace_id());
        let request = as_seen(request, seen)?;
        let forwarded_for = headers::joined(&request.head.headers, X_FORWARDED_FOR.as_str()).unwrap_or_default();
        let identity = call.identity.as_deref();
        let authorizer = match self.format {
            Format::V1 => identity.and_then(Identity::shown_v1),
            Format::V2 => identity.and_then(Identity::shown_v2),
        };
        let origin = Origin {
            account_id: &self.account_id,
            stage_variables,
            trace_id: &trace_id,
            forwarded_for: &forwarded_for,
            authorizer: authorizer.as_deref(),
        };
        let event = self.format.write(call, &request, &request.body, &origin);
        let mut post = Request::new(Body::Whole(event));
        *post.method_mut() = Method::POST;
        *post.uri_mut() = self.way.target.own(&request)?;
        let headers = post.headers_mut();
        headers.insert(HOST, self.way.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_AMZN_TRACE_ID, trace_id);
        call.pass_trace_on(headers);
        headers.insert(X_LIVEGATE_REQUEST_ID, call.request_id.header());
        let keep = Keep::Whole(event_answer_bound(Keep::Whole(limits::WHOLE_BODY)));
        let answer =
            self.way.backend.call(backends::Outgoing::of(post), keep, self.way.timeout).await.map_err(refusal)?;
        let read = self.format.read(answer.status, &answer.body);
        read.map(Reply::with_body).map_err(|error| Kind::IntegrationFailure.because(error))
    }
}

/// The request with what mappings made of it.
fn as_seen(request: &HttpRequest, seen: Outgoing) -> Result<HttpRequest, Refusal> {
    let target = match seen.query {
        Some(query) => format!("{}?{query}", seen.path),
        None => seen.path,
    };
    let uri = Uri::try_from(target);
    let mut head = request.head.clone();
    head.uri = uri.map_err(|error| Kind::Internal.because(format_args!("no path for the event: {error}")))?;
    head.headers = seen.headers;
    Ok(HttpRequest {
        stage: request.stage.clone(),
        stamp: None,
        head,
        base_path: 0,
        stage_path: 0,
        hidden_stage: None,
        path_parameters: request.path_parameters.clone(),
        body: request.body.clone(),
        domain_name: request.domain_name.clone(),
        source_ip: request.source_ip,
        scheme: request.scheme,
        port: request.port,
        client_certificate: request.client_certificate.clone(),
    })
}
