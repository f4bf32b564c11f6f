//! A request of an HTTP API on its way to a backend, and the answer on its way back: bodies flow both ways
//! and are not held.
//!
//! What belongs to one hop stays on it (RFC 9110 section 7.6.1). Who asked, and on which way, was written
//! into the headers when the request came in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::Body as _;

use super::super::event::{Format, Origin};
use super::{X_AMZN_TRACE_ID, X_FORWARDED_FOR, X_LIVEGATE_REQUEST_ID, event_answer_bound, refusal, trace_id};
use crate::expressions::scope::StageVariables;
use crate::model::body::{Body, Progress};
use crate::model::call::{Call, Reply};
use crate::model::headers;
use crate::model::limits;
use crate::model::refusal::{Kind, Refusal};
use crate::model::request::HttpRequest;
use crate::outbound::backends::{self, Backend, Keep, Patience, Stream};

/// A checked `http_proxy` integration of one route of an HTTP API in one stage.
pub struct Forward {
    pub backend: Arc<Backend>,
    /// The backend's own `Host`.
    pub host: HeaderValue,
    /// The method that the backend is asked with; without one, the client's.
    pub method: Option<Method>,
    /// Posts the proxy event in place of the request, and reads a proxy answer.
    pub event: Option<Format>,
    pub target: Target,
    pub timeout: Duration,
    /// For those who list routes.
    pub shown: String,
}

/// Where on the backend: a path with holes, and the query that the setting itself has.
pub struct Target {
    pub path: Vec<Piece>,
    pub query: Option<Vec<Piece>>,
    /// A `$default` route stands for every path, so the client's is put behind the setting's.
    pub appends_path: bool,
}

pub enum Piece {
    Text(String),
    /// `{name}` of the route.
    Parameter(String),
}

/// A request as it will be sent, while parameters are mapped into it.
pub struct Outgoing {
    pub method: Method,
    pub headers: HeaderMap,
    /// Encoded, beginning with `/`.
    pub path: String,
    /// Encoded, without its `?`.
    pub query: Option<String>,
    /// What is sent in place of the request's own body.
    event: Option<Bytes>,
}

impl Forward {
    /// `headers` are those that came with the request.
    pub fn outgoing(
        &self,
        call: &Call<'_>,
        request: &HttpRequest,
        mut headers: HeaderMap,
        variables: &StageVariables,
    ) -> Outgoing {
        let head = &request.head;
        if let Some(format) = self.event {
            let trace_id = headers.remove(X_AMZN_TRACE_ID).unwrap_or_else(|| trace_id(call.at));
            return self.event(format, call, request, variables, trace_id);
        }
        keep_carried(&mut headers);
        headers.insert(HOST, self.host.clone());
        headers.append(VIA, via(head.version));
        headers.entry(X_AMZN_TRACE_ID).or_insert_with(|| trace_id(call.at));
        Outgoing {
            method: self.method.clone().unwrap_or_else(|| head.method.clone()),
            headers,
            path: self.target.path(request),
            query: self.target.query(request),
            event: None,
        }
    }

    fn event(
        &self,
        format: Format,
        call: &Call<'_>,
        request: &HttpRequest,
        stage_variables: &StageVariables,
        trace_id: HeaderValue,
    ) -> Outgoing {
        let forwarded_for = headers::joined(&request.head.headers, X_FORWARDED_FOR.as_str()).unwrap_or_default();
        let origin = Origin {
            account_id: "000000000000",
            stage_variables,
            trace_id: &trace_id,
            forwarded_for: &forwarded_for,
            authorizer: None,
        };
        let event = format.write(call, request, &request.body, &origin);
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_AMZN_TRACE_ID, trace_id);
        headers.insert(X_LIVEGATE_REQUEST_ID, call.request_id.header());
        let query = self.target.query.as_ref().map(|own| filled(own, request));
        Outgoing { method: Method::POST, headers, path: self.target.path(request), query, event: Some(event) }
    }

    /// Sends a request. The answer's head must come within the timeout, counted from the last piece of the
    /// request's body.
    pub async fn send(&self, mut outgoing: Outgoing, body: Body, progress: &Progress) -> Result<Reply<Body>, Refusal> {
        let body = outgoing.event.take().map_or(body, Body::Whole);
        let mut request = self.request(outgoing, body)?;
        let headers = request.headers_mut();
        if headers.remove(TE).is_some_and(|te| accepts_trailers(&te)) {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if let Some(format) = self.event {
            let answer = self
                .backend
                .call(request, Keep::Whole(event_answer_bound(Keep::Whole(limits::WHOLE_BODY))), self.timeout)
                .await
                .map_err(refusal)?;
            let read = format.read(answer.head.status, &answer.body);
            return read.map(Reply::with_body).map_err(|error| Kind::IntegrationFailure.because(error));
        }
        let progress = matches!(request.body(), Body::Flowing(_)).then_some(progress);
        let answer = self.backend.forward(request, self.patience(progress)).await;
        answer.map(reply).map_err(|error| refused(error, progress))
    }

    /// Asks the backend for another protocol. With its 101 comes the stream that speaks it.
    pub async fn upgrade(
        &self,
        outgoing: Outgoing,
        protocol: HeaderValue,
    ) -> Result<(Reply<Body>, Option<(Stream, Bytes)>), Refusal> {
        let mut request = self.request(outgoing, Body::default())?;
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(UPGRADE, protocol);
        let (answer, stream) = self.backend.upgrade(request, self.patience(None)).await.map_err(refusal)?;
        let accepted = answer.headers().get(UPGRADE).cloned().filter(|_| stream.is_some());
        let mut reply = reply(answer);
        if let Some(protocol) = accepted {
            reply.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            reply.headers.insert(UPGRADE, protocol);
        }
        Ok((reply, stream))
    }

    fn request(&self, outgoing: Outgoing, body: Body) -> Result<Request<Body>, Refusal> {
        let Outgoing { method, mut headers, path, query, event: _ } = outgoing;
        let target = match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let uri = Uri::from_maybe_shared(Bytes::from(target))
            .map_err(|error| Kind::Internal.because(format_args!("no URI for the backend: {error}")))?;
        if headers.remove(TRANSFER_ENCODING).is_some() || headers.get(CONTENT_LENGTH).is_none() {
            headers.remove(CONTENT_LENGTH);
            if body.size_hint().exact().is_none() {
                // Said aloud, because methods that rarely have a body would lose theirs.
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn patience<'p>(&self, progress: Option<&'p Progress>) -> Patience<'p> {
        Patience { timeout: self.timeout, progress }
    }
}

fn refused(error: backends::Error, progress: Option<&Progress>) -> Refusal {
    match progress {
        Some(progress) if progress.is_too_long() => Kind::RequestTooLarge.because("above max_body"),
        _ => refusal(error),
    }
}

impl Target {
    fn path(&self, request: &HttpRequest) -> String {
        let mut path = String::with_capacity(64);
        for piece in &self.path {
            match piece {
                Piece::Text(text) => path += text,
                Piece::Parameter(name) => path += request.path_parameter(name).unwrap_or_default(),
            }
        }
        if self.appends_path {
            path.truncate(path.trim_end_matches('/').len());
            path += request.route_path();
        }
        path
    }

    /// The setting's own query, then the client's.
    fn query(&self, request: &HttpRequest) -> Option<String> {
        match (&self.query, request.query()) {
            (None, None) => None,
            (Some(own), None) => Some(filled(own, request)),
            (None, Some(query)) => Some(query.to_owned()),
            (Some(own), Some(query)) => Some(format!("{}&{query}", filled(own, request))),
        }
    }

    pub fn shown(&self) -> String {
        let show = |pieces: &[Piece]| {
            let texts = pieces.iter().map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Parameter(name) => format!("{{{name}}}"),
            });
            texts.collect::<String>()
        };
        match &self.query {
            Some(query) => format!("{}?{}", show(&self.path), show(query)),
            None => show(&self.path),
        }
    }
}

/// What may stand in a path and would be a parameter's end in a query is escaped.
fn filled(query: &[Piece], request: &HttpRequest) -> String {
    let mut text = String::with_capacity(64);
    for piece in query {
        match piece {
            Piece::Text(literal) => text += literal,
            Piece::Parameter(name) => {
                for character in request.path_parameter(name).unwrap_or_default().chars() {
                    match character {
                        '&' | '=' | '+' | ';' => text += &format!("%{:02X}", u32::from(character)),
                        _ => text.push(character),
                    }
                }
            }
        }
    }
    text
}

fn reply(answer: Response<Body>) -> Reply<Body> {
    let (head, body) = answer.into_parts();
    let mut headers = head.headers;
    drop_hop_by_hop(&mut headers);
    Reply { status: head.status, headers, body }
}

/// Drops what of a request's headers does not go on to the backend.
fn keep_carried(headers: &mut HeaderMap) {
    let named = connection_options(headers);
    let is_dropped = |name: &&HeaderName| {
        is_of_one_hop(name) && *name != TE && *name != TRANSFER_ENCODING
            || *name == EXPECT
            || headers::is_ours(name)
            || named.as_ref().is_some_and(|named| is_named(named, name))
    };
    // Mostly there are none, and then looking is all it takes.
    if headers.keys().any(|name| is_dropped(&name)) {
        let dropped: Vec<_> = headers.keys().filter(is_dropped).cloned().collect();
        for name in dropped {
            headers.remove(name);
        }
    }
}

/// `Trailer` goes along: it announces what follows a body that is passed on.
fn is_of_one_hop(name: &HeaderName) -> bool {
    headers::is_hop_by_hop(name) && name.as_str() != "trailer"
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named = connection_options(headers);
    let is_dropped =
        |name: &&HeaderName| is_of_one_hop(name) || named.as_ref().is_some_and(|named| is_named(named, name));
    if headers.keys().any(|name| is_dropped(&name)) {
        let dropped: Vec<_> = headers.keys().filter(is_dropped).cloned().collect();
        for name in dropped {
            headers.remove(name);
        }
    }
}

/// The headers that `Connection` names, unless that is one of its everyday words.
fn connection_options(headers: &HeaderMap) -> Option<String> {
    let all = headers::joined(headers, CONNECTION.as_str())?.to_ascii_lowercase();
    (!matches!(all.as_str(), "keep-alive" | "close" | "upgrade")).then_some(all)
}

fn is_named(options: &str, name: &HeaderName) -> bool {
    // A client may not have its way with headers that say where a request goes and how long it is.
    let is_needed = matches!(name.as_str(), "content-length" | "transfer-encoding" | "te" | "trailer");
    !is_needed && !headers::is_forwarding(name) && options.split(',').any(|option| option.trim() == name.as_str())
}

fn accepts_trailers(te: &HeaderValue) -> bool {
    te.to_str().is_ok_and(|te| te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
}

fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "HTTP/2.0 AmazonAPIGateway",
        Version::HTTP_10 => "HTTP/1.0 AmazonAPIGateway",
        _ => "HTTP/1.1 AmazonAPIGateway",
    })
}
