//! Under which name a client reached us, and where backends push to it.
//!
//! A Host header says where backends send signed pushes, so a stranger's word does not count: it must be
//! one of the API's domains, or this machine's own address with the port that was reached. Otherwise
//! the name is that of `callback_url`.

use std::net::IpAddr;
use std::sync::Arc;

use super::CallbackBase;
use crate::api::directory::Host;
use crate::connections::Peer;

#[derive(Clone)]
pub struct Reached {
    /// The host, with its port unless it is the scheme's own.
    pub domain_name: Arc<str>,
    /// The URL in front of the stage's path.
    pub url: Arc<str>,
}

/// `host` is the request's own word, `domain` the pattern that led to the stage.
pub fn reached(host: &str, domain: &Host, peer: &Peer, fallback: &CallbackBase) -> Reached {
    if !is_trusted(host, domain, peer) {
        return Reached { domain_name: fallback.host.as_str().into(), url: fallback.url.as_str().into() };
    }
    let default_port = if peer.scheme == "https" { ":443" } else { ":80" };
    let domain_name = host.strip_suffix(default_port).unwrap_or(host).to_ascii_lowercase();
    Reached { url: format!("{}://{domain_name}", peer.scheme).into(), domain_name: domain_name.into() }
}

fn is_trusted(host: &str, domain: &Host, peer: &Peer) -> bool {
    if !matches!(domain, Host::Any) {
        return true;
    }
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let default_port = if peer.scheme == "https" { 443 } else { 80 };
    if authority.port_u16().unwrap_or(default_port) != peer.local.port() {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == peer.local.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_our_own_are_trusted() {
        let peer = Peer {
            remote: [10, 0, 0, 9].into(),
            local: ([10, 0, 0, 5], 8080).into(),
            scheme: "http",
            certificate: None,
        };
        let check = |host: &str, trusted: bool| assert_eq!(is_trusted(host, &Host::Any, &peer), trusted, "{host}");
        check("localhost:8080", true);
        check("127.0.0.1:8080", true);
        check("[::1]:8080", true);
        check("10.0.0.5:8080", true);
        check("10.0.0.6:8080", false);
        check("evil.example", false);
        check("evil.example:8080", false);
        check("127.0.0.1:9999", false);
        check("localhost:8080@evil.example", false);
        check("user@localhost:8080", false);
        check("", false);
        assert!(is_trusted("chat.example.com:9", &Host::Exact("chat.example.com".into()), &peer));
    }
}
