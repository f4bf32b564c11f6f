//! Where a request goes: to a stage's socket, to a connection, to a route of an HTTP API, or nowhere
//! (by host, base path and stage).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{CONNECTION, COOKIE, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use hyper::ext::Protocol;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acme::Challenges;
use crate::api::directory::{Host, Place, names_connections};
use crate::api::gateway::Gateway;
use crate::connections::{Handover, Peer};
use crate::engine::reached::{Reached, reached};
use crate::engine::{CallbackBase, Engine};
use crate::model::answer::{self, Answer};
use crate::model::body::Body;
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
    /// The host that was named last: mostly all clients name the same.
    last: Mutex<Option<Arc<Known>>>,
}

impl FrontDoor {
    pub fn for_clients(engine: Arc<Engine>, challenges: Arc<Challenges>) -> Self {
        Self { engine, challenges, dashboard: None, last: Mutex::default() }
    }

    /// `dial` opens a connection to the door of clients.
    pub fn for_operators(engine: Arc<Engine>, challenges: Arc<Challenges>, dial: Dial) -> Self {
        Self { dashboard: Some(Dashboard::new(engine.clone(), dial)), engine, challenges, last: Mutex::default() }
    }

    /// `handover` is there if the request may be about another protocol.
    pub async fn answer(
        &self,
        request: Box<Request<Body>>,
        peer: &Peer,
        memory: &Memory,
        handover: Option<Handover>,
    ) -> Answer {
        match &self.dashboard {
            // Boxed: the future of every client's request would keep room for it.
            Some(dashboard) => Box::pin(dashboard.answer(*request, peer.remote)).await,
            None => self.answer_client(request, peer, memory, handover).await,
        }
    }

    async fn answer_client(
        &self,
        mut request: Box<Request<Body>>,
        peer: &Peer,
        memory: &Memory,
        handover: Option<Handover>,
    ) -> Answer {
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
        let Some(known) = self.recall(&request, peer, memory) else {
            let text = "A request needs exactly one Host header: a name or an address, and perhaps a port";
            return answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(text));
        };
        let gateway = self.engine.gateway();
        // Over HTTP/2 whatever names a protocol wants another one than HTTP (RFC 8441), and is no request of a route.
        let is_handshake = handover.is_some() && upgrade::is_asked_for(&request);
        let asks_upgrade = is_handshake || request.extensions().get::<Protocol>().is_some();
        let destination = gateway.directory.find(without_port(&known.host), request.uri().path());
        // AWS's bound for WebSocket APIs; for HTTP the whole head has one.
        if target.len() > limits::URL && destination.requests.is_none() {
            return answer::error(StatusCode::URI_TOO_LONG, "BadRequestException", answer::message("URI Too Long"));
        }
        if let Some((place, stage, id)) = &destination.connection
            && !asks_upgrade
        {
            let reached = known.reached(place, peer, &gateway);
            let called = Called { stage, id, source_ip: peer.remote, domain_name: &reached.domain_name };
            // Boxed, here and below: a connection keeps room for the largest of them, also while nothing is asked.
            return Box::pin(callback::answer(&self.engine, &gateway, called, request)).await;
        }
        if (asks_upgrade || !destination.is_below_connections) && names_connections(request.uri().path()) {
            return answer::forbidden();
        }
        let (socket, handover) = match (destination.socket, handover) {
            (Some(socket), Some(handover)) if is_handshake => (Some((socket, handover)), None),
            (_, handover) => (None, handover),
        };
        let tells_backend = socket.as_ref().is_none_or(|((_, stage), _)| stage.asks_about_handshakes());
        let (peer, stamp) = believed(&gateway, &mut request, (&known, memory), peer, tells_backend);
        if let Some(((place, stage), handover)) = socket {
            if let Some(stamp) = stamp {
                stamp.put(request.headers_mut());
            }
            let reached = known.reached(place, &peer, &gateway);
            let asked = upgrade::Asked { request, host: &known.host, reached, place, stage, peer, handover };
            return Box::pin(upgrade::accept(&self.engine, asked)).await;
        }
        if let Some((place, stage)) = destination.requests {
            let is_theirs = match asks_upgrade {
                true => requests::carries_upgrade(&request, place, stage),
                false => destination.socket.is_none() || requests::has_route(&request, place, stage),
            };
            if is_theirs {
                let domain_name = known.reached(place, &peer, &gateway).domain_name;
                let arrived = Arrived { request, domain_name, place, stage, peer, stamp, handover };
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

    /// What is known of the host that a request names; `None` if it names none as it should.
    fn recall(&self, request: &Request<Body>, peer: &Peer, memory: &Memory) -> Option<Arc<Known>> {
        let is_it = |known: &Known| known.is_of(request, peer, &self.engine);
        if let Some(known) = memory.recall(is_it) {
            return Some(known);
        }
        let last = self.last.lock().clone();
        let known = match last.filter(|known| is_it(known)) {
            Some(known) => known,
            None => {
                let (callback, reached) = (self.engine.callback(), OnceLock::new());
                let known = Known { host: host(request)?, scheme: peer.scheme, local: peer.local, callback, reached };
                let known = Arc::new(known);
                *self.last.lock() = Some(known.clone());
                known
            }
        };
        memory.keep(&known);
        Some(known)
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

/// The client behind trusted proxies; and if a backend gets to see the request's headers, what is still to be written into
/// them of this hop.
fn believed(
    gateway: &Gateway,
    request: &mut Request<Body>,
    (known, memory): (&Arc<Known>, &Memory),
    peer: &Peer,
    tells_backend: bool,
) -> (Peer, Option<Arc<Stamp>>) {
    join_cookies(request);
    let trusted = &gateway.settings.trusted_proxies;
    if !forwarded::is_trusted(peer.remote, trusted) {
        forwarded::remove(request.headers_mut());
        return (peer.clone(), tells_backend.then(|| memory.stamp(known, peer)));
    }
    let hop = Hop { peer: peer.remote, local: peer.local, scheme: peer.scheme, host: &known.host };
    let origin = forwarded::resolve(request.headers(), &hop, trusted);
    forwarded::extend(request.headers_mut(), &hop, trusted);
    let local = SocketAddr::new(peer.local.ip(), origin.port);
    (Peer { remote: origin.address, local, scheme: origin.scheme, ..peer.clone() }, None)
}

/// RFC 9113 section 8.2.3: HTTP/2 may split cookies over lines, and nothing else may see them so.
fn join_cookies(request: &mut Request<Body>) {
    if request.version() != Version::HTTP_2 || request.headers().get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<_> = request.headers().get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        request.headers_mut().insert(COOKIE, whole);
    }
}

/// What a connection's last request said of its host: as a rule the next one names the same.
#[derive(Default)]
pub struct Memory(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    host: Option<Arc<Known>>,
    /// What backends are told of this hop, where clients name that host.
    stamp: Option<Arc<Stamp>>,
}

/// What was found out about a host that clients name, on one way to it.
struct Known {
    /// As the client wrote it.
    host: String,
    scheme: &'static str,
    local: SocketAddr,
    callback: Arc<CallbackBase>,
    /// The name to the outside, where the API answers to every host.
    reached: OnceLock<Reached>,
}

impl Memory {
    fn recall(&self, is_it: impl FnOnce(&Known) -> bool) -> Option<Arc<Known>> {
        self.0.lock().host.clone().filter(|known| is_it(known))
    }

    fn keep(&self, known: &Arc<Known>) {
        *self.0.lock() = Remembered { host: Some(known.clone()), stamp: None };
    }

    /// Over HTTP/2 another request may have named another host meanwhile.
    fn stamp(&self, known: &Arc<Known>, peer: &Peer) -> Arc<Stamp> {
        let hop = Hop { peer: peer.remote, local: peer.local, scheme: peer.scheme, host: &known.host };
        let stamp = || Arc::new(Stamp::of_stranger(&hop));
        let mut remembered = self.0.lock();
        match remembered.host.as_ref().is_some_and(|host| Arc::ptr_eq(host, known)) {
            true => remembered.stamp.get_or_insert_with(stamp).clone(),
            false => stamp(),
        }
    }
}

impl Known {
    fn is_of(&self, request: &Request<Body>, peer: &Peer, engine: &Engine) -> bool {
        is_plainly(request, &self.host)
            && (self.scheme, self.local) == (peer.scheme, peer.local)
            && engine.has_callback(&self.callback)
    }

    fn reached(&self, place: &Place, peer: &Peer, gateway: &Gateway) -> Reached {
        let reached = || reached(&self.host, &place.host, peer, &self.callback);
        match place.host {
            // Behind a trusted proxy each request has its own scheme and port.
            Host::Any if gateway.settings.trusted_proxies.is_empty() => self.reached.get_or_init(reached).clone(),
            Host::Any | Host::Exact(_) | Host::Wildcard(_) => reached(),
        }
    }
}

/// RFC 9112 section 6.1: whoever does not know every coding must not pass the message on.
fn is_framed_plainly(request: &Request<Body>) -> bool {
    // A coded body flows, whoever read its head.
    if matches!(request.body(), Body::Whole(_)) {
        return true;
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    is_chunked && codings.next().is_none()
}

/// What was meant cannot be told from here on.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The request names this host as nearly all do: in its one `Host` line, or over HTTP/2 in its target. Whoever names none has
/// a reason that is looked at each time.
fn is_plainly(request: &Request<Body>, host: &str) -> bool {
    let mut lines = request.headers().get_all(HOST).iter();
    let (line, is_one) = (lines.next(), lines.next().is_none());
    let says_so = match (request.uri().authority(), line) {
        (None, Some(line)) => line == host,
        (Some(authority), line) if request.version() == Version::HTTP_2 => {
            authority.as_str() == host && line.is_none_or(|line| line == host)
        }
        (Some(_), _) | (None, None) => false,
    };
    says_so && is_one && !host.is_empty()
}

/// The one host that a request names, in its target or in its `Host`; empty if it may do without.
fn host(request: &Request<Body>) -> Option<String> {
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
    fn known(host: &str) -> Arc<Known> {
        let (local, reached) = (SocketAddr::from(([127, 0, 0, 1], 80)), OnceLock::new());
        let callback = Arc::new(CallbackBase { host: host.to_owned(), url: String::new() });
        Arc::new(Known { host: host.to_owned(), scheme: "http", local, callback, reached })
    }

    #[test]
    fn a_stamp_is_of_the_host_that_its_own_request_names() {
        let (one, other) = (known("one"), known("other"));
        let (remote, local) = (IpAddr::from([1, 2, 3, 4]), one.local);
        let peer = Peer { remote, local, scheme: "http", certificate: None };
        let memory = Memory::default();
        let host_of = |known| {
            let mut headers = http::HeaderMap::new();
            memory.stamp(known, &peer).put(&mut headers);
            headers["x-forwarded-host"].to_str().expect("a host").to_owned()
        };
        memory.keep(&one);
        assert_eq!(host_of(&one), "one");
        // The other request comes between what the first one is told of its host and of its hop.
        memory.keep(&other);
        assert_eq!([&one, &other, &one].map(host_of), ["one", "other", "one"]);
    }

    #[test]
    fn a_host_is_recalled_where_a_request_names_it_and_nothing_else() {
        let check = |version, target: &str, hosts: &[&str], host, is_it| {
            let mut request = Request::builder().version(version).uri(target);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let request = request.body(Body::default()).expect("a good request");
            assert_eq!(is_plainly(&request, host), is_it, "{request:?} {host:?}");
        };
        check(Version::HTTP_11, "/", &["a"], "a", true);
        check(Version::HTTP_11, "/", &["b"], "a", false);
        check(Version::HTTP_11, "/", &["a", "a"], "a", false);
        check(Version::HTTP_11, "http://a/", &["a"], "a", false);
        check(Version::HTTP_10, "/", &[], "", false);
        check(Version::HTTP_11, "/", &[""], "", false);
        check(Version::HTTP_2, "http://a/", &[], "a", true);
        check(Version::HTTP_2, "http://a/", &["a"], "a", true);
        check(Version::HTTP_2, "http://a/", &["b"], "a", false);
        check(Version::HTTP_2, "http://a/", &["a", "a"], "a", false);
        check(Version::HTTP_2, "/", &["a"], "a", true);
        check(Version::HTTP_2, "/", &[], "a", false);
    }
}
