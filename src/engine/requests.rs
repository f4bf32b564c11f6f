//! HTTP requests: the list of steps, and the answer whatever became of them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::admission::check_origin;
use super::ongoing::{Ongoing, Outcome};
use super::{Engine, record};
use crate::api::http_stage::{HttpLimits, HttpRoute, HttpStage};
use crate::expressions::scope::Scope;
use crate::model::body::{Body, Progress, Unread};
use crate::model::call::{Call, Event, Reply, Subject};
use crate::model::clock::Timestamp;
use crate::model::headers;
use crate::model::limits;
use crate::model::record::Leg;
use crate::model::refusal::{Kind, Refusal};
use crate::model::request::HttpRequest;
use crate::model::signature;
use crate::outbound::backends::Switched;
use crate::steps::cors;
use crate::steps::integrations::RequestIntegration;
use crate::steps::integrations::http_proxy::forward::{self, heard};
use crate::steps::transforms::http_parameters::Outgoing;
use crate::steps::transforms::http_parameters::response::OfStatus;

/// A request with its body, which may still be on its way.
pub struct Asked {
    /// Boxed, because it is handed on several times.
    pub request: Box<HttpRequest>,
    pub body: Body,
    pub progress: Arc<Progress>,
}

/// A backend's stream that speaks another protocol, and when the token that opened it expires.
pub struct Carried {
    pub switched: Switched,
    pub until: Option<Timestamp>,
}

impl Engine {
    /// A request: every one gets an answer. `route` is what its method and path led to, or why they led nowhere.
    pub async fn request(
        self: &Arc<Self>,
        stage: &Arc<HttpStage>,
        route: Result<&HttpRoute, Refusal>,
        asked: Asked,
    ) -> Reply<Body> {
        let Asked { request, body, progress } = asked;
        let watch = route.as_ref().map_or(&stage.watch.nowhere, |route| &route.watch);
        let mut ongoing = Ongoing::new(self, stage, watch, request, progress);
        let head = &ongoing.request.head;
        let outcome = match &stage.cors {
            Some(cors) if cors::is_preflight(&head.method, &head.headers) => {
                let mut outcome = Outcome::from(match self.throttle_request(stage, None, &ongoing.request) {
                    Ok(()) => Ok(Reply::new(StatusCode::NO_CONTENT, Body::default())),
                    Err(refusal) => Err(refused_nowhere(stage, &ongoing, refusal)),
                });
                outcome.reply.headers.extend(cors.preflight(&head.headers));
                outcome
            }
            cors => {
                let origin = head.headers.get(ORIGIN).filter(|_| cors.is_some()).cloned();
                let mut outcome = Outcome::from(match route {
                    Ok(route) => self.answer(stage, route, &mut ongoing, body).await,
                    Err(refusal) => {
                        // Whoever looks for what there is counts as well.
                        let refusal = self.throttle_request(stage, None, &ongoing.request).err().unwrap_or(refusal);
                        Err(refused_nowhere(stage, &ongoing, refusal))
                    }
                });
                if let Some(cors) = cors {
                    cors.apply(origin.as_ref(), &mut outcome.reply.headers);
                }
                outcome
            }
        };
        ongoing.answer(outcome)
    }

    /// The steps of a request that has a route: its throttles, who may call, what answers for it. One function, because each
    /// that calls another with the request in hand moves all of its state once more.
    async fn answer(
        &self,
        stage: &HttpStage,
        route: &HttpRoute,
        ongoing: &mut Ongoing,
        mut body: Body,
    ) -> Result<Reply<Body>, Refusal> {
        match self.throttle_request(stage, Some(route), &ongoing.request) {
            Ok(()) if route.admission.is_open() && !route.needs_body() => {}
            // Boxed: the future of every other request would keep room for it.
            Ok(()) => Box::pin(self.admit(stage, route, ongoing, &mut body)).await.inspect_err(|refusal| {
                record::refused(&stage.metrics, ongoing.subject(), refusal);
            })?,
            Err(refusal) => {
                record::refused(&stage.metrics, ongoing.subject(), &refusal);
                return Err(refusal);
            }
        }
        let headers = headers_to_send(route, &mut ongoing.request);
        let Ongoing { request, trail, progress, request_id, at, identity, .. } = ongoing;
        let (event, trace) = (Event::Request(request), trail.next_span());
        let (route_key, identity) = (&*route.key, identity.clone());
        let call = Call { event, route_key, request_id: *request_id, at: *at, identity, trace };
        let scope = Scope { call: &call, stage_variables: &stage.variables };
        let began = Instant::now();
        if !matches!(route.integration, RequestIntegration::Mock(_)) {
            // Should the client leave meanwhile, this much is known of it.
            trail.integration = Some(Leg::under_way(began, call.trace.as_ref().map(|trace| trace.span_id)));
        }
        let outcome = match &route.integration {
            RequestIntegration::HttpProxy(forward) => {
                let outgoing = prepared(forward.outgoing(&call, request, headers), route, &scope);
                match outgoing.and_then(|outgoing| forward.ready(outgoing, body, progress)) {
                    Ok((outgoing, patience)) => heard(forward.backend.forward(outgoing, patience).await, patience),
                    Err(refusal) => Err(refusal),
                }
            }
            RequestIntegration::Function(function) => {
                match prepared(function.outgoing(request, headers), route, &scope) {
                    Ok(seen) => Box::pin(function.invoke(&call, request, seen, &stage.variables)).await,
                    Err(refusal) => Err(refusal),
                }
            }
            RequestIntegration::Mock(mock) => Ok(mock.answer(&call, &stage.variables).with_body()),
        };
        let began = (!matches!(route.integration, RequestIntegration::Mock(_))).then_some(began);
        record::integration(&stage.metrics, &call, trail, began, &outcome);
        let mut reply = outcome?;
        if let Some(mappings) = route.response_parameters.for_status(reply.status.as_u16()) {
            let shaped = Box::pin(shape(mappings, &scope, &mut reply)).await;
            shaped.inspect_err(|refusal| record::refused(&stage.metrics, call.subject(), refusal))?;
        }
        Ok(reply)
    }

    /// Everything between the throttles and the integration; finds out who is calling. The body is read no earlier than
    /// it has to be.
    async fn admit(
        &self,
        stage: &HttpStage,
        route: &HttpRoute,
        ongoing: &mut Ongoing,
        body: &mut Body,
    ) -> Result<(), Refusal> {
        let Ongoing { request, trail, progress, identity, request_id, at, .. } = ongoing;
        let (request_id, at, route_key) = (*request_id, *at, route.key.as_str());
        if route.admission.needs_body() {
            let event = Event::Request(request);
            let call = Call { event, route_key, request_id, at, identity: None, trace: None };
            self.precheck(stage, route, request, &call)?;
            read(request, body, progress, &stage.limits).await?;
        }
        if !route.admission.is_open() {
            let event = Event::Request(request);
            let mut call = Call { event, route_key, request_id, at, identity: None, trace: None };
            let admitted = self.admit_request(stage, route, request, &request.head.headers, (&mut call, trail)).await;
            *identity = call.identity;
            admitted?;
        }
        if route.needs_body() && !route.admission.needs_body() {
            read(request, body, progress, &stage.limits).await?;
        }
        if route.admission.needs_body() {
            signature::drop_from_headers(&mut request.head.headers);
            if let Some(uri) = without_signature(&request.head.uri) {
                request.head.uri = uri;
            }
        }
        Ok(())
    }

    /// A request for another protocol than HTTP. With a 101 comes the backend's stream that speaks it.
    pub async fn upgrade(
        self: &Arc<Self>,
        stage: &Arc<HttpStage>,
        route: &HttpRoute,
        request: Box<HttpRequest>,
        protocol: HeaderValue,
    ) -> (Reply<Body>, Option<Carried>) {
        let mut ongoing = Ongoing::new(self, stage, &route.watch, request, Arc::default());
        let switched = self.switch(stage, route, &mut ongoing, protocol).await;
        let until = ongoing.identity.as_ref().and_then(|identity| identity.expiry).map(|expiry| expiry.at);
        match switched {
            Ok((reply, stream)) => {
                let carried = stream.map(|switched| Carried { switched, until });
                (ongoing.answer(Outcome { reply, refusal: None }), carried)
            }
            Err(refusal) => (ongoing.answer(Outcome::from(Err(refusal))), None),
        }
    }

    async fn switch(
        &self,
        stage: &HttpStage,
        route: &HttpRoute,
        ongoing: &mut Ongoing,
        protocol: HeaderValue,
    ) -> Result<(Reply<Body>, Option<Switched>), Refusal> {
        let request = &ongoing.request;
        let admitted = check_origin(
            &stage.entrance,
            &request.head.headers,
            (request.scheme, &host_of(request)),
            request.client_certificate.is_some(),
        )
        .and_then(|()| self.throttle_request(stage, Some(route), request));
        let admitted = match admitted {
            Ok(()) => self.admit(stage, route, ongoing, &mut Body::default()).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = admitted {
            record::refused(&stage.metrics, ongoing.subject(), &refusal);
            return Err(refusal);
        }
        let headers = headers_to_send(route, &mut ongoing.request);
        let Ongoing { request, trail, request_id, at, identity, .. } = ongoing;
        let event = Event::Request(request);
        let (request_id, at, trace) = (*request_id, *at, trail.next_span());
        let call = Call { event, route_key: &route.key, request_id, at, identity: identity.clone(), trace };
        let began = Instant::now();
        let outcome = match &route.integration {
            RequestIntegration::HttpProxy(forward) if !self.is_draining() => {
                let scope = Scope { call: &call, stage_variables: &stage.variables };
                match prepared(forward.outgoing(&call, request, headers), route, &scope) {
                    Ok(outgoing) => forward.upgrade(outgoing, protocol).await,
                    Err(refusal) => Err(refusal),
                }
            }
            RequestIntegration::HttpProxy(_) => Err(Kind::Busy.because("the gateway is stopping")),
            RequestIntegration::Function(_) | RequestIntegration::Mock(_) => {
                Err(Kind::Internal.because("this speaks no other protocol"))
            }
        };
        let (outcome, stream) = match outcome {
            Ok((reply, stream)) => (Ok(reply), stream),
            Err(refusal) => (Err(refusal), None),
        };
        record::integration(&stage.metrics, &call, trail, Some(began), &outcome);
        outcome.map(|reply| (reply, stream))
    }
}

/// A request that led to no route.
fn refused_nowhere(stage: &HttpStage, ongoing: &Ongoing, refusal: Refusal) -> Refusal {
    record::refused(&stage.metrics, Subject { route_key: "-", ..ongoing.subject() }, &refusal);
    refusal
}

/// A URI without the parameters of its presigning; `None` if it has none.
fn without_signature(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let kept = signature::without(query);
    if kept.as_deref() == Some(query) {
        return None;
    }
    let target = match kept {
        Some(kept) => format!("{}?{kept}", uri.path()),
        None => uri.path().to_owned(),
    };
    target.parse().ok()
}

/// The host as the client wrote it.
fn host_of(request: &HttpRequest) -> String {
    let host = request.head.headers.get(HOST).map(|host| headers::text(host).into_owned());
    host.unwrap_or_else(|| request.domain_name.to_string())
}

/// Has the whole body where mappings and events look for it; it goes on to the backend all the same.
async fn read(
    request: &mut HttpRequest,
    body: &mut Body,
    progress: &Progress,
    limits: &HttpLimits,
) -> Result<(), Refusal> {
    let mut reading = pin!(std::mem::take(body).read(limits.max_body.min(limits::WHOLE_BODY)));
    let mut left = limits.handshake_timeout;
    let read = loop {
        if let Ok(read) = tokio::time::timeout(left, reading.as_mut()).await {
            break read;
        }
        let quiet = progress.quiet().unwrap_or(limits.handshake_timeout);
        left = limits.handshake_timeout.saturating_sub(quiet);
        if left.is_zero() {
            return Err(Kind::TooSlow.because("the request's body stopped coming"));
        }
    };
    match read {
        Ok(whole) => {
            progress.note_whole(whole.len());
            *body = Body::Whole(whole.clone());
            request.body = whole;
            Ok(())
        }
        Err(unread @ Unread::TooLong(_)) => Err(Kind::RequestTooLarge.because(unread)),
        Err(unread @ Unread::BrokeOff(_)) => Err(Kind::BadRequest.because(unread)),
    }
}

/// Applies the mappings for the answer's status.
async fn shape(mappings: &OfStatus, scope: &Scope<'_>, reply: &mut Reply<Body>) -> Result<(), Refusal> {
    let mut whole = Bytes::new();
    if mappings.reads_body() {
        let read = std::mem::take(&mut reply.body).read(limits::WHOLE_BODY).await;
        whole = read.map_err(|unread| Kind::IntegrationFailure.because(format_args!("the answer: {unread}")))?;
        reply.body = Body::Whole(whole.clone());
    }
    mappings.apply(scope, &whole, &mut reply.status, &mut reply.headers)?;
    if matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        reply.body = Body::default();
        reply.headers.remove(CONTENT_LENGTH);
    }
    Ok(())
}

/// The headers that the backend's request begins with. Where no mapping and no event looks at those of the client
/// later on, they are taken; else copied.
fn headers_to_send(route: &HttpRoute, request: &mut HttpRequest) -> HeaderMap {
    if route.reads_headers() { request.head.headers.clone() } else { std::mem::take(&mut request.head.headers) }
}

/// A request with its mappings applied.
fn prepared(
    outgoing: Result<forward::Outgoing, Refusal>,
    route: &HttpRoute,
    scope: &Scope<'_>,
) -> Result<forward::Outgoing, Refusal> {
    let mut outgoing = outgoing?;
    route.request_parameters.apply(scope, mapped(&mut outgoing))?;
    Ok(outgoing)
}

/// The part of a request that parameter mappings may change.
fn mapped(outgoing: &mut forward::Outgoing) -> Outgoing<'_> {
    Outgoing { headers: &mut outgoing.headers, path: &mut outgoing.path, query: &mut outgoing.query }
}
