//! Tests of `variable`: what HTTP routes have besides the variables that `variables_tests` fills in.

use super::*;
use crate::expressions::variables::Template;
use crate::model::limits;

struct Call(String);

impl Source for Call {
    fn body(&self) -> &str {
        &self.0
    }

    fn searched_body(&self) -> &str {
        beginning(&self.0)
    }

    fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "httpMethod").then_some("POST".into())
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        name.eq_ignore_ascii_case("x-a").then_some("a\"b".into())
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "n").then_some("7".into())
    }

    fn path(&self) -> Option<&str> {
        Some("/a/caf%C3%A9")
    }

    fn path_parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "id").then_some("café".into())
    }

    fn response_header(&self, name: &str) -> Option<Cow<'_, str>> {
        name.eq_ignore_ascii_case("etag").then_some("\"1\"".into())
    }

    fn response_body(&self) -> &str {
        r#"{"ok": true,"list":[1,2]}"#
    }
}

const BODY: &str = r#"{"name":"ann", "o":{"k": 1},"l":[1,"a"]}"#;

#[track_caller]
fn check_with(body: &str, template: &str, expected: &str) {
    let allowed = Allowed { body: true, ..Allowed::ANSWER };
    let template = Template::parse(template, allowed).unwrap();
    assert_eq!(template.render_response(&Call(body.into())), expected);
}

#[track_caller]
fn check(template: &str, expected: &str) {
    check_with(BODY, template, expected);
}

#[track_caller]
fn check_error(allowed: Allowed, text: &str, expected: &str) {
    let found = Variable::parse(text, allowed).map_or_else(|error| format!("{} {error}", error.at), |_| "fine".into());
    assert!(found.contains(expected), "{text}: {found}");
}

#[test]
fn a_request_has_headers_a_query_and_a_path() {
    check("${request.header.X-A}|${request.header.nope}", "a\"b|");
    check("${request.querystring.n}|${request.querystring.N}", "7|");
    check("${request.path}", "/a/caf%C3%A9");
    check("${request.path.id}|${request.path.other}", "café|");
    check("${context.httpMethod} ${response.header.ETag}", "POST \"1\"");
    check("${response.body}", r#"{"ok": true,"list":[1,2]}"#);
    check("${response.body.ok} ${response.body.list[1]}", "true 2");
    check("${request.body.name} ${request.body.o} ${request.body.l}", r#"ann {"k":1} [1, a]"#);
}

#[test]
fn what_a_client_wrote_stays_a_string_of_json() {
    check(r#"{"a":"${request.header.X-A}","b":${request.header.x-a}}"#, r#"{"a":"a\"b","b":"a\"b"}"#);
    check(r#"[${request.querystring.n},${request.path.id}]"#, r#"["7","café"]"#);
    check(r#"[${response.body.ok},${response.body},"${response.body.list}"]"#, {
        r#"[true,{"ok": true,"list":[1,2]},"[1, 2]"]"#
    });
    check("[${request.header.nope}]", "[]");
}

#[test]
fn the_whole_body_is_as_it_came() {
    check("${request.body}", BODY);
    check("[${request.body}]", &format!("[{BODY}]"));
    check_with("a \"b\"", "<${request.body}>", "<a \"b\">");
    check_with("a \"b\"", "[${request.body}]", r#"["a \"b\""]"#);
    check_with("", "[${request.body}${request.body.a}]", "[]");
}

#[test]
fn a_json_path_looks_into_the_beginning_of_a_body_only() {
    let body = |length: usize| {
        let rest = length - r#"{"a":1,"b":""}"#.len();
        format!(r#"{{"a":1,"b":"{}"}}"#, "x".repeat(rest))
    };
    check_with(&body(limits::SEARCHED_BODY), "${request.body.a}", "1");
    check_with(&body(limits::SEARCHED_BODY + 1), "<${request.body.a}>", "<>");
    let long = body(limits::SEARCHED_BODY + 1);
    check_with(&long, "${request.body}", &long);
    assert_eq!(beginning(&"é".repeat(limits::SEARCHED_BODY)).len(), limits::SEARCHED_BODY);
    assert_eq!(beginning(&format!("x{}", "é".repeat(limits::SEARCHED_BODY))).len(), limits::SEARCHED_BODY - 1);
}

#[test]
fn each_place_says_what_may_stand_there() {
    use Allowed as A;
    check_error(A::ALL, "request.header.x", "0 `request.header.x` is no variable of this place; only `request.body.x`");
    check_error(A::ALL, "request.path", "is no variable of this place; only `request.body.x`, `context.x` and");
    check_error(A::ALL, "context.httpMethod", "8 only HTTP routes have `context.httpMethod`");
    check_error(A::REQUEST, "context.connectionId", "8 only WebSocket routes have `context.connectionId`");
    check_error(A::REQUEST, "response.header.x", "0 `response.header.x` may not stand here; only `request.body.x`, ");
    check_error(A::REQUEST, "request.cookie.x", "`request.header.x`, `request.querystring.x`, `request.path.x`, ");
    check_error(A::ANSWER, "request.body", "0 `request.body` may not stand here; only `request.header.x`, ");
    check_error(A::STAGE_VARIABLES, "request.header.x", "is no variable of this place; only `stageVariables.x` may");
}

#[test]
fn a_wrong_name_says_what_would_do() {
    let check_error = |text, expected| check_error(Allowed::ANSWER, text, expected);
    check_error("request.header.", "15 `` cannot name a header; use letters");
    check_error("request.header.a b", "15 `a b` cannot name a header");
    check_error("response.header.a b", "16 `a b` cannot name a header");
    check_error("request.querystring.", "20 `` cannot name a query parameter");
    check_error("request.querystring.$filter", "fine");
    check_error("request.pathx", "12 `x` is no part of a path; write `request.path`, or `request.path.id` for");
    check_error("request.path.", "12 `.` is no part of a path");
    check_error("request.path.proxy+", "12 `.proxy+` is no part of a path");
    check_error("request.path.pet-id", "fine");
    check_error("response.body..a", "13 `..a` searches the body, which HTTP APIs do not; write the way to the value");
    check_error("response.body.l[?@.a].b", "searches the body");
    check_error("response.body['a..b'].l[*]", "fine");
}
