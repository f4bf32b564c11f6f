//! Text in the file: `${env.NAME}` is filled in while reading, once, and never rescanned.
//!
//! `Text` is final after that. An `Expression` keeps every other `${…}` for the language that reads it at run time, so
//! dollars that came from the environment are escaped there: no variable's value may turn into a variable.

use std::fmt;
use std::ops::Deref;

use serde_json::json;

use super::{Node, Reading, Setting, Value};
use crate::model::problem::Place;

/// Plain text.
#[derive(Debug, Clone)]
pub struct Text {
    pub value: String,
    pub place: Place,
    /// A variable in it is unset, and that was allowed: whoever checks it further leaves it alone.
    pub unresolved: bool,
}

/// Text that never shows itself.
#[derive(Clone)]
pub struct Secret {
    /// Never empty, unless it is unresolved.
    value: String,
    pub place: Place,
    /// As in `Text`.
    pub unresolved: bool,
    /// It stands in the file itself, and not in the environment.
    pub is_written_out: bool,
}

/// Text that a run-time language reads later; `\$` in it is a literal dollar.
#[derive(Debug, Clone)]
pub struct Expression {
    pub text: String,
    pub place: Place,
    /// As in `Text`.
    pub unresolved: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    Expressions,
}

struct Expanded {
    text: String,
    unresolved: bool,
}

impl Node {
    /// The text of a setting that is written as text but means something else (a duration, an address).
    /// `None` after a problem, or when a variable is allowed to be unset.
    pub fn word(&self, reading: &mut Reading, noun: &str, help: &str) -> Option<String> {
        match &self.value {
            Value::Text(text) => {
                let expanded = expand(text, &self.place, Keep::Nothing, reading)?;
                (!expanded.unresolved).then_some(expanded.text)
            }
            _ => {
                reading.refuse(self, noun, help);
                None
            }
        }
    }

    fn text(&self, keep: Keep, reading: &mut Reading) -> Option<Expanded> {
        match &self.value {
            Value::Text(text) => expand(text, &self.place, keep, reading),
            Value::List(_) | Value::Table(_) => {
                let help = self.missing_quotes().unwrap_or("write one text in quotes".into());
                reading.refuse(self, "text", &help);
                None
            }
            // The value itself stays out of the message: it may stand where a secret belongs.
            _ => {
                reading.problems.problem_with_help(&self.place, "this is no text", "put it in quotes");
                None
            }
        }
    }
}

fn expand(written: &str, place: &Place, keep: Keep, reading: &mut Reading) -> Option<Expanded> {
    let mut text = String::with_capacity(written.len());
    let mut unresolved = false;
    let mut intact = true;
    let mut rest = written;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('\\') {
            text.push_str(before);
            text.push_str(if keep == Keep::Expressions { r"\$" } else { "$" });
            rest = &from[1..];
            continue;
        }
        text.push_str(before);
        let variable = from.starts_with("${").then(|| from.find('}').map_or(from, |end| &from[..=end]));
        let Some(variable) = variable else {
            text.push('$');
            rest = &from[1..];
            continue;
        };
        rest = &from[variable.len()..];
        match (variable.strip_prefix("${env."), keep) {
            (Some(name), _) => match environment(name, variable, place, reading) {
                Ok(Some(value)) if keep == Keep::Expressions => {
                    if value.ends_with('\\') && rest.starts_with('$') {
                        let found = format!("the value of `{variable}` ends in a backslash right before a `$`");
                        let help = "put something between them, or the dollar would be taken for a literal one";
                        reading.problems.problem_with_help(&place.part(reading.source, variable), found, help);
                        intact = false;
                    }
                    text.push_str(&value.replace('$', r"\$"));
                }
                Ok(Some(value)) => text.push_str(&value),
                Ok(None) => unresolved = true,
                Err(AlreadyNoted) => intact = false,
            },
            (None, Keep::Expressions) => text.push_str(variable),
            (None, Keep::Nothing) => {
                let found = format!("`{variable}` cannot be used here");
                let help = r"only `${env.NAME}` is filled in at this key; a literal dollar is `\$`";
                reading.problems.problem_with_help(&place.part(reading.source, variable), found, help);
                intact = false;
            }
        }
    }
    text.push_str(rest);
    intact.then_some(Expanded { text, unresolved })
}

struct AlreadyNoted;

/// The value of `${env.NAME}`; `None` if it is unset and that is allowed.
fn environment(
    name: &str,
    variable: &str,
    place: &Place,
    reading: &mut Reading,
) -> Result<Option<String>, AlreadyNoted> {
    let place = place.part(reading.source, variable);
    let name = name.strip_suffix('}').unwrap_or_default();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let found = format!("`{variable}` names no environment variable");
        reading.problems.problem_with_help(&place, found, "write it like `${env.NAME}`");
        return Err(AlreadyNoted);
    }
    match (reading.env)(name) {
        Some(value) => Ok(Some(value)),
        None if reading.allow_unset_env => Ok(None),
        None => {
            let found = format!("the environment variable `{name}` is not set");
            reading.problems.problem_with_help(&place, found, format!("set `{name}`, or write the value here"));
            Err(AlreadyNoted)
        }
    }
}

impl Setting for Text {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let Expanded { text, unresolved } = node.text(Keep::Nothing, reading)?;
        Some(Text { value: text, place: node.place, unresolved })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }

    fn kind() -> String {
        "text".into()
    }
}

impl Setting for Secret {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let is_written_out = matches!(&node.value, Value::Text(written) if !written.contains("${env."));
        let Expanded { text, unresolved } = node.text(Keep::Nothing, reading)?;
        if text.is_empty() && !unresolved {
            let help = "everybody could guess it; leave the key out if you do not want it";
            reading.problems.problem_with_help(&node.place, "this secret is empty", help);
            return None;
        }
        Some(Secret { value: text, place: node.place, unresolved, is_written_out })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }

    fn kind() -> String {
        "text".into()
    }
}

impl Setting for Expression {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let Expanded { text, unresolved } = node.text(Keep::Expressions, reading)?;
        Some(Expression { text, place: node.place, unresolved })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }

    fn kind() -> String {
        "expression".into()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.value
    }
}

impl Secret {
    /// The secret itself, for comparing and signing only.
    pub fn reveal(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A schema that also takes text with `${env.NAME}` in it, which no editor can check.
pub fn or_env(schema: serde_json::Value) -> serde_json::Value {
    json!({ "anyOf": [schema, { "type": "string", "pattern": r"\$\{env\.[A-Za-z0-9_]+\}" }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        Node::unwritten(text.into(), &Place::default())
    }

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("localhost".into()),
            "RICH" => Some("a$b${env.HOST}".into()),
            "SLASH" => Some("a\\".into()),
            _ => None,
        }
    }

    fn reading(allow_unset_env: bool) -> Reading<'static> {
        Reading { env: &env, allow_unset_env, ..Reading::of_defaults() }
    }

    fn check_text(written: &str, wanted: Option<&str>) {
        let mut reading = reading(false);
        let text = Text::read(node(written), &mut reading).map(|text| text.value);
        assert_eq!(text.as_deref(), wanted, "{written}");
        assert_eq!(reading.problems.has_problems(), wanted.is_none(), "{written}");
    }

    fn check_expression(written: &str, wanted: Option<&str>) {
        let mut reading = reading(false);
        let text = Expression::read(node(written), &mut reading).map(|expression| expression.text);
        assert_eq!(text.as_deref(), wanted, "{written}");
        assert_eq!(reading.problems.has_problems(), wanted.is_none(), "{written}");
    }

    #[test]
    fn text_has_its_variables_filled_in_once() {
        check_text("plain", Some("plain"));
        check_text("http://${env.HOST}/x", Some("http://localhost/x"));
        check_text("${env.RICH}", Some("a$b${env.HOST}"));
        check_text(r"\${env.HOST} costs 5\$", Some("${env.HOST} costs 5$"));
        check_text("$5 and $", Some("$5 and $"));
        check_text("${env.NOPE}", None);
        check_text("${env.}", None);
        check_text("${env.HOST", None);
        check_text("${stageVariables.x}", None);
    }

    #[test]
    fn an_expression_keeps_what_is_filled_in_later() {
        check_expression("$request.body.action", Some("$request.body.action"));
        check_expression("http://${env.HOST}/${stageVariables.x}", Some("http://localhost/${stageVariables.x}"));
        check_expression(r"\${env.HOST}", Some(r"\${env.HOST}"));
        check_expression("${env.RICH}", Some(r"a\$b\${env.HOST}"));
        check_expression("${env.SLASH}/${stageVariables.x}", Some(r"a\/${stageVariables.x}"));
        check_expression("${env.SLASH}${stageVariables.x}", None);
        check_expression("${env.NOPE}", None);
    }

    #[test]
    fn an_unset_variable_may_be_allowed() {
        let mut reading = reading(true);
        let text = Text::read(node("a${env.NOPE}b"), &mut reading);
        assert!(text.is_some_and(|text| text.unresolved && text.value == "ab"));
        assert_eq!(node("${env.NOPE}").word(&mut reading, "duration", ""), None);
        assert!(reading.problems.is_empty());
    }

    #[test]
    fn a_secret_shows_itself_nowhere_and_is_never_empty() {
        let mut reading = reading(false);
        let secret = Secret::read(node("hunter2"), &mut reading);
        assert_eq!(format!("{secret:?}"), "Some(Secret(…))");
        assert!(Secret::read(node(""), &mut reading).is_none());
    }
}
