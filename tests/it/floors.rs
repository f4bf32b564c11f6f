//! The rules of the source itself: who imports whom, and what stands in no file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A folder imports only from floors below its own.
const FLOORS: &[(&str, u8)] = &[
    ("model", 0),
    ("expressions", 1),
    ("telemetry", 1),
    ("outbound", 2),
    ("store", 2),
    ("connections", 3),
    ("steps", 3),
    ("api", 4),
    ("engine", 5),
    ("transports", 6),
    ("server", 7),
    ("cli", 8),
];

/// Folders of which each part stands alone.
const OF_STRANGERS: &[&str] = &["steps", "transports"];

#[test]
fn a_folder_imports_only_from_floors_below_its_own() {
    let mut wrong = Vec::new();
    for file in sources() {
        let own = file.folder();
        for path in imports(&file.code, &file.module) {
            let Some(target) = path.first().filter(|target| **target != own) else { continue };
            match (floor(&own), floor(target)) {
                (Some(above), Some(below)) if below < above => {}
                // The front page names its folders, and `main.rs` stands above them all.
                (None, _) if own.is_empty() => {}
                _ => wrong.push(format!("{}: crate::{}", file.path, path.join("::"))),
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_parts_of_steps_and_of_transports_do_not_know_each_other() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.module.len() > 1 && OF_STRANGERS.contains(&&*file.module[0])) {
        let own = file.module[..2].join("/");
        for path in imports(&file.code, &file.module).iter().filter(|path| path.len() > 1 && path[0] == file.module[0])
        {
            let other = path[..2].join("/");
            if other != own && is_part(&path[0], &path[1]) {
                wrong.push(format!("{}: crate::{}", file.path, path.join("::")));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_folder_has_a_floor() {
    let folders: BTreeSet<_> = sources().iter().map(File::folder).filter(|folder| !folder.is_empty()).collect();
    let homeless: Vec<_> = folders.iter().filter(|folder| floor(folder).is_none()).collect();
    assert_eq!(homeless, [""; 0]);
}

#[test]
fn nothing_is_unsafe() {
    assert_eq!(places(sources(), &["unsafe"]), [""; 0]);
}

#[test]
fn nothing_is_unwrapped_outside_of_tests() {
    let files = sources().into_iter().filter(|file| !file.is_test()).map(File::without_tests);
    assert_eq!(places(files, &["unwrap"]), [""; 0]);
}

#[test]
fn no_socket_has_a_timer_of_its_own() {
    let files = sources().into_iter().filter(|file| {
        file.path.starts_with("transports/websocket/") && file.path != "transports/websocket/sweeper.rs"
    });
    let timers = ["sleep", "sleep_until", "Sleep", "interval", "interval_at", "Interval"];
    assert_eq!(places(files.map(File::without_tests), &timers), [""; 0]);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path);
    assert_eq!(silent.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn no_file_is_longer_than_anyone_reads() {
    let long = sources().into_iter().filter(|file| file.text.lines().count() > 500).map(|file| file.path);
    assert_eq!(long.collect::<Vec<_>>(), [""; 0]);
}

fn floor(folder: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == folder).map(|(_, floor)| *floor)
}

fn is_part(folder: &str, name: &str) -> bool {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder).join(name);
    place.is_dir() || place.with_extension("rs").exists()
}

/// One file of `src/`.
struct File {
    /// Below `src/`.
    path: String,
    text: String,
    /// The text with its comments and the insides of its literals blanked out.
    code: String,
    /// The module that it is: `steps/authorizers/iam.rs` is `steps`, `authorizers`, `iam`.
    module: Vec<String>,
}

impl File {
    fn folder(&self) -> String {
        // `cli.rs` beside a folder of the same name would be that folder's front page.
        self.module.first().cloned().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        self.module.iter().any(|part| part == "tests" || part.ends_with("_tests"))
    }

    /// Blanks out what is compiled for tests only.
    fn without_tests(mut self) -> Self {
        while let Some(at) = self.code.find("#[cfg(test)]") {
            let end = end_of_item(&self.code, at);
            let blank: String = self.code[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            self.code.replace_range(at..end, &blank);
        }
        self
    }
}

/// Where an item ends that begins at `from`: at its semicolon, or at the brace that closes it.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (at, character) in code[from..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => return from + at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return from + at + 1,
            _ => {}
        }
    }
    code.len()
}

fn sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let place = entry.unwrap().path();
            if place.is_dir() {
                folders.push(place);
            } else if place.extension().is_some_and(|extension| extension == "rs") {
                let path = place.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                let text = fs::read_to_string(&place).unwrap();
                let mut module: Vec<_> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
                if module.last().is_some_and(|last| last == "mod") || ["lib.rs", "main.rs"].contains(&&*path) {
                    module.pop();
                }
                files.push(File { code: blanked(&text), path, text, module });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 50, "src/ was not found");
    files
}

/// Every place where one of these words stands alone.
fn places(files: impl IntoIterator<Item = File>, words: &[&str]) -> Vec<String> {
    let mut places = Vec::new();
    for file in files {
        for (number, line) in file.code.lines().enumerate() {
            let mut found = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if found.any(|word| words.contains(&word)) {
                places.push(format!("{}:{}", file.path, number + 1));
            }
        }
    }
    places
}

/// The paths inside the crate that a file names, in `use` and elsewhere, from the crate's root.
fn imports(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("::") {
        let word = code[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let before = code[..at - word.len()].trim_end();
        if before.ends_with("::") {
            continue;
        }
        let rest = &code[at + 2..];
        match word {
            "crate" => _ = read_tree(rest, &mut Vec::new(), &mut paths),
            "super" => {
                let mut base = module[..module.len().saturating_sub(1)].to_vec();
                let mut rest = rest;
                while let Some(further) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = further;
                }
                _ = read_tree(rest, &mut base, &mut paths);
            }
            _ => {}
        }
    }
    paths
}

/// Reads `a::{b, c::d}` behind a prefix, and gives back what is left of the text.
fn read_tree<'a>(text: &'a str, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut inside) = text.strip_prefix('{') {
        loop {
            inside = inside.trim_start().trim_start_matches(',').trim_start();
            if inside.is_empty() || inside.starts_with('}') {
                return inside.strip_prefix('}').unwrap_or(inside);
            }
            let left = read_tree(inside, prefix, paths);
            // An item is followed by a comma or the end; `as name` is passed over.
            inside = &left[left.find([',', '}']).unwrap_or(left.len())..];
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if end == 0 {
        // `*`, or nothing that is a path.
        paths.push(prefix.clone());
        return text.strip_prefix('*').unwrap_or(text);
    }
    let (name, rest) = text.split_at(end);
    let named = name != "self";
    if named {
        prefix.push(name.to_owned());
    }
    let rest = match rest.strip_prefix("::") {
        Some(deeper) => read_tree(deeper, prefix, paths),
        None => {
            paths.push(prefix.clone());
            rest
        }
    };
    if named {
        prefix.pop();
    }
    rest
}

/// The same text with comments and the insides of literals made blank, line for line.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if let Some(length) =
            raw_string(rest).filter(|_| at == 0 || !is_word(bytes[at - 1]) || bytes[at - 1] == b'b')
        {
            length
        } else if rest[0] == b'"' {
            let mut end = 1;
            while end < rest.len() && rest[end] != b'"' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            (end + 1).min(rest.len())
        } else if rest[0] == b'\'' {
            character(&text[at..])
        } else {
            at += 1;
            continue;
        };
        code[at..at + length].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at += length;
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The length of `r#"…"#`, if one begins here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let marks = rest.strip_prefix(b"r")?.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(1 + marks) == Some(&b'"')).then_some(())?;
    let close = [b"\"".as_slice(), &b"#".repeat(marks)].concat();
    let inside = &rest[marks + 2..];
    let end = inside.windows(close.len()).position(|window| window == close)?;
    Some(marks + 2 + end + close.len())
}

/// The length of a character literal; one for a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(end, _)| end + 3),
        Some(_) => characters.next().filter(|(_, c)| *c == '\'').map_or(1, |(end, _)| end + 1),
        None => 1,
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let module: Vec<_> = ["steps", "authorizers", "iam"].map(str::to_owned).to_vec();
    let check = |code: &str, expected: &[&str]| {
        let found: Vec<_> = imports(&blanked(code), &module).iter().map(|path| path.join("::")).collect();
        assert_eq!(found, expected, "{code}");
    };
    check("use crate::a::b;", &["a::b"]);
    check("use crate::{\n    a::{self, B as C},\n    d::*,\n};", &["a", "a::B", "d"]);
    check("let x = crate::a::B::new(crate::c::D);", &["a::B::new", "c::D"]);
    check("use super::allow; use super::super::caches::Key;", &["steps::authorizers::allow", "steps::caches::Key"]);
    check("// crate::a\nlet x = \"crate::b \\\" crate::c\"; let y = r#\"crate::d\"#;", &[]);
    check("fn f<'a>(x: &'a str) -> char { '\"' } use crate::a::b; let c = '\\''; use crate::c;", &["a::b", "c"]);
    check("my::crate_name::x; std::super_name::y", &[]);
}
