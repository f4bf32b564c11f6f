//! The files that a routes.toml names: read from its own folder, and remembered, so that a change of one is a
//! change of the whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::model::problem::Problems;
use crate::model::settings::Text;

/// What was read, and a digest of each; a file that cannot be read has none.
pub type Seen = BTreeMap<PathBuf, Option<u64>>;

pub struct Files {
    folder: PathBuf,
    /// Everybody on the machine may read the routes.toml.
    is_open_to_all: bool,
    seen: RefCell<Seen>,
}

impl Files {
    /// `folder` is that of the routes.toml.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), is_open_to_all: false, seen: RefCell::default() }
    }

    /// Those that this routes.toml names.
    pub fn of(file: &Path) -> Self {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { is_open_to_all: is_open_to_all(file), ..Self::new(folder) }
    }

    pub fn is_open_to_all(&self) -> bool {
        self.is_open_to_all
    }

    /// The same as `read`, of a file that should be for the gateway alone.
    pub fn read_secret(&self, path: &Text, problems: &mut Problems) -> Option<Vec<u8>> {
        let read = self.read(path, problems)?;
        let whole = self.folder.join(&path.value);
        if is_open_to_all(&whole) {
            let found = format!("everybody on this machine can read the private key in `{}`", path.value);
            problems.warning_with_help(&path.place, found, format!("`chmod o-rwx {}`", whole.display()));
        }
        Some(read)
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

fn is_open_to_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o007 != 0)
}

fn digest(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}
