//! Origins: which site a page is of, as its browser says in `Origin`.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Scheme, host and port, written in the one way that makes equal ones equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub scheme: String,
    pub host: String,
    /// `None` is the scheme's own.
    pub port: Option<u16>,
}

impl Origin {
    pub fn parse(text: &str) -> Option<Origin> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(plain) {
            return None;
        }
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match rest.rfind(':').filter(|at| !rest[*at..].contains(']')) {
            Some(at) => (&rest[..at], Some(port(&rest[at + 1..])?)),
            None => (rest, None),
        };
        let own = own_port(&scheme);
        Some(Origin { host: normal_host(host)?, port: port.filter(|port| Some(*port) != own), scheme })
    }

    /// Its port in any case, unless we do not know the scheme.
    pub fn port_number(&self) -> Option<u16> {
        self.port.or_else(|| own_port(&self.scheme))
    }
}

fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

fn port(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn normal_host(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[') {
        return Some(format!("[{}]", address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let has_empty_label = host.starts_with('.') || host.contains("..");
    (!host.is_empty() && !has_empty_label && host.chars().all(plain)).then(|| host.to_ascii_lowercase())
}

/// What would do in place of a text that is no origin, if that can be told. `would_do` says whether another text would.
pub fn hint(text: &str, would_do: impl Fn(&str) -> bool) -> Option<Cow<'static, str>> {
    if let Some((scheme, rest)) = text.split_once("://") {
        if let Some((before, _)) = rest.split_once(['/', '?', '#'])
            && would_do(&format!("{scheme}://{before}"))
        {
            return Some(format!("an origin ends with its host or port; write `{scheme}://{before}`").into());
        }
        if !rest.is_ascii() {
            return Some("write the host as browsers send it, in its `xn--` form".into());
        }
    } else if text == "null" {
        return Some("sandboxed pages and files of anybody have this origin; only `*` allows them".into());
    } else if would_do(&format!("https://{text}")) {
        return Some(format!("write it with its scheme, like `https://{text}`").into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_origins_are_written_alike() {
        let check = |text: &str, wanted: Option<(&str, &str, Option<u16>)>| {
            let origin = Origin::parse(text);
            let parts = origin.as_ref().map(|origin| (&*origin.scheme, &*origin.host, origin.port));
            assert_eq!(parts, wanted, "{text}");
        };
        check("https://app.example.com", Some(("https", "app.example.com", None)));
        check("HTTPS://App.Example.com:443", Some(("https", "app.example.com", None)));
        check("http://a.example:80", Some(("http", "a.example", None)));
        check("http://a.example:443", Some(("http", "a.example", Some(443))));
        check("http://localhost:3000", Some(("http", "localhost", Some(3000))));
        check("http://[0:0::1]:3000", Some(("http", "[::1]", Some(3000))));
        check("capacitor://localhost", Some(("capacitor", "localhost", None)));
        for text in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://a b",
            "https://a.example/",
            "https://a.example:",
            "https://a.example:+1",
            "https://a.example:65536",
            "https://.a.example",
            "https://a..example",
            "https://a@b.example",
            "https://é.example",
            "://a",
            "1a://a",
            "https://[::1",
        ] {
            check(text, None);
        }
    }
}
