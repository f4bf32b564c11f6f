//! The files that a routes.toml names: read from its own folder, and remembered, so that a change of one is a
//! change of the whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

use crate::model::problem::Problems;
use crate::model::settings::Text;

/// What was read, and a digest of each; a file that cannot be read has none.
pub type Seen = BTreeMap<PathBuf, Option<u64>>;

pub struct Files {
    folder: PathBuf,
    seen: RefCell<Seen>,
}

impl Files {
    /// `folder` is that of the routes.toml.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), seen: RefCell::default() }
    }

    /// Where relative paths begin.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn seen(self) -> Seen {
        self.seen.into_inner()
    }

    /// Reads a file that a key names; `None` after a problem was noted, or when its name hangs on a variable that
    /// is allowed to be unset.
    pub fn read(&self, path: &Text, problems: &mut Problems) -> Option<Vec<u8>> {
        if path.unresolved {
            return None;
        }
        let refuse = |error: io::Error| {
            let found = format!("`{}` cannot be read: {error}", path.value);
            let help = format!("write a whole path, or one from `{}`", self.folder.display());
            problems.problem_with_help(&path.place, found, help);
        };
        let whole = self.folder.join(&path.value);
        let read = std::fs::read(&whole);
        self.seen.borrow_mut().insert(whole, read.as_deref().ok().map(digest));
        read.map_err(refuse).ok()
    }
}

fn digest(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}
