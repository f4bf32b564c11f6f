//! Which entries can be written, and which handshakes pass.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const SELF: &str = "api.example.com";

/// A handshake to a stage at `scheme` and `host`.
fn ask(list: Option<&[&str]>, origins: &[&[u8]], has_cookies: bool, scheme: &str, host: &str) -> Result<(), Refused> {
    let list = list.map(|list| list.iter().map(|text| Pattern::parse(text).unwrap()).collect());
    let mut request: HeaderMap =
        origins.iter().map(|origin| (ORIGIN, HeaderValue::from_bytes(origin).unwrap())).collect();
    if has_cookies {
        request.insert(COOKIE, HeaderValue::from_static("session=1"));
    }
    Origins { list }.check(&request, scheme, host, false)
}

#[test]
fn an_entry_lets_in_what_it_names() {
    let check = |list: &[&str], origin: &str, wanted: bool| {
        for has_cookies in [false, true] {
            let asked = ask(Some(list), &[origin.as_bytes()], has_cookies, "https", SELF);
            assert_eq!(asked.is_ok(), wanted, "{list:?} {origin}");
        }
    };
    check(&["https://app.example.com"], "https://app.example.com", true);
    check(&["https://app.example.com"], "https://app.example.com:443", true);
    check(&["HTTPS://App.Example.com:443"], "https://app.example.com", true);
    check(&["https://app.example.com"], "http://app.example.com", false);
    check(&["https://app.example.com"], "https://app.example.com:8443", false);
    check(&["https://app.example.com"], "https://app.example.com.evil.example", false);
    check(&["https://app.example.com"], "https://evil-app.example.com", false);
    check(&["https://app.example.com"], "https://app.example.com@evil.example", false);
    check(&["https://app.example.com"], "https://app.example.com https://evil.example", false);
    check(&["https://app.example.com"], "https://app.example.com/", false);
    check(&["https://app.example.com"], "null", false);
    check(&["https://app.example.com"], "", false);
    check(&["https://app.example.com"], "https://api.example.com", false);
    check(&["https://a.example", "https://b.example"], "https://b.example", true);
    check(&["capacitor://localhost"], "capacitor://localhost", true);

    check(&["http://localhost:*"], "http://localhost", true);
    check(&["http://localhost:*"], "http://localhost:3000", true);
    check(&["http://localhost:*"], "https://localhost:3000", false);
    check(&["http://localhost:*"], "http://localhost.evil.example:3000", false);
    check(&["http://[::1]:*"], "http://[0::1]:3000", true);

    check(&["https://*.example.com"], "https://app.example.com", true);
    check(&["https://*.example.com"], "https://a.b.Example.com", true);
    check(&["https://*.example.com"], "https://example.com", false);
    check(&["https://*.example.com"], "https://.example.com", false);
    check(&["https://*.example.com"], "https://evilexample.com", false);
    check(&["https://*.example.com"], "https://app.example.com:8443", false);
    check(&["https://*.example.com"], "http://app.example.com", false);
    check(&["https://*.example.com"], "https://app.example.com.evil.example", false);
    check(&["https://*.example.com:8443"], "https://app.example.com:8443", true);
    check(&["https://*.example.com:*"], "https://app.example.com:8443", true);

    check(&["*"], "https://any.example", true);
    check(&["*"], "null", true);
    check(&["*"], "nonsense", true);
    check(&[], "https://api.example.com", false);
}

#[test]
fn without_a_list_only_cookies_tie_a_page_to_its_site() {
    let check = |origin: &str, scheme: &str, host: &str, wanted: bool| {
        assert_eq!(ask(None, &[origin.as_bytes()], true, scheme, host).is_ok(), wanted, "{origin} {scheme} {host}");
        assert_eq!(ask(None, &[origin.as_bytes()], false, scheme, host), Ok(()), "{origin}");
    };
    check("https://api.example.com", "https", "api.example.com", true);
    check("https://API.example.com", "https", "api.EXAMPLE.com", true);
    check("https://api.example.com", "https", "api.example.com:443", true);
    check("https://api.example.com:8443", "https", "api.example.com:8443", true);
    check("http://localhost:3000", "http", "localhost:3000", true);
    check("http://[::1]:3000", "http", "[::1]:3000", true);
    // Behind a proxy that speaks TLS.
    check("https://api.example.com", "http", "api.example.com", true);
    check("https://api.example.com", "http", "api.example.com:80", true);
    check("https://api.example.com", "http", "api.example.com:443", true);
    check("https://api.example.com:8443", "http", "api.example.com:8443", true);
    check("http://api.example.com", "https", "api.example.com", true);

    check("https://app.example.com", "https", "api.example.com", false);
    check("https://example.com", "https", "api.example.com", false);
    check("https://api.example.com.evil.example", "https", "api.example.com", false);
    check("https://api.example.com:8443", "https", "api.example.com", false);
    check("https://api.example.com", "https", "api.example.com:8443", false);
    check("http://localhost:3000", "http", "localhost:8080", false);
    check("null", "https", "api.example.com", false);
    check("nonsense", "https", "api.example.com", false);
    check("https://", "https", "", false);
    check("https://api.example.com", "https", "", false);
    check("https://a b", "https", "a b", false);
}

#[test]
fn who_sends_no_origin_is_no_browser_and_who_sends_two_is_none_either() {
    for list in [None, Some(&["https://app.example.com"][..]), Some(&["*"]), Some(&[])] {
        for has_cookies in [false, true] {
            assert_eq!(ask(list, &[], has_cookies, "https", SELF), Ok(()));
            let twice = [&b"https://app.example.com"[..]; 2];
            assert_eq!(ask(list, &twice, has_cookies, "https", SELF), Err(Refused::Several));
        }
    }
}

#[test]
fn a_refusal_names_the_origin_and_what_would_do() {
    let check = |list: Option<&[&str]>, origin: &[u8], wanted: &str| {
        assert_eq!(ask(list, &[origin], true, "https", SELF).unwrap_err().to_string(), wanted);
    };
    let list = Some(&["https://app.example.com"][..]);
    let add = "add it to allowed_origins of the stage";
    let star = "only `*` in allowed_origins of the stage lets it pass";
    check(list, b"https://b.example", &format!("origin `https://b.example` is not one of the stage's; {add}"));
    check(list, b"null", &format!("origin `null` is not one of the stage's; {star}"));
    check(
        None,
        b"https://b.example",
        &format!(
            "origin `https://b.example` is another site than `{SELF}`, and the request speaks for its user \
             (cookies, a login or a certificate); {add}"
        ),
    );
    check(list, b"<\t\xff\">", &format!(r#"origin `<\t\xff\">` is not one of the stage's; {star}"#));
    let long = format!("https://{}.example", "a".repeat(1_000));
    let cut = format!("https://{}…", "a".repeat(191));
    assert_eq!(cut.chars().count(), LONGEST_SHOWN);
    check(list, long.as_bytes(), &format!("origin `{cut}` is not one of the stage's; {add}"));
    assert_eq!(Refused::Several.to_string(), "the request has several Origin headers; send one");
}

#[test]
fn what_is_no_origin_is_told_what_would_do() {
    let check = |text: &str, help: &str| {
        let wanted = format!("`{text}` is no origin; {help}");
        assert_eq!(Pattern::parse(text).unwrap_err().to_string(), wanted);
    };
    let ends = |text: &str| format!("an origin ends with its host or port; write `{text}`");
    check("https://app.example.com/", &ends("https://app.example.com"));
    check("https://app.example.com/chat?a=b", &ends("https://app.example.com"));
    check("https://*.example.com/", &ends("https://*.example.com"));
    check("http://localhost:*/", &ends("http://localhost:*"));
    check("app.example.com", "write it with its scheme, like `https://app.example.com`");
    check("*.example.com", "write it with its scheme, like `https://*.example.com`");
    check("wss://app.example.com", "an origin is the page's; write `https://app.example.com`");
    check("ws://localhost:*", "an origin is the page's; write `http://localhost:*`");
    check("null", "sandboxed pages and files of anybody have this origin; only `*` allows them");
    check("https://münchen.example", "write the host as browsers send it, in its `xn--` form");
    let star = "`*` stands alone, for the first labels of a host or for a port, like `https://*.example.com:*`";
    check("https://*", star);
    check("https://*.", star);
    check("https://*:*", star);
    check("https://app.*.com", star);
    check("https://*app.example.com", star);
    check("*://app.example.com", star);
    check("https://**.example.com", star);
    check("https://app.example.com:80*", star);
    check("https://app.example.com:80:*", star);
    check("https://*.[::1]", star);
    let form = "write scheme, host and perhaps port, like `https://app.example.com`";
    check("", form);
    check("https://", form);
    check("https://.example.com", form);
    check("https://app.example.com:port", form);
    check("https://user@app.example.com", form);
    check("wss://", form);
}

proptest! {
    #[test]
    fn an_origin_is_let_in_by_itself_and_by_no_other(
        origins in prop::array::uniform2("https?://[ab](\\.[ab]){0,2}(:(80|443|8443))?"),
    ) {
        let [own, other] = &origins;
        let let_in = |list: &str, origin: &str| ask(Some(&[list]), &[origin.as_bytes()], true, "https", SELF).is_ok();
        prop_assert!(let_in(own, own) && let_in(own, &own.to_uppercase()));
        prop_assert_eq!(let_in(own, other), Origin::parse(own) == Origin::parse(other));
        let (scheme, rest) = own.split_once("://").unwrap();
        let below = format!("{scheme}://x.y.{rest}");
        let pattern = format!("{scheme}://*.{rest}");
        prop_assert!(let_in(&pattern, &below) && !let_in(&pattern, own) && !let_in(own, &below));
    }
}
