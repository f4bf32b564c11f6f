//! A request of a client becomes a call: what it says of itself is checked, its body is counted as it comes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderName, Method, Request, Version};
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::ext::Protocol;

use super::{passthrough, reply};
use crate::api::directory::Place;
use crate::api::http_stage::{HttpRoute, HttpStage};
use crate::api::paths::Outcome;
use crate::connections::{Handover, Peer};
use crate::engine::{Asked, Engine};
use crate::model::answer::Answer;
use crate::model::body::{Body, BodyError, Progress};
use crate::model::clock::Tick;
use crate::model::forwarded::Stamp;
use crate::model::headers;
use crate::model::refusal::Kind;
use crate::model::request::HttpRequest;

/// A request that leads into a stage of an HTTP API.
pub struct Arrived<'a> {
    pub request: Box<Request<Body>>,
    /// The host that the client reached, as events show it.
    pub domain_name: Arc<str>,
    pub place: &'a Place,
    pub stage: &'a Arc<HttpStage>,
    /// The client, and how it reached us, as far as that can be believed.
    pub peer: Peer,
    /// What is still to be said of the hop to us.
    pub stamp: Option<Arc<Stamp>>,
    /// What gives the connection to whoever is to speak on it, where another protocol is asked for.
    pub handover: Option<Handover>,
}

/// Whether a request would be answered by a route; a path without one may lead elsewhere.
pub fn has_route<B>(request: &Request<B>, place: &Place, stage: &HttpStage) -> bool {
    let path = route_path(request.uri().path(), place);
    !matches!(stage.routes.find(&method(request), path), Outcome::Nothing)
}

/// Whether a request would be carried on to a backend that speaks the protocol it asks for.
pub fn carries_upgrade<B>(request: &Request<B>, place: &Place, stage: &HttpStage) -> bool {
    let path = route_path(request.uri().path(), place);
    match stage.routes.find(&method(request), path) {
        Outcome::Found(found) => found.route.upgrade,
        Outcome::Nothing | Outcome::DotSegment => false,
    }
}

/// Answers one request. All that can be said at once is found out before the future begins, which keeps only what it needs.
pub fn answer<'a>(engine: &'a Arc<Engine>, arrived: Arrived<'a>) -> impl Future<Output = Answer> + Send + 'a {
    let Arrived { request, domain_name, place, stage, peer, stamp, handover } = arrived;
    let protocol = handover.as_ref().and_then(|_| protocol(&request));
    let method = method(&request);
    let is_http_2 = request.version() == Version::HTTP_2;
    let (mut head, incoming) = (*request).into_parts();
    // What routes, policies and backends go by is one and the same method.
    head.method = method.clone();
    headers::name_host(&mut head);
    let wanted = reply::Wanted::of(&head, &stage.limits);
    let route_path = route_path(head.uri.path(), place);
    let (route, path_parameters) = match stage.routes.find(&method, route_path) {
        Outcome::Found(found) => (Ok(found.route), found.parameters),
        Outcome::Nothing => (Err(Kind::NotFound.because("no route")), Vec::new()),
        Outcome::DotSegment => (Err(Kind::BadRequest.because("a dot segment in the path")), Vec::new()),
    };
    let stamp = match (&route, stamp) {
        (Ok(route), Some(stamp)) if route.passes_on_unread() => Some(stamp),
        (_, Some(stamp)) => {
            stamp.put(&mut head.headers);
            None
        }
        (_, None) => None,
    };
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let is_too_long = declared.is_some_and(|declared| declared > stage.limits.max_body as u64);
    let request = Box::new(HttpRequest {
        stamp,
        stage: stage.key.clone(),
        base_path: place.base_path.len(),
        stage_path: head.uri.path().len() - route_path.len(),
        hidden_stage: hidden_stage(place, stage),
        path_parameters,
        body: Bytes::new(),
        domain_name,
        source_ip: peer.remote,
        scheme: peer.scheme,
        port: peer.local.port(),
        client_certificate: peer.certificate,
        head,
    });
    let route: Result<&HttpRoute, _> = match route {
        Ok(_) if is_too_long => Err(Kind::RequestTooLarge.because("above max_body")),
        route => route,
    };
    let is_carried = route.as_ref().is_ok_and(|route| route.upgrade) && incoming.is_end_stream();
    let carried = protocol.zip(handover).filter(|_| is_carried);
    let progress = Arc::new(Progress::default());
    let (body, refused_body) = match &route {
        _ if incoming.is_end_stream() => (Body::default(), None),
        Ok(_) if matches!(incoming, Body::Whole(_)) => (incoming, None),
        Ok(_) => {
            let (left, progress) = (stage.limits.max_body, progress.clone());
            let bounded = Bounded { body: incoming, left, progress, is_http_2 };
            (Body::flowing(bounded), None)
        }
        Err(_) => (Body::default(), Some(incoming)),
    };
    async move {
        if let (Ok(route), Some((protocol, handover))) = (&route, carried) {
            return Box::pin(passthrough::carry(engine, stage, route, request, protocol, handover)).await;
        }
        let answer = engine.request(stage, route, Asked { request, body, progress }).await;
        if let Some(body) = refused_body {
            // Closing the connection at once would reset it, and the client would never see why.
            crate::connections::discard(body);
        }
        reply::answer(answer, &wanted, &stage.limits)
    }
}

fn hidden_stage(place: &Place, stage: &HttpStage) -> Option<Arc<str>> {
    let is_hidden = place.segment.is_none() && &*stage.key.stage != "$default";
    is_hidden.then(|| stage.key.stage.clone())
}

/// What the client wants to speak in place of HTTP.
fn protocol<B>(request: &Request<B>) -> Option<passthrough::Protocol> {
    if request.version() == Version::HTTP_2 {
        let protocol = request.extensions().get::<Protocol>()?;
        return Some(passthrough::Protocol::over_http_2(protocol.as_str()));
    }
    let is_asked =
        headers::members(request.headers(), &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    request
        .headers()
        .get(UPGRADE)
        .filter(|_| is_asked)
        .map(|protocol| passthrough::Protocol::of_upgrade(protocol.clone()))
}

/// An extended CONNECT stands for the GET that it would be over HTTP/1.1.
fn method<B>(request: &Request<B>) -> Method {
    if request.extensions().get::<Protocol>().is_some() { Method::GET } else { request.method().clone() }
}

fn route_path<'p>(path: &'p str, place: &Place) -> &'p str {
    place.rest(path).unwrap_or_default()
}

/// A request's body on its way, which ends with an error when more comes than the stage takes.
struct Bounded {
    body: Body,
    left: usize,
    progress: Arc<Progress>,
    is_http_2: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off")]
struct BrokenOff;

#[derive(Debug, thiserror::Error)]
#[error("the request's body is longer than max_body")]
struct TooLong;

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.progress.note_waiting(polled.is_pending());
        let polled = std::task::ready!(polled);
        self.progress.note(Tick::now());
        let frame = match polled {
            Some(Ok(frame)) => frame,
            // A stream of HTTP/2 may be reset without an error, which is no end of its body either.
            None if self.body.is_end_stream() || !self.is_http_2 => return Poll::Ready(None),
            None => {
                self.progress.note_broken();
                return Poll::Ready(Some(Err(BrokenOff.into())));
            }
            Some(Err(error)) => {
                self.progress.note_broken();
                return Poll::Ready(Some(Err(error)));
            }
        };
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.progress.note_piece(length);
        match self.left.checked_sub(length) {
            Some(left) => self.left = left,
            None => {
                self.progress.note_too_long();
                return Poll::Ready(Some(Err(TooLong.into())));
            }
        }
        Poll::Ready(Some(Ok(without_headers(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Trailers carry no header that would mean something in the head: whoever merges them must not be misled.
fn without_headers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let is_headers = |name: &&HeaderName| {
                headers::is_ours(name)
                    || headers::is_forwarding(name)
                    || headers::is_hop_by_hop(name)
                    || matches!(name.as_str(), "via" | "host" | "content-length" | "authorization" | "cookie")
            };
            let dropped: Vec<_> = trailers.keys().filter(is_headers).cloned().collect();
            for name in dropped {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}
