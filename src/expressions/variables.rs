//! Variables in texts: `${request.body.x}`, `${context.x}` and `${stageVariables.x}`, filled in at run time.
//!
//! HTTP routes have `${request.header.x}`, `${request.querystring.x}`, `${request.path}` and `${request.path.x}`
//! besides, and mappings of their answers `${response.header.x}` and `${response.body.x}`.
//!
//! `\$` is a literal dollar, and so is a `$` that no brace follows. One pass: what is filled in is never
//! looked through for variables again.

use super::Error;
use super::pieces::{self, BareDollar, Piece};

pub use super::source::{Source, beginning};
pub use super::variable::{Allowed, Variable};

/// A text with variables, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// No two literals are neighbours, and none is empty.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Part {
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

    /// A text in which no dollar means anything.
    pub fn literal(text: &str) -> Self {
        Self { parts: if text.is_empty() { Vec::new() } else { vec![Part::Literal(text.into())] } }
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Variable(variable) => Some(variable),
        })
    }

    /// Must the request's body be there when this is filled in?
    pub fn reads_body(&self) -> bool {
        self.variables().any(|variable| matches!(variable, Variable::Body(_) | Variable::WholeBody))
    }

    /// The `{name}`s of the route that stand in the text, once for each time.
    pub fn path_parameters_used(&self) -> impl Iterator<Item = &str> {
        self.variables().filter_map(|variable| match variable {
            Variable::PathParameter(name) => Some(name.as_str()),
            _ => None,
        })
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
        self.variables().filter_map(|variable| match variable {
            Variable::StageVariable(name) => Some(name.as_str()),
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

impl From<Variable> for Template {
    fn from(variable: Variable) -> Self {
        Self { parts: vec![Part::Variable(variable)] }
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
