//! Tests of `variables`.

use std::borrow::Cow;

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

struct Call {
    body: String,
    user_agent: String,
}

impl Source for Call {
    fn body(&self) -> &str {
        &self.body
    }

    fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        Some(match name {
            "connectionId" => "7e8s-43WgB1PFu4=".into(),
            "requestTimeEpoch" => "1763684400119".into(),
            "identity.userAgent" => self.user_agent.as_str().into(),
            "authorizer.roles" => r#"["a"]"#.into(),
            "authorizer.sub" => "ann".into(),
            _ => return None,
        })
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        match name {
            "backend" => Some("127.0.0.1:3000"),
            "limit" => Some("5"),
            "empty" => Some(""),
            _ => None,
        }
    }
}

const BODY: &str =
    r#"{"action":"say \"hi\"","n":1.50,"o":{"k": "v"},"l":["a",2],"z":null,"v":"${context.connectionId}"}"#;

fn call(body: &str) -> Call {
    Call { body: body.into(), user_agent: "{\"a\":1}".into() }
}

fn rendered(template: &str, call: &Call) -> String {
    Template::parse(template, Allowed::ALL).unwrap().render_response(call)
}

#[track_caller]
fn check(template: &str, expected: &str) {
    assert_eq!(rendered(template, &call(BODY)), expected, "{template}");
}

#[track_caller]
fn check_error(template: &str, allowed: Allowed, at: usize, expected: &str) {
    let error = Template::parse(template, allowed).unwrap_err();
    assert_eq!((error.at, error.to_string()), (at, expected.to_owned()), "{template}");
}

#[test]
fn variables_are_filled_in_once() {
    check("", "");
    check("plain", "plain");
    check("http://${stageVariables.backend}/send", "http://127.0.0.1:3000/send");
    check("unknown action ${request.body.action}", "unknown action say \"hi\"");
    check("${context.connectionId}/${request.body.nope}|${context.messageId}", "7e8s-43WgB1PFu4=/|");
    check(r"costs $5 \${context.stage} a\b", r"costs $5 ${context.stage} a\b");
    check("${request.body.v}", "${context.connectionId}");
    check("${request.body.o}${request.body.l}${request.body.z}", r#"{"k":"v"}[a, 2]"#);
    assert_eq!(rendered("<${request.body}|${request.body.x}>", &call("hi")), "<hi|>");
}

#[test]
fn json_stays_json() {
    check(r#"{"error":"unknown action ${request.body.action}"}"#, r#"{"error":"unknown action say \"hi\""}"#);
    check(r#"{"n":${request.body.n},"s":${request.body.action}}"#, r#"{"n":1.50,"s":"say \"hi\""}"#);
    check(r#"{"o":${request.body.o},"z":${request.body.z}}"#, r#"{"o":{"k": "v"},"z":null}"#);
    check(r#"{"o":"${request.body.o}","z":"${request.body.z}"}"#, r#"{"o":"{\"k\":\"v\"}","z":""}"#);
    check(r#"{"a":"${request.body.nope}","b":[${request.body.nope}]}"#, r#"{"a":"","b":[]}"#);
    check(r#" [${context.connectionId},${context.requestTimeEpoch}]"#, r#" ["7e8s-43WgB1PFu4=",1763684400119]"#);
    check("[${stageVariables.limit},${stageVariables.backend}]", r#"[5,"127.0.0.1:3000"]"#);
    check("[${context.authorizer.roles},${context.authorizer.sub}]", r#"[["a"],"ann"]"#);
    check("[${context.identity.userAgent}]", r#"["{\"a\":1}"]"#);
    check(r#"{"\"${request.body.n}":${request.body.n}}"#, r#"{"\"1.50":1.50}"#);
    check(r#"{"\\":${request.body.l}}"#, r#"{"\\":["a",2]}"#);
    assert_eq!(rendered(r#"["${request.body}",${request.body}]"#, &call("a\"\n")), r#"["a\"\n","a\"\n"]"#);
    assert_eq!(rendered(r#"["${request.body}",${request.body}]"#, &call("[1 ]")), r#"["[1]",[1 ]]"#);
}

#[test]
fn a_wrong_variable_says_what_would_do() {
    check_error(
        "a ${context.conectionId}",
        Allowed::ALL,
        12,
        "`context.conectionId` is unknown; did you mean `context.connectionId`?",
    );
    check_error(
        "${request.body.x}",
        Allowed::STAGE_VARIABLES,
        2,
        "`request.body.x` may not stand here; only `stageVariables.x` may",
    );
    check_error(
        "${context.stage}",
        Allowed::NONE,
        2,
        r"`context.stage` may not stand here; no variable may; write `\$` for a dollar",
    );
    check_error(
        "${request.header.x}",
        Allowed::ALL,
        2,
        "`request.header.x` is no variable of this place; \
         only `request.body.x`, `context.x` and `stageVariables.x` may",
    );
    check_error(
        "x${stageVariables.a-b}",
        Allowed::ALL,
        18,
        "`a-b` cannot name a stage variable; use letters, digits and `_`",
    );
    check_error(
        "${request.bodyx}",
        Allowed::ALL,
        14,
        "`x` is no JSONPath; \
         write it like `.action`, `.items[0].name`, `['a key']` or `.items[*].id`",
    );
    check_error("é${", Allowed::ALL, 2, r"`${` is never closed; add the `}`, or write `\$` for a dollar");
    check_error("${}", Allowed::STAGE_VARIABLES, 2, "`` is no variable of this place; only `stageVariables.x` may");
}

#[test]
fn stage_variables_are_filled_in_at_load() {
    let text = "http://${stageVariables.backend}${stageVariables.empty}/${stageVariables.nope}/${context.stage}";
    let template = Template::parse(text, Allowed::ALL).unwrap();
    assert_eq!(template.stage_variables_used().collect::<Vec<_>>(), ["backend", "empty", "nope"]);
    let call = call("");
    let filled = template.substitute_stage_variables(|name| call.stage_variable(name));
    assert_eq!(filled.stage_variables_used().collect::<Vec<_>>(), ["nope"]);
    assert_eq!(filled.as_literal(), None);
    assert_eq!(filled.substitute_stage_variables(|_| Some("x")).stage_variables_used().count(), 0);
    let whole = Template::parse("http://${stageVariables.backend}/a", Allowed::STAGE_VARIABLES).unwrap();
    let filled = whole.substitute_stage_variables(|name| call.stage_variable(name));
    assert_eq!(filled.as_literal(), Some("http://127.0.0.1:3000/a"));
    assert_eq!(Template::parse("", Allowed::NONE).unwrap().as_literal(), Some(""));
}

proptest! {
    #[test]
    fn nothing_panics(
        text in prop_oneof![".*", r#"([$\\{}"]|\$\{|context\.stage|request\.body|stageVariables\.a|[.\[\]*a]){0,12}"#],
        body in ".*",
    ) {
        if let Ok(template) = Template::parse(&text, Allowed::ALL) {
            template.render_response(&call(&body));
            template.render_json(&call(&body));
        }
    }

    /// Whatever a client sends, the mock's answer is JSON of the shape the operator wrote.
    #[test]
    fn a_response_in_json_stays_valid(text: String, agent: String, raw: String, list: Vec<String>) {
        let body = json!({ "text": text, "list": list });
        let template = r#"{"in":"<${request.body.text}>","out":${request.body.text},"list":${request.body.list},
            "listed":"${request.body.list}","agent":["${context.identity.userAgent}",${context.identity.userAgent}]}"#;
        let call = Call { body: body.to_string(), user_agent: agent.clone() };
        let answer: Value = serde_json::from_str(&rendered(template, &call)).unwrap();
        prop_assert_eq!(answer, json!({ "in": format!("<{text}>"), "out": text, "list": list,
            "listed": format!("[{}]", list.join(", ")), "agent": [agent, agent] }));

        let call = Call { body: raw, user_agent: agent };
        let template = r#"{"in":"${request.body}","x":"${request.body.x[0]}"}"#;
        prop_assert!(serde_json::from_str::<Value>(&rendered(template, &call)).is_ok());
    }
}
