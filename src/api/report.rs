//! Problems as a report in the style of rustc: where, the line itself, what was found, and what would do.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::model::problem::{Level as Severity, Problem, Problems};

/// Where a line is cut short. An operator wants the line as it stands, however wide the terminal.
const WIDEST_LINE: usize = 1_000;

/// The report of all `problems` of the file with this name and text, ending in a line that counts them.
/// What looks like a secret in the text is starred out.
pub fn render(file_name: &str, source: &str, problems: &Problems, colour: bool) -> String {
    let source = without_secrets(source);
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDEST_LINE);
    let mut report = String::new();
    for problem in &problems.clone().sorted() {
        report.push_str(&one(&renderer, file_name, &source, problem));
        report.push_str("\n\n");
    }
    report.push_str(&count(problems));
    report.push('\n');
    report
}

fn one(renderer: &Renderer, file_name: &str, source: &str, problem: &Problem) -> String {
    let level = match problem.level {
        Severity::Problem => Level::ERROR.with_name("problem"),
        Severity::Warning => Level::WARNING,
    };
    let Range { start, end } = within(source, &problem.place.span);
    let mut annotation = AnnotationKind::Primary.span(start..end);
    if !problem.place.path.is_empty() {
        annotation = annotation.label(problem.place.path.as_str());
    }
    let snippet = Snippet::source(source).path(file_name).annotation(annotation);
    let mut group = level.primary_title(problem.found.as_str()).element(snippet);
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

/// The span as far as it lies in the source, and of several lines only the first: one line says enough.
fn within(source: &str, span: &Range<usize>) -> Range<usize> {
    let start = source.floor_char_boundary(span.start);
    let end = source.ceil_char_boundary(span.end).max(start);
    let line = source[start..end].find('\n').map_or(end, |newline| start + newline);
    start..line
}

fn count(problems: &Problems) -> String {
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let (bad, warnings) = (problems.count(Severity::Problem), problems.count(Severity::Warning));
    match (bad, warnings) {
        (_, 0) => plural(bad, "problem"),
        (0, _) => plural(warnings, "warning"),
        _ => format!("{}, {}", plural(bad, "problem"), plural(warnings, "warning")),
    }
}

/// Stars in place of every literal that stands at a key with a secret's name, byte for byte, so that spans still fit.
/// It works on the text, since a file that is no TOML is reported as well.
fn without_secrets(source: &str) -> String {
    let mut shown = String::with_capacity(source.len());
    for line in source.split_inclusive('\n') {
        shown.push_str(&line_without_secrets(line));
    }
    shown
}

fn line_without_secrets(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(equals) = rest.find('=') {
        let (before, from) = rest.split_at(equals + 1);
        shown.push_str(before);
        let key = before.trim_end_matches('=').trim_end().trim_end_matches(['"', '\'']);
        let key = key.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').next().unwrap_or_default();
        let length = if names_a_secret(key) { literal(from) } else { 0 };
        let (value, after) = from.split_at(length);
        // A reference to the environment tells nothing, and a problem may well be about it.
        if value.contains("${env.") {
            shown.push_str(value);
        } else {
            let starred = |c: char| if c.is_whitespace() || c == '"' || c == '\'' { 1 } else { c.len_utf8() };
            shown.extend(value.chars().map(|c| match c {
                '"' | '\'' | '\n' | '\r' | ' ' | '\t' => c.to_string(),
                c => "*".repeat(starred(c)),
            }));
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // `value` is what an API key is.
    key == "value" || ["secret", "token", "password"].iter().any(|word| key.contains(word))
}

/// How long the value at the beginning of `text` is: to its closing quote, or to the next comma, bracket or line end.
fn literal(text: &str) -> usize {
    let start = text.len() - text.trim_start_matches([' ', '\t']).len();
    let value = &text[start..];
    let line_end = value.find(['\n', '\r']).unwrap_or(value.len());
    let Some(quote) = value.chars().next().filter(|c| *c == '"' || *c == '\'') else {
        return start + value.find([',', '}', '\n', '\r', '#']).unwrap_or(value.len());
    };
    let mut escaped = false;
    for (at, c) in value.char_indices().skip(1) {
        match c {
            '\n' | '\r' => break,
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return start + at + 1,
            _ => {}
        }
    }
    start + line_end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::file;
    use crate::api::files::Files;
    use crate::api::kept::Kept;
    use crate::model::problem::Place;

    #[test]
    fn secrets_are_starred_and_references_are_not() {
        let shown = |line| line_without_secrets(line);
        assert_eq!(shown("secret_access_key = \"hunter2\" # x"), "secret_access_key = \"*******\" # x");
        assert_eq!(shown("c = { bearer_token = 'ab=c', allow = [] }"), "c = { bearer_token = '****', allow = [] }");
        assert_eq!(shown("\"session_token\"=\"a\\\"b"), "\"session_token\"=\"**\"*");
        assert_eq!(shown("bearer_token = abc, x = 1"), "bearer_token = ***, x = 1");
        assert_eq!(shown("bearer_token = \"${env.T}\""), "bearer_token = \"${env.T}\"");
        assert_eq!(shown("uri = \"http://a?token=b\""), "uri = \"http://a?token=*\"");
        assert_eq!(shown("uri = \"http://a\""), "uri = \"http://a\"");
    }

    #[test]
    fn warnings_are_counted_apart() {
        let mut problems = Problems::default();
        let place = Place { path: "a".into(), span: 0..1 };
        problems.warning(&place, "odd");
        assert!(render("routes.toml", "a = 1\n", &problems, false).ends_with("\n1 warning\n"));
        problems.problem(&place, "bad");
        problems.problem(&place, "worse");
        assert!(render("routes.toml", "a = 1\n", &problems, false).ends_with("\n2 problems, 1 warning\n"));
    }

    #[test]
    fn a_report_survives_any_span_and_any_source() {
        let mut problems = Problems::default();
        for span in [0..0, 0..99, 7..7, 3..3, 6..7] {
            problems.problem(&Place { path: "x".into(), span }, "odd");
        }
        for source in ["", "a = 1\n", "ü = \"ö\"\r\n\r\n", "a\nb\nc\nd"] {
            render("routes.toml", source, &problems, true);
        }
    }

    /// The variables that the files in `tests/it/problems` may use.
    fn env(name: &str) -> Option<String> {
        (name == "SET").then(|| "set".into())
    }

    /// Each bad file has the exact report beside it. `UPDATE_REPORTS=1` writes what the code says now.
    #[test]
    fn every_bad_file_gets_its_report() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/problems");
        let mut files = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            files += 1;
            let source = std::fs::read_to_string(&path).unwrap();
            // What takes two tables to tell is told when the whole is built.
            let is_built = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("built_"));
            let problems = match is_built {
                true => crate::api::load(&source, &env, false, &Files::new(&folder), &Kept::default()).1,
                false => file::read(&source, &env, false).1,
            };
            let report = render("routes.toml", &source, &problems, false);
            let wanted = path.with_extension("report");
            if std::env::var_os("UPDATE_REPORTS").is_some() {
                std::fs::write(&wanted, &report).unwrap();
            }
            let wanted = std::fs::read_to_string(&wanted)
                .unwrap_or_else(|_| panic!("{} needs a .report beside it", path.display()));
            assert_eq!(report, wanted, "{}", path.display());
        }
        assert!(files >= 12, "only {files} files");
    }
}
