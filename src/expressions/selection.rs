//! Route selection expressions: the text that finds a route key in a message.
//!
//! Literals and variables mix: `$request.body.action`, `${request.body.service}/${request.body.action}`,
//! `\$default`. As at AWS there is one pass without recursion, a path that leads nowhere is an empty text,
//! and a message that is not JSON gives no key at all.

use std::borrow::Cow;

use super::Error;
use super::json_path::JsonPath;
use super::pieces::{self, BareDollar, Piece};

/// A parsed expression; it has at least one part.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectionExpression {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(String),
    Body(JsonPath),
}

impl SelectionExpression {
    /// Only `request.body` may stand in a route selection expression. A variable without braces runs to the
    /// first character that is not one of `A-Z a-z 0-9 _ . [ ] ' " * @ ? ( ) = -`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::new(0, "a route selection expression cannot be empty", USUAL));
        }
        let parts = pieces::split(text, BareDollar::Variable)?.into_iter().map(|piece| match piece {
            Piece::Literal(literal) => Ok(Part::Literal(literal)),
            Piece::Variable { at, text: variable } => {
                // The braces let a path go on where a bare one ends, at a blank for instance.
                let bare = !text[..at].ends_with('{');
                body(variable, bare).map_err(|error| error.moved(at))
            }
        });
        Ok(Self { parts: parts.collect::<Result<_, _>>()? })
    }

    /// The text that the expression makes of a message; `None` if it reads the body and that is not JSON.
    pub fn evaluate<'a>(&'a self, message: &'a str) -> Option<Cow<'a, str>> {
        if let [only] = self.parts.as_slice() {
            return only.evaluate(message);
        }
        let mut key = String::new();
        for part in &self.parts {
            key.push_str(&part.evaluate(message)?);
        }
        Some(Cow::Owned(key))
    }
}

impl Part {
    fn evaluate<'a>(&'a self, message: &'a str) -> Option<Cow<'a, str>> {
        match self {
            Part::Literal(literal) => Some(Cow::Borrowed(literal)),
            Part::Body(path) => path.find(message).ok().map(Option::unwrap_or_default),
        }
    }
}

const USUAL: &str = "write it like `$request.body.action`";

fn body(variable: &str, bare: bool) -> Result<Part, Error> {
    let Some(path) = variable.strip_prefix("request.body") else {
        let message = if variable.is_empty() {
            "a `$` without a variable".to_owned()
        } else {
            format!("`{variable}` may not stand in a route selection expression")
        };
        let help = r"only `request.body` may, as in `$request.body.action`; write `\$` for a dollar";
        return Err(Error::new(0, message, help));
    };
    JsonPath::parse(path).map(Part::Body).map_err(|mut error| {
        if bare {
            error.help = format!("{}, and put braces around it if it holds blanks: `${{request.body…}}`", error.help);
        }
        error.moved("request.body".len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// `expected`: the key, or `None` if the message gives none.
    #[track_caller]
    fn check<'e>(expression: &str, message: &str, expected: impl Into<Option<&'e str>>) {
        let parsed = SelectionExpression::parse(expression).unwrap();
        assert_eq!(parsed.evaluate(message).as_deref(), expected.into(), "{expression} of {message}");
    }

    #[track_caller]
    fn check_error(expression: &str, at: usize, expected: &str) {
        let error = SelectionExpression::parse(expression).unwrap_err();
        let text = error.to_string();
        assert!(error.at == at && text.contains(expected), "{expression}: {at} {text}");
    }

    #[test]
    fn a_message_gives_a_route_key() {
        let message = r#"{"room":{"name":"blue"},"service":"chat","action":"join"}"#;
        check("$request.body.action", message, "join");
        check("${request.body.action}", message, "join");
        check("$request.body.room.name", message, "blue");
        check("$request.body['action']", message, "join");
        check("${request.body.service}/${request.body.action}", message, "chat/join");
        check("$request.body.service/$request.body.action", message, "chat/join");
        check("${request.body.action}-${request.body.nowhere}", message, "join-");
        check("$request.body.nowhere", message, "");
        check("action", message, "action");
        check(r"\$default", message, "$default");
        check(r"a\$$request.body.action", message, "a$join");
        check("$request.body.room", message, r#"{"name":"blue"}"#);
        check("$request.body", r#""join""#, "join");
    }

    #[test]
    fn values_of_any_type_become_text() {
        check("$request.body.action", r#"{"action":7}"#, "7");
        check("$request.body.action", r#"{"action":7.0}"#, "7.0");
        check("$request.body.action", r#"{"action":false}"#, "false");
        check("$request.body.action", r#"{"action":null}"#, "");
        check("$request.body.action", r#"{"action":["x","y"]}"#, "[x, y]");
        check("$request.body.action", r#"{"action":"$connect"}"#, "$connect");
        check("$request.body.action", "[1,2]", "");
        check("$request.body[1]", "[1,2]", "2");
        check("$request.body[*].a", r#"[{"a":"x"},{"a":"y"}]"#, "[x, y]");
        check("$request.body[?(@.a==1)].b", r#"[{"a":1,"b":"x"},{"a":2}]"#, "[x]");
        check("${request.body[?(@.a > 1)].b}", r#"[{"a":1,"b":"x"},{"a":2}]"#, "");
    }

    #[test]
    fn a_message_that_is_not_json_gives_none() {
        check("$request.body.action", "hi", None);
        check("$request.body.action", "", None);
        check("$request.body.action", r#"{"action":"join"} x"#, None);
        check("$request.body", "hi", None);
        check("x-${request.body.action}", "hi", None);
        check("action", "hi", "action");
    }

    #[test]
    fn the_usual_expression_copies_nothing() {
        let parsed = SelectionExpression::parse("$request.body.action").unwrap();
        assert!(matches!(parsed.evaluate(r#"{"action":"join"}"#), Some(Cow::Borrowed("join"))));
    }

    #[test]
    fn a_wrong_expression_says_what_would_do() {
        check_error("", 0, "a route selection expression cannot be empty; write it like `$request.body.action`");
        check_error("$", 1, "a `$` without a variable; only `request.body` may, as in `$request.body.action`");
        check_error("a$ b", 2, "a `$` without a variable");
        check_error("$default", 1, "`default` may not stand in a route selection expression");
        check_error("$request.header.x", 1, "`request.header.x` may not stand");
        check_error(
            "x/${context.stage}",
            4,
            "`context.stage` may not stand in a route selection expression; \
             only `request.body` may, as in `$request.body.action`; write `\\$` for a dollar",
        );
        check_error("ab${request.body.action", 2, "`${` is never closed");
        check_error("$request.bodyaction", 13, "`action` is no JSONPath");
        check_error("$request.body[?(@.a == 1)]", 13, "put braces around it");
        check_error("${request.body[}", 14, "`[` is no JSONPath");
    }

    /// The same rules over a parsed tree, slowly: what a chain of plain keys finds.
    fn naive(keys: &[String], message: &str) -> Option<String> {
        let tree: Value = serde_json::from_str(message).ok()?;
        let found = keys.iter().try_fold(&tree, |value, key| value.get(key));
        Some(found.map_or(String::new(), naive_text))
    }

    fn naive_text(value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(items) => format!("[{}]", items.iter().map(naive_text).collect::<Vec<_>>().join(", ")),
            other => other.to_string(),
        }
    }

    fn message() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_its_naive_twin(
            one in prop::collection::vec("[abc]", 0..3),
            other in prop::collection::vec("[abc]", 0..3),
            between in "[a-z/ é]{0,3}",
            message in message(),
            (pretty, broken) in (any::<bool>(), prop::bool::weighted(0.1)),
        ) {
            let path = |keys: &[String]| keys.iter().map(|key| format!(".{key}")).collect::<String>();
            let mut text = message.to_string();
            if pretty {
                text = serde_json::to_string_pretty(&message).unwrap();
            }
            if broken {
                text.push('}');
            }
            let expression = format!("${{request.body{}}}{between}${{request.body{}}}", path(&one), path(&other));
            let expected = naive(&one, &text).zip(naive(&other, &text)).map(|(a, b)| format!("{a}{between}{b}"));
            check(&expression, &text, expected.as_deref());
            check(&format!("$request.body{}", path(&one)), &text, naive(&one, &text).as_deref());
        }

        #[test]
        fn nothing_panics(
            expression in prop_oneof![".*", r#"(\$|\\|\{|\}|request\.body|[.\[\]*'"a0?@=()]){0,12}"#],
            message in prop_oneof![".*", r#"[\[\]{}":,\\ a0]{0,30}"#],
        ) {
            if let Ok(parsed) = SelectionExpression::parse(&expression) {
                parsed.evaluate(&message);
            }
        }
    }
}
