//! What browsers are told, and what is wrong with a `cors` table.

use super::*;
use crate::model::settings::read_file;

fn read(file: &str) -> (Option<Cors>, Vec<String>) {
    let (settings, mut problems) = read_file::<Settings>(file, &|_| None, false);
    let cors = settings.and_then(|settings| Cors::new(&settings, &mut problems));
    (cors, problems.iter().map(|problem| format!("{:?} {problem}", problem.level)).collect())
}

fn cors(file: &str) -> Cors {
    let (cors, problems) = read(file);
    assert_eq!(problems, [""; 0], "{file}");
    cors.expect("no problem was found")
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let shown = headers.iter().map(|(name, value)| format!("{name}: {}", headers::text(value)));
    let mut shown: Vec<String> = shown.map(|line| line.replace("access-control-", "ac-")).collect();
    shown.sort();
    shown
}

const FULL: &str = r#"
allow_origins     = ["https://app.example.com", "http://localhost:3000"]
allow_methods     = ["GET", "PUT"]
allow_headers     = ["Content-Type", "x-a"]
expose_headers    = ["x-b", "x-c"]
max_age           = "1h"
allow_credentials = true
"#;

#[test]
fn an_origin_is_allowed_by_scheme_host_and_port() {
    let check = |allowed: &str, asking: &str, answer: Option<&str>| {
        let cors = cors(&format!("allow_origins = {allowed}"));
        let answer = answer.map(|answer| HeaderValue::from_str(answer).expect("a header value"));
        let asking = HeaderValue::from_str(asking).expect("a header value");
        assert_eq!(cors.origins.allow(&asking), answer, "{allowed} {asking:?}");
    };
    let same = |allowed: &str, asking: &str| check(allowed, asking, Some(asking));
    let other = |allowed: &str, asking: &str| check(allowed, asking, None);
    same(r#"["https://app.example.com"]"#, "https://app.example.com");
    same(r#""https://app.example.com""#, "https://app.example.com");
    same(r#"["https://App.Example.com"]"#, "https://app.EXAMPLE.com");
    same(r#"["https://app.example.com:443"]"#, "https://app.example.com");
    same(r#"["https://app.example.com"]"#, "https://app.example.com:443");
    same(r#"["http://a.example:80"]"#, "http://a.example");
    same(r#"["http://localhost:3000", "https://b.example"]"#, "https://b.example");
    same(r#"["http://[::1]:3000"]"#, "http://[0:0::1]:3000");
    same(r#"["capacitor://localhost"]"#, "capacitor://localhost");
    other(r#"["https://app.example.com"]"#, "http://app.example.com");
    other(r#"["https://app.example.com"]"#, "https://app.example.com:8443");
    other(r#"["https://app.example.com:80"]"#, "https://app.example.com");
    other(r#"["https://app.example.com"]"#, "https://app.example.com.evil.example");
    other(r#"["https://app.example.com"]"#, "https://evil-app.example.com");
    other(r#"["https://app.example.com"]"#, "https://app.example.com@evil.example");
    other(r#"["https://app.example.com"]"#, "https://app.example.com, https://evil.example");
    other(r#"["https://app.example.com"]"#, "app.example.com");
    other(r#"["https://app.example.com"]"#, "null");
    other(r#"["https://app.example.com"]"#, "");
    same(r#"["https://*"]"#, "https://any.example:8443");
    same(r#"["https://*", "http://localhost"]"#, "http://localhost");
    other(r#"["https://*"]"#, "http://any.example");
    other(r#"["https://*"]"#, "https://*");
    other(r#"["https://*"]"#, "https://a b");
    same(r#"["http://*"]"#, "http://any.example");
    other(r#"["http://*"]"#, "https://any.example");
    check(r#"["*"]"#, "https://any.example", Some("*"));
    check(r#"["*"]"#, "null", Some("*"));
}

#[test]
fn a_preflight_is_options_with_origin_and_method_asked_for() {
    let check = |method: Method, names: &[&'static str], wanted: bool| {
        let request = names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x")));
        assert_eq!(is_preflight(&method, &request.collect()), wanted, "{method} {names:?}");
    };
    check(Method::OPTIONS, &["origin", "access-control-request-method"], true);
    check(Method::OPTIONS, &["origin", "access-control-request-method", "access-control-request-headers"], true);
    check(Method::OPTIONS, &["origin"], false);
    check(Method::OPTIONS, &["access-control-request-method"], false);
    check(Method::OPTIONS, &[], false);
    check(Method::GET, &["origin", "access-control-request-method"], false);
}

#[test]
fn a_preflight_is_told_all_that_is_configured() {
    let check = |file: &str, origin: &'static str, wanted: &[&str]| {
        let request = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
        assert_eq!(shown(&cors(file).preflight(&request)), wanted, "{file} {origin}");
    };
    let all = [
        "ac-allow-credentials: true",
        "ac-allow-headers: Content-Type,x-a",
        "ac-allow-methods: GET,PUT",
        "ac-allow-origin: https://app.example.com",
        "ac-expose-headers: x-b,x-c",
        "ac-max-age: 3600",
        "vary: origin",
    ];
    check(FULL, "https://app.example.com", &all);
    check(FULL, "https://evil.example", &["vary: origin"]);
    check("allow_origins = ['*']", "https://a.example", &["ac-allow-origin: *"]);
    let stars = "allow_origins = ['*']\nallow_methods = ['*']\nallow_headers = ['*', 'authorization']\nmax_age = '0s'";
    let said = ["ac-allow-headers: *,authorization", "ac-allow-methods: *", "ac-allow-origin: *", "ac-max-age: 0"];
    check(stars, "https://a.example", &said);
    let a_day = "allow_origins = ['https://*']\nmax_age = '24h'";
    check(a_day, "https://a.example", &["ac-allow-origin: https://a.example", "ac-max-age: 86400", "vary: origin"]);
}

#[test]
fn an_answer_has_our_word_in_place_of_the_backends() {
    let check = |file: &str, origin: Option<&'static str>, answer: &[(&'static str, &'static str)], wanted: &[&str]| {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut answer: HeaderMap = answer.iter().map(pair).collect();
        cors(file).apply(origin.map(HeaderValue::from_static).as_ref(), &mut answer);
        assert_eq!(shown(&answer), wanted, "{file} {origin:?}");
    };
    let theirs = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "DELETE"),
        ("access-control-allow-private-network", "true"),
        ("vary", "Accept"),
        ("x-b", "1"),
    ];
    let ours = [
        "ac-allow-credentials: true",
        "ac-allow-origin: http://localhost:3000",
        "ac-expose-headers: x-b,x-c",
        "vary: Accept",
        "vary: origin",
        "x-b: 1",
    ];
    check(FULL, Some("http://localhost:3000"), &theirs, &ours);
    check(FULL, Some("https://evil.example"), &theirs, &["vary: Accept", "vary: origin", "x-b: 1"]);
    check(FULL, None, &theirs, &["vary: Accept", "vary: origin", "x-b: 1"]);
    check(FULL, None, &[("vary", "accept, ORIGIN")], &["vary: accept, ORIGIN"]);
    check("allow_origins = ['*']", Some("null"), &[], &["ac-allow-origin: *"]);
    check("allow_origins = ['*']", None, &theirs, &["vary: Accept", "x-b: 1"]);
}

#[test]
fn what_is_wrong_is_a_problem_with_a_remedy() {
    let check = |file: &str, wanted: &[&str]| {
        let (cors, problems) = read(file);
        assert_eq!(problems, wanted, "{file}");
        assert!(cors.is_none(), "{file}");
    };
    let origin = |origin: &str, help: &str| {
        let wanted = format!("Problem allow_origins[0]: `{origin}` is no origin; {help}");
        check(&format!("allow_origins = [{origin:?}]"), &[&wanted]);
    };
    let form = "write scheme, host and perhaps port, like `https://app.example.com`";
    origin("https://a.example/", "an origin ends with its host or port; write `https://a.example`");
    origin("http://a.example:81/b?c", "an origin ends with its host or port; write `http://a.example:81`");
    origin("a.example:81", "write it with its scheme, like `https://a.example:81`");
    origin("https://*.a.example", "`*` stands only for all of them, in `*`, `https://*` or `http://*`; name each host");
    origin("https://bücher.example", "write the host as browsers send it, in its `xn--` form");
    origin("null", "sandboxed pages and files of anybody have this origin; only `*` allows them");
    for text in ["", "https://", "https://a:", "https://a:x", "https://a:+1", "https://a:65536", "https://u@a"] {
        origin(text, form);
    }
    for text in ["://a", "1a://b", "https://[::1", "https://[x]", "https://::1", "https://[::1]x", "a b"] {
        origin(text, form);
    }
    check("allow_origins = []", &["Problem allow_origins: this list is empty; write at least one"]);
    check("", &["Problem `allow_origins` is missing; add it to this table"]);

    let list = |key: &str, item: &str, wanted: &str| {
        let file = format!("allow_origins = ['*']\n{key} = [{item:?}]");
        check(&file, &[&format!("Problem {key}[0]: {wanted}")]);
    };
    list("allow_methods", "GET,PUT", "`GET,PUT` is no method; write it like `PUT`, or `*`");
    list("allow_methods", "", "`` is no method; write it like `PUT`, or `*`");
    list("allow_methods", "put", "`put` is another method to browsers than `PUT`; write `PUT`");
    list("allow_methods", "ANY", "`ANY` means nothing to browsers; write `*`");
    let header = "is no name of a header; write it like `x-request-id`, or `*` for all";
    list("allow_headers", "x a", &format!("`x a` {header}"));
    list("allow_headers", "x-*", "`x-*` is no name of a header; write each name, or `*` alone for all");
    list("expose_headers", "x:", &format!("`x:` {header}"));

    let other = |line: &str, wanted: &str| check(&format!("allow_origins = ['*']\n{line}"), &[wanted]);
    other("max_age = '25h'", "Problem max_age: `25h` is longer than a day; write at most `24h`");
    let seconds = "is no number of whole seconds; browsers are told seconds; write it like `5s`, or `none`";
    other("max_age = '1500ms'", &format!("Problem max_age: `1500ms` {seconds}"));
    let credentials = "Problem allow_origins[0]: `*` is not possible with `allow_credentials = true`; \
                       name the origins: no browser shows an answer to `*` when it sent credentials";
    other("allow_credentials = true", credentials);
}

#[test]
fn what_is_odd_is_a_warning() {
    let check = |file: &str, wanted: &[&str]| {
        let (cors, problems) = read(file);
        assert_eq!(problems, wanted, "{file}");
        assert!(cors.is_some(), "{file}");
    };
    let all = "`*` is all there is; remove the rest of the list, or `*`";
    check("allow_origins = ['https://a.example', '*']", &[&format!("Warning allow_origins[1]: {all}")]);
    let lists = "allow_origins = '*'\nallow_methods = ['*', 'GET']\nallow_headers = ['*', 'authorization']\n\
                 expose_headers = ['*', 'x-a']";
    check(lists, &[&format!("Warning allow_methods[0]: {all}"), &format!("Warning expose_headers[0]: {all}")]);
    let name = "with `allow_credentials = true` browsers take `*` for a name, not for all of them; \
                name each that pages need";
    let credentials = "allow_origins = 'https://a.example'\nallow_methods = ['*']\nexpose_headers = ['x-a', '*']\n\
                       allow_credentials = true";
    check(credentials, &[&format!("Warning allow_methods[0]: {name}"), &format!("Warning expose_headers[1]: {name}")]);
    let any = "Warning allow_origins: `https://*` with `allow_credentials = true` lets any page act for your users; \
               name the origins that may";
    check("allow_origins = 'https://*'\nallow_credentials = true", &[any]);
}

#[test]
fn an_unset_variable_is_left_alone() {
    let file = "allow_origins = ['${env.ORIGIN}']\nallow_headers = ['${env.HEADER}']";
    let (settings, mut problems) = read_file::<Settings>(file, &|_| None, true);
    let cors = settings.and_then(|settings| Cors::new(&settings, &mut problems));
    assert!(cors.is_some() && problems.is_empty(), "{problems:?}");
}
