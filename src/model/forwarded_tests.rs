//! Who may say where a request came from, and how that is told to a backend.

use super::*;

const TRUSTED: [&str; 3] = ["10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1/32"];

fn trusted() -> Vec<IpNet> {
    TRUSTED.iter().map(|network| network.parse().unwrap()).collect()
}

/// Header lines written as `name: value`.
fn headers(lines: &[&str]) -> HeaderMap {
    let pairs = lines.iter().map(|line| line.split_once(": ").unwrap());
    pairs.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

fn hop(peer: &str) -> Hop<'static> {
    Hop { peer: peer.parse().unwrap(), local: "10.0.0.99:8080".parse().unwrap(), scheme: "http", host: "example.com" }
}

/// `wanted` is address, scheme and port.
fn check(peer: &str, lines: &[&str], wanted: &str) {
    let origin = resolve(&headers(lines), &hop(peer), &trusted());
    assert_eq!(format!("{} {} {}", origin.address, origin.scheme, origin.port), wanted, "{peer} {lines:?}");
}

#[test]
fn nobody_is_believed_who_is_not_trusted() {
    check("203.0.113.9", &[], "203.0.113.9 http 8080");
    check("203.0.113.9", &["x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https"], "203.0.113.9 http 8080");
    check("203.0.113.9", &["forwarded: for=1.2.3.4;proto=https"], "203.0.113.9 http 8080");
    check("203.0.113.9", &["x-forwarded-for: 10.0.0.1"], "203.0.113.9 http 8080");
}

#[test]
fn the_client_is_the_last_who_is_no_trusted_proxy() {
    check("10.0.0.1", &[], "10.0.0.1 http 8080");
    check("10.0.0.1", &["x-forwarded-for: 203.0.113.9"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["x-forwarded-for: 203.0.113.9, 10.0.0.2"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["x-forwarded-for: 203.0.113.9", "x-forwarded-for: 10.0.0.2"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["x-forwarded-for: 10.0.0.3, 10.0.0.2"], "10.0.0.3 http 8080");
    check("::ffff:10.0.0.1", &["x-forwarded-for: ::ffff:203.0.113.9"], "203.0.113.9 http 8080");
    check("2001:db8:1::5", &["x-forwarded-for: 2001:db8:2::7"], "2001:db8:2::7 http 8080");
}

#[test]
fn what_a_client_writes_itself_stays_behind_its_own_address() {
    check("10.0.0.1", &["x-forwarded-for: 1.2.3.4, 203.0.113.9"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["x-forwarded-for: 10.0.0.7, 203.0.113.9, 10.0.0.2"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["x-forwarded-for: 1.2.3.4", "x-forwarded-for: 203.0.113.9"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["forwarded: for=1.2.3.4, for=203.0.113.9"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["forwarded: for=1.2.3.4", "x-forwarded-for: 203.0.113.9"], "203.0.113.9 http 8080");
    // A quote left open must not swallow what the proxy added.
    check("10.0.0.1", &[r#"forwarded: for="1.2.3.4, for=203.0.113.9"#], "203.0.113.9 http 8080");
    check("10.0.0.1", &[r#"forwarded: for=1.2.3.4;x="\", for=203.0.113.9;by="[::1]""#], "203.0.113.9 http 8080");
    // A proxy that passed on a forged host unquoted.
    check("10.0.0.1", &["forwarded: for=203.0.113.9;host=a;for=1.2.3.4"], "10.0.0.1 http 8080");
}

#[test]
fn what_cannot_be_read_ends_the_walk_at_the_last_good_one() {
    for bad in ["unknown", "_hidden", "1.2.3", "1.2.3.4:", "1.2.3.4:x", "[::1", "[::1]x", "fe80::1%eth0", "é", "\"\""]
    {
        check("10.0.0.1", &[&format!("x-forwarded-for: 203.0.113.9, {bad}")], "10.0.0.1 http 8080");
        check("10.0.0.1", &[&format!("x-forwarded-for: 203.0.113.9, {bad}, 10.0.0.2")], "10.0.0.2 http 8080");
    }
    for bad in ["for=unknown", "for=_x", "by=10.0.0.2", "for", "for=1.2.3.4;for=1.2.3.4", "nonsense"] {
        check("10.0.0.1", &[&format!("forwarded: for=203.0.113.9, {bad}")], "10.0.0.1 http 8080");
    }
    check("10.0.0.1", &["x-forwarded-for: 203.0.113.9, , "], "203.0.113.9 http 8080");
}

#[test]
fn ports_brackets_and_quotes_are_tolerated() {
    check("10.0.0.1", &["x-forwarded-for: 203.0.113.9:4711"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["x-forwarded-for: [2001:db8:2::7]:4711"], "2001:db8:2::7 http 8080");
    check("10.0.0.1", &["x-forwarded-for: \"[2001:db8:2::7]\""], "2001:db8:2::7 http 8080");
    check("10.0.0.1", &["forwarded: For=\"[2001:db8:2::7]:_port\"; Proto=HTTPS"], "2001:db8:2::7 https 443");
    check("10.0.0.1", &["forwarded: proto=\"https\";for=203.0.113.9:80 ; by=_x"], "203.0.113.9 https 443");
}

#[test]
fn scheme_and_port_are_those_of_the_same_hop() {
    let xff = "x-forwarded-for: 203.0.113.9, 10.0.0.2";
    check("10.0.0.1", &[xff, "x-forwarded-proto: https, http"], "203.0.113.9 https 443");
    check("10.0.0.1", &[xff, "x-forwarded-proto: http, https, http"], "203.0.113.9 https 443");
    check("10.0.0.1", &[xff, "x-forwarded-proto: https"], "203.0.113.9 https 443");
    check("10.0.0.1", &[xff, "x-forwarded-proto: gopher"], "203.0.113.9 http 8080");
    check("10.0.0.1", &[xff, "x-forwarded-proto: https", "x-forwarded-port: 8443"], "203.0.113.9 https 8443");
    check("10.0.0.1", &[xff, "x-forwarded-port: 99999"], "203.0.113.9 http 8080");
    check("10.0.0.1", &["x-forwarded-proto: wss"], "10.0.0.1 https 443");
    check("10.0.0.1", &["forwarded: for=1.2.3.4;proto=https, for=203.0.113.9"], "203.0.113.9 http 8080");
}

/// `wanted` are all the headers that go on, as lines in order of their names.
fn check_sent(peer: &str, lines: &[&str], wanted: &[&str]) {
    let mut sent = headers(lines);
    extend(&mut sent, &hop(peer), &trusted());
    let mut sent: Vec<_> = sent.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    sent.sort();
    assert_eq!(sent, wanted, "{peer} {lines:?}");
}

#[test]
fn a_stranger_is_told_about_and_not_listened_to() {
    let lines = [
        "accept: */*",
        "x-forwarded-for: 1.2.3.4",
        "x-forwarded-for: 5.6.7.8",
        "x-forwarded-proto: https",
        "x-forwarded-host: evil",
        "x-forwarded-prefix: /admin",
        "x_forwarded_for: 1.2.3.4",
        "forwarded: for=1.2.3.4",
    ];
    let wanted = [
        "accept: */*",
        "forwarded: by=10.0.0.99;for=203.0.113.9;host=example.com;proto=http",
        "x-forwarded-for: 203.0.113.9",
        "x-forwarded-host: example.com",
        "x-forwarded-port: 8080",
        "x-forwarded-proto: http",
    ];
    check_sent("203.0.113.9", &lines, &wanted);
    check_sent("::ffff:203.0.113.9", &["accept: */*"], &wanted);
}

#[test]
fn what_a_trusted_proxy_says_is_continued() {
    let lines = [
        "x-forwarded-for: 1.2.3.4",
        "x-forwarded-for: 203.0.113.9",
        "x-forwarded-proto: https",
        "x-forwarded-host: shop.example.com",
        "x-forwarded-prefix: /shop",
        "forwarded: for=1.2.3.4, for=203.0.113.9;proto=https",
    ];
    let wanted = [
        "forwarded: for=1.2.3.4, for=203.0.113.9;proto=https, by=10.0.0.99;for=10.0.0.1;host=example.com;proto=http",
        "x-forwarded-for: 1.2.3.4, 203.0.113.9, 10.0.0.1",
        "x-forwarded-host: shop.example.com",
        "x-forwarded-port: 443",
        "x-forwarded-prefix: /shop",
        "x-forwarded-proto: https",
    ];
    check_sent("10.0.0.1", &lines, &wanted);
}

#[test]
fn the_kind_that_did_not_come_is_made_of_the_one_that_did() {
    let wanted = |forwarded| {
        [
            forwarded,
            "x-forwarded-for: 2001:db8:2::7, 10.0.0.2, 10.0.0.1",
            "x-forwarded-host: example.com",
            "x-forwarded-port: 443",
            "x-forwarded-proto: https",
        ]
    };
    check_sent(
        "10.0.0.1",
        &["x-forwarded-for: 2001:db8:2::7, 10.0.0.2", "x-forwarded-proto: https"],
        &wanted(
            "forwarded: for=\"[2001:db8:2::7]\";proto=https, for=10.0.0.2, \
             by=10.0.0.99;for=10.0.0.1;host=example.com;proto=http",
        ),
    );
    check_sent(
        "10.0.0.1",
        &["forwarded: for=\"[2001:db8:2::7]:99\";proto=https, for=10.0.0.2;proto=https"],
        &wanted(
            "forwarded: for=\"[2001:db8:2::7]:99\";proto=https, for=10.0.0.2;proto=https, \
             by=10.0.0.99;for=10.0.0.1;host=example.com;proto=http",
        ),
    );
}

#[test]
fn hosts_and_ipv6_addresses_are_quoted_where_they_must_be() {
    let check = |host: &str, wanted: &str| {
        let local = "[2001:db8::1]:443".parse().unwrap();
        let hop = Hop { peer: "2001:db8::2".parse().unwrap(), local, scheme: "https", host };
        let mut sent = HeaderMap::new();
        extend(&mut sent, &hop, &[]);
        let wanted = format!("by=\"[2001:db8::1]\";for=\"[2001:db8::2]\"{wanted};proto=https");
        assert_eq!(sent[&FORWARDED], wanted);
        assert_eq!(sent["x-forwarded-for"], "2001:db8::2");
    };
    check("example.com", ";host=example.com");
    check("example.com:8443", ";host=\"example.com:8443\"");
    check("[::1]", ";host=\"[::1]\"");
    check("a\"b", "");
    check("", "");
}

proptest::proptest! {
    #[test]
    fn addresses_are_written_as_they_are_read(number in proptest::num::u32::ANY) {
        let address = IpAddr::from(Ipv4Addr::from(number));
        let mut written = Vec::new();
        push(&mut written, address);
        proptest::prop_assert_eq!(String::from_utf8(written).unwrap(), address.to_string());
    }

    #[test]
    fn no_text_whatever_breaks_the_walk(text in "[ -~]{0,80}", peer in proptest::bool::ANY) {
        let peer = if peer { "10.0.0.1" } else { "203.0.113.9" };
        for name in ["x-forwarded-for", "forwarded", "x-forwarded-proto"] {
            let mut map = HeaderMap::new();
            map.append(name, HeaderValue::from_str(&text).unwrap());
            map.append(name, HeaderValue::from_str(&text).unwrap());
            resolve(&map, &hop(peer), &trusted());
            extend(&mut map, &hop(peer), &trusted());
        }
    }

    /// Whatever a stranger sends through a trusted proxy, its address is the one that the proxy saw.
    #[test]
    fn a_stranger_cannot_hide_behind_a_proxy(text in "[ -~]{0,60}") {
        let lines = [
            ("x-forwarded-for", format!("{text}, 203.0.113.9")),
            ("forwarded", format!("{text}, by=\"[::1]:80\";for=203.0.113.9;proto=https")),
        ];
        for (name, line) in lines {
            let map = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_str(&line).unwrap())]);
            let origin = resolve(&map, &hop("10.0.0.1"), &trusted());
            proptest::prop_assert_eq!(origin.address.to_string(), "203.0.113.9");
        }
    }
}
