//! Tests of `parameters`.

use super::*;
use proptest::prelude::*;

struct Call(String);

impl Source for Call {
    fn body(&self) -> &str {
        &self.0
    }

    fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "connectionId").then_some(Cow::Borrowed("7e8s-43WgB1PFu4="))
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        (name == "colour").then_some("blue")
    }

    fn headers(&self, name: &str) -> Vec<Cow<'_, str>> {
        if name.eq_ignore_ascii_case("x-a") { vec!["1".into(), "2".into()] } else { vec![] }
    }

    fn queries(&self, name: &str) -> Vec<Cow<'_, str>> {
        if name == "token" { vec!["a b".into(), "ü".into()] } else { vec![] }
    }
}

fn mapped(key: &str, value: &str, body: &str) -> Mapped {
    let mut parameters = RequestParameters::default();
    parameters.add(Mapping::parse_one(key, value).unwrap()).unwrap();
    parameters.apply(&Call(body.into()))
}

/// `expected`: the parameters written, as `name=value`, joined by `&`.
#[track_caller]
fn check(key: &str, value: &str, expected: &str) {
    let body = r#"{"name":"ann","n":1.0,"lines":"a\r\nX-Evil: 1\u0000\t","u":"zoë","o":{"k": [1]},"z":null}"#;
    let mapped = mapped(&format!("integration.request.{key}"), value, body);
    let headers = mapped
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8(value.as_bytes().to_vec()).unwrap()));
    let all = headers.chain(mapped.query).chain(mapped.path);
    let shown: Vec<_> = all.map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(shown.join("&"), expected, "{key} from {value}");
}

#[track_caller]
fn check_error(key: &str, value: &str, expected: &str) {
    let found = match Mapping::parse_one(key, value) {
        Ok(_) => "fine".into(),
        Err(Error::Key(error)) => format!("key {}: {error}", error.at),
        Err(Error::Value(error)) => format!("value {}: {error}", error.at),
    };
    assert!(found.contains(expected), "{key} = {value}: {found}");
}

#[test]
fn every_source_reaches_every_target() {
    check("header.X-Name", "route.request.body.name", "x-name=ann");
    check("querystring.name", "route.request.body.name", "name=ann");
    check("path.name", "route.request.body.name", "name=ann");
    check("header.X", "route.request.querystring.token", "x=ü");
    check("header.X", "route.request.header.X-A", "x=2");
    check("header.X", "route.request.multivalueheader.X-A", "x=1&x=2");
    check("querystring.t", "route.request.multivaluequerystring.token", "t=a b&t=ü");
    check("path.t", "route.request.multivaluequerystring.token", "t=a b,ü");
    check("header.X", "context.connectionId", "x=7e8s-43WgB1PFu4=");
    check("header.X", "stageVariables.colour", "x=blue");
    check("header.Sec-WebSocket-Version", "'0'", "sec-websocket-version=0");
    check("header.X", "''", "x=");
    check("header.X", "'it's ${context.stage}'", "x=it's ${context.stage}");
}

#[test]
fn the_other_spelling_is_the_same() {
    check("header.X", "$request.body.name", "x=ann");
    check("header.X", "${request.body.name}", "x=ann");
    check("header.X", "$request.body", mapped_body());
    check("header.X", "$request.header.x-a", "x=2");
    check("querystring.t", "$request.querystring.token", "t=ü");
    check("header.X", "$context.connectionId", "x=7e8s-43WgB1PFu4=");
    check("header.X", "${stageVariables.colour}", "x=blue");
}

fn mapped_body() -> &'static str {
    r#"x={"name":"ann","n":1.0,"lines":"a\r\nX-Evil: 1\u0000\t","u":"zoë","o":{"k":[1]},"z":null}"#
}

#[test]
fn values_of_any_type_become_text() {
    check("header.X", "route.request.body.n", "x=1.0");
    check("header.X", "route.request.body.o", r#"x={"k":[1]}"#);
    check("header.X", "route.request.body.o.k[0]", "x=1");
    check("header.X", "route.request.body.z", "x=");
    check("header.X", "route.request.body.u", "x=zoë");
    check("header.X", "route.request.body.lines", "x=a%0D%0AX-Evil: 1%00%09");
    check("querystring.x", "route.request.body.lines", "x=a\r\nX-Evil: 1\0\t");
}

#[test]
fn what_is_not_there_is_left_out() {
    for value in [
        "route.request.body.nope",
        "route.request.header.Nope",
        "route.request.querystring.nope",
        "route.request.multivalueheader.Nope",
        "route.request.multivaluequerystring.nope",
        "context.stage",
        "stageVariables.nope",
    ] {
        check("header.X", value, "");
        check("path.x", value, "");
    }
    assert_eq!(mapped("integration.request.header.X", "route.request.body.x", "hi"), Mapped::default());
    assert_eq!(mapped("integration.request.header.X", "route.request.body", ""), Mapped::default());
    assert_eq!(mapped("integration.request.path.x", "route.request.body", "hi").path, [("x".into(), "hi".into())]);
}

#[test]
fn a_wrong_line_says_what_would_do() {
    let key = "integration.request.header.X";
    check_error("header.X", "'a'", "key 0: `header.X` is no parameter of a request; write `integration.request.");
    check_error("integration.request.header.", "'a'", "key 27: `` cannot name a header");
    check_error("integration.request.path.", "'a'", "key 0: ");
    check_error("integration.request.cookie.x", "'a'", "key 0: ");
    check_error("integration.request.header.a b", "'a'", "key 27: `a b` cannot name a header; use letters");
    for name in [
        "Connection",
        "upgrade",
        "Transfer-Encoding",
        "Content-Length",
        "TE",
        "Trailer",
        "Keep-Alive",
        "Proxy-Authorization",
        "proxy-anything",
    ] {
        let found = format!("key 27: the header `{name}` is the gateway's to write");
        check_error(&format!("integration.request.header.{name}"), "'a'", &found);
    }
    check_error("integration.request.header.x-livegate-Api", "'a'", "does not begin with `X-Livegate-`");
    check_error("integration.request.header.X-Livegates", "'a'", "fine");
    check_error(key, "", "value 0: `` is nothing to map from; write `route.request.header.NAME`");
    check_error(key, "text", "value 0: `text` is nothing to map from");
    check_error(key, "'text", "value 0: `'text` has no closing quote");
    check_error(key, "'", "has no closing quote");
    check_error(key, "$route.request.header.X", "is nothing to map from");
    check_error(key, "request.header.X", "is nothing to map from");
    check_error(key, "route.request.header.", "is nothing to map from");
    check_error(key, "route.request.path.x", "is nothing to map from");
    check_error(key, "route.request.body.a..", "value 18: `.a..` is no JSONPath");
    check_error(key, "$context.stagee", "value 9: `context.stagee` is unknown; did you mean `context.stage`?");
    check_error(key, "stageVariables.", "value 15: `` cannot name a stage variable");
}

#[test]
fn a_parameter_is_mapped_once() {
    let mut parameters = RequestParameters::default();
    parameters.add(Mapping::parse_one("integration.request.header.X-A", "context.stage").unwrap()).unwrap();
    assert!(!parameters.uses_client_request());
    parameters.add(Mapping::parse_one("integration.request.path.X-A", "$request.header.a").unwrap()).unwrap();
    assert!(parameters.uses_client_request());
    let twice = parameters.add(Mapping::parse_one("integration.request.header.x-a", "'b'").unwrap()).unwrap_err();
    assert!(twice.to_string().contains("the header `x-a` is mapped twice"));
}

proptest! {
    #[test]
    fn nothing_panics(
        key in prop_oneof![".*", r"integration\.request\.(header|path|querystring)\..*"],
        value in prop_oneof![".*", r"(\$|route\.)request\.(header|body|querystring).*", r"'.*'", r"\$\{.*"],
        body: String,
    ) {
        if let Ok(mapping) = Mapping::parse_one(&key, &value) {
            let mut parameters = RequestParameters::default();
            parameters.add(mapping).unwrap();
            parameters.apply(&Call(body));
        }
    }

    #[test]
    fn no_value_breaks_out_of_its_header(text: String) {
        prop_assert!(!header_value(&text).as_bytes().iter().any(u8::is_ascii_control));
    }
}
