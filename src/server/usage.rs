//! What API keys used goes to disk once a second, and comes from there when the gateway starts.
//!
//! A gateway that is killed loses what it counted in its last second, and no more. Several may share a folder: each
//! learns within a second what the others let through.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use parking_lot::Mutex;

use crate::model::periods::day;
use crate::steps::throttles::meters::Meters;
use crate::store::usage::{Error, UsageStore};

/// How often what was counted is written.
const EVERY: Duration = Duration::from_secs(1);

pub(super) struct Usage {
    meters: Arc<Meters>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Opened once there is something to count.
    store: Option<(PathBuf, UsageStore)>,
    /// The keys and plans whose earlier counts were read.
    read: HashSet<(Arc<str>, Arc<str>)>,
    is_failing: bool,
}

impl Usage {
    pub(super) fn new(meters: Arc<Meters>) -> Arc<Self> {
        Arc::new(Self { meters, state: Mutex::default() })
    }

    /// Reads what the folder has of meters that are new; they must not be asked before.
    pub(super) fn prepare(&self, folder: &Path) -> Result<(), Error> {
        if self.meters.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock();
        if state.store.as_ref().is_none_or(|(opened, _)| opened != folder) {
            state.store = Some((folder.to_owned(), UsageStore::open(folder)?));
        }
        let State { store, read, .. } = &mut *state;
        let Some((_, store)) = store else { return Ok(()) };
        let names = self.meters.names();
        let new: HashSet<_> = names.into_iter().filter(|name| !read.contains(name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let today = day(Timestamp::now());
        let rows = store.used(today.saturating_sub(31.days()), today)?;
        let is_new =
            |api_key: &str, usage_plan: &str| new.contains(&(Arc::<str>::from(api_key), Arc::<str>::from(usage_plan)));
        self.meters.note_stored(rows, is_new);
        read.extend(new);
        Ok(())
    }

    /// Writes what was counted, second by second.
    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.flush().await;
        }
    }

    /// The last time, within so long: what is not written then is lost, and said to be.
    pub(super) async fn close(self: &Arc<Self>, patience: Duration) {
        let is_written = tokio::time::timeout(patience, self.flush()).await.is_ok();
        let lost: u64 = self.meters.take_pending().iter().map(|row| row.counts.used).sum();
        if lost > 0 || !is_written {
            tracing::error!(lost, "what API keys used last could not be written, and is lost");
        }
    }

    /// Writes what was counted since the last time. Where that fails it is tried again, and nothing is forgotten.
    pub(super) async fn flush(self: &Arc<Self>) {
        let usage = self.clone();
        // A disk may take its time.
        let _ = tokio::task::spawn_blocking(move || usage.write()).await;
    }

    fn write(&self) {
        let mut state = self.state.lock();
        let State { store, is_failing, .. } = &mut *state;
        let Some((_, store)) = store else { return };
        let rows = self.meters.take_pending();
        let added = if rows.is_empty() { Ok(()) } else { store.add(&rows) };
        match added {
            Ok(()) => {
                // Other gateways may add to the same file, and their calls count here as well.
                let today = day(Timestamp::now());
                if let Ok(rows) = store.used(today.saturating_sub(1.day()), today) {
                    self.meters.follow(rows);
                }
                if std::mem::take(is_failing) {
                    tracing::info!("what API keys used is written again, with all that was counted meanwhile");
                }
            }
            Err(error) => {
                self.meters.put_back(rows);
                if !std::mem::replace(is_failing, true) {
                    tracing::error!("what API keys used cannot be written, and is kept in memory: {error}");
                }
            }
        }
    }
}
