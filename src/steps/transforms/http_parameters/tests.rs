//! Tests of `http_parameters`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use proptest::prelude::*;

use super::*;
use crate::expressions::variables::Source;

struct Call {
    body: String,
    query: String,
}

impl Source for Call {
    fn body(&self) -> &str {
        &self.body
    }

    fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "requestId").then_some("id=".into())
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        (name == "colour").then_some("blue")
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        match name.to_ascii_lowercase().as_str() {
            "x-a" => Some("1,2".into()),
            "x-empty" => Some("".into()),
            _ => None,
        }
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "q").then_some(Cow::Borrowed(&self.query))
    }

    fn path(&self) -> Option<&str> {
        Some("/pets/a%20b")
    }

    fn path_parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "id").then_some("a b".into())
    }

    fn spelled_path_parameter(&self, name: &str) -> Option<&str> {
        (name == "id").then_some("a%20b")
    }
}

fn call() -> Call {
    Call { body: r#"{"name":"ann","o":{"k":[1,"x"]},"path":"a/../b","code":418}"#.into(), query: "x y&z".into() }
}

fn headers(lines: &str) -> HeaderMap {
    let pairs = lines.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

fn shown(headers: &HeaderMap) -> String {
    let lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect();
    lines.join("\n")
}

/// What becomes of a request: its target and its headers.
fn requested(lines: &[(&str, &str)], target: &str, header_lines: &str, call: &Call) -> String {
    let mut parameters = RequestParameters::default();
    for (key, value) in lines {
        parameters.add(key, value).unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
    }
    let (mut headers, uri) = (headers(header_lines), target.parse::<Uri>().unwrap());
    let (mut path, mut query) = (uri.path().to_owned(), uri.query().map(str::to_owned));
    let outgoing = Outgoing { headers: &mut headers, path: &mut path, query: &mut query };
    if let Err(refusal) = parameters.apply(call, outgoing) {
        return refusal.to_string();
    }
    format!("{path}{}\n{}", query.map_or(String::new(), |query| format!("?{query}")), shown(&headers))
}

#[track_caller]
fn check_header(key: &str, value: &str, expected: &str) {
    let found = requested(&[(key, value)], "/own", "x-old: 1\nx-old: 2\ncookie: a=1", &call());
    assert_eq!(found, format!("/own\n{expected}"), "{key} = {value}");
}

/// `expected`: the headers that a mapping of `overwrite:header.X` adds.
#[track_caller]
fn check_value(value: &str, expected: &str) {
    let found = requested(&[("overwrite:header.X", value)], "/own", "", &call());
    assert_eq!(found, format!("/own\n{expected}"), "{value}");
}

#[track_caller]
fn check_target(lines: &[(&str, &str)], target: &str, expected: &str) {
    assert_eq!(requested(lines, target, "", &call()).trim_end(), expected, "{lines:?} on {target}");
}

#[track_caller]
fn check_error(key: &str, value: &str, expected: &str) {
    check_found(RequestParameters::default().add(key, value), expected, key, value);
}

#[track_caller]
fn check_answer_error(key: &str, value: &str, expected: &str) {
    check_found(ResponseParameters::default().add(200, key, value), expected, key, value);
}

#[track_caller]
fn check_found(found: Result<(), Error>, expected: &str, key: &str, value: &str) {
    let found = match found {
        Ok(()) => "fine".into(),
        Err(Error::Key(error)) => format!("key {}: {error}", error.at),
        Err(Error::Value(error)) => format!("value {}: {error}", error.at),
    };
    assert!(found.contains(expected), "{key} = {value}: {found}");
}

/// `expected`: what becomes of an answer with the status 200.
#[track_caller]
fn check_answer(lines: &[(&str, &str)], expected: &str) {
    let mut parameters = ResponseParameters::default();
    for (key, value) in lines {
        parameters.add(200, key, value).unwrap();
    }
    let mut headers = headers("x-old: 1\nx-old: 2\nset-cookie: a=1");
    let (mut status, body) = (StatusCode::OK, br#"{"code":418,"text":"a\r\nb","no":"7"}"#);
    let applied = parameters.for_status(200).unwrap().apply(&call(), body, &mut status, &mut headers);
    let found = match applied {
        Ok(()) => format!("{}\n{}", status.as_u16(), shown(&headers)),
        Err(refusal) => refusal.to_string(),
    };
    assert_eq!(found, expected, "{lines:?}");
}

#[test]
fn headers_are_added_to_replaced_and_removed() {
    check_header("append:header.X-Old", "3", "x-old: 1,2,3\ncookie: a=1");
    check_header("append:header.X-New", "3", "x-old: 1\nx-old: 2\ncookie: a=1\nx-new: 3");
    check_header("append:header.Cookie", "b=2", "x-old: 1\nx-old: 2\ncookie: a=1; b=2");
    check_header("overwrite:header.x-old", "3", "x-old: 3\ncookie: a=1");
    check_header("overwrite:header.Host", "b.test", "x-old: 1\nx-old: 2\ncookie: a=1\nhost: b.test");
    check_header("remove:header.x-old", "''", "cookie: a=1");
    check_header("remove:header.x-old", "$no.such.thing", "cookie: a=1");
    check_header("remove:header.x-other", "", "x-old: 1\nx-old: 2\ncookie: a=1");
}

#[test]
fn every_source_has_both_spellings() {
    check_value("$request.header.X-A", "x: 1,2");
    check_value("${request.header.x-a}", "x: 1,2");
    check_value("route.request.header.X-A", "x: 1,2");
    check_value("route.request.multivalueheader.X-A", "x: 1,2");
    check_value("$request.querystring.q", "x: x y&z");
    check_value("route.request.querystring.q", "x: x y&z");
    check_value("route.request.multivaluequerystring.q", "x: x y&z");
    check_value("$request.body", &format!("x: {}", call().body));
    check_value("$request.body.name", "x: ann");
    check_value("route.request.body.o.k[1]", "x: x");
    check_value("$request.body['name']", "x: ann");
    check_value("$request.path", "x: /pets/a%20b");
    check_value("$request.path.id", "x: a b");
    check_value("route.request.path.id", "x: a b");
    check_value("$context.requestId", "x: id=");
    check_value("context.requestId", "x: id=");
    check_value("$stageVariables.colour", "x: blue");
    check_value("stageVariables.colour", "x: blue");
}

#[test]
fn texts_may_mix_variables() {
    check_value("plain text", "x: plain text");
    check_value("'quoted'", "x: 'quoted'");
    check_value(r"costs $5 or \$6, \$context.path", "x: costs $5 or $6, $context.path");
    check_value("${request.header.x-a} ${context.requestId}", "x: 1,2 id=");
    check_value("Bearer ${request.querystring.q}", "x: Bearer x y&z");
    check_value("context is king", "x: context is king");
    check_value("<${request.header.nope}>", "x: <>");
}

#[test]
fn what_is_empty_is_skipped() {
    check_value("$request.header.nope", "");
    check_value("$request.header.x-empty", "");
    check_value("${request.header.nope}${request.body.nope}", "");
    check_header("overwrite:header.x-old", "$request.body.nope", "x-old: 1\nx-old: 2\ncookie: a=1");
    check_target(&[("overwrite:querystring.a", "$request.body.nope")], "/own?a=1", "/own?a=1");
    check_target(&[("overwrite:path", "$request.body.nope")], "/own", "/own");
}

#[test]
fn older_keys_overwrite() {
    check_header("integration.request.header.X-Old", "'it''s'", "x-old: it''s\ncookie: a=1");
    check_header("integration.request.header.X-Old", "'${a} \\$b'", "x-old: ${a} $b\ncookie: a=1");
    check_header("integration.request.header.X-Old", "route.request.body.name", "x-old: ann\ncookie: a=1");
    check_header("integration.request.header.X-Old", "<${request.body.name}>", "x-old: <ann>\ncookie: a=1");
    check_target(&[("integration.request.querystring.a", "context.requestId")], "/own?a=1&b", "/own?a=id%3D&b");
}

#[test]
fn a_query_keeps_the_order_and_spelling_of_what_is_not_mapped() {
    let check = |key, target, expected| check_target(&[(key, "$request.querystring.q")], target, expected);
    check("append:querystring.a", "/own", "/own?a=x%20y%26z");
    check("append:querystring.a", "/own?a=1&&B=%7e", "/own?a=1&&B=%7e&a=x%20y%26z");
    check("overwrite:querystring.a", "/own", "/own?a=x%20y%26z");
    check("overwrite:querystring.a", "/own?c=+&%61=1&b=%7e&a=2&d", "/own?c=+&a=x%20y%26z&b=%7e&d");
    check("overwrite:querystring.a b", "/own?a+b=1&a%20b", "/own?a%20b=x%20y%26z");
    check("overwrite:querystring.A", "/own?a=1", "/own?a=1&A=x%20y%26z");
    check("overwrite:querystring.a&b", "/own", "/own?a%26b=x%20y%26z");
    check("remove:querystring.a", "/own?b=1&a&%61=2&c=3", "/own?b=1&c=3");
    check("remove:querystring.a", "/own?a=1", "/own");
    check("remove:querystring.a", "/own", "/own");
}

#[test]
fn a_path_is_replaced_as_a_whole() {
    let check = |value, expected| check_target(&[("overwrite:path", value)], "/own/path?q=1", expected);
    check("/other", "/other?q=1");
    check("other", "/other?q=1");
    check("$request.path", "/pets/a%20b?q=1");
    check("/v1${request.path}", "/v1/pets/a%20b?q=1");
    check("/v1/${request.path.id}/${stageVariables.colour}", "/v1/a%20b/blue?q=1");
    check("/${request.querystring.q}", "/x%20y&z?q=1");
    check("/${request.body.path}", "BAD_REQUEST_BODY: `.` and `..` cannot stand in a path");
}

#[test]
fn mappings_apply_in_order_and_read_what_the_client_sent() {
    let lines =
        [("append:header.X-A", "3"), ("overwrite:header.X-B", "$request.header.x-a"), ("remove:header.x-a", "")];
    assert_eq!(requested(&lines, "/own", "x-a: 1", &call()), "/own\nx-b: 1,2");
    check_target(&[("remove:querystring.q", ""), ("append:querystring.q", "1")], "/own?q=2&r", "/own?r&q=1");
}

#[test]
fn an_answer_is_changed_by_its_status() {
    check_answer(&[("append:header.x-old", "3")], "200\nx-old: 1,2,3\nset-cookie: a=1");
    check_answer(&[("append:header.set-cookie", "b=2")], "200\nx-old: 1\nx-old: 2\nset-cookie: a=1\nset-cookie: b=2");
    check_answer(&[("remove:header.set-cookie", "")], "200\nx-old: 1\nx-old: 2");
    let lines = [
        ("overwrite:header.X-Old", "3"),
        ("remove:header.set-cookie", ""),
        ("append:header.n", "$response.header.x-old"),
    ];
    check_answer(&lines, "200\nx-old: 3\nn: 1,2");
    let lines = [("remove:header.set-cookie", ""), ("overwrite:header.x-old", "$response.body.text")];
    check_answer(&lines, "200\nx-old: a%0D%0Ab");
    let lines = [("remove:header.set-cookie", ""), ("overwrite:header.x-old", "$request.path $context.requestId")];
    let mut parameters = ResponseParameters::default();
    assert!(parameters.add(200, lines[1].0, lines[1].1).is_err());
    let lines = [("remove:header.set-cookie", ""), ("overwrite:header.x-old", "${request.path} ${context.requestId}")];
    check_answer(&lines, "200\nx-old: /pets/a%20b id=");
    parameters.add(500, "overwrite:statuscode", "200").unwrap();
    assert!(parameters.for_status(200).is_none() && parameters.for_status(500).is_some());
}

#[test]
fn a_status_is_overwritten_by_one() {
    let rest = "x-old: 1\nx-old: 2\nset-cookie: a=1";
    check_answer(&[("overwrite:statuscode", "403")], &format!("403\n{rest}"));
    check_answer(&[("overwrite:statuscode", "$response.body.code")], &format!("418\n{rest}"));
    check_answer(&[("overwrite:statuscode", "${response.body.nope}")], &format!("200\n{rest}"));
    check_answer(
        &[("overwrite:statuscode", "$response.body.no")],
        "INTEGRATION_FAILURE: the mapped status code is none",
    );
    check_answer_error("overwrite:statuscode", "101", "value 0: `101` is no status of an answer; write one from `200`");
    check_answer_error("overwrite:statuscode", "600", "is no status of an answer");
    check_answer_error("overwrite:statuscode", "ok", "`ok` is no status");
    let status = |text| ResponseParameters::status(text).map_err(|error| error.to_string());
    assert_eq!((status("200"), status("599")), (Ok(200), Ok(599)));
    for wrong in ["199", "600", "2xx", "default", "", "0200", "+200"] {
        let found = format!(
            "`{wrong}` is no status of a backend's; write one from `200` to `599`; each has mappings of its own"
        );
        assert_eq!(status(wrong), Err(found));
    }
}

#[test]
fn reserved_headers_are_refused() {
    for name in [
        "Access-Control-Allow-Origin",
        "apigw-x",
        "Authorization",
        "Connection",
        "Content-Encoding",
        "Content-Length",
        "Content-Location",
        "Forwarded",
        "Keep-Alive",
        "Origin",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Trailers",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "x-amz-date",
        "X-Amzn-Trace-Id",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Via",
        "Proxy-Connection",
    ] {
        let found = format!("the header `{name}` is reserved; no mapping may change it; map a header of another name");
        check_error(&format!("append:header.{name}"), "1", &format!("key 14: {found}"));
        check_error(&format!("remove:header.{name}"), "", &found);
        check_error(&format!("integration.request.header.{name}"), "'1'", &format!("key 27: {found}"));
        check_answer_error(&format!("overwrite:header.{name}"), "1", &format!("key 17: {found}"));
    }
    check_error("overwrite:header.X-Livegate-Api", "1", "choose a name that does not begin with `X-Livegate-`");
    check_error("append:header.Host", "1", "key 14: every request has one `Host`, so there is no `append` for it");
    check_error("remove:header.host", "1", "write `overwrite:header.Host`");
    for name in ["Originator", "X-Forwarded-Port", "x-amazing", "Vias", "Content-Type", "X-Api-Key"] {
        check_error(&format!("overwrite:header.{name}"), "1", "fine");
    }
}

#[test]
fn a_wrong_key_says_what_would_do() {
    check_error("header.X", "1", "key 0: `header.X` is no parameter mapping; write `append`, `overwrite` or `remove` ");
    check_error("add:header.X", "1", "key 0: `add` is nothing that a mapping does; write `append`, `overwrite` or");
    check_error("append:cookie.x", "1", "key 7: `cookie.x` cannot be mapped; write `append`");
    check_error("append:header.", "1", "key 14: `` cannot name a header");
    check_error("append:querystring.", "1", "key 7: `querystring.` cannot be mapped");
    check_error("append:path", "/x", "there is no `append` for the path; write `overwrite:path`");
    check_error("overwrite:path.id", "/x", "`path.id` cannot be mapped");
    check_error("overwrite:statuscode", "200", "`statuscode` cannot be mapped");
    check_error("integration.request.path.id", "'x'", "write `{id}` in the URI, or map `overwrite:path`");
    check_error("integration.request.body.id", "'x'", "key 20: `body.id` cannot be mapped");
    check_answer_error(
        "overwrite:path",
        "/x",
        "`path` cannot be mapped; write `append`, `overwrite` or `remove` before",
    );
    check_answer_error("append:querystring.x", "1", "cannot be mapped");
    check_answer_error("integration.request.header.X", "'1'", "is no parameter mapping");
}

#[test]
fn a_wrong_value_says_what_would_do() {
    let check = |value, expected| check_error("overwrite:header.X", value, expected);
    check("", "value 0: an empty value changes nothing; write a value, or `remove:`");
    check("$request.headers.X", "value 1: `request.headers.X` is no variable of this place; only `request.body.x`, ");
    check(
        "$5",
        r"only `request.body.x`, `request.header.x`, `request.querystring.x`, `request.path.x`, `context.x` and",
    );
    check("$5", r"may; write `\$` for a dollar");
    check("$request.header.a $request.header.b", "value 16: `a $request.header.b` cannot name a header; write `${…}`");
    check("$context.stage/$context.path", "write `${…}` around each variable");
    check(
        "Bearer $request.header.x",
        "value 7: a variable within `Bearer $request.header.x` needs braces; write it in",
    );
    check("request.header.X", "value 0: `request.header.X` would be sent as it stands; write `$request.header.X`");
    check("$context.connectionId", "value 9: only WebSocket routes have `context.connectionId`");
    check("context.stagee", "value 8: `context.stagee` is unknown; did you mean `context.stage`?");
    check("route.request.cookie.X", "value 6: `request.cookie.X` is no variable of this place");
    check("$response.header.X", "`response.header.X` may not stand here");
    check("$request.body..a", "`..a` searches the body");
    check("${request.header.a", "value 0: `${` is never closed");
    check_error("integration.request.header.X", "text", "value 0: `text` is nothing to map from; write a variable");
    check_error("integration.request.header.X", "'text", "has no closing quote");
    check_error("integration.request.header.X", "''", "an empty value changes nothing");
    check_error("overwrite:path", "/a?b=1", "value 0: a path ends before `?`; map queries with `overwrite:querystring");
    check_error("overwrite:path", "/${request.path.id}#a", "a path ends before `#`");
    check_error("overwrite:path", "/a/../b", "`.` and `..` cannot stand in a path");
    check_answer_error("append:header.X", "$request.body", "`request.body` may not stand here");
}

#[test]
fn a_change_stands_once() {
    let mut parameters = RequestParameters::default();
    parameters.add("overwrite:header.X-A", "$stageVariables.colour").unwrap();
    assert!(!parameters.reads_body() && !parameters.overwrites_path() && !parameters.is_empty());
    parameters.add("append:header.X-A", "${request.path.id}${request.body}").unwrap();
    parameters.add("overwrite:path", "${stageVariables.b}/${request.path.c}").unwrap();
    assert!(parameters.reads_body() && parameters.overwrites_path());
    assert_eq!(parameters.stage_variables_used().collect::<Vec<_>>(), ["colour", "b"]);
    assert_eq!(parameters.path_parameters_used().collect::<Vec<_>>(), ["id", "c"]);
    let twice = parameters.add("integration.request.header.x-a", "'b'").unwrap_err();
    assert!(twice.to_string().contains("`overwrite:header.x-a` stands here twice; keep one of them"));

    let mut parameters = ResponseParameters::default();
    parameters.add(200, "append:header.X", "$response.header.y").unwrap();
    parameters.add(500, "append:header.X", "$response.body.y").unwrap();
    assert!(parameters.add(200, "append:header.x", "1").is_err());
    let reads_body = |status| parameters.for_status(status).unwrap().reads_body();
    assert_eq!((reads_body(200), reads_body(500)), (false, true));
}

#[test]
fn a_target_too_long_for_any_request_is_refused() {
    let long = |length| Call { body: "x".repeat(length), query: String::new() };
    let lines = [("overwrite:path", "/${request.body}"), ("append:querystring.a", "1")];
    let most = usize::from(u16::MAX) - 1 - "/?a=1".len();
    let fits = requested(&lines, "/", "", &long(most));
    assert!(fits.starts_with("/xxx") && fits.trim_end().parse::<Uri>().is_ok());
    let refused = "BAD_REQUEST_BODY: the mapped path and query have 65535 bytes";
    assert_eq!(requested(&lines, "/", "", &long(most + 1)), refused);
}

proptest! {
    #[test]
    fn nothing_panics(
        key in prop_oneof![".*", r"(append|overwrite|remove):(header|path|querystring|statuscode)(\..*)?"],
        value in prop_oneof![".*", r"(\$|route\.|\$\{)re(quest|sponse)\.(header|body|querystring|path).*", r"'.*'"],
        body: String,
    ) {
        let (mut status, mut headers) = (StatusCode::OK, HeaderMap::new());
        let mut response = ResponseParameters::default();
        if response.add(200, &key, &value).is_ok() {
            let of_status = response.for_status(200).unwrap();
            let _ = of_status.apply(&call(), body.as_bytes(), &mut status, &mut headers);
        }
        if RequestParameters::default().add(&key, &value).is_ok() {
            requested(&[(&key, &value)], "/a?b", "", &Call { body, query: String::new() });
        }
    }

    /// Whatever a client sends, the request is one request with the parameters that the operator wrote.
    #[test]
    fn nothing_is_injected(
        body in prop_oneof![any::<String>(), r"[./\\%;?#&=25eE\r\n\x00 a]{0,12}"],
        query in prop_oneof![any::<String>(), r"[./\\%;?#&=25eE\r\n\x00 a]{0,12}"],
        name in "[^\\s]{1,8}",
    ) {
        let mut parameters = RequestParameters::default();
        for (key, value) in [
            ("append:header.X-Old", "$request.body"),
            ("overwrite:header.X-New", "<${request.querystring.q}>"),
            ("overwrite:path", "/own/${request.body}/${request.querystring.q}"),
            (&format!("append:querystring.{name}"), "$request.body"),
            ("overwrite:querystring.kept", "<${request.querystring.q}>"),
        ] {
            parameters.add(key, value).unwrap();
        }
        let call = Call { body: body.clone(), query: query.clone() };
        let (mut headers, mut path, mut text) = (headers("x-old: 1"), String::from("/"), Some("%6bept=1&b=%2f".to_owned()));
        let outgoing = Outgoing { headers: &mut headers, path: &mut path, query: &mut text };
        if parameters.apply(&call, outgoing).is_err() {
            return Ok(());
        }
        prop_assert_eq!(headers.len(), 2);
        prop_assert!(headers.values().all(|value| !value.as_bytes().iter().any(u8::is_ascii_control)));
        prop_assert!(path.starts_with("/own/") && path.bytes().all(|byte| byte.is_ascii_graphic()));
        let text = text.unwrap();
        let uri: Uri = format!("{path}?{text}").parse().unwrap();
        prop_assert_eq!((uri.host(), uri.path(), uri.query()), (None, &*path, Some(&*text)));
        prop_assert!(!path.contains(['?', '#']) && !text.contains('#'));
        let pairs: Vec<_> = form_urlencoded::parse(text.as_bytes()).collect();
        let mut expected = vec![("kept", format!("<{query}>")), ("b", "/".to_owned())];
        expected.extend((!body.is_empty()).then(|| (&*name, body.clone())));
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&**name, value.to_string())).collect();
        if name != "kept" {
            prop_assert_eq!(pairs, expected);
        }
    }

    #[test]
    fn no_answer_is_split(body: String, old in "[ -~]{0,9}") {
        let mut parameters = ResponseParameters::default();
        parameters.add(200, "append:header.x", "$response.body").unwrap();
        parameters.add(200, "overwrite:header.y", "<${response.header.x}>").unwrap();
        let mut headers = HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_str(&old).unwrap())]);
        let mut status = StatusCode::OK;
        parameters.for_status(200).unwrap().apply(&call(), body.as_bytes(), &mut status, &mut headers).unwrap();
        prop_assert_eq!(headers.len(), 2);
        prop_assert!(headers.values().all(|value| !value.as_bytes().iter().any(u8::is_ascii_control)));
    }
}
