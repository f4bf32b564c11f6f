//! A request of an HTTP API on its way to a backend, and the answer on its way back: bodies flow both ways
//! and are not held.
//!
//! What belongs to one hop stays on it (RFC 9110 section 7.6.1). Who asked, and on which way, was written
//! into the headers when the request came in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use hyper::body::Body as _;

use super::{X_AMZN_TRACE_ID, refusal};
use crate::expressions::target::has_dot_segment;
use crate::model::body::{Body, Progress};
use crate::model::call::{Call, Reply};
use crate::model::forwarded::Added;
use crate::model::headers;
use crate::model::refusal::{Kind, Refusal};
use crate::model::request::HttpRequest;
use crate::outbound::backends::{self, Backend, Patience, Switched};

/// A checked `http_proxy` integration of one route of an HTTP API in one stage.
pub struct Forward {
    pub backend: Arc<Backend>,
    /// The backend's own `Host`.
    pub host: HeaderValue,
    /// The method that the backend is asked with; without one, the client's.
    pub method: Option<Method>,
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
    /// What is said beside the headers.
    pub added: Option<Box<Added>>,
}

impl Forward {
    /// `headers` are those that came with the request.
    pub fn outgoing(
        &self,
        call: &Call<'_>,
        request: &HttpRequest,
        mut headers: HeaderMap,
    ) -> Result<Outgoing, Refusal> {
        let head = &request.head;
        keep_carried(&mut headers);
        let (host, via) = (self.host.clone(), via(head.version));
        let trace_id = match &call.trace {
            Some(_) => {
                headers.remove(X_AMZN_TRACE_ID);
                call.pass_trace_on(&mut headers);
                Some(call.trace_id())
            }
            None => (!headers.keys().any(|name| *name == X_AMZN_TRACE_ID)).then(|| call.trace_id()),
        };
        let added = match &request.stamp {
            Some(stamp) => Some(Box::new(Added { stamp: stamp.clone(), host, via, trace_id })),
            None => {
                headers.insert(HOST, host);
                headers.append(VIA, via);
                headers.extend(trace_id.map(|trace_id| (X_AMZN_TRACE_ID, trace_id)));
                None
            }
        };
        if let Some(granted) = call.granted() {
            for (name, value) in &granted.headers {
                headers.insert(name, value.clone());
            }
        }
        Ok(Outgoing {
            added,
            method: self.method.clone().unwrap_or_else(|| head.method.clone()),
            headers,
            path: self.target.path(request)?,
            query: self.target.query(request),
        })
    }

    /// A request as the backend gets it. The answer's head must come within the timeout, counted from the last piece of the
    /// request's body.
    pub fn ready<'p>(
        &self,
        outgoing: Outgoing,
        body: Body,
        progress: &'p Progress,
    ) -> Result<(backends::Outgoing, Patience<'p>), Refusal> {
        let outgoing = self.request(outgoing, body)?;
        let progress = match &outgoing.body {
            Body::Whole(whole) => {
                progress.note_whole(whole.len());
                None
            }
            Body::Flowing(_) => Some(progress),
        };
        Ok((outgoing, self.patience(progress)))
    }

    /// Asks the backend for another protocol. With its 101 comes the stream that speaks it.
    pub async fn upgrade(
        &self,
        outgoing: Outgoing,
        protocol: HeaderValue,
    ) -> Result<(Reply<Body>, Option<Switched>), Refusal> {
        let mut outgoing = outgoing;
        // There is no body, whatever the client said of one.
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, TE] {
            outgoing.headers.remove(name);
        }
        outgoing.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        outgoing.headers.insert(UPGRADE, protocol);
        let outgoing = self.request(outgoing, Body::default())?;
        let (answer, stream) = self.backend.upgrade(outgoing, self.patience(None)).await.map_err(refusal)?;
        let accepted = answer.headers.get(UPGRADE).cloned().filter(|_| stream.is_some());
        let mut reply = match stream {
            Some(_) => switched(answer),
            None => reply(answer)?,
        };
        if let Some(protocol) = accepted {
            reply.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            reply.headers.insert(UPGRADE, protocol);
        }
        Ok((reply, stream))
    }

    fn request(&self, outgoing: Outgoing, body: Body) -> Result<backends::Outgoing, Refusal> {
        let Outgoing { method, mut headers, path, query, added } = outgoing;
        let target = match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let uri = Uri::from_maybe_shared(Bytes::from(target))
            .map_err(|error| Kind::Internal.because(format_args!("no URI for the backend: {error}")))?;
        let (mut has_length, mut has_coding, mut has_te) = (false, false, false);
        for name in headers.keys() {
            has_length |= *name == CONTENT_LENGTH;
            has_coding |= *name == TRANSFER_ENCODING;
            has_te |= *name == TE;
        }
        if has_te && headers.remove(TE).is_some_and(|te| accepts_trailers(&te)) {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if has_length {
            one_length(&mut headers)?;
            if body.is_end_stream() {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        }
        if has_coding {
            headers.remove(TRANSFER_ENCODING);
            headers.remove(CONTENT_LENGTH);
        }
        if (has_coding || !has_length) && body.size_hint().exact().is_none() {
            // Said aloud, because methods that rarely have a body would lose theirs.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(backends::Outgoing { added, ..backends::Outgoing::of(request) })
    }

    fn patience<'p>(&self, progress: Option<&'p Progress>) -> Patience<'p> {
        Patience::new(self.timeout, progress)
    }
}

/// What became of a request that the backend got, after so much patience.
pub fn heard(outcome: Result<Reply<Body>, backends::Error>, patience: Patience<'_>) -> Result<Reply<Body>, Refusal> {
    reply(outcome.map_err(|error| refused(error, patience.progress))?)
}

fn refused(error: backends::Error, progress: Option<&Progress>) -> Refusal {
    match progress {
        Some(progress) if progress.is_too_long() => Kind::RequestTooLarge.because("above max_body"),
        Some(progress) if progress.is_waiting() && matches!(error, backends::Error::Timeout(_)) => {
            Kind::TooSlow.because("the request's body stopped coming")
        }
        Some(progress) if progress.is_broken() => Kind::BadRequest.because("the request's body broke off, or was none"),
        _ => refusal(error),
    }
}

impl Target {
    /// A value that a server may read as a step up the path is refused: it would answer for another path than the
    /// one that the route let through.
    fn path(&self, request: &HttpRequest) -> Result<String, Refusal> {
        let mut path = String::with_capacity(64);
        for piece in &self.path {
            match piece {
                Piece::Text(text) => path += text,
                Piece::Parameter(name) => {
                    let value = request.path_parameter(name).unwrap_or_default();
                    if value.contains(['.', '%']) && has_dot_segment(value) {
                        return Err(Kind::BadRequest.because(format_args!("a dot segment in `{{{name}}}`")));
                    }
                    path += value;
                }
            }
        }
        if self.appends_path {
            path.truncate(path.trim_end_matches('/').len());
            path += request.route_path();
        }
        Ok(path)
    }

    /// The setting's path and query alone, for a backend that gets the client's in an event.
    pub fn own(&self, request: &HttpRequest) -> Result<Uri, Refusal> {
        let path = self.path(request)?;
        let text = match &self.query {
            Some(query) => format!("{path}?{}", filled(query, request)),
            None => path,
        };
        Uri::try_from(text).map_err(|error| Kind::Internal.because(format_args!("no URI for the backend: {error}")))
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

/// Several lines that say the same length become one.
fn one_length(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(first), Some(_)) = (lengths.next().cloned(), lengths.next()) {
        if headers.get_all(CONTENT_LENGTH).iter().any(|other| other != first) {
            return Err(Kind::BadRequest.because("several lengths"));
        }
        headers.insert(CONTENT_LENGTH, first);
    }
    Ok(())
}

/// A status that no client knows how to read is none that is passed on.
fn reply(answer: Reply<Body>) -> Result<Reply<Body>, Refusal> {
    let Reply { status, mut headers, body } = answer;
    if !(200..600).contains(&status.as_u16()) {
        return Err(Kind::IntegrationFailure.because(format_args!("the backend answered {}", status.as_u16())));
    }
    let (mut lengths, mut is_list, mut has_coding) = (0, false, false);
    for (name, value) in &headers {
        if *name == CONTENT_LENGTH {
            lengths += 1;
            is_list |= value.as_bytes().contains(&b',');
        }
        has_coding |= *name == TRANSFER_ENCODING;
    }
    // RFC 9112 section 6.3: beside chunks a length says nothing. Of several the connection has seen to it that they agree; the
    // one that is true is the body's own.
    if lengths > 0 && (has_coding || lengths > 1 || is_list) {
        headers.remove(CONTENT_LENGTH);
    }
    drop_hop_by_hop(&mut headers);
    Ok(Reply { status, headers, body })
}

/// The answer that agreed to another protocol.
fn switched(mut answer: Reply<Body>) -> Reply<Body> {
    drop_hop_by_hop(&mut answer.headers);
    answer
}

/// Drops what of a request's headers does not go on to the backend.
fn keep_carried(headers: &mut HeaderMap) {
    drop_those(headers, |name| {
        let is_of_body = *name == TE || *name == TRANSFER_ENCODING;
        is_of_one_hop(name) && !is_of_body || *name == EXPECT || headers::is_ours(name)
    });
}

/// `Trailer` goes along: it announces what follows a body that is passed on.
fn is_of_one_hop(name: &HeaderName) -> bool {
    headers::is_hop_by_hop(name) && name.as_str() != "trailer"
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    drop_those(headers, is_of_one_hop);
}

/// Drops those headers, `Connection` among them, and what that names.
fn drop_those(headers: &mut HeaderMap, is_dropped: impl Fn(&HeaderName) -> bool) {
    // Mostly there are none, and then looking is all it takes.
    if headers.keys().any(&is_dropped) {
        let named = connection_options(headers);
        let is_named = |name: &&HeaderName| named.as_ref().is_some_and(|named| is_named(named, name));
        let dropped: Vec<_> = headers.keys().filter(|name| is_dropped(name) || is_named(name)).cloned().collect();
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
