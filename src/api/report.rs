//! Problems as a report in the style of rustc: where, the line itself, what was found, and what would do.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::secrets::Secrets;
use crate::model::problem::{Level as Severity, Problem, Problems};

/// Where a line is cut short. An operator wants the line as it stands, however wide the terminal.
const WIDEST_LINE: usize = 1_000;

/// The report of all `problems` of the file with this name and text, ending in a line that counts them.
/// What looks like a secret in the text is starred out.
pub fn render(file_name: &str, source: &str, problems: &Problems, colour: bool) -> String {
    let secrets = Secrets::of(source);
    let source = secrets.starred();
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDEST_LINE);
    let mut report = String::new();
    for problem in &problems.clone().sorted() {
        report.push_str(&one(&renderer, file_name, &source, &secrets, problem));
        report.push_str("\n\n");
    }
    report.push_str(&count(problems));
    report.push('\n');
    report
}

fn one(renderer: &Renderer, file_name: &str, source: &str, secrets: &Secrets<'_>, problem: &Problem) -> String {
    let found = secrets.hidden_in(&problem.found);
    let help = problem.help.as_deref().map(|help| secrets.hidden_in(help));
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
    let mut group = level.primary_title(found.as_str()).element(snippet);
    if let Some(help) = &help {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::file;
    use crate::api::files::Files;
    use crate::api::kept::Kept;
    use crate::model::problem::Place;

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
