//! A request from its first byte to the last of its answer, so that it is written down once, whatever becomes of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderName, HeaderValue};
use hyper::body::{Frame, SizeHint};

use super::{Engine, gateway_responses, record};
use crate::api::http_stage::HttpStage;
use crate::api::watch::RouteWatch;
use crate::model::body::{Body, BodyError, Progress};
use crate::model::call::{Reply, Subject};
use crate::model::clock::Timestamp;
use crate::model::id::Id;
use crate::model::identity::Identity;
use crate::model::record::{Record, Requested, Trail, What};
use crate::model::refusal::{Kind, Refusal};
use crate::model::request::HttpRequest;

const APIGW_REQUESTID: HeaderName = HeaderName::from_static("apigw-requestid");

/// A request that is being answered. It is written down when it is over: with the last byte of its answer, or when its
/// client leaves.
pub struct Ongoing {
    engine: Arc<Engine>,
    stage: Arc<HttpStage>,
    route: Arc<RouteWatch>,
    pub request: Box<HttpRequest>,
    pub progress: Arc<Progress>,
    pub request_id: Id,
    pub at: Timestamp,
    /// Kept apart for the log, because headers may go on to the backend.
    user_agent: Option<HeaderValue>,
    pub identity: Option<Arc<Identity>>,
    pub trail: Trail,
    /// Nothing until the answer's head is there.
    answered: Option<Answered>,
    sent: u64,
}

struct Answered {
    status: u16,
    refusal: Option<Refusal>,
    took: Duration,
}

/// What a request whose client left before the answer is logged with, as nginx's users know it.
const CLIENT_LEFT: u16 = 499;

impl Ongoing {
    pub fn new(
        engine: &Arc<Engine>,
        stage: &Arc<HttpStage>,
        route: &Arc<RouteWatch>,
        request: Box<HttpRequest>,
        progress: Arc<Progress>,
    ) -> Self {
        stage.metrics.in_flight.up(1);
        let headers = &request.head.headers;
        let trail = engine.set_out(Some(headers));
        let is_told = stage.watch.access_log.is_some();
        let user_agent = is_told.then(|| headers.get(USER_AGENT).cloned()).flatten();
        Self {
            engine: engine.clone(),
            stage: stage.clone(),
            route: route.clone(),
            request,
            progress,
            request_id: Id::random(),
            at: Timestamp::now(),
            user_agent,
            identity: None,
            trail,
            answered: None,
            sent: 0,
        }
    }

    pub fn subject(&self) -> Subject<'_> {
        Subject { stage: &self.stage.key, connection: None, route_key: &self.route.key, request_id: self.request_id }
    }

    /// The answer's head is there; what is left is its body.
    pub fn answer(mut self, outcome: Outcome) -> Reply<Body> {
        let Outcome { mut reply, refusal } = outcome;
        reply.headers.insert(APIGW_REQUESTID, self.request_id.header());
        let (status, took) = (reply.status.as_u16(), self.trail.began.elapsed());
        record::requested(&self.stage.metrics, took, status);
        self.answered = Some(Answered { status, refusal, took });
        match &reply.body {
            Body::Whole(whole) => self.sent = whole.len() as u64,
            Body::Flowing(_) => {
                let body = std::mem::take(&mut reply.body);
                reply.body = Body::flowing(Followed { body, ongoing: self });
            }
        }
        reply
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let metrics = &self.stage.metrics;
        metrics.in_flight.down(1);
        let answered = self.answered.take().unwrap_or_else(|| {
            metrics.cancelled.increment(1);
            if let Some(leg) = self.trail.integration.as_mut().filter(|leg| leg.status.is_none()) {
                leg.took = leg.began.elapsed();
            }
            Answered { status: CLIENT_LEFT, refusal: None, took: self.trail.began.elapsed() }
        });
        let received = self.progress.length();
        metrics.data_processed.increment(received + self.sent);
        let what = What::Request(Requested {
            request: &self.request,
            user_agent: self.user_agent.as_ref(),
            account_id: &self.stage.entrance.account_id,
        });
        let is_nowhere = Arc::ptr_eq(&self.route, &self.stage.watch.nowhere);
        let record = Record {
            what,
            stage: &self.stage.key,
            route_key: if is_nowhere { "-" } else { &self.route.key },
            request_id: self.request_id,
            at: self.at,
            identity: self.identity.as_deref(),
            trail: &self.trail,
            status: answered.status,
            refusal: answered.refusal.as_ref(),
            took: answered.took,
            received,
            sent: self.sent,
            body: &self.request.body,
            answer: b"",
        };
        record::ended(&self.engine, &self.stage.watch, &self.route, &record);
    }
}

/// The body of an answer on its way, with what is to be written down at its end.
struct Followed {
    body: Body,
    ongoing: Ongoing,
}

impl hyper::body::Body for Followed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.ongoing.sent += frame.data_ref().map_or(0, Bytes::len) as u64,
            Poll::Ready(Some(Err(error))) => {
                let refusal = Kind::IntegrationFailure.because(format_args!("the answer broke off: {error}"));
                if let Some(answered) = &mut self.ongoing.answered {
                    answered.refusal = Some(refusal);
                }
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer, and why the gateway gave it itself, if it did.
pub struct Outcome {
    pub reply: Reply<Body>,
    pub refusal: Option<Refusal>,
}

impl From<Result<Reply<Body>, Refusal>> for Outcome {
    fn from(outcome: Result<Reply<Body>, Refusal>) -> Self {
        match outcome {
            Ok(reply) => Self { reply, refusal: None },
            Err(refusal) => Self { reply: gateway_responses::request(&refusal), refusal: Some(refusal) },
        }
    }
}
