//! What usage plans counted, in a SQLite file that outlives the process: one row for each API key, usage plan and day.
//!
//! When `add` returns its counts are on disk, whatever becomes of the process or the machine. Several processes may
//! share the file: each adds to what is there, and a report reads while they do.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior, named_params};

const FILE: &str = "usage.db";

/// Of the tables below. A later one migrates what it finds in `prepare`.
const VERSION: i32 = 1;

/// A transaction takes milliseconds, so who waits this long for another process waits for one that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries, where SQLite leaves trying again to us.
const BREATH: Duration = Duration::from_millis(2);

// The day comes first: the rows that are added to lie side by side, and a report reads a range.
const TABLES: &str = "
    CREATE TABLE usage (
        day TEXT NOT NULL,
        usage_plan TEXT NOT NULL,
        api_key TEXT NOT NULL,
        used INTEGER NOT NULL,
        throttled INTEGER NOT NULL,
        over_quota INTEGER NOT NULL,
        PRIMARY KEY (day, usage_plan, api_key)
    ) STRICT, WITHOUT ROWID";

const ADD: &str = "
    INSERT INTO usage (day, usage_plan, api_key, used, throttled, over_quota)
    VALUES (:day, :usage_plan, :api_key, :used, :throttled, :over_quota)
    ON CONFLICT DO UPDATE SET
        used = used + excluded.used,
        throttled = throttled + excluded.throttled,
        over_quota = over_quota + excluded.over_quota";

const ROWS: &str = "
    SELECT day, usage_plan, api_key, used, throttled, over_quota FROM usage
    WHERE day BETWEEN :from AND :to
        AND (:usage_plan IS NULL OR usage_plan = :usage_plan)
        AND (:api_key IS NULL OR api_key = :api_key)
    ORDER BY day, usage_plan, api_key";

/// The counts of a gateway, or of all that share its file.
pub struct UsageStore {
    connection: Connection,
    path: PathBuf,
}

/// What became of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Let through, and so taken from the quota.
    pub used: u64,
    /// Refused by the usage plan's throttle.
    pub throttled: u64,
    /// Refused because the quota was used up.
    pub over_quota: u64,
}

/// The counts of one API key in one usage plan on one day of UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub api_key: String,
    pub usage_plan: String,
    pub day: Date,
    pub counts: Counts,
}

/// Which rows to read: those that fit everything that is given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub usage_plan: Option<String>,
    pub api_key: Option<String>,
    /// The first day.
    pub from: Option<Date>,
    /// The last day.
    pub to: Option<Date>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{}` cannot be made: {source}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("`{}` cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: rusqlite::Error },
    #[error("`{}` cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: rusqlite::Error },
    #[error(
        "`{}` has version {version}, and this livegate knows {VERSION}; \
         use the livegate that wrote it or a newer one, or move the file away to count from zero",
        path.display(),
    )]
    Version { path: PathBuf, version: i32 },
}

impl UsageStore {
    /// Opens the file to add to it. Folder and file are made if need be, for the owner alone.
    pub fn open(folder: &Path) -> Result<UsageStore, Error> {
        let path = folder.join(FILE);
        make_folder(folder).map_err(|source| Error::Make { path: folder.to_owned(), source })?;
        make_file(&path).map_err(|source| Error::Make { path: path.clone(), source })?;
        let mut store = UsageStore::connect(path)?;
        store.version()?;
        prepare(&mut store.connection).map_err(|source| store.unwritable(source))?;
        Ok(store)
    }

    /// Opens the file to read it; `None` if no gateway has made one. Gateways may go on adding to it.
    pub fn open_to_read(folder: &Path) -> Result<Option<UsageStore>, Error> {
        let path = folder.join(FILE);
        // Where it cannot be told, SQLite says why.
        if let Ok(false) = path.try_exists() {
            return Ok(None);
        }
        // Not opened read-only, since what a killed gateway left half done is undone by the next that may write, and
        // this may be it. Who may not write reads as well while a gateway has the file open.
        let store = UsageStore::connect(path)?;
        store.connection.pragma_update(None, "query_only", true).map_err(|source| store.unreadable(source))?;
        let is_made = store.version()? > 0;
        Ok(is_made.then_some(store))
    }

    /// Adds to what is there. When this fails nothing was added, and the same rows may be tried again.
    pub fn add(&mut self, rows: &[Row]) -> Result<(), Error> {
        add(&mut self.connection, rows).map_err(|source| self.unwritable(source))
    }

    /// What was counted on the days from `from` to `to`, both included.
    pub fn used(&self, from: Date, to: Date) -> Result<Vec<Row>, Error> {
        self.rows(&Filter { from: Some(from), to: Some(to), ..Filter::default() })
    }

    /// The rows that fit, by day, then by usage plan and API key.
    pub fn rows(&self, filter: &Filter) -> Result<Vec<Row>, Error> {
        rows(&self.connection, filter).map_err(|source| self.unreadable(source))
    }

    /// The first day on which anything was counted for this usage plan, which is in its first period.
    pub fn first_day(&self, usage_plan: &str) -> Result<Option<Date>, Error> {
        const FIRST: &str = "SELECT day FROM usage WHERE usage_plan = ? ORDER BY day LIMIT 1";
        let day = self.connection.query_row(FIRST, [usage_plan], |row| row.get(0)).optional();
        day.map_err(|source| self.unreadable(source))
    }

    fn connect(path: PathBuf) -> Result<UsageStore, Error> {
        // One thread at a time uses a connection, which is not `Sync`, so SQLite need not lock for it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).and_then(|connection| {
            connection.busy_timeout(PATIENCE)?;
            Ok(connection)
        });
        match connection {
            Ok(connection) => Ok(UsageStore { connection, path }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Zero for a file in which nothing was made yet.
    fn version(&self) -> Result<i32, Error> {
        match version(&self.connection).map_err(|source| self.unreadable(source))? {
            version @ 0..=VERSION => Ok(version),
            version => Err(Error::Version { path: self.path.clone(), version }),
        }
    }

    fn unreadable(&self, source: rusqlite::Error) -> Error {
        Error::Read { path: self.path.clone(), source }
    }

    fn unwritable(&self, source: rusqlite::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// SQLite would let everybody read what it makes, and gives its own files beside this one the same mode.
fn make_file(path: &Path) -> io::Result<()> {
    // A file that is there must not be opened: closing it again would end the locks that other connections of this
    // process hold on it.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    write_ahead(connection)?;
    // With less, the counts of the last seconds would be lost in a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked again, since another gateway may have been quicker.
    if version(&transaction)? == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

/// Lets a report read while a gateway adds. Where the file system cannot do this (it needs shared memory) SQLite keeps
/// its old journal, and the two wait for each other; the counts are as safe.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            // Here alone SQLite does not wait for others by itself: those that make the file together would fail.
            Err(error) if is_busy(&error) && Instant::now() < until => thread::sleep(BREATH),
            outcome => return outcome,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn add(connection: &mut Connection, rows: &[Row]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut statement = transaction.prepare(ADD)?;
        for Row { api_key, usage_plan, day, counts } in rows {
            statement.execute(named_params! {
                ":day": day,
                ":usage_plan": usage_plan,
                ":api_key": api_key,
                ":used": counts.used,
                ":throttled": counts.throttled,
                ":over_quota": counts.over_quota,
            })?;
        }
    }
    transaction.commit()
}

fn rows(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Row>> {
    let wanted = named_params! {
        ":from": filter.from.unwrap_or(Date::MIN),
        ":to": filter.to.unwrap_or(Date::MAX),
        ":usage_plan": filter.usage_plan,
        ":api_key": filter.api_key,
    };
    let mut statement = connection.prepare(ROWS)?;
    let rows = statement.query_map(wanted, |row| {
        Ok(Row {
            day: row.get(0)?,
            usage_plan: row.get(1)?,
            api_key: row.get(2)?,
            counts: Counts { used: row.get(3)?, throttled: row.get(4)?, over_quota: row.get(5)? },
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests;
