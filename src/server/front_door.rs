//! Where a request goes: to a stage's socket, to a connection, to a route of an HTTP API, or nowhere
//! (by host, base path and stage).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{CONNECTION, COOKIE, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acme::Challenges;
use crate::api::directory::{Host, Place};
use crate::api::gateway::Gateway;
use crate::connections::Peer;
use crate::engine::Engine;
use crate::engine::reached::reached;
use crate::model::answer::{self, Answer};
use crate::model::forwarded::{self, Hop, Stamp};
use crate::model::limits;
use crate::transports::callback::{self, Called};
use crate::transports::dashboard::{Dashboard, Dial};
use crate::transports::http::{self as requests, Arrived};
use crate::transports::websocket::upgrade;

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Clients,
    Operators,
}

/// What stands behind a listener.
pub struct FrontDoor {
    engine: Arc<Engine>,
    challenges: Arc<Challenges>,
    /// What operators get to see; a door for clients has none.
    dashboard: Option<Dashboard>,
}

impl FrontDoor {
    pub fn for_clients(engine: Arc<Engine>, challenges: Arc<Challenges>) -> Self {
        Self { engine, challenges, dashboard: None }
    }

    /// `dial` opens a connection to the door of clients.
    pub fn for_operators(engine: Arc<Engine>, challenges: Arc<Challenges>, dial: Dial) -> Self {
        Self { dashboard: Some(Dashboard::new(engine.clone(), dial)), engine, challenges }
    }

    pub async fn answer(&self, request: Request<Incoming>, peer: &Peer, memory: &Memory) -> Answer {
        match &self.dashboard {
            // Boxed: the future of every client's request would keep room for it.
            Some(dashboard) => Box::pin(dashboard.answer(request, peer.remote)).await,
            None => self.answer_client(request, peer, memory).await,
        }
    }

    async fn answer_client(&self, mut request: Request<Incoming>, peer: &Peer, memory: &Memory) -> Answer {
        let uri = request.uri();
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let is_connect = *request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none();
        // `GET example.com` is the form of CONNECT, and a target outside ASCII has no one meaning.
        let is_authority = request.version() != Version::HTTP_2 && uri.authority().is_some() && uri.scheme().is_none();
        if is_connect || is_authority || !target.is_ascii() {
            let text = "A request's target is a path, in ASCII; this is no proxy to connect through";
            return closing(answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(text)));
        }
        if !is_framed_plainly(&request) {
            let text = "A body comes with its length, or chunked and nothing else";
            return closing(answer::error(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplementedException",
                answer::message(text),
            ));
        }
        if let Some(answer) = self.challenges.http_answer(uri.path()) {
            return answer::plain(StatusCode::OK, answer);
        }
        let Some(known) = memory.recall(&request, &self.engine) else {
            let text = "A request needs exactly one Host header: a name or an address, and perhaps a port";
            return answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(text));
        };
        let gateway = self.engine.gateway();
        // Over HTTP/2 whatever names a protocol wants another one than HTTP (RFC 8441), and is no request of a route.
        let asks_upgrade = upgrade::is_asked_for(&request) || request.extensions().get::<Protocol>().is_some();
        let destination = gateway.directory.find(without_port(&known.host), request.uri().path());
        // AWS's bound for WebSocket APIs; for HTTP the whole head has one.
        if target.len() > limits::URL && destination.requests.is_none() {
            return answer::error(StatusCode::URI_TOO_LONG, "BadRequestException", answer::message("URI Too Long"));
        }
        if let Some((place, stage, id)) = &destination.connection
            && !asks_upgrade
        {
            let domain_name = known.domain_name(place, peer, &self.engine);
            let called = Called { stage, id, source_ip: peer.remote, domain_name: &domain_name };
            // Boxed, here and below: a connection keeps room for the largest of them, also while nothing is asked.
            return Box::pin(callback::answer(&self.engine, &gateway, called, request)).await;
        }
        if destination.is_of_connections && (asks_upgrade || !destination.is_below_connections) {
            return answer::forbidden();
        }
        let socket = destination.socket.filter(|_| upgrade::is_asked_for(&request));
        let tells_backend = socket.is_none_or(|(_, stage)| stage.asks_about_handshakes());
        let peer = believed(&gateway, &mut request, &known, peer, tells_backend);
        if let Some((place, stage)) = socket {
            return Box::pin(upgrade::accept(&self.engine, place, stage, request, &known.host, peer)).await;
        }
        if let Some((place, stage)) = destination.requests {
            let is_theirs = match asks_upgrade {
                true => requests::carries_upgrade(&request, place, stage),
                false => destination.socket.is_none() || requests::has_route(&request, place, stage),
            };
            if is_theirs {
                let domain_name = known.domain_name(place, &peer, &self.engine);
                let arrived = Arrived { request, domain_name, place, stage, peer };
                return Box::pin(requests::answer(&self.engine, arrived)).await;
            }
        }
        match (asks_upgrade, destination.socket) {
            (true, _) => answer::forbidden(),
            (false, Some(_)) => upgrade::required(),
            (false, None) if destination.is_host_of_requests => requests::not_found(),
            (false, None) if !destination.is_host_known && gateway.speaks_http() => requests::unknown_host(),
            (false, None) => callback::no_method(request.uri().path(), request.method()),
        }
    }

    pub fn handshake_timeout(&self) -> Duration {
        self.engine.gateway().handshake_timeout()
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where the connection is counted for as long as it lives.
    pub fn connections(&self) -> &TaskTracker {
        if self.is_for_clients() { &self.engine.exchanges } else { &self.engine.lookers_on }
    }

    pub fn is_for_clients(&self) -> bool {
        self.dashboard.is_none()
    }

    /// A connection did not get as far as HTTP.
    pub fn handshake_failed(&self, client: IpAddr, why: &str) {
        self.engine.metrics.handshake_errors.increment(1);
        tracing::debug!(%client, "a connection ended before its first request: {why}");
    }

    /// Ends when kept-alive connections shall close.
    pub fn closing(&self) -> &CancellationToken {
        // Operators look on until the end.
        if self.is_for_clients() { &self.engine.closing } else { &self.engine.closed }
    }

    pub fn accept_failed(&self, error: &io::Error) {
        self.engine.metrics.accept_errors.increment(1);
        tracing::error!(%error, "a connection could not be accepted; is the limit of open files too low?");
    }
}

/// The client behind trusted proxies, and the request's headers with this hop written into them if a backend gets to
/// see them.
fn believed(
    gateway: &Gateway,
    request: &mut Request<Incoming>,
    known: &Known,
    peer: &Peer,
    tells_backend: bool,
) -> Peer {
    join_cookies(request);
    let trusted = &gateway.settings.trusted_proxies;
    if !forwarded::is_trusted(peer.remote, trusted) {
        if tells_backend {
            // Of this hop, and of what the way to the backend adds: the map grows once.
            request.headers_mut().reserve(12);
            known.stamp(peer).put(request.headers_mut());
        } else {
            forwarded::remove(request.headers_mut());
        }
        return peer.clone();
    }
    let hop = Hop { peer: peer.remote, local: peer.local, scheme: peer.scheme, host: &known.host };
    let origin = forwarded::resolve(request.headers(), &hop, trusted);
    forwarded::extend(request.headers_mut(), &hop, trusted);
    let local = SocketAddr::new(peer.local.ip(), origin.port);
    Peer { remote: origin.address, local, scheme: origin.scheme, ..peer.clone() }
}

/// RFC 9113 section 8.2.3: HTTP/2 may split cookies over lines, and nothing else may see them so.
fn join_cookies(request: &mut Request<Incoming>) {
    if request.version() != Version::HTTP_2 || request.headers().get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<_> = request.headers().get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        request.headers_mut().insert(COOKIE, whole);
    }
}

/// What was found out about the host of a connection's last request: as a rule the next one names the same.
#[derive(Default)]
pub struct Memory(Mutex<Option<Arc<Known>>>);

pub struct Known {
    /// As the client wrote it.
    host: String,
    /// Which reload this is from.
    generation: u64,
    stamp: OnceLock<Stamp>,
    /// As events show it, where the API answers to every host.
    domain_name: OnceLock<Arc<str>>,
}

impl Memory {
    /// `None` if the request names no host as it should.
    fn recall(&self, request: &Request<Incoming>, engine: &Engine) -> Option<Arc<Known>> {
        let generation = engine.generation();
        let mut memory = self.0.lock();
        if let Some(known) = memory.as_ref().filter(|known| known.generation == generation)
            && is_plainly(request, &known.host)
        {
            return Some(known.clone());
        }
        let (stamp, domain_name) = (OnceLock::new(), OnceLock::new());
        let known = Arc::new(Known { host: host(request)?, generation, stamp, domain_name });
        *memory = Some(known.clone());
        Some(known)
    }
}

impl Known {
    fn domain_name(&self, place: &Place, peer: &Peer, engine: &Engine) -> Arc<str> {
        match place.host {
            // Behind a trusted proxy each request has its own scheme and port.
            Host::Any if !engine.gateway().settings.trusted_proxies.is_empty() => {}
            Host::Any => return self.domain_name.get_or_init(|| self.reached(&Host::Any, peer, engine)).clone(),
            Host::Exact(_) | Host::Wildcard(_) => {}
        }
        self.reached(&place.host, peer, engine)
    }

    fn reached(&self, domain: &Host, peer: &Peer, engine: &Engine) -> Arc<str> {
        reached(&self.host, domain, peer, &engine.callback()).domain_name.into()
    }

    fn stamp(&self, peer: &Peer) -> &Stamp {
        self.stamp.get_or_init(|| {
            let hop = Hop { peer: peer.remote, local: peer.local, scheme: peer.scheme, host: &self.host };
            Stamp::of_stranger(&hop)
        })
    }
}

/// RFC 9112 section 6.1: whoever does not know every coding must not pass the message on.
fn is_framed_plainly(request: &Request<Incoming>) -> bool {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    is_chunked && codings.next().is_none()
}

/// What was meant cannot be told from here on.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// One `Host` line, which says this, and a target that says nothing else.
fn is_plainly(request: &Request<Incoming>, host: &str) -> bool {
    let mut lines = request.headers().get_all(HOST).iter();
    lines.next().is_some_and(|line| line == host) && lines.next().is_none() && request.uri().authority().is_none()
}

/// The one host that a request names, in its target or in its `Host`; empty if it may do without.
fn host(request: &Request<Incoming>) -> Option<String> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = hosts.next().map(|host| host.to_str().unwrap_or("/"));
    if hosts.next().is_some() {
        return None;
    }
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = match (authority, header) {
        // RFC 9112 section 3.2.2: the target's word counts; HTTP/2 forbids them to differ.
        (Some(authority), Some(header)) if request.version() == Version::HTTP_2 && authority != header => return None,
        (Some(authority), _) => authority,
        (None, Some(header)) => header,
        (None, None) if request.version() == Version::HTTP_10 => return Some(String::new()),
        (None, None) => return None,
    };
    let is_needed_too = authority.is_some() && header.is_none() && request.version() == Version::HTTP_11;
    (is_host(host) && header.is_none_or(is_host) && !is_needed_too).then(|| host.to_owned())
}

/// A host name, an IPv4 address, or an IPv6 address in brackets, perhaps with a port. Nothing else gets
/// further: what is told to backends as the host must not be readable as anything but a host.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("address", port),
        Some(_) => return false,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.bytes().all(is_of_name) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_perhaps_a_port() {
        for host in ["localhost", "chat.example.com:8080", "127.0.0.1:1", "[::1]", "[2001:db8::1]:443", "a_b"] {
            assert!(is_host(host), "{host}");
        }
        let others = [
            "",
            ":80",
            "a:",
            "a:99999",
            "a:+80",
            "[::1]/.example.com",
            "evil/.example.com",
            "u@a",
            "a b",
            "a#b",
            "a?b",
            "[zz]",
            "[::1",
            "::1",
            "a:80:90",
            "é",
        ];
        for host in others {
            assert!(!is_host(host), "{host}");
        }
    }
}
