//! The reference of every key for the README, printed from the declarations.

use std::fmt::Write as _;

use super::declare::{Row, prose};

/// One table of the file.
#[derive(Debug, Clone)]
pub struct TableReference {
    /// Its header with placeholders, such as `apis.<api>.stages.<stage>`; empty for the file itself.
    pub path: String,
    pub about: String,
    pub rows: Vec<Row>,
}

impl TableReference {
    pub fn new(path: &str, about: &[&str], rows: Vec<Row>) -> TableReference {
        TableReference { path: path.into(), about: prose(about), rows }
    }

    /// The same table in another place.
    fn is_like(&self, other: &TableReference) -> bool {
        let keys =
            |table: &TableReference| table.rows.iter().map(|row| (row.key, row.meaning.clone())).collect::<Vec<_>>();
        self.about == other.about && keys(self) == keys(other)
    }

    /// The path of a table under `key`.
    pub fn below(path: &str, key: &str) -> String {
        if path.is_empty() { key.into() } else { format!("{path}.{key}") }
    }
}

/// The tables in Markdown, one after the other, without the file itself, whose keys are all tables. One that can stand
/// in several places is printed at the first, with the others named.
pub fn markdown(tables: &[TableReference]) -> String {
    let mut text = String::new();
    let mut printed: Vec<&TableReference> = Vec::new();
    for table in tables.iter().filter(|table| !table.path.is_empty()) {
        let TableReference { path, about, rows } = table;
        if printed.iter().any(|other| other.is_like(table)) {
            continue;
        }
        printed.push(table);
        let _ = write!(text, "### `[{path}]`\n\n{about}\n\n");
        let others: Vec<_> = tables.iter().filter(|other| other.is_like(table) && other.path != *path).collect();
        if !others.is_empty() {
            let others: Vec<_> = others.iter().map(|other| format!("`[{}]`", other.path)).collect();
            let _ = write!(text, "The same stands in {}.\n\n", others.join(", "));
        }
        text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
        for row in rows {
            let default = match &row.default {
                Some(default) => format!("`{}`", default.json()),
                None if row.required => "required".into(),
                None => String::new(),
            };
            let kind = row.kind.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {kind} | {default} | {} |", row.key, row.meaning.replace('|', "\\|"));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
