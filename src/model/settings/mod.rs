//! How settings are read from TOML: every problem in one run, each with its place.
//!
//! `tree` turns the text into nodes with spans. A type that can stand in the file is a `Setting`: it reads itself from
//! a node, describes itself as JSON Schema and says its kind for the reference. `values`, `text` and `quantities` are
//! the ready ones; `declare` has the two macros, `settings!` for a table and `choice!` for a word out of a few.

mod declare;
mod nearest;
mod network;
mod quantities;
mod reference;
mod text;
mod tree;
mod values;

pub use declare::{Fields, Row, choose, table_schema};
pub(crate) use declare::{choice, settings};
pub use nearest::nearest;
pub use network::Cidr;
pub use quantities::{ByteSize, Duration, PerSecond, PositiveDuration, Share};
pub use reference::{TableReference, markdown};
pub use text::{Expression, Secret, Text, or_env};
pub use tree::{Entry, Node, Value};
pub use values::{
    AnyName, Integer, Named, OneOrMany, OrNone, PositiveInteger, Spanned, Table, TableName, is_plain_name,
};

use super::problem::{Place, Problems};

/// What can stand in the file at some key.
pub trait Setting: Sized {
    /// Reads it; `None` after a problem was noted, or when it hangs on a variable that is allowed to be unset.
    fn read(node: Node, reading: &mut Reading) -> Option<Self>;

    /// What an absent key means, where that needs no default; `None` makes the key required.
    fn absent(_place: &Place) -> Option<Self> {
        None
    }

    /// Its JSON Schema (draft 2020-12).
    fn schema() -> serde_json::Value;

    /// Its type in the words of the reference table.
    fn kind() -> String;

    /// Adds the reference of the tables it consists of, itself first.
    fn tables(_path: &str, _into: &mut Vec<TableReference>) {}
}

/// One reading of one file: what the settings may look at, and the problems so far.
pub struct Reading<'a> {
    pub problems: Problems,
    source: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    allow_unset_env: bool,
    /// The text had syntax errors: what seems to be missing may only have been lost.
    incomplete: bool,
    /// How many words of a later version were read.
    words_of_later: usize,
}

impl<'a> Reading<'a> {
    fn new(source: &'a str, env: &'a dyn Fn(&str) -> Option<String>, allow_unset_env: bool) -> Reading<'a> {
        let problems = Problems::default();
        Reading { problems, source, env, allow_unset_env, incomplete: false, words_of_later: 0 }
    }

    /// A reading of what stands in no file, such as a default.
    fn of_defaults() -> Reading<'static> {
        Reading::new("", &|_| None, false)
    }

    /// Notes that `node` is not what belongs there: `` `45 parsecs` is no duration ``.
    pub fn refuse(&mut self, node: &Node, noun: &str, help: &str) {
        let found = format!("{} is no {noun}", node.as_written());
        self.problems.problem_with_help(&node.place, found, help);
    }
}

/// Reads a whole file. `None` comes with syntax errors only: then the problems of the intact rest are reported,
/// but there is nothing to check further. Otherwise what could not be read has its default or is left out.
pub fn read_file<T: Setting>(
    source: &str,
    env: &dyn Fn(&str) -> Option<String>,
    allow_unset_env: bool,
) -> (Option<T>, Problems) {
    let parsed = tree::parse(source);
    let incomplete = !parsed.problems.is_empty();
    let mut reading = Reading { incomplete, ..Reading::new(source, env, allow_unset_env) };
    let settings = T::read(parsed.root, &mut reading);
    let mut problems = reading.problems;
    // A value the parser had to guess at would be blamed twice, the second time for what nobody wrote.
    problems.retain(|problem| !parsed.damaged.iter().any(|lines| lines.contains(&problem.place.span.start)));
    problems.merge(parsed.problems);
    (settings.filter(|_| !incomplete), problems.sorted())
}
