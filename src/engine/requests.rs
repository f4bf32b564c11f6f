//! HTTP requests: the list of steps, and the answer whatever became of them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use super::admission::check_origin;
use super::{Engine, gateway_responses, record};
use crate::api::http_stage::{HttpLimits, HttpRoute, HttpStage};
use crate::expressions::scope::Scope;
use crate::model::body::{Body, Progress, Unread};
use crate::model::call::{Call, Event, Reply, Subject};
use crate::model::clock::Timestamp;
use crate::model::headers;
use crate::model::id::Id;
use crate::model::identity::Identity;
use crate::model::limits;
use crate::model::refusal::{Kind, Refusal};
use crate::model::request::HttpRequest;
use crate::model::signature;
use crate::outbound::backends::Switched;
use crate::steps::cors;
use crate::steps::integrations::RequestIntegration;
use crate::steps::integrations::http_proxy::forward;
use crate::steps::transforms::http_parameters::Outgoing;
use crate::steps::transforms::http_parameters::response::OfStatus;
use crate::telemetry::metrics::StageMetrics;

const APIGW_REQUESTID: HeaderName = HeaderName::from_static("apigw-requestid");

/// A request with its body, which may still be on its way.
pub struct Asked {
    /// Boxed, because it is handed on several times.
    pub request: Box<HttpRequest>,
    pub body: Body,
    pub progress: Arc<Progress>,
}

/// Counts a request whose client left before its answer was there.
struct Counted<'a> {
    metrics: &'a StageMetrics,
    is_answered: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.metrics.cancelled.increment(1);
        }
    }
}

/// What of a request is handed on to whoever answers it.
struct Passed<'a> {
    headers: HeaderMap,
    body: Body,
    progress: &'a Progress,
}

/// A backend's stream that speaks another protocol, and when the token that opened it expires.
pub struct Carried {
    pub switched: Switched,
    pub until: Option<Timestamp>,
}

impl Engine {
    /// A request: every one gets an answer. `route` is what its method and path led to, or why they led nowhere.
    pub async fn request(&self, stage: &HttpStage, route: Result<&HttpRoute, Refusal>, asked: Asked) -> Reply<Body> {
        let began = Instant::now();
        let request_id = Id::random();
        let mut counted = Counted { metrics: &stage.metrics, is_answered: false };
        let mut reply = match &stage.cors {
            Some(cors) if cors::is_preflight(&asked.request.head.method, &asked.request.head.headers) => {
                let mut reply = match self.throttle_request(stage, None, &asked.request) {
                    Ok(()) => Reply::new(StatusCode::NO_CONTENT, Body::default()),
                    Err(refusal) => {
                        let subject = Subject { stage: &stage.key, connection: None, route_key: "-", request_id };
                        record::refused(&stage.metrics, subject, &refusal);
                        gateway_responses::request(&refusal)
                    }
                };
                reply.headers.extend(cors.preflight(&asked.request.head.headers));
                reply
            }
            cors => {
                let origin = asked.request.head.headers.get(ORIGIN).filter(|_| cors.is_some()).cloned();
                let mut reply = match route {
                    Ok(route) => self.answer(stage, route, request_id, asked).await,
                    Err(refusal) => {
                        // Whoever looks for what there is counts as well.
                        let refusal = self.throttle_request(stage, None, &asked.request).err().unwrap_or(refusal);
                        let subject = Subject { stage: &stage.key, connection: None, route_key: "-", request_id };
                        record::refused(&stage.metrics, subject, &refusal);
                        gateway_responses::request(&refusal)
                    }
                };
                if let Some(cors) = cors {
                    cors.apply(origin.as_ref(), &mut reply.headers);
                }
                reply
            }
        };
        reply.headers.insert(APIGW_REQUESTID, request_id.header());
        counted.is_answered = true;
        record::requested(&stage.metrics, began, reply.status);
        reply
    }

    async fn answer(&self, stage: &HttpStage, route: &HttpRoute, request_id: Id, asked: Asked) -> Reply<Body> {
        let Asked { mut request, mut body, progress } = asked;
        let subject = Subject { stage: &stage.key, connection: None, route_key: &route.key, request_id };
        let admitted = match self.throttle_request(stage, Some(route), &request) {
            Ok(()) if route.admission.is_open() && !route.needs_body() => Ok(None),
            // Boxed: the future of every other request would keep room for it.
            Ok(()) => Box::pin(self.admit(stage, route, request_id, &mut request, &mut body, &progress)).await,
            Err(refusal) => Err(refusal),
        };
        let identity = match admitted {
            Ok(identity) => identity,
            Err(refusal) => {
                record::refused(&stage.metrics, subject, &refusal);
                return gateway_responses::request(&refusal);
            }
        };
        let headers = headers_to_send(route, &mut request);
        let event = Event::Request(&request);
        let call = Call { event, route_key: &route.key, request_id, at: Timestamp::now(), identity };
        let outcome =
            self.integrate_request(stage, route, &call, &request, Passed { headers, body, progress: &progress }).await;
        outcome.unwrap_or_else(|refusal| gateway_responses::request(&refusal))
    }

    /// Everything between the throttles and the integration; gives back who is calling. The body is read no earlier than
    /// it has to be.
    async fn admit(
        &self,
        stage: &HttpStage,
        route: &HttpRoute,
        request_id: Id,
        request: &mut HttpRequest,
        body: &mut Body,
        progress: &Progress,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        if route.admission.needs_body() {
            let (event, at) = (Event::Request(request), Timestamp::now());
            self.precheck(
                stage,
                route,
                request,
                &Call { event, route_key: &route.key, request_id, at, identity: None },
            )?;
            read(request, body, progress, &stage.limits).await?;
        }
        let mut identity = None;
        if !route.admission.is_open() {
            let event = Event::Request(request);
            let mut call = Call { event, route_key: &route.key, request_id, at: Timestamp::now(), identity };
            self.admit_request(stage, route, request, &request.head.headers, &mut call).await?;
            identity = call.identity;
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
        Ok(identity)
    }

    /// The tail of every request: ask what answers for the route, write down how it went, shape the answer.
    async fn integrate_request(
        &self,
        stage: &HttpStage,
        route: &HttpRoute,
        call: &Call<'_>,
        request: &HttpRequest,
        passed: Passed<'_>,
    ) -> Result<Reply<Body>, Refusal> {
        let Passed { headers, body, progress } = passed;
        let scope = Scope { call, stage_variables: &stage.variables };
        let began = Instant::now();
        let outcome = match &route.integration {
            RequestIntegration::HttpProxy(forward) => {
                match prepared(forward.outgoing(call, request, headers), route, &scope) {
                    Ok(outgoing) => forward.send(outgoing, body, progress).await,
                    Err(refusal) => Err(refusal),
                }
            }
            RequestIntegration::Function(function) => {
                match prepared(function.outgoing(request, headers), route, &scope) {
                    Ok(seen) => Box::pin(function.invoke(call, request, seen, &stage.variables)).await,
                    Err(refusal) => Err(refusal),
                }
            }
            RequestIntegration::Mock(mock) => Ok(mock.answer(call, &stage.variables).with_body()),
        };
        let began = (!matches!(route.integration, RequestIntegration::Mock(_))).then_some(began);
        record::integration(&stage.metrics, call, began, &outcome);
        let mut reply = outcome?;
        if let Some(mappings) = route.response_parameters.for_status(reply.status.as_u16()) {
            let shaped = Box::pin(shape(mappings, &scope, &mut reply)).await;
            shaped.inspect_err(|refusal| record::refused(&stage.metrics, call.subject(), refusal))?;
        }
        Ok(reply)
    }

    /// A request for another protocol than HTTP. With a 101 comes the backend's stream that speaks it.
    pub async fn upgrade(
        &self,
        stage: &HttpStage,
        route: &HttpRoute,
        mut request: Box<HttpRequest>,
        protocol: HeaderValue,
    ) -> (Reply<Body>, Option<Carried>) {
        let began = Instant::now();
        let request_id = Id::random();
        let subject = Subject { stage: &stage.key, connection: None, route_key: &route.key, request_id };
        let admitted = check_origin(
            &stage.entrance,
            &request.head.headers,
            (request.scheme, &host_of(&request)),
            request.client_certificate.is_some(),
        )
        .and_then(|()| self.throttle_request(stage, Some(route), &request));
        let admitted = match admitted {
            Ok(()) => {
                let (mut body, progress) = (Body::default(), Progress::default());
                self.admit(stage, route, request_id, &mut request, &mut body, &progress).await
            }
            Err(refusal) => Err(refusal),
        };
        let identity = match admitted {
            Ok(identity) => identity,
            Err(refusal) => {
                record::refused(&stage.metrics, subject, &refusal);
                let mut reply = gateway_responses::request(&refusal);
                reply.headers.insert(APIGW_REQUESTID, request_id.header());
                record::requested(&stage.metrics, began, reply.status);
                return (reply, None);
            }
        };
        let until = identity.as_ref().and_then(|identity| identity.expiry).map(|expiry| expiry.at);
        let headers = headers_to_send(route, &mut request);
        let event = Event::Request(&request);
        let call = Call { event, route_key: &route.key, request_id, at: Timestamp::now(), identity };
        let outcome = match &route.integration {
            RequestIntegration::HttpProxy(forward) if !self.is_draining() => {
                let scope = Scope { call: &call, stage_variables: &stage.variables };
                match prepared(forward.outgoing(&call, &request, headers), route, &scope) {
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
        record::integration(&stage.metrics, &call, Some(began), &outcome);
        let mut reply = outcome.unwrap_or_else(|refusal| gateway_responses::request(&refusal));
        reply.headers.insert(APIGW_REQUESTID, request_id.header());
        record::requested(&stage.metrics, began, reply.status);
        (reply, stream.map(|switched| Carried { switched, until }))
    }
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
