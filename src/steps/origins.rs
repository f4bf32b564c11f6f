//! Which pages may open a WebSocket (`allowed_origins`).
//!
//! Browsers do not ask first, as they do for other requests to another site: they send the handshake, cookies and all,
//! and hand the socket to whatever page wanted it. Only the gateway can tell, by the `Origin` that they add. Clients
//! that are no browsers send none and pass.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, ORIGIN};

use crate::model::origin::{self, Origin};

/// The origins of a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Without a list, pages of other sites may connect as long as no cookie speaks for their user.
    pub list: Option<Vec<Pattern>>,
}

/// One entry of `allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `*`, also for pages that have no origin to show.
    All,
    Of {
        /// Its port is not looked at with `any_port`.
        origin: Origin,
        /// `*.` before the host: one label more than it has, or several.
        subdomains: bool,
        /// `:*` behind it.
        any_port: bool,
    },
}

/// A text that is no entry of `allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found}; {help}")]
pub struct NoOrigin {
    pub found: String,
    pub help: Cow<'static, str>,
}

/// Why a handshake is turned away. Its text may go to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the request has several Origin headers; send one")]
    Several,
    #[error("origin `{origin}` is not one of the stage's; {help}")]
    NotListed { origin: String, help: &'static str },
    #[error(
        "origin `{origin}` is another site than `{host}`, and the request speaks for its user (cookies, a login or a certificate); {help}"
    )]
    OtherSite { origin: String, host: String, help: &'static str },
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, NoOrigin> {
        Pattern::read(text).ok_or_else(|| NoOrigin { found: format!("`{text}` is no origin"), help: hint(text) })
    }

    fn read(text: &str) -> Option<Pattern> {
        if text == "*" {
            return Some(Pattern::All);
        }
        let (scheme, rest) = text.split_once("://")?;
        if scheme.eq_ignore_ascii_case("ws") || scheme.eq_ignore_ascii_case("wss") {
            return None;
        }
        let (rest, any_port) = rest.strip_suffix(":*").map_or((rest, false), |rest| (rest, true));
        let (rest, subdomains) = rest.strip_prefix("*.").map_or((rest, false), |rest| (rest, true));
        let origin = Origin::parse(&format!("{scheme}://{rest}"))?;
        let is_odd = any_port && origin.port.is_some() || subdomains && origin.host.starts_with('[');
        (!is_odd).then_some(Pattern::Of { origin, subdomains, any_port })
    }

    /// `None` is an origin that names no site, as `null`.
    fn matches(&self, asking: Option<&Origin>) -> bool {
        let (origin, subdomains, any_port) = match self {
            Pattern::All => return true,
            Pattern::Of { origin, subdomains, any_port } => (origin, *subdomains, *any_port),
        };
        asking.is_some_and(|asking| {
            let host = match subdomains {
                true => asking.host.strip_suffix(&origin.host).is_some_and(|labels| labels.ends_with('.')),
                false => asking.host == origin.host,
            };
            asking.scheme == origin.scheme && host && (any_port || asking.port == origin.port)
        })
    }
}

impl Origins {
    /// Lets a handshake pass or not; with a certificate of the client's, as with cookies, it speaks for a user. `scheme` and `host` are the stage's own as the client wrote them, the host with its
    /// port if it named one.
    pub fn check(&self, request: &HeaderMap, scheme: &str, host: &str, has_certificate: bool) -> Result<(), Refused> {
        let mut origins = request.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(()) };
        if origins.next().is_some() {
            return Err(Refused::Several);
        }
        let asking = origin.to_str().ok().and_then(Origin::parse);
        let help = match asking {
            Some(_) => "add it to allowed_origins of the stage",
            None => "only `*` in allowed_origins of the stage lets it pass",
        };
        let asking = asking.as_ref();
        match &self.list {
            Some(list) if list.iter().any(|pattern| pattern.matches(asking)) => Ok(()),
            Some(_) => Err(Refused::NotListed { origin: shown(origin.as_bytes()), help }),
            None if !request.contains_key(COOKIE) && !has_login(request) && !has_certificate => Ok(()),
            None if asking.is_some_and(|asking| is_same_site(asking, scheme, host)) => Ok(()),
            None => Err(Refused::OtherSite { origin: shown(origin.as_bytes()), host: shown(host.as_bytes()), help }),
        }
    }
}

/// Whether the browser sends a login of its own accord, that it asked its user for once.
fn has_login(request: &HeaderMap) -> bool {
    let by_itself = ["basic", "digest", "negotiate", "ntlm"];
    request.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        let scheme = value.split(' ').next().unwrap_or_default();
        by_itself.iter().any(|own| own.eq_ignore_ascii_case(scheme))
    })
}

/// Whether a page is of the host that it connects to. Its scheme may be another: behind a proxy that speaks TLS, `https`
/// arrives as `http`, and then a host without a port means the port of a scheme that we do not see.
fn is_same_site(asking: &Origin, scheme: &str, host: &str) -> bool {
    let Some(own) = Origin::parse(&format!("{scheme}://{host}")) else { return false };
    let port = own.port == asking.port || own.port.is_some() && own.port == asking.port_number();
    own.host == asking.host && port
}

/// The longest part of a header that an answer repeats, in characters.
const LONGEST_SHOWN: usize = 200;

/// Bytes of a stranger, as plain text.
fn shown(bytes: &[u8]) -> String {
    let escaped = bytes.escape_ascii().to_string();
    match escaped.len() > LONGEST_SHOWN {
        true => format!("{}…", &escaped[..LONGEST_SHOWN - 1]),
        false => escaped,
    }
}

/// What would do in place of a text that is no origin.
fn hint(text: &str) -> Cow<'static, str> {
    let would_do = |text: &str| Pattern::read(text).is_some();
    if let Some((scheme @ ("ws" | "wss"), rest)) = text.split_once("://") {
        let scheme = scheme.replacen("ws", "http", 1);
        if would_do(&format!("{scheme}://{rest}")) {
            return format!("an origin is the page's; write `{scheme}://{rest}`").into();
        }
    }
    origin::hint(text, would_do).unwrap_or_else(|| match text.contains('*') {
        true => "`*` stands alone, for the first labels of a host or for a port, like `https://*.example.com:*`".into(),
        false => "write scheme, host and perhaps port, like `https://app.example.com`".into(),
    })
}

#[cfg(test)]
#[path = "origins_tests.rs"]
mod tests;
