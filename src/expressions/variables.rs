//! Variables in texts: `${request.body.x}`, `${context.x}` and `${stageVariables.x}`, filled in at run time.
//!
//! `\$` is a literal dollar, and so is a `$` that no brace follows. One pass: what is filled in is never
//! looked through for variables again.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::pieces::{self, BareDollar, Piece};
use super::{Error, context_names, json_path::JsonPath};

/// What the variables of one call stand for. A name that is not there is `None`; a call that has nothing
/// of a kind leaves that kind's default.
pub trait Source {
    fn body(&self) -> &str {
        ""
    }

    fn context(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn stage_variable(&self, _name: &str) -> Option<&str> {
        None
    }

    /// The last value of the client's header of this name, in any case.
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers(name).pop()
    }

    fn headers(&self, _name: &str) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    /// The last value of the client's query parameter of this name, decoded.
    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.queries(name).pop()
    }

    fn queries(&self, _name: &str) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    /// The path that routes match, as it was on the wire.
    fn path(&self) -> Option<&str> {
        None
    }

    /// What `{name}` of the route stands for, decoded.
    fn path_parameter(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    /// All values of the answer's header of this name, joined by `,`.
    fn response_header(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    /// The answer's whole body.
    fn response_body(&self) -> &str {
        ""
    }
}

/// Which kinds of variable a key of the file allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    pub body: bool,
    pub context: bool,
    pub stage_variables: bool,
}

impl Allowed {
    pub const ALL: Self = Self { body: true, context: true, stage_variables: true };
    pub const STAGE_VARIABLES: Self = Self { body: false, context: false, stage_variables: true };
    pub const NONE: Self = Self { body: false, context: false, stage_variables: false };

    fn what_would_do(self) -> String {
        let kinds = [
            (self.body, "`request.body.x`"),
            (self.context, "`context.x`"),
            (self.stage_variables, "`stageVariables.x`"),
        ];
        let would_do: Vec<_> = kinds.into_iter().filter_map(|(allowed, kind)| allowed.then_some(kind)).collect();
        match would_do.as_slice() {
            [] => r"no variable may; write `\$` for a dollar".into(),
            [only] => format!("only {only} may"),
            [first @ .., last] => format!("only {} and {last} may", first.join(", ")),
        }
    }
}

/// One variable, without the dollar and braces around it.
#[derive(Debug, Clone, PartialEq)]
pub enum Variable {
    Body(JsonPath),
    Context(String),
    StageVariable(String),
}

impl Variable {
    pub fn parse(text: &str, allowed: Allowed) -> Result<Self, Error> {
        let kinds = [
            ("request.body", allowed.body),
            ("context.", allowed.context),
            ("stageVariables.", allowed.stage_variables),
        ];
        let Some((kind, may_stand_here)) = kinds.into_iter().find(|(kind, _)| text.starts_with(kind)) else {
            return Err(Error::new(0, format!("`{text}` is no variable of this place"), allowed.what_would_do()));
        };
        if !may_stand_here {
            return Err(Error::new(0, format!("`{text}` may not stand here"), allowed.what_would_do()));
        }
        let name = &text[kind.len()..];
        let parsed = match kind {
            "request.body" => JsonPath::parse(name).map(Variable::Body),
            "context." => context_names::check(name).map(|()| Variable::Context(name.into())),
            _ => stage_variable_name(name).map(|()| Variable::StageVariable(name.into())),
        };
        parsed.map_err(|error| error.moved(kind.len()))
    }

    /// The variable's value as text; `None` if there is none. What is sought in a body that is not JSON is
    /// not there, but the whole of such a body is its text.
    pub fn text<'s>(&self, source: &'s (impl Source + ?Sized)) -> Option<Cow<'s, str>> {
        match self {
            Variable::Body(path) => match path.find(source.body()) {
                Ok(found) => found,
                Err(_) => plain_body(path, source.body()).map(Cow::Borrowed),
            },
            Variable::Context(name) => source.context(name),
            Variable::StageVariable(name) => source.stage_variable(name).map(Cow::Borrowed),
        }
    }

    /// The same as JSON. Of the body: as the message spells it. Texts become JSON strings, save that the
    /// context's numbers are numbers, and that authorizer values and stage variables which are JSON stay so.
    /// (No client chooses those; its user agent is a string however much it looks like an object.)
    pub fn json<'s>(&self, source: &'s (impl Source + ?Sized)) -> Option<Cow<'s, str>> {
        let (text, may_be_json) = match self {
            Variable::Body(path) => match path.find_json(source.body()) {
                Ok(found) => return found,
                Err(_) => (plain_body(path, source.body()).map(Cow::Borrowed)?, false),
            },
            Variable::Context(name) => {
                let may_be_json = context_names::is_number(name) || name.starts_with("authorizer.");
                (source.context(name)?, may_be_json)
            }
            Variable::StageVariable(name) => (source.stage_variable(name).map(Cow::Borrowed)?, true),
        };
        let is_json = may_be_json && serde_json::from_str::<&RawValue>(&text).is_ok();
        Some(if is_json { text } else { Cow::Owned(serde_json::Value::from(text).to_string()) })
    }
}

fn plain_body<'b>(path: &JsonPath, body: &'b str) -> Option<&'b str> {
    (path.is_whole() && !body.is_empty()).then_some(body)
}

fn stage_variable_name(name: &str) -> Result<(), Error> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(Error::new(0, format!("`{name}` cannot name a stage variable"), "use letters, digits and `_`"))
}

/// A text with variables, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// No two literals are neighbours, and none is empty.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(String),
    Variable(Variable),
}

impl Template {
    pub fn parse(text: &str, allowed: Allowed) -> Result<Self, Error> {
        let parts = pieces::split(text, BareDollar::Literal)?.into_iter().map(|piece| match piece {
            Piece::Literal(literal) => Ok(Part::Literal(literal)),
            Piece::Variable { at, text } => {
                Variable::parse(text, allowed).map(Part::Variable).map_err(|error| error.moved(at))
            }
        });
        Ok(Self { parts: parts.collect::<Result<_, _>>()? })
    }

    /// The text with every variable filled in, and a missing one as nothing.
    pub fn render(&self, source: &(impl Source + ?Sized)) -> String {
        let mut rendered = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => rendered.push_str(literal),
                Part::Variable(variable) => rendered.push_str(&variable.text(source).unwrap_or_default()),
            }
        }
        rendered
    }

    /// The text of a response: one that begins with `{` or `[` is JSON, any other plain text.
    pub fn render_response(&self, source: &(impl Source + ?Sized)) -> String {
        if self.begins_json() { self.render_json(source) } else { self.render(source) }
    }

    /// The text with every variable filled in so that JSON stays JSON. Within the quotes of a JSON string of
    /// this template a value is its text (see `JsonPath::find`), JSON-escaped, whatever its type: nothing a
    /// client sends can end the string. Outside quotes it is a complete JSON value, strings with quotes of
    /// their own. A missing value is nothing in both places, so outside quotes the operator may want to have
    /// it inside; `null` is nothing within quotes and `null` outside.
    pub fn render_json(&self, source: &(impl Source + ?Sized)) -> String {
        let mut rendered = String::new();
        let mut quotes = Quotes::default();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => {
                    quotes.pass(literal);
                    rendered.push_str(literal);
                }
                Part::Variable(variable) if quotes.open => {
                    push_escaped(&mut rendered, &variable.text(source).unwrap_or_default());
                }
                Part::Variable(variable) => rendered.push_str(&variable.json(source).unwrap_or_default()),
            }
        }
        rendered
    }

    fn begins_json(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Literal(text)) if text.trim_start().starts_with(['{', '[']))
    }

    /// The stage variables that stand in the text, once for each time.
    pub fn stage_variables_used(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(Variable::StageVariable(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The same text with one stage's variables filled in; one that `lookup` does not know stays.
    pub fn substitute_stage_variables<'v>(&self, lookup: impl Fn(&str) -> Option<&'v str>) -> Template {
        let mut parts: Vec<Part> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let literal = match part {
                Part::Literal(literal) => Some(literal.as_str()),
                Part::Variable(Variable::StageVariable(name)) => lookup(name),
                Part::Variable(_) => None,
            };
            match (literal, parts.last_mut()) {
                (None, _) => parts.push(part.clone()),
                (Some(""), _) => {}
                (Some(literal), Some(Part::Literal(before))) => before.push_str(literal),
                (Some(literal), _) => parts.push(Part::Literal(literal.into())),
            }
        }
        Template { parts }
    }

    /// The text itself if no variable stands in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(literal)] => Some(literal),
            _ => None,
        }
    }
}

/// Whether a JSON string is open at this point of a template.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    fn pass(&mut self, literal: &str) {
        for byte in literal.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.open => self.escaped = true,
                b'"' => self.open = !self.open,
                _ => {}
            }
        }
    }
}

fn push_escaped(json: &mut String, text: &str) {
    let quoted = serde_json::Value::from(text).to_string();
    json.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
}

#[cfg(test)]
#[path = "variables_tests.rs"]
mod tests;
