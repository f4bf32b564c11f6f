//! Header names that mean something to us, and how they are spelled in events.

use http::header::{HOST, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers that belong to one hop only and are never carried on (RFC 9110 section 7.6.1).
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "upgrade"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

/// Headers that tell of an earlier hop. Nobody is a trusted proxy yet, so a client's own are dropped.
pub fn is_forwarding(name: &HeaderName) -> bool {
    name == "forwarded" || begins_with(name, "x-forwarded-")
}

/// Our own headers, which no client may set.
pub fn is_ours(name: &HeaderName) -> bool {
    begins_with(name, "x-livegate-")
}

/// With `_` for `-` as well: servers that hand headers on as variables cannot tell them apart.
fn begins_with(name: &HeaderName, prefix: &str) -> bool {
    let start = name.as_str().as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.iter().zip(prefix.bytes()).all(|(a, b)| *a == b || *a == b'_' && b == b'-'))
}

/// `sec-websocket-key` as `Sec-WebSocket-Key`: the wire's own spelling is gone by the time we see it.
pub fn title_case(name: &str) -> String {
    const KNOWN: [(&str, &str); 12] = [
        ("dnt", "DNT"),
        ("etag", "ETag"),
        ("sec-gpc", "Sec-GPC"),
        ("sec-websocket-accept", "Sec-WebSocket-Accept"),
        ("sec-websocket-extensions", "Sec-WebSocket-Extensions"),
        ("sec-websocket-key", "Sec-WebSocket-Key"),
        ("sec-websocket-protocol", "Sec-WebSocket-Protocol"),
        ("sec-websocket-version", "Sec-WebSocket-Version"),
        ("www-authenticate", "WWW-Authenticate"),
        ("x-api-key", "x-api-key"),
        ("x-request-id", "X-Request-ID"),
        ("x-xss-protection", "X-XSS-Protection"),
    ];
    if let Some((_, spelling)) = KNOWN.iter().find(|(known, _)| *known == name) {
        return (*spelling).to_owned();
    }
    let mut word_begins = true;
    let spell = |character: char| {
        let spelled = if word_begins { character.to_ascii_uppercase() } else { character };
        word_begins = character == '-';
        spelled
    };
    name.chars().map(spell).collect()
}

/// Any text as a header value: `%` and every byte outside 0x20–0x7E percent-encoded, so that a
/// backend gets back exactly what was meant and nothing can be injected.
pub fn encoded(text: &str) -> HeaderValue {
    let plain = |byte: &u8| (0x20..=0x7e).contains(byte) && *byte != b'%';
    if text.as_bytes().iter().all(plain) {
        return HeaderValue::from_str(text).expect("visible ASCII is a header value");
    }
    let mut value = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(&byte) {
            value.push(char::from(byte));
        } else {
            value += &format!("%{byte:02X}");
        }
    }
    HeaderValue::from_str(&value).expect("visible ASCII is a header value")
}

/// The last value of a header as text, and how AWS fills its single-value map.
pub fn last<'h>(headers: &'h HeaderMap, name: &str) -> Option<std::borrow::Cow<'h, str>> {
    headers.get_all(name).iter().next_back().map(text)
}

/// All values of a header joined by `,`, as HTTP APIs show them.
pub fn joined<'h>(headers: &'h HeaderMap, name: &str) -> Option<std::borrow::Cow<'h, str>> {
    let mut values = headers.get_all(name).iter().map(text);
    let first = values.next()?;
    Some(values.fold(first, |all, value| std::borrow::Cow::Owned(format!("{all},{value}"))))
}

/// Gives a request of HTTP/2 the `Host` that it has in its target: policies, signatures and mappings look for it there.
pub fn name_host(head: &mut Parts) {
    if let Some(authority) = head.uri.authority()
        && !head.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
}

/// A header value as text; bytes that are not UTF-8 are replaced.
pub fn text(value: &HeaderValue) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// The members of a header that is a list, over all its lines; a line with bytes outside ASCII counts for nothing.
pub fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// Says that the answer hangs on this header of the request, unless it says so already.
pub fn add_vary(answer: &mut HeaderMap, name: HeaderName) {
    let says_so = |member: &str| member == "*" || member.eq_ignore_ascii_case(name.as_str());
    if !members(answer, &VARY).any(says_so) {
        answer.append(VARY, name.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_aws_spells_them() {
        let check = |name, spelled: &str| assert_eq!(title_case(name), spelled);
        check("user-agent", "User-Agent");
        check("sec-websocket-key", "Sec-WebSocket-Key");
        check("etag", "ETag");
        check("x-amzn-trace-id", "X-Amzn-Trace-Id");
    }

    #[test]
    fn headers_of_ours_are_known_in_either_spelling() {
        let check = |name: &'static str, ours| assert_eq!(is_ours(&HeaderName::from_static(name)), ours, "{name}");
        check("x-livegate-api", true);
        check("x_livegate_connection_id", true);
        check("x-livegat", false);
        check("x-forwarded-for", false);
    }

    #[test]
    fn values_are_encoded_so_that_nothing_is_lost_or_injected() {
        let check = |text, value: &str| assert_eq!(encoded(text), value);
        check("plain text", "plain text");
        check("50% é\r\nX: y", "50%25 %C3%A9%0D%0AX: y");
        check("", "");
    }

    #[test]
    fn what_an_answer_hangs_on_is_said_once() {
        let check = |said: &[&'static str], wanted: &[&str]| {
            let mut answer = HeaderMap::new();
            for line in said {
                answer.append(VARY, HeaderValue::from_static(line));
            }
            add_vary(&mut answer, http::header::ORIGIN);
            assert_eq!(answer.get_all(VARY).iter().collect::<Vec<_>>(), wanted, "{said:?}");
        };
        check(&[], &["origin"]);
        check(&["Accept-Encoding"], &["Accept-Encoding", "origin"]);
        check(&["Accept", "x-a , ORIGIN"], &["Accept", "x-a , ORIGIN"]);
        check(&["*"], &["*"]);
        check(&["x-origin"], &["x-origin", "origin"]);
    }
}
