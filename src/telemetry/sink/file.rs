//! A file that lines are appended to, and that is put aside when it is large or old enough.
//!
//! Somebody else may move or remove it meanwhile, as logrotate does: that is noticed within a second, or at once when
//! `reopen` is called. Where a new one cannot be opened the old one goes on, as long as anybody can find it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::Rotation;
use super::rotation::put_aside;
use super::stream::{Step, Stream, count, first_end};

/// How often is looked whether the file is still the one at its path, and after how long a rotation that failed is
/// tried again.
const LOOKING: Duration = Duration::from_secs(1);

/// For the owner, and a group that may read logs.
const MODE: u32 = 0o640;

pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    opened: Option<Opened>,
    looked_at: SystemTime,
    /// Rotation failed, and is tried again at the next look.
    is_stuck: bool,
}

struct Opened {
    stream: Stream,
    device_and_inode: (u64, u64),
    size: u64,
    begun: SystemTime,
    /// And no device, say: such a thing has no size, and is never put aside.
    is_regular: bool,
}

impl LogFile {
    pub(super) fn open(path: PathBuf, rotation: Rotation, now: SystemTime) -> io::Result<Self> {
        let mut file = Self { path, rotation, opened: None, looked_at: now, is_stuck: false };
        file.reopen(now)?;
        Ok(file)
    }

    /// Opens what is at the path now.
    pub(super) fn reopen(&mut self, now: SystemTime) -> io::Result<()> {
        self.looked_at = now;
        match self.open_now(now) {
            Ok(opened) => {
                self.opened = Some(opened);
                Ok(())
            }
            Err(error) => {
                let is_lost = |opened: &Opened| opened.stream.file().metadata().is_ok_and(|found| found.nlink() == 0);
                if self.opened.as_ref().is_some_and(is_lost) {
                    self.opened = None;
                }
                Err(error)
            }
        }
    }

    fn open_now(&self, now: SystemTime) -> io::Result<Opened> {
        let is_pipe = fs::metadata(&self.path).is_ok_and(|found| found.file_type().is_fifo());
        let mut options = OpenOptions::new();
        // To open a pipe for writing alone would wait for its reader.
        options.read(is_pipe).write(is_pipe).append(!is_pipe).create(!is_pipe).mode(MODE);
        let file = options.open(&self.path)?;
        let found = file.metadata()?;
        let is_regular = found.is_file();
        let size = if is_regular { found.len() } else { 0 };
        Ok(Opened {
            device_and_inode: device_and_inode(&found),
            size,
            // Where the file system does not know, the last change says it: what is in it was written before that.
            begun: found.created().or_else(|_| found.modified()).unwrap_or(now).min(now),
            is_regular,
            stream: Stream::new(file, size > 0 && self.is_torn(size))?,
        })
    }

    /// Whoever wrote to it before us may have been killed in the middle of a line.
    fn is_torn(&self, size: u64) -> bool {
        let mut last = [b'\n'];
        let read = File::open(&self.path).and_then(|file| file.read_exact_at(&mut last, size - 1));
        read.is_ok() && last != *b"\n"
    }

    /// Writes some of the lines, of which there is at least one.
    pub(super) fn write(&mut self, lines: &[u8], now: SystemTime, is_over: &dyn Fn() -> bool) -> Step {
        let mut trouble = self.look(now).err();
        if self.opened.is_none()
            && trouble.is_none()
            && let Err(error) = self.reopen(now)
        {
            trouble = Some(error);
        }
        if !self.is_stuck
            && self.is_due(first_end(lines), now)
            && let Err(error) = self.rotate(now)
        {
            self.is_stuck = true;
            trouble = Some(error);
        }
        let Some(opened) = &mut self.opened else {
            return Step { taken: lines.len(), failed: count(lines), error: trouble, ..Step::default() };
        };
        if opened.size == 0 {
            opened.begun = now;
        }
        let room = if opened.is_regular && !self.is_stuck { self.rotation.room(opened.size) } else { u64::MAX };
        let mut step = opened.stream.write(lines, usize::try_from(room).unwrap_or(usize::MAX), is_over);
        // What failed in part is a little less; the next look corrects it.
        opened.size += step.taken as u64;
        step.error = step.error.or(trouble);
        step
    }

    /// Once a second: is this still the file that the path names, and how large is it?
    fn look(&mut self, now: SystemTime) -> io::Result<()> {
        // A clock that was set back is no reason to wait.
        if now.duration_since(self.looked_at).is_ok_and(|since| since < LOOKING) {
            return Ok(());
        }
        self.looked_at = now;
        self.is_stuck = false;
        match (&mut self.opened, fs::metadata(&self.path)) {
            (Some(opened), Ok(found)) if device_and_inode(&found) == opened.device_and_inode => {
                if opened.is_regular {
                    opened.size = found.len();
                }
                Ok(())
            }
            _ => self.reopen(now),
        }
    }

    fn is_due(&self, next: usize, now: SystemTime) -> bool {
        let Some(opened) = &self.opened else { return false };
        let is_over = || self.rotation.is_over(opened.begun, now);
        let is_full = || self.rotation.room(opened.size) < next as u64;
        opened.is_regular && opened.size > 0 && (is_full() || is_over())
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let is_ours = |opened: &Opened| {
            fs::metadata(&self.path).is_ok_and(|found| device_and_inode(&found) == opened.device_and_inode)
        };
        // Somebody else was quicker: what is there now is not ours to put aside.
        if self.opened.as_ref().is_some_and(is_ours) {
            put_aside(&self.path, self.rotation.keep)?;
        }
        self.reopen(now)
    }
}

fn device_and_inode(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const NEVER: &dyn Fn() -> bool = &|| false;

    struct World {
        folder: TempDir,
        file: LogFile,
        now: SystemTime,
    }

    impl World {
        fn new(size: Option<u64>, every: Option<Duration>, keep: u32) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let now = SystemTime::now();
            let file = LogFile::open(folder.path().join("log"), Rotation { size, every, keep }, now).unwrap();
            Self { folder, file, now }
        }

        /// Writes all of it; how many lines were written and how many failed.
        fn write(&mut self, lines: &str) -> (u64, u64) {
            let (mut rest, mut written, mut failed) = (lines.as_bytes(), 0, 0);
            while !rest.is_empty() {
                let step = self.file.write(rest, self.now, NEVER);
                (written, failed) = (written + step.written, failed + step.failed);
                rest = &rest[step.taken..];
            }
            (written, failed)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn it_is_made_at_once_for_owner_and_group() {
        let world = World::new(None, None, 1);
        let mode = fs::metadata(world.path("log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }

    #[test]
    fn a_path_that_will_not_do_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| LogFile::open(path.to_owned(), Rotation::default(), SystemTime::now()).map(|_| ());
        assert!(open(&folder.path().join("none/log")).is_err());
        assert!(open(folder.path()).is_err());
    }

    #[test]
    fn lines_are_added_to_what_is_there() {
        let mut world = World::new(None, None, 1);
        fs::write(world.path("log"), "half").unwrap();
        world.file.reopen(world.now).unwrap();
        assert_eq!(world.write("one\ntwo\n"), (2, 0));
        assert_eq!(world.read("log"), "half\none\ntwo\n");
    }

    #[test]
    fn a_file_is_put_aside_before_it_is_too_large() {
        let mut world = World::new(Some(10), None, 2);
        assert_eq!(world.write("1234\n5678\nabcd\n"), (3, 0));
        assert_eq!((world.read("log"), world.read("log.1")), ("abcd\n".into(), "1234\n5678\n".into()));
        assert_eq!(world.write("longer than that\nx\n"), (2, 0));
        assert_eq!(world.names(), ["log", "log.1", "log.2"]);
        assert_eq!((world.read("log"), world.read("log.1")), ("x\n".into(), "longer than that\n".into()));
        assert_eq!(world.read("log.2"), "abcd\n");
    }

    #[test]
    fn a_file_is_put_aside_when_its_day_is_over_and_something_comes() {
        let mut world = World::new(None, Some(DAY), 7);
        world.write("today\n");
        world.now += DAY;
        world.write("tomorrow\n");
        world.now += Duration::from_millis(1);
        world.write("still\n");
        assert_eq!(world.names(), ["log", "log.1"]);
        assert_eq!((world.read("log"), world.read("log.1")), ("tomorrow\nstill\n".into(), "today\n".into()));
        // A file that is empty is not put aside.
        fs::write(world.path("log"), "").unwrap();
        world.now += 3 * DAY;
        world.write("later\n");
        world.write("and more\n");
        assert_eq!(world.names(), ["log", "log.1"]);
    }

    #[test]
    fn a_file_of_yesterday_is_put_aside_after_a_start() {
        let mut world = World::new(None, Some(DAY), 7);
        world.write("yesterday\n");
        world.now += DAY;
        world.file = LogFile::open(world.path("log"), world.file.rotation, world.now).unwrap();
        world.write("today\n");
        assert_eq!((world.read("log"), world.read("log.1")), ("today\n".into(), "yesterday\n".into()));
    }

    #[test]
    fn a_moved_file_is_noticed_when_it_is_reopened() {
        let mut world = World::new(None, None, 1);
        world.write("one\n");
        fs::rename(world.path("log"), world.path("moved")).unwrap();
        world.write("two\n");
        world.file.reopen(world.now).unwrap();
        world.write("three\n");
        assert_eq!((world.read("moved"), world.read("log")), ("one\ntwo\n".into(), "three\n".into()));
    }

    #[test]
    fn a_moved_or_removed_file_is_noticed_within_a_second() {
        let mut world = World::new(None, None, 1);
        world.write("one\n");
        fs::rename(world.path("log"), world.path("moved")).unwrap();
        world.now += LOOKING;
        world.write("two\n");
        fs::remove_file(world.path("log")).unwrap();
        world.now += LOOKING;
        world.write("three\n");
        assert_eq!((world.read("moved"), world.read("log")), ("one\n".into(), "three\n".into()));
    }

    #[test]
    fn where_none_can_be_opened_a_moved_file_goes_on_and_a_removed_one_has_failed() {
        let mut world = World::new(None, None, 1);
        world.write("one\n");
        fs::rename(world.path("log"), world.path("moved")).unwrap();
        fs::create_dir(world.path("log")).unwrap();
        assert!(world.file.reopen(world.now).is_err());
        assert_eq!(world.write("two\n"), (1, 0));
        fs::remove_file(world.path("moved")).unwrap();
        world.now += LOOKING;
        assert_eq!(world.write("three\nfour\n"), (0, 2));
        fs::remove_dir(world.path("log")).unwrap();
        assert_eq!(world.write("five\n"), (1, 0));
        assert_eq!(world.read("log"), "five\n");
    }

    #[test]
    fn what_others_put_aside_is_not_put_aside_again() {
        let mut world = World::new(Some(10), None, 2);
        world.write("12345678\n");
        fs::rename(world.path("log"), world.path("log.1")).unwrap();
        fs::write(world.path("log"), "other\n").unwrap();
        world.write("abc\n");
        assert_eq!(world.names(), ["log", "log.1"]);
        assert_eq!((world.read("log"), world.read("log.1")), ("other\nabc\n".into(), "12345678\n".into()));
    }

    #[test]
    fn a_rotation_that_fails_loses_no_line() {
        let mut world = World::new(Some(10), None, 1);
        fs::create_dir(world.path("log.1")).unwrap();
        assert_eq!(world.write("12345678\nabcdefgh\n"), (2, 0));
        assert_eq!(world.write("ABCDEFGH\n"), (1, 0));
        assert_eq!(world.read("log"), "12345678\nabcdefgh\nABCDEFGH\n");
        fs::remove_dir(world.path("log.1")).unwrap();
        world.now += LOOKING;
        assert_eq!(world.write("new\n"), (1, 0));
        assert_eq!(world.read("log"), "new\n");
    }

    #[test]
    fn what_others_add_counts_for_the_size() {
        let mut world = World::new(Some(10), None, 1);
        world.write("1\n");
        fs::write(world.path("log"), "12345678\n").unwrap();
        world.now += LOOKING;
        world.write("ab\n");
        assert_eq!((world.read("log"), world.read("log.1")), ("ab\n".into(), "12345678\n".into()));
    }

    #[test]
    fn a_device_is_never_put_aside() {
        let rotation = Rotation { size: Some(1), every: Some(DAY), keep: 0 };
        let mut file = LogFile::open("/dev/full".into(), rotation, SystemTime::now()).unwrap();
        let step = file.write(b"one\ntwo\n", SystemTime::now() + 2 * DAY, NEVER);
        assert_eq!((step.taken, step.failed), (8, 2));
    }
}
