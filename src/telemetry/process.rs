//! What the process itself takes, from `/proc`; elsewhere than on Linux nothing is known.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// User and system time.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_files: u64,
    pub max_open_files: u64,
    pub threads: u64,
    /// Seconds since 1970.
    pub started_at: f64,
}

/// When the first one asked, which is as good as the process's start: it is asked for at once.
static STARTED_AT: LazyLock<f64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());

/// Linux counts processor time in these whatever its own clock does (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A page on every machine that this runs on; larger ones only make the figure too small.
const PAGE: u64 = 4096;

pub fn started_at() -> f64 {
    *STARTED_AT
}

pub fn figures() -> Option<Figures> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (cpu_seconds, threads, resident_pages) = of_stat(&stat)?;
    // Since Linux 6.2 the folder's length is its count; before that it is zero.
    let open_files = match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64,
        count => count,
    };
    let (max_open_files, _) = rlimit::Resource::NOFILE.get().ok()?;
    Some(Figures {
        cpu_seconds,
        resident_bytes: resident_pages * PAGE,
        open_files,
        max_open_files,
        threads,
        started_at: started_at(),
    })
}

/// The fields behind the command's name, which may itself hold blanks and brackets.
fn of_stat(stat: &str) -> Option<(f64, u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(((number(11)? + number(12)?) as f64 / TICKS_PER_SECOND, number(17)?, number(21)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_process_is_called() {
        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 12345 1000000 256 18446744073709551615";
        assert_eq!(of_stat(stat), Some((2.0, 3, 256)));
        assert_eq!(of_stat("7 (a"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let figures = figures().expect("tests run on Linux");
        assert!(figures.open_files > 0 && figures.resident_bytes > 0 && figures.threads > 0, "{figures:?}");
    }
}
