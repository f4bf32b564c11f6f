//! Counts on disk: added to by several, killed in the middle, read meanwhile.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Barrier;

use jiff::ToSpan as _;
use jiff::civil::date;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const TODAY: Date = date(2026, 11, 25);

/// Where another gateway keeps its counts, how often it adds, and where it is found.
const FOLDER: &str = "LIVEGATE_TEST_USAGE_FOLDER";
const ADDS: &str = "LIVEGATE_TEST_USAGE_ADDS";
const ANOTHER: &str = concat!(module_path!(), "::another_gateway_adds");

#[test]
fn what_was_added_is_there_again() {
    let folder = folder();
    let mut store = UsageStore::open(folder.path()).unwrap();
    store.add(&[row("alice", "gold", TODAY, 5), row("bob", "free", TODAY, 1)]).unwrap();
    let counts = Counts { used: 1, throttled: 2, over_quota: 3 };
    store.add(&[Row { counts, ..row("alice", "gold", TODAY, 0) }, row("alice", "gold", TODAY, 1)]).unwrap();
    store.add(&[]).unwrap();
    drop(store);
    let alice = Row { counts: Counts { used: 7, throttled: 2, over_quota: 3 }, ..row("alice", "gold", TODAY, 0) };
    let store = UsageStore::open(folder.path()).unwrap();
    assert_eq!(store.rows(&Filter::default()).unwrap(), [row("bob", "free", TODAY, 1), alice]);
}

#[test]
fn a_filter_takes_what_fits_all_of_it() {
    let folder = folder();
    let mut store = UsageStore::open(folder.path()).unwrap();
    let tomorrow = TODAY.tomorrow().unwrap();
    let all = [row("alice", "free", TODAY, 1), row("alice", "gold", TODAY, 2), row("bob", "gold", tomorrow, 3)];
    store.add(&all).unwrap();
    let check = |filter: Filter, used: &[u64]| {
        let found: Vec<_> = store.rows(&filter).unwrap().iter().map(|row| row.counts.used).collect();
        assert_eq!(found, used, "{filter:?}");
    };
    let all = Filter::default;
    check(all(), &[1, 2, 3]);
    check(Filter { usage_plan: Some("gold".into()), ..all() }, &[2, 3]);
    check(Filter { api_key: Some("alice".into()), ..all() }, &[1, 2]);
    check(Filter { api_key: Some("alice".into()), usage_plan: Some("gold".into()), ..all() }, &[2]);
    check(Filter { api_key: Some("' OR 1".into()), ..all() }, &[]);
    check(Filter { from: Some(tomorrow), ..all() }, &[3]);
    check(Filter { to: Some(TODAY), ..all() }, &[1, 2]);
    check(Filter { from: Some(tomorrow), to: Some(TODAY), ..all() }, &[]);
    assert_eq!(store.used(TODAY, TODAY).unwrap().len(), 2);
}

#[test]
fn a_usage_plan_has_a_first_day() {
    let folder = folder();
    let mut store = UsageStore::open(folder.path()).unwrap();
    let days = [3, 1, 2].map(|days| TODAY.saturating_add(days.days()));
    store.add(&days.map(|day| row("alice", "gold", day, 1))).unwrap();
    store.add(&[row("alice", "free", TODAY, 1)]).unwrap();
    assert_eq!(store.first_day("gold").unwrap(), Some(days[1]));
    assert_eq!(store.first_day("silver").unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_file_counts_as_a_map_does(batches in prop::collection::vec(prop::collection::vec(any_row(), 0..8), 0..8)) {
        let folder = folder();
        let mut store = UsageStore::open(folder.path()).unwrap();
        let mut map = BTreeMap::<_, Counts>::new();
        for batch in &batches {
            store.add(batch).unwrap();
            for Row { api_key, usage_plan, day, counts } in batch {
                let sum = map.entry((*day, usage_plan.clone(), api_key.clone())).or_default();
                sum.used += counts.used;
                sum.throttled += counts.throttled;
                sum.over_quota += counts.over_quota;
            }
        }
        let wanted: Vec<_> = map
            .into_iter()
            .map(|((day, usage_plan, api_key), counts)| Row { api_key, usage_plan, day, counts })
            .collect();
        prop_assert_eq!(store.rows(&Filter::default()).unwrap(), wanted);
    }
}

fn any_row() -> impl Strategy<Value = Row> {
    let name = || prop::sample::select(vec!["", "a", "A", "ä", "a\0b", "'; --"]);
    let counts = (0..9_u64, 0..9_u64, 0..9_u64);
    (name(), name(), 0..3_i32, counts).prop_map(|(api_key, usage_plan, days, (used, throttled, over_quota))| Row {
        api_key: api_key.to_owned(),
        usage_plan: usage_plan.to_owned(),
        day: TODAY.saturating_add(days.days()),
        counts: Counts { used, throttled, over_quota },
    })
}

#[test]
fn a_killed_gateway_loses_nothing_that_was_added() {
    let folder = folder();
    let mut before = 0;
    for round in 0..10 {
        let mut other = Other::start(folder.path(), u64::MAX);
        let told = (0..=5 * round).map(|_| other.added().unwrap()).last().unwrap();
        other.child.kill().unwrap();
        let added = std::iter::from_fn(|| other.added()).last().unwrap_or(told);
        // The reader comes first: it finds the log as the killed one left it.
        let read = UsageStore::open_to_read(folder.path()).unwrap().unwrap();
        let counted = count_of_each(&read);
        // An add may have been committed that could not be told any more.
        assert!((before + added..=before + added + 1).contains(&counted), "{before} + {added}: {counted}");
        let store = UsageStore::open(folder.path()).unwrap();
        assert_eq!(count_of_each(&store), counted);
        let verdict: String = store.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        before = counted;
    }
}

#[test]
fn gateways_that_share_a_file_lose_no_count() {
    let folder = folder();
    // Nothing is there yet, so they also make the file together.
    let others = [0; 3].map(|_| Other::start(folder.path(), 40));
    let mut store = UsageStore::open(folder.path()).unwrap();
    (0..40).for_each(|_| store.add(&twenty_keys()).unwrap());
    others.into_iter().for_each(Other::finish);
    assert_eq!(count_of_each(&store), 4 * 40);
}

#[test]
fn gateways_make_a_file_together() {
    for _ in 0..20 {
        let folder = folder();
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    UsageStore::open(folder.path()).unwrap().add(&twenty_keys()).unwrap();
                });
            }
        });
        assert_eq!(count_of_each(&UsageStore::open(folder.path()).unwrap()), 4);
    }
}

#[test]
fn a_report_reads_while_a_gateway_adds() {
    let folder = folder();
    let mut other = Other::start(folder.path(), 50);
    while let Some(added) = other.added() {
        let read = UsageStore::open_to_read(folder.path()).unwrap().unwrap();
        // Whole batches only.
        assert!((added..=50).contains(&count_of_each(&read)));
    }
    other.finish();
}

/// Does nothing by itself; other tests run it as a process of its own.
#[test]
fn another_gateway_adds() {
    let (Ok(folder), Ok(adds)) = (env::var(FOLDER), env::var(ADDS)) else { return };
    let mut store = UsageStore::open(Path::new(&folder)).unwrap();
    // So that kills hit the copying from the log into the file as well.
    store.connection.pragma_update(None, "wal_autocheckpoint", 4).unwrap();
    for add in 1..=adds.parse::<u64>().unwrap() {
        store.add(&twenty_keys()).unwrap();
        println!("\nadded {add}");
    }
}

/// Another gateway, as a process of its own.
struct Other {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start(folder: &Path, adds: u64) -> Self {
        // A test knows itself without the name of its crate.
        let (_, name) = ANOTHER.split_once("::").unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(FOLDER, folder)
            .env(ADDS, adds.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// How often it has added, told after each time; `None` when it is gone.
    fn added(&mut self) -> Option<u64> {
        self.lines.find_map(|line| line.unwrap().strip_prefix("added ")?.parse().ok())
    }

    fn finish(mut self) {
        while self.added().is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn twenty_keys() -> Vec<Row> {
    (0..20).map(|key| row(&format!("key{key}"), "gold", TODAY, 1)).collect()
}

/// How often `twenty_keys` were added: each time all of them, or none.
fn count_of_each(store: &UsageStore) -> u64 {
    let rows = store.rows(&Filter::default()).unwrap();
    let used: Vec<_> = rows.iter().map(|row| row.counts.used).collect();
    assert_eq!(used, [used[0]; 20]);
    used[0]
}

#[test]
fn nobody_else_reads_the_counts() {
    let folder = folder();
    let inner = folder.path().join("data/usage");
    let mut store = UsageStore::open(&inner).unwrap();
    store.add(&twenty_keys()).unwrap();
    assert_eq!([mode(&folder.path().join("data")), mode(&inner)], [0o700, 0o700]);
    let mut files: Vec<_> = fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files, ["usage.db", "usage.db-shm", "usage.db-wal"].map(|name| inner.join(name)));
    assert_eq!(files.iter().map(|file| mode(file)).collect::<Vec<_>>(), [0o600; 3]);
}

#[test]
fn a_count_is_on_disk_before_add_returns() {
    let folder = folder();
    let store = UsageStore::open(folder.path()).unwrap();
    let mode: String = store.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    let synchronous: i32 = store.connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!((&*mode, synchronous), ("wal", 2));
}

#[test]
fn a_report_makes_nothing_and_changes_nothing() {
    let folder = folder();
    let missing = folder.path().join("missing");
    assert!(UsageStore::open_to_read(&missing).unwrap().is_none());
    assert!(!missing.exists());
    // A gateway that was killed between making the file and its tables.
    make_file(&folder.path().join(FILE)).unwrap();
    assert!(UsageStore::open_to_read(folder.path()).unwrap().is_none());
    drop(UsageStore::open(folder.path()).unwrap());
    let mut read = UsageStore::open_to_read(folder.path()).unwrap().unwrap();
    assert!(matches!(read.add(&twenty_keys()), Err(Error::Write { .. })));
    assert_eq!(read.rows(&Filter::default()).unwrap(), []);
}

#[test]
fn a_full_disk_keeps_what_was_there() {
    let folder = folder();
    let mut store = UsageStore::open(folder.path()).unwrap();
    store.add(&twenty_keys()).unwrap();
    store.connection.pragma_update(None, "max_page_count", 8).unwrap();
    let many: Vec<_> = (0..10_000).map(|key| row(&format!("key{key}"), "gold", TODAY, 1)).collect();
    check_message(store.add(&many), &format!("`{}` cannot be written", folder.path().join(FILE).display()));
    assert_eq!(count_of_each(&store), 1);
    store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    store.add(&many).unwrap();
    assert_eq!(store.rows(&Filter::default()).unwrap().len(), 10_000);
}

#[test]
fn a_count_beyond_what_the_file_holds_is_refused_whole() {
    let folder = folder();
    let mut store = UsageStore::open(folder.path()).unwrap();
    let most = i64::MAX as u64;
    store.add(&[row("alice", "gold", TODAY, most)]).unwrap();
    for [first, second] in [[0, 1], [0, u64::MAX]] {
        let rows = [row("bob", "gold", TODAY, first), row("alice", "gold", TODAY, second)];
        assert!(matches!(store.add(&rows), Err(Error::Write { .. })), "{second}");
    }
    assert_eq!(store.rows(&Filter::default()).unwrap(), [row("alice", "gold", TODAY, most)]);
}

#[test]
fn a_file_of_a_newer_livegate_is_left_alone() {
    let folder = folder();
    let store = UsageStore::open(folder.path()).unwrap();
    store.connection.pragma_update(None, "user_version", 7).unwrap();
    drop(store);
    let before = fs::read(folder.path().join(FILE)).unwrap();
    let message = format!(
        "`{}` has version 7, and this livegate knows 1; use the livegate that wrote it or a newer one, \
         or move the file away to count from zero",
        folder.path().join(FILE).display(),
    );
    check_message(UsageStore::open(folder.path()), &message);
    check_message(UsageStore::open_to_read(folder.path()), &message);
    assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), before);
}

#[test]
fn what_is_in_the_way_is_named() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    check_message(UsageStore::open(&file), &format!("`{}` cannot be made", file.display()));
    let inner = file.join("inner");
    check_message(UsageStore::open(&inner), &format!("`{}` cannot be made", inner.display()));
    let path = folder.path().join(FILE);
    fs::create_dir(&path).unwrap();
    check_message(UsageStore::open(folder.path()), &format!("`{}` cannot be read", path.display()));
    check_message(UsageStore::open_to_read(folder.path()), &format!("`{}` cannot be read", path.display()));
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "no database, and long enough to be taken for one".repeat(100)).unwrap();
    check_message(UsageStore::open(folder.path()), &format!("`{}` cannot be read", path.display()));
    check_message(UsageStore::open_to_read(folder.path()), &format!("`{}` cannot be read", path.display()));
}

/// The message begins so; what the system says comes after it.
fn check_message<T>(outcome: Result<T, Error>, wanted: &str) {
    let message = outcome.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.starts_with(wanted), "{message}");
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn row(api_key: &str, usage_plan: &str, day: Date, used: u64) -> Row {
    let counts = Counts { used, ..Counts::default() };
    Row { api_key: api_key.to_owned(), usage_plan: usage_plan.to_owned(), day, counts }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
