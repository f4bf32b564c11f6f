//! The path and query of a backend's request, filled in from a call so that nothing leaves its place.
//!
//! What the operator wrote and what was on the wire keeps its escapes; every other value is text, and whatever
//! may not stand in a path is encoded. So no value begins a query or a fragment, and none steps up the path.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::variables::{Part, Source, Template, Variable};

/// The path would lead elsewhere than it says: encoded or not, servers take such a segment for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`.` and `..` cannot stand in a path")]
pub struct DotSegment;

/// What stands for itself in a path, and so needs no escape.
const PATH: &AsciiSet = &UNRESERVED
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');
const QUERY: &AsciiSet = &PATH.remove(b'?');
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path: encoded, and beginning with `/`. `None` if nothing was there to be filled in.
pub fn path(template: &Template, source: &(impl Source + ?Sized)) -> Result<Option<String>, DotSegment> {
    let mut path = String::new();
    for part in template.parts() {
        match part {
            Part::Literal(text) => push_spelled(&mut path, text, PATH),
            Part::Variable(variable) => push_value(&mut path, variable, source),
        }
    }
    if path.is_empty() { Ok(None) } else { rooted(path).map(Some) }
}

/// A path and, behind the first `?` that the operator wrote, a query. A missing value is nothing.
pub fn path_and_query(template: &Template, source: &(impl Source + ?Sized)) -> Result<String, DotSegment> {
    let mut path = String::new();
    let mut query: Option<String> = None;
    for part in template.parts() {
        match (part, &mut query) {
            (Part::Literal(text), Some(query)) => push_spelled(query, text, QUERY),
            (Part::Literal(text), None) => match text.split_once('?') {
                None => push_spelled(&mut path, text, PATH),
                Some((before, behind)) => {
                    push_spelled(&mut path, before, PATH);
                    push_spelled(query.insert(String::new()), behind, QUERY);
                }
            },
            (Part::Variable(variable), Some(query)) => {
                query.push_str(&query_part(&variable.text(source).unwrap_or_default()));
            }
            (Part::Variable(variable), None) => push_value(&mut path, variable, source),
        }
    }
    let path = rooted(path)?;
    Ok(match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    })
}

/// A name or value of a query, encoded.
pub fn query_part(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, UNRESERVED).into()
}

/// Does a path, encoded or not, have a segment that servers take for a step? The slash that some of them read
/// out of `%2F`, a `\` and a parameter behind `;` do not hide it.
pub fn has_dot_segment(path: &str) -> bool {
    let is_dots = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
    percent_decode_str(path).decode_utf8_lossy().split(['/', '\\']).any(is_dots)
}

fn rooted(path: String) -> Result<String, DotSegment> {
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    if has_dot_segment(&path) { Err(DotSegment) } else { Ok(path) }
}

fn push_value(path: &mut String, variable: &Variable, source: &(impl Source + ?Sized)) {
    let spelled = match variable {
        Variable::Path => source.path().map(Cow::Borrowed),
        Variable::PathParameter(name) => source.spelled_path_parameter(name).map(Cow::Borrowed),
        Variable::StageVariable(name) => source.stage_variable(name).map(Cow::Borrowed),
        Variable::Context(name) if name == "path" => source.context(name),
        _ => return path.extend(utf8_percent_encode(&variable.text(source).unwrap_or_default(), PATH)),
    };
    push_spelled(path, &spelled.unwrap_or_default(), PATH);
}

/// A text whose escapes are escapes; a `%` that begins none is encoded.
fn push_spelled(target: &mut String, text: &str, stays: &'static AsciiSet) {
    let mut pieces = text.split('%');
    target.extend(utf8_percent_encode(pieces.next().unwrap_or_default(), stays));
    for piece in pieces {
        let is_escape = piece.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        target.push_str(if is_escape { "%" } else { "%25" });
        target.extend(utf8_percent_encode(piece, stays));
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
