//! Whom a request comes from when proxies stand in front, and what backends are told about its way.
//!
//! Nothing that a request says about earlier hops counts unless its peer is a trusted proxy. Then the list of
//! addresses is walked from its end, where the nearest proxy wrote; the first that is no trusted proxy is the
//! client. What stands before it was written by strangers.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::trace::X_AMZN_TRACE_ID;
use super::{headers, lines};

/// The last hop: a connection that this gateway accepted, and what was asked for on it.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Who opened the connection; with the PROXY protocol the source that it names.
    pub peer: IpAddr,
    /// Where it arrived; with the PROXY protocol the destination that it names.
    pub local: SocketAddr,
    /// `http` or `https`, as spoken on this connection.
    pub scheme: &'static str,
    /// The host that was asked for, as the client wrote it; empty if it wrote none.
    pub host: &'a str,
}

/// Where a request began, as far as it can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client; IPv4 addresses in IPv6 clothes are shown as IPv4.
    pub address: IpAddr,
    /// `http` or `https`, as the client spoke it.
    pub scheme: &'static str,
    /// The port that the client reached.
    pub port: u16,
}

/// Whether an address belongs to a proxy whose word counts.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The client of a request. With both kinds of headers `X-Forwarded-For` wins.
pub fn resolve(headers: &HeaderMap, hop: &Hop<'_>, trusted: &[IpNet]) -> Origin {
    let peer = hop.peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return Origin { address: peer, scheme: hop.scheme, port: hop.local.port() };
    }
    Way::of(headers, peer, trusted).origin(headers, hop)
}

/// Makes of the headers that came with a request those that go on to a backend: this hop is added to what a
/// trusted proxy says, and what anybody else says is removed. Both kinds are written.
pub fn extend(headers: &mut HeaderMap, hop: &Hop<'_>, trusted: &[IpNet]) {
    let peer = hop.peer.to_canonical();
    if !is_trusted(peer, trusted) {
        remove(headers);
        return Stamp::of_stranger(hop).put(headers);
    }
    let way = Way::of(headers, peer, trusted);
    let origin = way.origin(headers, hop);
    let (addresses, elements) = (way.addresses(headers), way.elements(headers, &origin));
    let mut stamp = Stamp::new(hop, &origin, addresses, elements);
    if headers.contains_key(&X_FORWARDED_HOST) {
        stamp.host = None;
    }
    stamp.put(headers);
}

/// What a backend is told about one hop. That of a stranger is the same for all its requests on one connection.
#[derive(Debug, Clone)]
pub struct Stamp {
    addresses: HeaderValue,
    scheme: HeaderValue,
    port: HeaderValue,
    host: Option<HeaderValue>,
    elements: HeaderValue,
}

impl Stamp {
    /// Of a peer whose own word counts for nothing.
    pub fn of_stranger(hop: &Hop<'_>) -> Self {
        let origin = Origin { address: hop.peer.to_canonical(), scheme: hop.scheme, port: hop.local.port() };
        Self::new(hop, &origin, Vec::new(), Vec::new())
    }

    fn new(hop: &Hop<'_>, origin: &Origin, addresses: Vec<u8>, elements: Vec<u8>) -> Self {
        let peer = hop.peer.to_canonical();
        Self {
            addresses: value(with_address(addresses, peer)),
            scheme: HeaderValue::from_static(origin.scheme),
            port: port_value(origin.port),
            host: HeaderValue::from_str(hop.host).ok().filter(|host| !host.is_empty()),
            elements: value(with_element(elements, hop, peer)),
        }
    }

    /// Into headers that say nothing of their own, or what was believed.
    pub fn put(&self, headers: &mut HeaderMap) {
        for (name, value) in self.lines() {
            headers.insert(name, value.clone());
        }
    }

    fn lines(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let host = self.host.as_ref().map(|host| (&X_FORWARDED_HOST, host));
        let first =
            [(&X_FORWARDED_FOR, &self.addresses), (&X_FORWARDED_PROTO, &self.scheme), (&X_FORWARDED_PORT, &self.port)];
        first.into_iter().chain(host).chain([(&FORWARDED, &self.elements)])
    }
}

/// What the gateway says in the head of a request that it passes on, where nobody looks at it before the backend does: lines
/// that are written behind those of the client cost a fraction of headers in a map.
#[derive(Debug, Clone)]
pub struct Added {
    pub stamp: Arc<Stamp>,
    /// In place of the client's.
    pub host: HeaderValue,
    pub via: HeaderValue,
    /// Where the client has none of its own.
    pub trace_id: Option<HeaderValue>,
}

impl Added {
    pub fn write(&self, into: &mut Vec<u8>) {
        lines::write(&HOST, self.host.as_bytes(), into);
        for (name, value) in self.stamp.lines() {
            lines::write(name, value.as_bytes(), into);
        }
        lines::write(&VIA, self.via.as_bytes(), into);
        if let Some(trace_id) = &self.trace_id {
            lines::write(&X_AMZN_TRACE_ID, trace_id.as_bytes(), into);
        }
    }

    /// As headers, for those who do need a map.
    pub fn put(self, headers: &mut HeaderMap) {
        self.stamp.put(headers);
        headers.insert(HOST, self.host);
        headers.append(VIA, self.via);
        if let Some(trace_id) = self.trace_id {
            headers.append(X_AMZN_TRACE_ID, trace_id);
        }
    }
}

/// Whatever a request says itself of its way counts for nothing.
pub fn remove(headers: &mut HeaderMap) {
    // Most requests have none at all, and then looking is all it takes.
    if headers.keys().any(headers::is_forwarding) {
        let names: Vec<_> = headers.keys().filter(|name| headers::is_forwarding(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// What trusted proxies say about the hops before this one.
struct Way {
    /// From the nearest to the client, all of them believed; empty if nothing readable was said.
    hops: Vec<IpAddr>,
    told_by: Kind,
    /// What `Forwarded` says about the client's scheme.
    scheme: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    XForwardedFor,
    Forwarded,
    Neither,
}

impl Way {
    fn of(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Way {
        let mut way = Way { hops: Vec::new(), told_by: Kind::Neither, scheme: None };
        if headers.contains_key(&X_FORWARDED_FOR) {
            way.told_by = Kind::XForwardedFor;
            let entries = from_the_end(headers, &X_FORWARDED_FOR).map(|entry| Some((address(entry)?, None)));
            way.walk(entries, peer, trusted);
        } else if headers.contains_key(&FORWARDED) {
            way.told_by = Kind::Forwarded;
            let lines = headers.get_all(&FORWARDED).iter().rev();
            let elements = lines.flat_map(|line| Unquoted::split(line.as_bytes(), b',')).filter(|one| !one.is_empty());
            way.walk(elements.map(element), peer, trusted);
        }
        way
    }

    /// Goes on as long as the one who wrote an entry is trusted; one that cannot be read ends the walk.
    fn walk(
        &mut self,
        entries: impl Iterator<Item = Option<(IpAddr, Option<&'static str>)>>,
        peer: IpAddr,
        trusted: &[IpNet],
    ) {
        let mut writer = peer;
        for entry in entries {
            let Some((address, scheme)) = entry.filter(|_| is_trusted(writer, trusted)) else { return };
            self.hops.push(address);
            self.scheme = scheme;
            writer = address;
        }
    }

    fn origin(&self, headers: &HeaderMap, hop: &Hop<'_>) -> Origin {
        let address = self.hops.last().copied().unwrap_or_else(|| hop.peer.to_canonical());
        let told = || self.told(headers, &X_FORWARDED_PROTO).and_then(scheme);
        let scheme = self.scheme.or_else(told).unwrap_or(hop.scheme);
        let told =
            || self.told(headers, &X_FORWARDED_PORT).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let of_scheme = match scheme {
            _ if scheme == hop.scheme => hop.local.port(),
            "https" => 443,
            _ => 80,
        };
        Origin { address, scheme, port: told().unwrap_or(of_scheme) }
    }

    /// What the proxy that met the client says. One that replaces the value instead of adding to it leaves
    /// fewer values than hops; then the nearest proxy's counts.
    fn told<'h>(&self, headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
        let nth = self.hops.len().saturating_sub(1);
        from_the_end(headers, name).nth(nth).or_else(|| from_the_end(headers, name).next())
    }

    /// `X-Forwarded-For` up to the peer, which does not stand in it yet.
    fn addresses(&self, headers: &HeaderMap) -> Vec<u8> {
        match self.told_by {
            Kind::XForwardedFor => joined(headers, &X_FORWARDED_FOR),
            _ => self.hops.iter().rev().fold(Vec::new(), |list, hop| with_address(list, *hop)),
        }
    }

    /// `Forwarded` up to the peer. Where only `X-Forwarded-For` came, what it says is folded in.
    fn elements(&self, headers: &HeaderMap, origin: &Origin) -> Vec<u8> {
        if headers.contains_key(&FORWARDED) {
            return joined(headers, &FORWARDED);
        }
        let mut list = Vec::with_capacity(32 * self.hops.len());
        for (index, hop) in self.hops.iter().rev().enumerate() {
            if index > 0 {
                list.extend_from_slice(b", ");
            }
            push_node(&mut list, b"for=", *hop);
            if index == 0 {
                list.extend_from_slice(b";proto=");
                list.extend_from_slice(origin.scheme.as_bytes());
            }
        }
        list
    }
}

/// The entries of a plain list, from the last line's end to the first line's beginning.
fn from_the_end<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let lines = headers.get_all(name).iter().rev();
    lines
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

/// Every line of a header as one list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let mut list = Vec::with_capacity(128);
    for line in headers.get_all(name).iter().filter(|line| !line.is_empty()) {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(line.as_bytes());
    }
    list
}

fn with_address(mut list: Vec<u8>, address: IpAddr) -> Vec<u8> {
    list.reserve(40);
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    push(&mut list, address);
    list
}

/// Adds this hop: `by=192.0.2.1;for="[2001:db8::1]";host=example.com;proto=https`.
fn with_element(mut list: Vec<u8>, hop: &Hop<'_>, peer: IpAddr) -> Vec<u8> {
    list.reserve(96 + hop.host.len());
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    push_node(&mut list, b"by=", hop.local.ip().to_canonical());
    push_node(&mut list, b";for=", peer);
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_quotable = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b'"' && byte != b'\\';
    if !hop.host.is_empty() && hop.host.bytes().all(is_quotable) {
        let quote: &[u8] = if hop.host.bytes().all(is_token) { b"" } else { b"\"" };
        for part in [b";host=", quote, hop.host.as_bytes(), quote] {
            list.extend_from_slice(part);
        }
    }
    list.extend_from_slice(b";proto=");
    list.extend_from_slice(hop.scheme.as_bytes());
    list
}

/// IPv6 addresses have colons, so they stand in brackets and quotes.
fn push_node(list: &mut Vec<u8>, name: &[u8], address: IpAddr) {
    list.extend_from_slice(name);
    match address {
        IpAddr::V4(_) => push(list, address),
        IpAddr::V6(_) => {
            list.extend_from_slice(b"\"[");
            push(list, address);
            list.extend_from_slice(b"]\"");
        }
    }
}

fn push(list: &mut Vec<u8>, address: IpAddr) {
    match address {
        // By hand: this runs three times for each proxied request, and the formatter takes several times as long.
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    list.push(b'.');
                }
                if octet >= 100 {
                    list.push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    list.push(b'0' + octet / 10 % 10);
                }
                list.push(b'0' + octet % 10);
            }
        }
        // Writing to memory cannot fail.
        IpAddr::V6(address) => _ = write!(list, "{address}"),
    }
}

/// The usual ports without an allocation.
fn port_value(port: u16) -> HeaderValue {
    match port {
        80 => HeaderValue::from_static("80"),
        443 => HeaderValue::from_static("443"),
        _ => HeaderValue::from(port),
    }
}

fn value(text: Vec<u8>) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("made of header values, addresses and tokens")
}

/// The client and its scheme, of one element of `Forwarded`; a parameter that stands there twice makes it unreadable.
fn element(text: &[u8]) -> Option<(IpAddr, Option<&'static str>)> {
    let (mut client, mut proto) = (None, None);
    for pair in Unquoted::split(text, b';').filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let before = if name.eq_ignore_ascii_case(b"for") {
            client.replace(address(value)?).is_some()
        } else if name.eq_ignore_ascii_case(b"proto") {
            proto.replace(scheme(unquoted(value))).is_some()
        } else {
            false
        };
        if before {
            return None;
        }
    }
    Some((client?, proto.flatten()))
}

/// A list split at a separator outside of quotes, from its end: a quote that a stranger left open at the beginning
/// must not swallow what a trusted proxy added.
struct Unquoted<'h> {
    rest: Option<&'h [u8]>,
    separator: u8,
}

impl<'h> Unquoted<'h> {
    fn split(text: &'h [u8], separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'h> Iterator for Unquoted<'h> {
    type Item = &'h [u8];

    fn next(&mut self) -> Option<&'h [u8]> {
        let rest = self.rest.take()?;
        let mut is_quoted = false;
        for at in (0..rest.len()).rev() {
            if rest[at] == b'"' {
                let escapes = rest[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                is_quoted ^= escapes % 2 == 0;
            } else if rest[at] == self.separator && !is_quoted {
                self.rest = Some(&rest[..at]);
                return Some(rest[at + 1..].trim_ascii());
            }
        }
        Some(rest.trim_ascii())
    }
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

/// An address as proxies write it: bare, with a port, in brackets, in quotes.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(unquoted(text)).ok()?;
    let address = match (text.strip_prefix('['), text.split_once(':')) {
        (Some(bracketed), _) => {
            let (address, port) = bracketed.split_once(']')?;
            let is_whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            is_whole.then(|| address.parse::<Ipv6Addr>().ok())??.into()
        }
        (None, Some((address, port))) if !port.contains(':') => {
            is_port(port).then(|| address.parse::<Ipv4Addr>().ok())??.into()
        }
        (None, _) => text.parse::<IpAddr>().ok()?,
    };
    Some(address.to_canonical())
}

/// Digits, or what RFC 7239 lets a proxy write to hide them.
fn is_port(text: &str) -> bool {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number || text.len() > 1 && text.starts_with('_')
}

fn scheme(text: &[u8]) -> Option<&'static str> {
    if text.eq_ignore_ascii_case(b"https") || text.eq_ignore_ascii_case(b"wss") {
        Some("https")
    } else if text.eq_ignore_ascii_case(b"http") || text.eq_ignore_ascii_case(b"ws") {
        Some("http")
    } else {
        None
    }
}

static FORWARDED: HeaderName = http::header::FORWARDED;
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
