//! What the documents say is what the code does: printed references are up to date, and files shown to operators load.
//!
//! `UPDATE_DOCS=1` prints the references into the documents anew.

use std::fs;
use std::path::{Path, PathBuf};

use livegate::api;
use livegate::api::files::Files;
use livegate::api::kept::Kept;
use livegate::telemetry::metrics;

const BEGIN: &str = "<!-- reference: begin -->";
const END: &str = "<!-- reference: end -->";

#[test]
fn the_readme_has_the_reference_of_routes_toml() {
    check("README.md", &api::file::reference());
}

#[test]
fn the_metrics_page_has_every_metric() {
    check("docs/metrics.md", &metrics::reference());
}

#[test]
fn what_the_readme_shows_loads_without_a_problem() {
    for (line, block) in toml_blocks(&read("README.md")) {
        let (gateway, problems) = api::load(&block, &|_| None, true, &Files::new(Path::new(".")), &Kept::default());
        let report = api::report::render("README.md", &block, &problems, false);
        assert!(gateway.is_some() && !problems.has_problems(), "the block of line {line}:\n{report}");
    }
}

#[test]
fn the_examples_load_without_a_problem_or_a_warning() {
    let folders = fs::read_dir(root().join("examples")).unwrap().map(|folder| folder.unwrap().path());
    let files: Vec<_> =
        folders.chain([root()]).map(|path| path.join("routes.toml")).filter(|file| file.exists()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let (gateway, problems) = api::load(&source, &|_| None, true, &Files::new(Path::new(".")), &Kept::default());
        let report = api::report::render(&file.display().to_string(), &source, &problems, false);
        assert!(gateway.is_some() && problems.is_empty(), "{report}");
    }
}

fn check(document: &str, reference: &str) {
    let text = read(document);
    let written = between_markers(&text).unwrap_or_else(|| panic!("{document} needs `{BEGIN}` and then `{END}`"));
    let fresh = format!("\n{}\n", reference.trim());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let begin = text.find(BEGIN).expect("found above") + BEGIN.len();
        fs::write(root().join(document), [&text[..begin], &fresh, &text[begin + written.len()..]].concat()).unwrap();
        return;
    }
    // The first line that differs says more than two long texts.
    for (written, fresh) in written.lines().zip(fresh.lines()) {
        assert_eq!(written, fresh, "{document} is out of date; print it anew with UPDATE_DOCS=1");
    }
    assert!(written == fresh, "{document} ends too early or too late; print it anew with UPDATE_DOCS=1");
}

fn between_markers(text: &str) -> Option<&str> {
    Some(text.split_once(BEGIN)?.1.split_once(END)?.0)
}

/// The blocks marked `toml`, with their lines; those marked `toml,fragment` are parts of a file and left out.
fn toml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| !line.trim_start().starts_with("```"));
        let block: String = inside.flat_map(|line| [line, "\n"]).collect();
        if language.trim() == "toml" {
            blocks.push((number + 1, block));
        }
    }
    blocks
}

#[test]
fn blocks_are_told_apart_by_their_marks() {
    let text = "a\n```toml\nx = 1\n```\n```sh\n# ```\n```\n```toml,fragment\ny = 2\n```\n  ```toml\nz = 3\n  ```\n";
    assert_eq!(toml_blocks(text), [(2, "x = 1\n".to_owned()), (11, "z = 3\n".to_owned())]);
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
