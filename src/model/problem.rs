//! What is wrong with `routes.toml`: where it stands, what was found, and what would do.
//!
//! Checking never stops at the first problem, so everything that checks adds to one `Problems`.

use std::fmt;
use std::ops::Range;

/// A spot in the file: the path of keys that leads to it and the bytes it takes up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Keys joined by dots, those with dots or `$` in quotes; empty for the file itself.
    pub path: String,
    /// The bytes in the source that the report underlines.
    pub span: Range<usize>,
}

impl Place {
    /// The place of `key` inside the table that stands here.
    pub fn key(&self, key: &str, span: Range<usize>) -> Place {
        let key = quoted_if_needed(key);
        let path = if self.path.is_empty() { key } else { format!("{}.{key}", self.path) };
        Place { path, span }
    }

    /// The place of the item at `index`, from 0, of the list that stands here.
    pub fn item(&self, index: usize, span: Range<usize>) -> Place {
        Place { path: format!("{}[{index}]", self.path), span }
    }

    /// This place, underlining only `part` if that text is found in it.
    pub fn part(&self, source: &str, part: &str) -> Place {
        let found = source.get(self.span.clone()).and_then(|written| written.find(part));
        let span = match found {
            Some(at) => self.span.start + at..self.span.start + at + part.len(),
            None => self.span.clone(),
        };
        Place { path: self.path.clone(), span }
    }
}

/// A key as TOML wants it written: bare if it may be, else in quotes.
pub fn quoted_if_needed(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_string() } else { format!("{key:?}") }
}

/// Whether the gateway can start all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It cannot.
    Problem,
    /// It can, but an operator would want to know.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub level: Level,
    pub place: Place,
    /// What was found: lower case, no full stop, the value in backticks.
    pub found: String,
    /// What would do, when there is something to do.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.path.is_empty() {
            write!(f, "{}: ", self.place.path)?;
        }
        f.write_str(&self.found)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// Every problem found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    pub fn problem(&mut self, place: &Place, found: impl Into<String>) {
        self.add(Level::Problem, place, found.into(), None);
    }

    pub fn problem_with_help(&mut self, place: &Place, found: impl Into<String>, help: impl Into<String>) {
        self.add(Level::Problem, place, found.into(), Some(help.into()));
    }

    pub fn warning(&mut self, place: &Place, found: impl Into<String>) {
        self.add(Level::Warning, place, found.into(), None);
    }

    pub fn warning_with_help(&mut self, place: &Place, found: impl Into<String>, help: impl Into<String>) {
        self.add(Level::Warning, place, found.into(), Some(help.into()));
    }

    /// Whether any of them keeps the gateway from starting; warnings do not.
    pub fn has_problems(&self) -> bool {
        self.count(Level::Problem) > 0
    }

    pub fn count(&self, level: Level) -> usize {
        self.list.iter().filter(|problem| problem.level == level).count()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// Takes over all that another check found.
    pub fn merge(&mut self, other: Problems) {
        self.list.extend(other.list);
    }

    /// Drops those that `keep` does not want.
    pub fn retain(&mut self, keep: impl FnMut(&Problem) -> bool) {
        self.list.retain(keep);
    }

    /// The same, in the order of the file; what was said once for each stage is kept once.
    pub fn sorted(mut self) -> Problems {
        self.list.sort_by_key(|problem| (problem.place.span.start, problem.place.span.end));
        let mut said = Vec::new();
        self.list.retain(|problem| {
            let is_new = !said.contains(problem);
            if is_new {
                said.push(problem.clone());
            }
            is_new
        });
        self
    }

    /// The same with each of these texts shown as what stands beside it.
    pub fn with_hidden(mut self, texts: &[(String, String)]) -> Problems {
        for problem in &mut self.list {
            for text in [Some(&mut problem.found), problem.help.as_mut()].into_iter().flatten() {
                for (hidden, shown) in texts.iter().filter(|(hidden, _)| !hidden.is_empty()) {
                    if text.contains(hidden) {
                        *text = text.replace(hidden, shown);
                    }
                }
            }
        }
        self
    }

    /// Adds to the help of every problem from the `first` on: another way of writing the value.
    pub(crate) fn offer_since(&mut self, first: usize, other_way: &str) {
        for help in self.list.iter_mut().skip(first).filter_map(|problem| problem.help.as_mut()) {
            help.push_str(other_way);
        }
    }

    fn add(&mut self, level: Level, place: &Place, found: String, help: Option<String>) {
        self.list.push(Problem { level, place: place.clone(), found, help });
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_quotes_what_toml_would_want_quoted() {
        let route = Place::default().key("routes", 0..0).key("$connect", 0..0).key("uri", 0..0);
        assert_eq!(route.path, r#"routes."$connect".uri"#);
        assert_eq!(Place::default().key("a.b", 0..0).item(2, 0..0).path, r#""a.b"[2]"#);
    }

    #[test]
    fn a_problem_reads_as_place_finding_and_remedy() {
        let mut problems = Problems::default();
        let place = Place { path: "gateway.drain_delay".into(), span: 3..9 };
        problems.problem_with_help(&place, "`45 parsecs` is no duration", "write it like `5s` or `250ms`");
        let text = problems.iter().next().map(Problem::to_string);
        let wanted = "gateway.drain_delay: `45 parsecs` is no duration; write it like `5s` or `250ms`";
        assert_eq!(text.as_deref(), Some(wanted));
    }

    #[test]
    fn a_report_can_do_without_a_text() {
        let mut problems = Problems::default();
        problems.problem_with_help(&Place::default(), "`s3cret-x` is no URL", "not `s3cret`");
        let hidden = problems.with_hidden(&[("s3cret".into(), "${env.S}".into()), (String::new(), "!".into())]);
        let text = hidden.iter().next().map(Problem::to_string);
        assert_eq!(text.as_deref(), Some("`${env.S}-x` is no URL; not `${env.S}`"));
    }

    #[test]
    fn warnings_do_not_keep_the_gateway_from_starting() {
        let mut problems = Problems::default();
        problems.warning(&Place::default(), "nobody names this credential");
        assert!(!problems.has_problems());
        problems.problem(&Place { path: String::new(), span: 0..1 }, "worse");
        assert!(problems.has_problems());
        assert_eq!(problems.len(), 2);
    }
}
