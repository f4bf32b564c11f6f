//! Who may ask the admin listener for what.
//!
//! With an `admin_token` whoever shows it, from wherever it comes; without one this machine alone. Pages of other sites
//! may not ask at all, though a browser would let them: they could close connections with an operator's hands. There are no
//! cookies: those of one port are sent to all others, the clients' too.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::error;
use crate::api::gateway::Settings;
use crate::model::answer::Answer;
use crate::model::clock::Tick;
use crate::telemetry::log::OncePerSecond;

/// Whoever guesses tokens is not to fill the log.
static OTHER_TOKENS: OncePerSecond = OncePerSecond::new();

/// How somebody was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Token,
    Loopback,
    /// What is open to all.
    Open,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The token is missing, or another.
    Token,
    No(&'static str),
}

impl Access {
    pub fn name(self) -> &'static str {
        match self {
            Access::Token => "admin_token",
            Access::Loopback => "loopback",
            Access::Open => "open",
        }
    }
}

impl Refused {
    pub fn answer(&self) -> Answer {
        match self {
            Refused::Token => {
                let text = "show the gateway's admin_token as `Authorization: Bearer …`";
                let mut answer = error(StatusCode::UNAUTHORIZED, text);
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                answer
            }
            Refused::No(why) => error(StatusCode::FORBIDDEN, why),
        }
    }
}

/// Whether a request may be answered at all.
pub fn check(settings: &Settings, head: &Parts, address: IpAddr) -> Result<Access, Refused> {
    let path = head.uri.path();
    let is_data = path.starts_with("/api/") || path == "/metrics";
    if is_data && is_of_another_site(&head.headers) {
        return Err(Refused::No("a page of another site may not ask this"));
    }
    let Some(token) = &settings.admin_token else {
        return check_loopback(head, path, address);
    };
    if !is_data {
        // The page itself is no secret; it asks for the token.
        return Ok(Access::Open);
    }
    let shown = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let shown = shown.and_then(|shown| shown.split_at_checked(7)).filter(|(scheme, _)| is_bearer(scheme));
    match shown {
        Some((_, shown)) if verify_slices_are_equal(shown, token.as_bytes()).is_ok() => Ok(Access::Token),
        Some(_) => {
            if let Some(unsaid) = OTHER_TOKENS.is_worth_a_line(Tick::now()) {
                tracing::warn!(target: "livegate::operators", %address, unsaid, "somebody showed another admin_token");
            }
            Err(Refused::Token)
        }
        None => Err(Refused::Token),
    }
}

fn is_bearer(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"bearer ")
}

/// What gives a proxy away. One that speaks HTTP/1.1 and adds none of these cannot be told from a caller.
const OF_PROXIES: [&str; 7] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-server", "x-real-ip"];

fn check_loopback(head: &Parts, path: &str, address: IpAddr) -> Result<Access, Refused> {
    let (headers, version) = (&head.headers, head.version);
    // Scrapers come from elsewhere; a browser that was led here by a name of somebody else's does not scrape.
    if path == "/metrics" && !headers.contains_key("sec-fetch-site") {
        return Ok(Access::Open);
    }
    if !address.to_canonical().is_loopback() {
        return Err(Refused::No("without an admin_token the dashboard is for this machine alone"));
    }
    if OF_PROXIES.iter().any(|name| headers.contains_key(*name)) || version == Version::HTTP_10 {
        return Err(Refused::No(
            "behind a proxy the dashboard needs an admin_token: everybody seems to be on this machine",
        ));
    }
    // A name that was made to point here would make a stranger's page one of ours.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_this_machine) {
        return Err(Refused::No("without an admin_token the dashboard answers to localhost and 127.0.0.1 alone"));
    }
    Ok(Access::Loopback)
}

fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    !host.contains('@')
        && (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

/// What browsers say of themselves: `Sec-Fetch-Site`, and `Origin` where that is missing.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    // Behind a proxy that renames the host, the browser still knows which page is ours.
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(ORIGIN.as_str()) else { return false };
    let host = text(HOST.as_str()).unwrap_or_default();
    origin.split_once("://").is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(host))
}

/// Whether a request that changes something may: on top of `check`.
pub fn check_action(settings: &Settings, head: &Parts) -> Result<(), Refused> {
    if settings.admin_read_only {
        return Err(Refused::No("this dashboard is read-only (admin_read_only = true)"));
    }
    // No form can send this, so that no page can without asking the browser's leave first.
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refused::No("an action is sent as `Content-Type: application/json`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[track_caller]
    fn check(token: Option<&str>, address: &str, head: Parts, expected: Result<Access, Refused>) {
        let settings = Settings { admin_token: token.map(Into::into), ..Settings::default() };
        assert_eq!(super::check(&settings, &head, address.parse().unwrap()), expected, "{head:?}");
    }

    #[test]
    fn without_a_token_this_machine_alone_is_let_in() {
        let no = |address, headers: &[(&'static str, &'static str)]| {
            for path in ["/", "/api/status"] {
                let settings = Settings::default();
                let refused = super::check(&settings, &head(path, headers), str::parse(address).unwrap());
                assert!(matches!(refused, Err(Refused::No(_))), "{headers:?}: {refused:?}");
            }
        };
        for host in ["localhost:8081", "127.0.0.1:8081", "[::1]:8081", "127.9.9.9"] {
            check(None, "127.0.0.1", head("/api/status", &[("host", host)]), Ok(Access::Loopback));
        }
        no("10.0.0.9", &[("host", "localhost:8081")]);
        no("127.0.0.1", &[("host", "evil.example")]);
        no("127.0.0.1", &[("host", "localhost@evil.example")]);
        no("127.0.0.1", &[]);
        for name in OF_PROXIES {
            no("127.0.0.1", &[("host", "localhost"), (name, "203.0.113.9")]);
        }
        let mut old = head("/", &[("host", "localhost")]);
        old.version = Version::HTTP_10;
        assert!(super::check(&Settings::default(), &old, str::parse("127.0.0.1").unwrap()).is_err());
        check(None, "10.0.0.9", head("/metrics", &[("host", "gateway:8081")]), Ok(Access::Open));
    }

    #[test]
    fn with_a_token_it_alone_counts() {
        let shown = |token: &'static str| head("/api/status", &[("host", "gateway"), ("authorization", token)]);
        check(Some("letmein"), "10.0.0.9", shown("Bearer letmein"), Ok(Access::Token));
        check(Some("letmein"), "10.0.0.9", shown("bearer letmein"), Ok(Access::Token));
        for wrong in ["Bearer letmeim", "Bearer letmein ", "Bearer ", "Basic letmein", "letmein", ""] {
            check(Some("letmein"), "127.0.0.1", shown(wrong), Err(Refused::Token));
        }
        check(Some("letmein"), "127.0.0.1", head("/metrics", &[("host", "localhost")]), Err(Refused::Token));
        check(Some("letmein"), "10.0.0.9", head("/", &[("host", "gateway")]), Ok(Access::Open));
    }

    #[test]
    fn pages_of_other_sites_may_not_ask() {
        let asked = |headers: &[(&'static str, &'static str)]| {
            let headers = [&[("host", "localhost:8081")], headers].concat();
            super::check(&Settings::default(), &head("/api/status", &headers), str::parse("127.0.0.1").unwrap()).is_ok()
        };
        assert!(asked(&[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8081")]));
        assert!(asked(&[("sec-fetch-site", "none")]));
        assert!(!asked(&[("sec-fetch-site", "cross-site")]));
        assert!(!asked(&[("sec-fetch-site", "same-site")]));
        assert!(!asked(&[("origin", "http://localhost:3000")]));
        assert!(!asked(&[("origin", "null")]));
        assert!(!asked(&[("origin", "http://evil.example")]));
    }

    #[test]
    fn an_action_is_json_and_allowed() {
        let settings = Settings::default();
        let json = head("/", &[("content-type", "application/json; charset=utf-8")]);
        assert_eq!(check_action(&settings, &json), Ok(()));
        for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
            assert!(check_action(&settings, &head("/", &[("content-type", kind)])).is_err(), "{kind}");
        }
        assert!(check_action(&Settings { admin_read_only: true, ..settings }, &json).is_err());
    }
}
