//! When a file is put aside, and under which name: `access.log.1` is the youngest, as with logrotate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Rotation;

impl Rotation {
    /// Has a file that was begun then seen the last of its time?
    pub(super) fn is_over(&self, begun: SystemTime, now: SystemTime) -> bool {
        self.every.is_some_and(|every| period(now, every) > period(begun, every))
    }

    /// How much may be added to a file of this size; nothing does not fit an empty file.
    pub(super) fn room(&self, size: u64) -> u64 {
        match self.size {
            Some(largest) if size > 0 => largest.saturating_sub(size),
            Some(largest) => largest.max(1),
            None => u64::MAX,
        }
    }
}

/// Counted from 1970 in UTC, as whole days are.
fn period(time: SystemTime, every: Duration) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() / every.as_nanos().max(1)
}

/// Renames `path` to `path.1`, what was there to `path.2`, and so on; only the one that is `keep` old goes.
pub(super) fn put_aside(path: &Path, keep: u32) -> io::Result<()> {
    // A link stays where it is: the files are beside the one it leads to.
    let path = &fs::canonicalize(path)?;
    if keep == 0 {
        return fs::remove_file(path);
    }
    let mut free = 1;
    while free < keep && is_there(&numbered(path, free))? {
        free += 1;
    }
    // Nothing is renamed onto what is there: it goes first, and only if it is the oldest.
    if is_there(&numbered(path, free))? {
        fs::remove_file(numbered(path, free))?;
    }
    for number in (1..free).rev() {
        fs::rename(numbered(path, number), numbered(path, number + 1))?;
    }
    fs::rename(path, numbered(path, 1))?;
    // More were kept once.
    for number in keep.saturating_add(1)..=u32::MAX {
        let surplus = numbered(path, number);
        if !is_there(&surplus)? || fs::remove_file(surplus).is_err() {
            break;
        }
    }
    Ok(())
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// A link that leads nowhere is there as well.
fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    #[track_caller]
    fn check_time(every: u64, begun: u64, now: u64, expected: bool) {
        let rotation = Rotation { every: Some(Duration::from_secs(every)), ..Rotation::default() };
        let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(rotation.is_over(time(begun), time(now)), expected, "{every} {begun} {now}");
    }

    #[test]
    fn a_file_is_over_at_the_next_multiple_in_utc() {
        check_time(24 * HOUR, 23 * HOUR, 24 * HOUR - 1, false);
        check_time(24 * HOUR, 23 * HOUR, 24 * HOUR, true);
        check_time(24 * HOUR, 24 * HOUR, 48 * HOUR - 1, false);
        check_time(24 * HOUR, 24 * HOUR, 500 * HOUR, true);
        check_time(HOUR, 10, HOUR - 1, false);
        check_time(HOUR, HOUR - 1, HOUR, true);
        // A clock that was set back does not end a file.
        check_time(HOUR, 10 * HOUR, 0, false);
    }

    #[test]
    fn a_file_has_room_up_to_its_size_and_an_empty_one_for_anything() {
        let rotation = Rotation { size: Some(10), ..Rotation::default() };
        assert_eq!([0, 1, 9, 10, 11].map(|size| rotation.room(size)), [10, 9, 1, 0, 0]);
        assert_eq!(Rotation::default().room(10), u64::MAX);
    }

    /// The files as `name:content`, put aside once for each new content.
    #[track_caller]
    fn check(keep: u32, there: &[&str], contents: &[&str], expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for file in there {
            let (name, content) = file.split_once(':').unwrap();
            fs::write(folder.path().join(name), content).unwrap();
        }
        for content in contents {
            fs::write(&path, content).unwrap();
            put_aside(&path, keep).unwrap();
        }
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut found: Vec<_> =
            names.map(|name| format!("{name}:{}", fs::read_to_string(folder.path().join(&name)).unwrap())).collect();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_youngest_is_number_one_and_so_many_are_kept() {
        check(3, &[], &["a"], &["log.1:a"]);
        check(3, &[], &["a", "b", "c"], &["log.1:c", "log.2:b", "log.3:a"]);
        check(3, &[], &["a", "b", "c", "d", "e"], &["log.1:e", "log.2:d", "log.3:c"]);
        check(1, &[], &["a", "b"], &["log.1:b"]);
        check(0, &[], &["a", "b"], &[]);
        check(u32::MAX, &[], &["a", "b"], &["log.1:b", "log.2:a"]);
    }

    #[test]
    fn what_need_not_move_stays() {
        check(7, &["log.2:x", "log.5:y"], &["a"], &["log.1:a", "log.2:x", "log.5:y"]);
        check(7, &["log.1:w", "log.3:x"], &["a"], &["log.1:a", "log.2:w", "log.3:x"]);
        check(
            2,
            &["log.gz:x", "log.1.gz:y", "log.2024-01-01:z"],
            &["a"],
            &["log.1.gz:y", "log.1:a", "log.2024-01-01:z", "log.gz:x"],
        );
    }

    #[test]
    fn those_beyond_a_smaller_number_go() {
        check(2, &["log.1:b", "log.2:c", "log.3:d", "log.4:e", "log.6:f"], &["a"], &["log.1:a", "log.2:b", "log.6:f"]);
    }

    #[test]
    fn a_folder_in_the_way_is_no_reason_to_lose_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "a").unwrap();
        fs::create_dir(folder.path().join("log.1")).unwrap();
        assert!(put_aside(&path, 1).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a");
    }

    #[test]
    fn a_link_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("log"), folder.path().join("link"));
        fs::write(&path, "a").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        put_aside(&link, 3).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(folder.path().join("log.1")).unwrap(), "a");
    }
}
