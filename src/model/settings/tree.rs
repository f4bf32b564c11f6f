//! The file as a tree of plain values with their spans, and TOML's own errors in our words.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::model::problem::{Place, Problems};

/// A value and where it stands. A table under a key stands where its key does: one line to underline.
#[derive(Debug, Clone)]
pub struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    /// `number` is absent when no `i64` holds it.
    Integer {
        number: Option<i64>,
        written: String,
    },
    Boolean(bool),
    /// What no setting of ours takes: floats and dates, as they were written.
    Other(String),
    List(Vec<(Value, Range<usize>)>),
    Table(Vec<Entry>),
}

/// One key of a table; a table's entries stand in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    /// Written after a dot, as `b` in `a.b = 1` or `[a.b]`: perhaps quotes are missing.
    pub after_dot: bool,
    pub value: Value,
    pub span: Range<usize>,
}

pub(super) struct Parsed {
    pub root: Node,
    pub problems: Problems,
    /// The bytes whose values the parser had to guess.
    pub damaged: Vec<Range<usize>>,
}

/// Parses as much as can be parsed, with every syntax error.
pub(super) fn parse(source: &str) -> Parsed {
    let (document, errors) = DeTable::parse_recoverable(source);
    let mut problems = Problems::default();
    let mut damaged = Vec::new();
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let (found, help) = in_our_words(source, error.message(), &span);
        let place = Place { path: String::new(), span: span.clone() };
        match help {
            Some(help) => problems.problem_with_help(&place, found, help),
            None => problems.problem(&place, found),
        }
        damaged.push(line_around(source, span.start));
    }
    let root = table(source, document.get_ref(), &mut damaged);
    let place = Place { path: String::new(), span: 0..0 };
    Parsed { root: Node { value: Value::Table(root), place }, problems, damaged }
}

fn table(source: &str, table: &DeTable<'_>, damaged: &mut Vec<Range<usize>>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, item)| Entry {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            after_dot: source[..key.span().start].trim_end_matches([' ', '\t']).ends_with('.'),
            value: value(source, item.get_ref(), item.span(), damaged),
            span: item.span(),
        })
        .collect();
    entries.sort_by_key(first_mention);
    entries
}

/// `[a.b]` before `[a]` mentions `a` first, though the parser remembers the later header.
fn first_mention(entry: &Entry) -> usize {
    let inside = match &entry.value {
        Value::Table(entries) => entries.iter().map(first_mention).min(),
        _ => None,
    };
    inside.map_or(entry.key_span.start, |inside| inside.min(entry.key_span.start))
}

fn value(source: &str, item: &DeValue<'_>, span: Range<usize>, damaged: &mut Vec<Range<usize>>) -> Value {
    match item {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
            Value::Integer { number, written: integer.to_string() }
        }
        DeValue::Float(float) => Value::Other(float.as_str().to_string()),
        DeValue::Datetime(datetime) => Value::Other(datetime.to_string()),
        DeValue::Array(items) => {
            // An error inside a list makes the whole list a guess.
            if damaged.iter().any(|lines| lines.start < span.end && span.start < lines.end) {
                damaged.push(span);
            }
            let read =
                |item: &toml::Spanned<DeValue<'_>>| (value(source, item.get_ref(), item.span(), damaged), item.span());
            Value::List(items.iter().map(read).collect())
        }
        DeValue::Table(inner) => Value::Table(table(source, inner, damaged)),
    }
}

fn line_around(source: &str, at: usize) -> Range<usize> {
    let start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = source[at..].find('\n').map_or(source.len(), |newline| at + newline);
    // The end is part of it, so that an empty span at the very end of a line counts.
    start..end + 1
}

/// TOML's message and what would do, where operators are known to stumble.
fn in_our_words(source: &str, message: &str, span: &Range<usize>) -> (String, Option<String>) {
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(format!("expected {expected}"))),
        None => (message, None),
    };
    let here = &source[span.clone()];
    let rest = &source[span.start..];
    match what {
        "invalid unquoted key" => {
            let ends = |c: char| c.is_whitespace() || matches!(c, '.' | ']' | '=' | '}' | ',');
            let start = source[..span.start].rfind(|c| ends(c) || c == '[').map_or(0, |before| before + 1);
            let key = &source[start..span.start + rest.find(ends).unwrap_or(rest.len())];
            let help = format!("keys with dots or `$` need quotes: `\"{key}\"`");
            (format!("`{key}` cannot be a key without quotes"), Some(help))
        }
        "missing escaped value" => {
            let escaped = rest.chars().next().unwrap_or(' ');
            let help = format!("put the text in single quotes, or write `\\\\{escaped}`");
            (format!("`\\{escaped}` means nothing in double quotes"), Some(help))
        }
        "string values must be quoted" if here.is_empty() => ("a value is missing".into(), None),
        "string values must be quoted" => {
            let help = (!here.contains('"')).then(|| format!("write `\"{here}\"`"));
            (format!("`{here}` needs quotes"), help)
        }
        "invalid basic string" | "invalid literal string" => ("this text is not closed".into(), expected),
        _ if what.starts_with("invalid ") && !here.is_empty() => unquoted_value(source, span),
        "duplicate key" => (format!("`{here}` stands here a second time"), Some("remove or rename one".into())),
        _ => (what.to_string(), expected),
    }
}

/// TOML takes `127.0.0.1:8080` for a number gone wrong and `none` for a bad `nan`: most often quotes are missing.
fn unquoted_value(source: &str, span: &Range<usize>) -> (String, Option<String>) {
    let ends = |c: char| c.is_whitespace() || "=,[]{}#".contains(c);
    let start = source[..span.start].rfind(ends).map_or(0, |before| before + 1);
    let end = source[span.start..].find(ends).map_or(source.len(), |end| span.start + end);
    let written = &source[start..end];
    if written.chars().all(|c| c.is_ascii_digit() || "+-_".contains(c)) {
        return (format!("`{written}` is no number"), None);
    }
    let help = (!written.contains('"')).then(|| format!("write `\"{written}\"`"));
    (format!("`{written}` needs quotes"), help)
}

impl Node {
    /// What a default or a shorthand stands for: a value that nobody wrote.
    pub fn unwritten(value: Value, place: &Place) -> Node {
        Node { value, place: place.clone() }
    }

    /// The node of one entry of the table that stands at `table`.
    pub fn of_entry(entry: Entry, table: &Place) -> Node {
        let span = if matches!(entry.value, Value::Table(_)) { entry.key_span } else { entry.span };
        Node { place: table.key(&entry.key, span), value: entry.value }
    }

    /// The value for a message, short and in backticks, or what it is.
    pub fn as_written(&self) -> String {
        match &self.value {
            Value::Text(text) if text.chars().count() > 60 => {
                format!("`{}…`", text.chars().take(60).collect::<String>())
            }
            Value::Text(text) => format!("`{text}`"),
            Value::Integer { written, .. } | Value::Other(written) => format!("`{written}`"),
            Value::Boolean(flag) => format!("`{flag}`"),
            Value::List(_) => "a list".into(),
            Value::Table(_) => "a table".into(),
        }
    }

    /// What would do for a table where none belongs, if it only came about through a dot in a key.
    pub fn missing_quotes(&self) -> Option<String> {
        match &self.value {
            Value::Table(entries) if entries.iter().any(|entry| entry.after_dot) => {
                Some("keys with dots or `$` need quotes".into())
            }
            _ => None,
        }
    }
}

impl Value {
    /// As JSON, for the default in a schema.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.as_str().into(),
            Value::Other(text) => text.parse::<f64>().map_or(text.as_str().into(), serde_json::Value::from),
            Value::Integer { number, .. } => (*number).into(),
            Value::Boolean(flag) => (*flag).into(),
            Value::List(items) => items.iter().map(|(item, _)| item.json()).collect(),
            Value::Table(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.json())).collect(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Boolean(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer { number: Some(number), written: number.to_string() }
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Other(number.to_string())
    }
}

impl<const N: usize> From<[&str; N]> for Value {
    fn from(items: [&str; N]) -> Value {
        Value::List(items.into_iter().map(|item| (item.into(), 0..0)).collect())
    }
}
