//! `settings!` and `choice!`: a table or a word of the file, declared once.
//!
//! A key's name, type, default and meaning stand in one place; reading, the JSON Schema and the reference follow from it.

use serde_json::json;

use super::{Entry, Node, Reading, Setting, Value, nearest};
use crate::model::problem::Place;

/// Declares a table of the file. Each field is a key with its doc comment as the reference and, after `=`, its
/// default. `later { key: "why" }` names keys of a later version, `check function;` runs when all was read well.
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])* pub $field:ident : $type:ty $(= $default:expr)?, )*
            $(later { $($later:ident : $why:literal),* $(,)? })?
            $(check $check:path;)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
            /// Where the table stands.
            pub place: $crate::model::problem::Place,
        }

        impl $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];
            const LATER: &'static [(&'static str, &'static str)] = &[$($((stringify!($later), $why)),*)?];

            fn rows() -> Vec<$crate::model::settings::Row> {
                vec![$($crate::model::settings::Row::of::<$type>(
                    stringify!($field),
                    $crate::model::settings::settings!(@default $($default)?),
                    &[$($doc),*],
                )),*]
            }
        }

        impl $crate::model::settings::Setting for $name {
            fn read(
                node: $crate::model::settings::Node,
                reading: &mut $crate::model::settings::Reading,
            ) -> Option<Self> {
                let before = reading.problems.len();
                #[allow(unused_mut, reason = "a table may have no keys")]
                let mut fields = $crate::model::settings::Fields::of(node, reading)?;
                $(let $field = fields.read::<$type>(
                    stringify!($field),
                    $crate::model::settings::settings!(@default $($default)?),
                    reading,
                );)*
                let place = fields.finish(Self::KEYS, Self::LATER, reading);
                let read = Self { $($field: $field?,)* place };
                // What could not be read would be blamed a second time, as absent.
                if reading.problems.len() == before {
                    $($check(&read, reading);)?
                }
                Some(read)
            }

            fn absent(place: &$crate::model::problem::Place) -> Option<Self> {
                $crate::model::settings::Fields::read_empty::<Self>(place)
            }

            fn schema() -> serde_json::Value {
                $crate::model::settings::table_schema(&[$($about),*], &Self::rows())
            }

            fn kind() -> String {
                "table".into()
            }

            fn tables(path: &str, into: &mut Vec<$crate::model::settings::TableReference>) {
                into.push($crate::model::settings::TableReference::new(path, &[$($about),*], Self::rows()));
                $(<$type as $crate::model::settings::Setting>::tables(
                    &$crate::model::settings::TableReference::below(path, stringify!($field)),
                    into,
                );)*
            }
        }
    };
    (@default) => { None };
    (@default $default:expr) => { Some($crate::model::settings::Value::from($default)) };
}

/// Declares a setting that is one word out of a few; `later { "word": "why" }` names those of a later version.
macro_rules! choice {
    (
        $(#[doc = $about:literal])*
        pub enum $name:ident {
            $( $(#[doc = $doc:literal])* $variant:ident = $word:literal, )*
        }
        $(later { $($later:literal : $why:literal),* $(,)? })?
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),*];
            const LATER: &'static [(&'static str, &'static str)] = &[$($(($later, $why)),*)?];
        }

        impl $crate::model::settings::Setting for $name {
            fn read(
                node: $crate::model::settings::Node,
                reading: &mut $crate::model::settings::Reading,
            ) -> Option<Self> {
                match $crate::model::settings::choose(&node, Self::WORDS, Self::LATER, reading)?.as_str() {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            fn schema() -> serde_json::Value {
                $crate::model::settings::or_env(serde_json::json!({ "enum": Self::WORDS }))
            }

            fn kind() -> String {
                Self::WORDS.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(" or ")
            }
        }
    };
}

pub(crate) use {choice, settings};

/// A key of a table as the schema and the reference show it.
#[derive(Debug, Clone)]
pub struct Row {
    pub key: &'static str,
    pub kind: String,
    pub default: Option<Value>,
    pub required: bool,
    pub meaning: String,
    pub schema: serde_json::Value,
}

impl Row {
    pub fn of<T: Setting>(key: &'static str, default: Option<Value>, doc: &[&str]) -> Row {
        let required = default.is_none() && T::absent(&Place::default()).is_none();
        Row { key, kind: T::kind(), default, required, meaning: prose(doc), schema: T::schema() }
    }
}

/// A doc comment as one paragraph.
pub(super) fn prose(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

pub fn table_schema(about: &[&str], rows: &[Row]) -> serde_json::Value {
    let property = |row: &Row| {
        let mut schema = row.schema.clone();
        schema["description"] = row.meaning.as_str().into();
        if let Some(default) = &row.default {
            schema["default"] = default.json();
        }
        (row.key.to_string(), schema)
    };
    let properties: serde_json::Map<_, _> = rows.iter().map(property).collect();
    let required: Vec<_> = rows.iter().filter(|row| row.required).map(|row| row.key).collect();
    json!({
        "type": "object",
        "description": prose(about),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The keys of one table while they are being read.
pub struct Fields {
    place: Place,
    entries: Vec<Entry>,
    missing: Vec<&'static str>,
    /// A key asks for something of a later version, so nobody knows what else that would need.
    of_later_version: bool,
}

impl Fields {
    pub fn of(node: Node, reading: &mut Reading) -> Option<Fields> {
        let Value::Table(entries) = node.value else {
            reading.refuse(&node, "table", "write a table, in `{` and `}` or under a header of its own");
            return None;
        };
        Some(Fields { place: node.place, entries, missing: Vec::new(), of_later_version: false })
    }

    /// What a table means that is not there; `None` if it has keys that must be.
    pub fn read_empty<T: Setting>(place: &Place) -> Option<T> {
        let mut reading = Reading::of_defaults();
        let read = T::read(Node::unwritten(Value::Table(Vec::new()), place), &mut reading)?;
        (!reading.problems.has_problems()).then_some(read)
    }

    /// Reads one key. What cannot be read gets its default as well: the problem is noted, and checking goes on.
    pub fn read<T: Setting>(&mut self, key: &'static str, default: Option<Value>, reading: &mut Reading) -> Option<T> {
        let written = self.entries.iter().position(|entry| entry.key == key).map(|at| self.entries.remove(at));
        let is_written = written.is_some();
        let words_of_later = reading.words_of_later;
        let read = written.and_then(|entry| T::read(Node::of_entry(entry, &self.place), reading));
        if read.is_some() {
            return read;
        }
        self.of_later_version |= reading.words_of_later > words_of_later;
        let place = self.place.key(key, self.place.span.clone());
        let otherwise = match default {
            Some(default) => T::read(Node::unwritten(default, &place), &mut Reading::of_defaults()),
            None => T::absent(&place),
        };
        if otherwise.is_none() && !is_written {
            self.missing.push(key);
        }
        otherwise
    }

    /// Notes the keys that nobody read and those that are missing; gives back the table's place.
    pub fn finish(self, keys: &[&'static str], later: &[(&'static str, &'static str)], reading: &mut Reading) -> Place {
        let Fields { place, entries, mut missing, of_later_version } = self;
        let known = || keys.iter().copied().chain(later.iter().map(|(key, _)| *key));
        for entry in entries {
            let at = place.key(&entry.key, entry.key_span.clone());
            if let Some((key, why)) = later.iter().find(|(key, _)| *key == entry.key) {
                if !asks_for_nothing(&entry.value) {
                    reading.problems.problem_with_help(&at, format!("`{key}` is not in this version"), *why);
                }
                continue;
            }
            let help = if let Some(meant) = nearest(&entry.key, known()) {
                // A mistyped key is one problem, not also a missing one.
                missing.retain(|key| *key != meant);
                format!("did you mean `{meant}`?")
            } else if let Some(whole) = unquoted_key(&entry, &place) {
                missing.clear();
                format!("if `{whole}` is one key, write `\"{whole}\"`: keys with dots or `$` need quotes")
            } else if keys.is_empty() {
                "no key belongs here".into()
            } else {
                format!("what can stand here: {}", list(keys))
            };
            reading.problems.problem_with_help(&at, format!("`{}` is no key of this table", entry.key), help);
        }
        if !reading.incomplete && !of_later_version {
            for key in missing {
                reading.problems.problem_with_help(&place, format!("`{key}` is missing"), "add it to this table");
            }
        }
        place
    }
}

/// Whether the value of a key of a later version asks for what this version does anyway.
fn asks_for_nothing(value: &Value) -> bool {
    matches!(value, Value::Boolean(false)) || matches!(value, Value::Text(text) if text == "none" || text == "off")
}

/// The key that was meant if this one came about through a dot without quotes, as in `[stages.v1.2]`.
fn unquoted_key(entry: &Entry, table: &Place) -> Option<String> {
    let before = table.path.rsplit('.').next().filter(|before| !before.is_empty() && !before.ends_with(['"', ']']))?;
    entry.after_dot.then(|| format!("{before}.{}", entry.key))
}

fn list(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// The word that stands at `node`, if it is one of `words`.
pub fn choose(node: &Node, words: &[&str], later: &[(&str, &str)], reading: &mut Reading) -> Option<String> {
    let possible = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    let help = format!("write {possible}");
    let word = node.word(reading, "choice here", &help)?;
    if words.contains(&word.as_str()) {
        return Some(word);
    }
    if let Some((_, why)) = later.iter().find(|(known, _)| *known == word) {
        reading.words_of_later += 1;
        let found = format!("`{word}` is not in this version");
        reading.problems.problem_with_help(&node.place, found, *why);
        return None;
    }
    let help = match nearest(&word, words.iter().copied().chain(later.iter().map(|(word, _)| *word))) {
        Some(meant) if words.len() > 1 => format!("did you mean `{meant}`? {help}"),
        Some(meant) => format!("did you mean `{meant}`?"),
        None => help,
    };
    reading.refuse(node, "choice here", &help);
    None
}
