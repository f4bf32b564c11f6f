//! The ready-made settings: flags, whole numbers, lists, and tables of named entries.

use std::marker::PhantomData;
use std::ops::Deref;

use serde_json::json;

use super::{Node, Reading, Setting, TableReference, Value, or_env};
use crate::model::problem::Place;

/// A setting with the place it was read from, for checks that come later.
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    pub value: T,
    pub place: Place,
}

/// A setting that the word `"none"` lifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

/// One of a kind, or a list of at least one.
#[derive(Debug, Clone)]
pub struct OneOrMany<T>(Vec<T>);

/// A whole number within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Integer<const LEAST: u32, const MOST: u32>(pub u32);

pub type PositiveInteger = Integer<1, { u32::MAX }>;

/// Named entries in the order of the file.
#[derive(Debug, Clone)]
pub struct Table<T, N = AnyName> {
    entries: Vec<Named<T>>,
    unreadable: Vec<String>,
    rule: PhantomData<N>,
}

/// One entry of a `Table`.
#[derive(Debug, Clone)]
pub struct Named<T> {
    pub name: String,
    /// Where the name stands.
    pub place: Place,
    pub value: T,
}

/// Which names a table takes.
pub trait TableName {
    /// Stands for a name in the reference.
    const PLACEHOLDER: &'static str;
    /// How many entries the table may have.
    const MOST: Option<usize> = None;

    /// Says what is wrong with a name, and what would do.
    fn check(name: &str) -> Result<(), (String, String)>;

    /// The same as a regular expression, for editors.
    fn pattern() -> Option<&'static str> {
        None
    }
}

/// A table whose names are free.
#[derive(Debug, Clone)]
pub struct AnyName;

impl TableName for AnyName {
    const PLACEHOLDER: &'static str = "<name>";

    fn check(_name: &str) -> Result<(), (String, String)> {
        Ok(())
    }
}

/// Letters, digits, `_` and what `also` adds; at most `most` of them and at least one.
pub fn is_plain_name(name: &str, also: &[char], most: usize) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || also.contains(&c);
    (1..=most).contains(&name.len()) && name.chars().all(plain)
}

impl Setting for bool {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write `true` or `false`, without quotes";
        let flag = match &node.value {
            Value::Boolean(flag) => Some(*flag),
            Value::Text(text) if text.contains("${env.") => node.word(reading, "flag", help)?.trim().parse().ok(),
            _ => None,
        };
        if flag.is_none() {
            reading.refuse(&node, "flag", help);
        }
        flag
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "boolean" }))
    }

    fn kind() -> String {
        "true or false".into()
    }
}

impl<const LEAST: u32, const MOST: u32> Setting for Integer<LEAST, MOST> {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let number = match &node.value {
            Value::Integer { number, .. } => number.and_then(|number| u32::try_from(number).ok()),
            Value::Text(text) if text.contains("${env.") => {
                node.word(reading, "whole number", "write digits")?.trim().parse().ok()
            }
            _ => {
                reading.refuse(&node, "whole number", "write digits without quotes");
                return None;
            }
        };
        let read = number.filter(|number| (LEAST..=MOST).contains(number));
        if read.is_none() {
            let found = format!("{} is out of bounds", node.as_written());
            reading.problems.problem_with_help(&node.place, found, format!("write a number from {LEAST} to {MOST}"));
        }
        read.map(Integer)
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "integer", "minimum": LEAST, "maximum": MOST }))
    }

    fn kind() -> String {
        if MOST == u32::MAX { format!("whole number from {LEAST}") } else { format!("{LEAST} to {MOST}") }
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        T::read(node, reading).map(Some)
    }

    fn absent(_place: &Place) -> Option<Self> {
        Some(None)
    }

    fn schema() -> serde_json::Value {
        T::schema()
    }

    fn kind() -> String {
        T::kind()
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        T::tables(path, into);
    }
}

impl<T: Setting> Setting for Spanned<T> {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let place = node.place.clone();
        T::read(node, reading).map(|value| Spanned { value, place })
    }

    fn absent(place: &Place) -> Option<Self> {
        T::absent(place).map(|value| Spanned { value, place: place.clone() })
    }

    fn schema() -> serde_json::Value {
        T::schema()
    }

    fn kind() -> String {
        T::kind()
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        T::tables(path, into);
    }
}

impl<T: Setting> Setting for OrNone<T> {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        if node.value == Value::from("none") {
            return Some(OrNone(None));
        }
        let before = reading.problems.len();
        let read = T::read(node, reading);
        reading.problems.offer_since(before, ", or `none`");
        read.map(|value| OrNone(Some(value)))
    }

    fn absent(place: &Place) -> Option<Self> {
        T::absent(place).map(|value| OrNone(Some(value)))
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "const": "none" }, T::schema()] })
    }

    fn kind() -> String {
        format!("{} or `\"none\"`", T::kind())
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        T::tables(path, into);
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let Value::List(items) = node.value else {
            let help = match &node.value {
                Value::Text(text) => format!("write `[{text:?}]`"),
                _ => "write it in `[` and `]`".into(),
            };
            reading.refuse(&node, "list", &help);
            return None;
        };
        let nodes = items.into_iter().enumerate();
        let nodes = nodes.map(|(index, (value, span))| Node { value, place: node.place.item(index, span) });
        // An item that cannot be read has its problem noted; the rest is worth checking all the same.
        Some(nodes.filter_map(|node| T::read(node, reading)).collect())
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "array", "items": T::schema() })
    }

    fn kind() -> String {
        format!("list of {}", T::kind())
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        T::tables(&format!("{path}[]"), into);
    }
}

impl<T: Setting> Setting for OneOrMany<T> {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                reading.problems.problem_with_help(&node.place, "this list is empty", "write at least one");
                None
            }
            Value::List(_) => Vec::read(node, reading).map(OneOrMany),
            _ => T::read(node, reading).map(|one| OneOrMany(vec![one])),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema(), "minItems": 1 }] })
    }

    fn kind() -> String {
        format!("{}, or a list of them", T::kind())
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        T::tables(path, into);
    }
}

impl<T: Setting, N: TableName> Setting for Table<T, N> {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let Value::Table(entries) = node.value else {
            reading.refuse(&node, "table", "write a table of named entries");
            return None;
        };
        if let Some(most) = N::MOST.filter(|most| entries.len() > *most) {
            let found = format!("{} entries are too many", entries.len());
            reading.problems.problem_with_help(&node.place, found, format!("write at most {most}"));
        }
        let mut table = Table { entries: Vec::new(), unreadable: Vec::new(), rule: PhantomData };
        for entry in entries {
            let name = entry.key.clone();
            let place = node.place.key(&name, entry.key_span.clone());
            if let Err((found, help)) = N::check(&name) {
                reading.problems.problem_with_help(&place, found, help);
            }
            // Kept even under a bad name, so that whoever refers to it is not blamed as well.
            match T::read(Node::of_entry(entry, &node.place), reading) {
                Some(value) => table.entries.push(Named { name, place, value }),
                None => table.unreadable.push(name),
            }
        }
        Some(table)
    }

    fn absent(_place: &Place) -> Option<Self> {
        Some(Table { entries: Vec::new(), unreadable: Vec::new(), rule: PhantomData })
    }

    fn schema() -> serde_json::Value {
        let mut schema = json!({ "type": "object", "additionalProperties": T::schema() });
        if let Some(pattern) = N::pattern() {
            schema["propertyNames"] = json!({ "pattern": pattern });
        }
        if let Some(most) = N::MOST {
            schema["maxProperties"] = most.into();
        }
        schema
    }

    fn kind() -> String {
        match T::kind().as_str() {
            "table" => "tables by name".into(),
            kind if kind.contains(',') => format!("table by name of {kind}"),
            kind => format!("table of {kind}s by name"),
        }
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        T::tables(&format!("{path}.{}", N::PLACEHOLDER), into);
    }
}

impl<T, N> Table<T, N> {
    pub fn iter(&self) -> std::slice::Iter<'_, Named<T>> {
        self.entries.iter()
    }

    pub fn get(&self, name: &str) -> Option<&Named<T>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Whether the file has this name, even if its entry could not be read: naming it is then no problem.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some() || self.unreadable.iter().any(|unreadable| unreadable == name)
    }

    /// The names whose entries could not be read.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Whether the file has no entry at all, readable or not.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.unreadable.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }
}

impl<'a, T, N> IntoIterator for &'a Table<T, N> {
    type Item = &'a Named<T>;
    type IntoIter = std::slice::Iter<'a, Named<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
