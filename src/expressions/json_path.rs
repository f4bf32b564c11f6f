//! Finds a value in a message by JSONPath and gives it as text: what follows `request.body`.
//!
//! A path of keys and indexes (`.data.items[0].name`) is walked in one pass that keeps nothing but a
//! reference to the spelling found, so that routing a large message builds no tree. Every other path
//! (`[*]`, `..`, filters, slices, `[-1]`) is RFC 9535's, asked of a parsed tree.
//!
//! A path that needs the tree costs some fifty times a plain one, and `..` more: for a message of 128 KiB
//! that was made for it, the better part of a second. It is for operators who trust their clients.
//!
//! A message nested deeper than serde_json follows (128 levels) is no JSON to a path that needs the tree
//! or leads that deep itself; whatever a simple path steps over is skipped without recursion.

use std::borrow::Cow;
use std::fmt;

use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Error;
use super::tree::Tree;

/// A parsed path; what it finds is decided by the message alone.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Kind);

/// The message is not JSON from its first byte to its last (or holds a string that is no Unicode text).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is not JSON")]
pub struct NotJson;

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Steps(Vec<Step>),
    /// `definite`: finds one value at most, which then stands for itself and not in a list.
    Query {
        query: JpQuery,
        definite: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

impl JsonPath {
    /// Parses what follows `request.body`: nothing for the whole body, else a JSONPath without its `$`.
    /// Names after a dot may hold `-` and begin with a digit, which RFC 9535 asks to be quoted.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(steps) = plain_steps(text) {
            return Ok(Self(Kind::Steps(steps)));
        }
        if text.matches("..").count() > 1 {
            // Each `..` multiplies the work by the depth of a message that a stranger nests as he likes.
            let found = format!("`{text}` searches at all depths twice");
            return Err(Error::new(0, found, "let `..` stand once in a path"));
        }
        let query = parse_json_path(&format!("${text}")).map_err(|_| {
            Error::new(
                0,
                format!("`{text}` is no JSONPath"),
                "write it like `.action`, `.items[0].name`, `['a key']` or `.items[*].id`",
            )
        })?;
        Ok(Self(match steps_of(&query) {
            Some(steps) => Kind::Steps(steps),
            None => Kind::Query { definite: query.segments.iter().all(finds_one), query },
        }))
    }

    /// Is this the whole body?
    pub fn is_whole(&self) -> bool {
        matches!(&self.0, Kind::Steps(steps) if steps.is_empty())
    }

    /// Does it look for values (`..`, filters), rather than know the way to them?
    pub fn searches(&self) -> bool {
        match &self.0 {
            Kind::Steps(_) => false,
            Kind::Query { query, .. } => query.segments.iter().any(is_search),
        }
    }

    /// The value found, as text: a string's own text, a number or boolean as the message spells it, `null`
    /// as nothing, an array as `[a, b]` of its items' texts, an object as compact JSON. `None` if nothing
    /// is found, which reads as empty. A path that may find several values gives a list of what it found.
    /// With a repeated key the last one counts. (A path that needs the tree shows numbers as serde_json does.)
    pub fn find<'b>(&self, body: &'b str) -> Result<Option<Cow<'b, str>>, NotJson> {
        self.look(body)?.map(Found::into_text).transpose()
    }

    /// The value found, as JSON.
    pub fn find_json<'b>(&self, body: &'b str) -> Result<Option<Cow<'b, str>>, NotJson> {
        Ok(self.look(body)?.map(|found| match found {
            Found::Spelled(json) => Cow::Borrowed(json),
            Found::Value(value) => Cow::Owned(value.to_string()),
        }))
    }

    fn look<'b>(&self, body: &'b str) -> Result<Option<Found<'b>>, NotJson> {
        match &self.0 {
            Kind::Steps(steps) => {
                let mut json = serde_json::Deserializer::from_str(body);
                let found = Walk(steps).deserialize(&mut json).map_err(|_| NotJson)?;
                json.end().map_err(|_| NotJson)?;
                Ok(found.map(|raw| Found::Spelled(raw.get())))
            }
            Kind::Query { query, definite } => {
                let tree = Tree::from(serde_json::from_str::<Value>(body).map_err(|_| NotJson)?);
                // The query fails only if it yields something that is no part of the message: nothing found.
                let found = js_path_process(query, &tree).unwrap_or_default();
                let mut values = found.into_iter().map(|hit| Value::from(hit.val())).peekable();
                Ok(if *definite {
                    values.next().map(Found::Value)
                } else {
                    values.peek().is_some().then(|| Found::Value(Value::Array(values.collect())))
                })
            }
        }
    }
}

/// The steps of `.key`, `[7]` and `['any key']` alone; `None` for all else, right or wrong.
fn plain_steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (step, after) = if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(|c: char| !is_name_character(c)).unwrap_or(name.len());
            (Step::Key((end > 0).then(|| name[..end].to_owned())?), &name[end..])
        } else {
            let inside = rest.strip_prefix('[')?;
            match inside.chars().next()? {
                quote @ ('\'' | '"') => {
                    let (key, after) = inside[1..].split_once(quote)?;
                    let plain = !key.contains(|c: char| c == '\\' || c.is_control());
                    (Step::Key(plain.then(|| key.to_owned())?), after.strip_prefix(']')?)
                }
                _ => {
                    let (digits, after) = inside.split_once(']')?;
                    let plain = digits == "0" || !digits.starts_with(['0', '+']);
                    (Step::Index(plain.then(|| digits.parse().ok())??), after)
                }
            }
        };
        steps.push(step);
        rest = after;
    }
    Some(steps)
}

fn is_name_character(character: char) -> bool {
    match character {
        '_' | '-' => true,
        _ if character.is_ascii() => character.is_ascii_alphanumeric(),
        _ => !character.is_whitespace() && !character.is_control(),
    }
}

/// The same for a path that only its spelling (escapes, blanks) kept from being plain.
fn steps_of(query: &JpQuery) -> Option<Vec<Step>> {
    query
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Selector(Selector::Name(name)) => Some(Step::Key(name.clone())),
            Segment::Selector(Selector::Index(index)) => usize::try_from(*index).ok().map(Step::Index),
            _ => None,
        })
        .collect()
}

fn finds_one(segment: &Segment) -> bool {
    matches!(segment, Segment::Selector(Selector::Name(_) | Selector::Index(_)))
}

fn is_search(segment: &Segment) -> bool {
    let filters = |selector: &Selector| matches!(selector, Selector::Filter(_));
    match segment {
        Segment::Descendant(_) => true,
        Segment::Selector(selector) => filters(selector),
        Segment::Selectors(selectors) => selectors.iter().any(filters),
    }
}

/// Goes down one step for each level and skips the rest of the text, which must still be JSON.
struct Walk<'p>(&'p [Step]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        match self.0.split_first() {
            None => <&RawValue>::deserialize(json).map(Some),
            Some((step, rest)) => json.deserialize_any(Level { step, rest }),
        }
    }
}

struct Level<'p> {
    step: &'p Step,
    rest: &'p [Step],
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Step::Key(key) = self.step else {
            return IgnoredAny.visit_map(map).map(|_| None);
        };
        let mut found = None;
        while let Some(hit) = map.next_key_seed(Is(key))? {
            if hit {
                found = map.next_value_seed(Walk(self.rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let Step::Index(index) = self.step else {
            return IgnoredAny.visit_seq(items).map(|_| None);
        };
        for _ in 0..*index {
            if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = items.next_element_seed(Walk(self.rest))?.flatten();
        IgnoredAny.visit_seq(items)?;
        Ok(found)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Reads a key and says whether it is this one, without keeping it.
struct Is<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

enum Found<'b> {
    /// Valid JSON, without blanks around it.
    Spelled(&'b str),
    Value(Value),
}

impl<'b> Found<'b> {
    fn into_text(self) -> Result<Cow<'b, str>, NotJson> {
        match self {
            Found::Spelled(json) => text_of(json),
            Found::Value(value) => text_of(&value.to_string()).map(|text| Cow::Owned(text.into_owned())),
        }
    }
}

/// The text of one valid JSON value.
fn text_of(json: &str) -> Result<Cow<'_, str>, NotJson> {
    match json.as_bytes().first() {
        Some(b'"') => string_text(json),
        Some(b'n') => Ok(Cow::Borrowed("")),
        Some(b'{') if !json.contains(is_blank) => Ok(Cow::Borrowed(json)),
        Some(b'[' | b'{') => list_text(json).map(Cow::Owned),
        _ => Ok(Cow::Borrowed(json)),
    }
}

fn string_text(json: &str) -> Result<Cow<'_, str>, NotJson> {
    match json.get(1..json.len() - 1) {
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        // Half of a surrogate pair is grammatical JSON, but no text.
        _ => serde_json::from_str(json).map(Cow::Owned).map_err(|_| NotJson),
    }
}

/// The text of an array or object, token by token: a stranger chooses how deep lists are nested, so neither
/// the stack nor a second look at the same bytes may depend on it.
fn list_text(json: &str) -> Result<String, NotJson> {
    let mut text = String::with_capacity(json.len());
    // How many objects are open: their tokens stand as they are.
    let mut objects = 0_usize;
    let mut rest = json;
    while let Some(first) = rest.bytes().next() {
        let end = token_end(rest);
        let token = &rest[..end];
        match first {
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b'{' => {
                objects += 1;
                text.push_str(token);
            }
            b'}' => {
                objects = objects.saturating_sub(1);
                text.push_str(token);
            }
            _ if objects > 0 => text.push_str(token),
            b',' => text.push_str(", "),
            b'"' => text.push_str(&string_text(token)?),
            b'n' => {}
            _ => text.push_str(token),
        }
        rest = &rest[end..];
    }
    Ok(text)
}

/// Where the first token of the rest of a valid JSON text ends.
fn token_end(json: &str) -> usize {
    match json.as_bytes().first() {
        Some(b'"') => {
            let mut escaped = false;
            let closing = json.bytes().skip(1).position(|byte| {
                let closes = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                closes
            });
            closing.map_or(json.len(), |at| at + 2)
        }
        Some(b'[' | b']' | b'{' | b'}' | b',' | b':') => 1,
        Some(byte) if is_blank(char::from(*byte)) => 1,
        _ => json.find(|c| is_blank(c) || "[]{},:\"".contains(c)).unwrap_or(json.len()),
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
#[path = "json_path_tests.rs"]
mod tests;
