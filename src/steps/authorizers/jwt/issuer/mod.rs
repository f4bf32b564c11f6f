//! Where keys come from: the file, or an issuer that publishes them and changes them when it likes.
//!
//! An issuer's keys are kept and renewed ahead of time, so that a call waits for them only when there are none. An
//! issuer that fails takes nothing away: what was fetched last goes on serving. All fetches are tasks, one at a time
//! for each issuer, because a fetch that ended with the caller that wanted it would begin again with the next.
//! `source` is what such a task does, and `pace` says how often there is one.

mod pace;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

pub use self::source::Source;

use self::pace::{Pace, Reason};
use self::source::Error;
use super::invalid::Invalid;
use super::keys::KeySet;
use super::token::{Rules, Unverified, Verified};
use crate::outbound::fetch::Fetch;

/// Older keys are renewed at their next use, which does not wait for it. It is how long a key that the issuer withdrew
/// may still be good.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// Older keys are good only when the issuer cannot be asked; AWS keeps keys for two hours at most.
const STALE: Duration = Duration::from_secs(2 * 60 * 60);

/// Whose tokens are good.
pub enum Issuer {
    Static(KeySet),
    Fetched(Fetched),
}

/// The kept handles of one issuer.
pub struct Metrics {
    pub fetched: Counter,
    pub failed: Counter,
}

/// The keys of an issuer that publishes them. Dropping it ends a fetch under way.
pub struct Fetched {
    shared: Arc<Shared>,
    fetch: Mutex<Option<Running>>,
}

/// What the task of a fetch has in common with those who wait for it.
struct Shared {
    source: Source,
    kept: ArcSwapOption<Kept>,
    pace: Mutex<Pace>,
    metrics: Metrics,
}

struct Kept {
    keys: KeySet,
    since: Instant,
}

struct Running {
    ended: Ended,
    _task: AbortOnDropHandle<()>,
}

/// Nothing is ever sent on it; it closes when the task ends, in whatever way.
type Ended = watch::Receiver<()>;

/// The issuers that publish their keys; they outlive a reload, and so do the keys.
#[derive(Default)]
pub struct Issuers(DashMap<Source, Arc<Issuer>>);

impl Issuers {
    pub fn of(&self, source: Source, metrics: Metrics) -> Arc<Issuer> {
        let fetched = || Arc::new(Issuer::Fetched(Fetched::new(source.clone(), metrics)));
        self.0.entry(source.clone()).or_insert_with(fetched).clone()
    }

    /// Forgets those that nobody has a use for.
    pub fn prune(&self) {
        self.0.retain(|_, issuer| Arc::strong_count(issuer) > 1);
    }
}

impl Issuer {
    /// What the token says, if it is good at `now` (in seconds since 1970). Waits for the issuer when there are no
    /// keys or the token names one that is unknown, and `Invalid::Unreachable` says that there are none to be had.
    pub async fn verify<F: Fetch>(&self, token: &str, rules: &Rules, now: f64, fetch: &F) -> Result<Verified, Invalid> {
        // What has not even the form of a token is no reason to ask anybody.
        let token = Unverified::read(token)?;
        match self {
            Issuer::Static(keys) => token.verify(keys, rules, now),
            Issuer::Fetched(fetched) => fetched.verify(&token, rules, now, fetch).await,
        }
    }
}

impl Fetched {
    /// Asks nobody before the first token.
    pub fn new(source: Source, metrics: Metrics) -> Fetched {
        let pace = Mutex::new(Pace::new(Instant::now()));
        let shared = Shared { source, kept: ArcSwapOption::empty(), pace, metrics };
        Fetched { shared: Arc::new(shared), fetch: Mutex::new(None) }
    }

    async fn verify<F: Fetch>(
        &self,
        token: &Unverified<'_>,
        rules: &Rules,
        now: f64,
        fetch: &F,
    ) -> Result<Verified, Invalid> {
        let kept = self.keys(fetch).await.ok_or(Invalid::Unreachable)?;
        match token.verify(&kept.keys, rules, now) {
            Err(Invalid::UnknownKid) => {
                let newest = self.renewed(Reason::UnknownKid, Some(&kept), fetch).await.ok_or(Invalid::Unreachable)?;
                token.verify(&newest.keys, rules, now)
            }
            outcome => outcome,
        }
    }

    async fn keys<F: Fetch>(&self, fetch: &F) -> Option<Arc<Kept>> {
        let kept = self.shared.kept.load_full();
        match kept.as_ref().map(|kept| kept.since.elapsed()) {
            Some(age) if age < FRESH => kept,
            Some(age) if age < STALE => {
                self.ask(Reason::Age, kept.as_ref(), fetch);
                kept
            }
            _ => self.renewed(Reason::Age, kept.as_ref(), fetch).await,
        }
    }

    /// The newest keys there are, after a fetch if there may be one.
    async fn renewed<F: Fetch>(&self, reason: Reason, known: Option<&Arc<Kept>>, fetch: &F) -> Option<Arc<Kept>> {
        if let Some(mut ended) = self.ask(reason, known, fetch) {
            // An error is what it waits for: the sender is gone.
            let _ = ended.changed().await;
        }
        self.shared.kept.load_full()
    }

    /// The fetch to wait for, a new one or that of somebody else. `None` when there are other keys than those `known`
    /// by now, or when the issuer may not be asked yet.
    fn ask<F: Fetch>(&self, reason: Reason, known: Option<&Arc<Kept>>, fetch: &F) -> Option<Ended> {
        let mut running = self.fetch.lock();
        if let Some(Running { ended, .. }) = &*running
            && ended.has_changed().is_ok()
        {
            return Some(ended.clone());
        }
        // Asked under the lock: between a caller's look at the keys and here, somebody may have fetched.
        if self.shared.kept.load().as_ref().map(Arc::as_ptr) != known.map(Arc::as_ptr)
            || !self.shared.pace.lock().admit(reason, Instant::now())
        {
            return None;
        }
        let (end, ended) = watch::channel(());
        let (shared, fetch) = (Arc::clone(&self.shared), fetch.clone());
        let task = tokio::spawn(async move {
            shared.renew(&fetch).await;
            drop(end);
        });
        *running = Some(Running { ended: ended.clone(), _task: AbortOnDropHandle::new(task) });
        Some(ended)
    }
}

impl Shared {
    async fn renew<F: Fetch>(&self, fetch: &F) {
        match self.source.keys(fetch).await {
            Ok(keys) => {
                self.kept.store(Some(Arc::new(Kept { keys, since: Instant::now() })));
                self.succeeded();
            }
            Err(error) => self.failed(&error),
        }
    }

    fn succeeded(&self) {
        self.metrics.fetched.increment(1);
        let failures = self.pace.lock().succeeded();
        let issuer = self.source.name();
        if failures > 0 {
            tracing::info!(issuer, failures, "the keys of `{issuer}` can be had again, after {failures} failures");
        }
    }

    /// A streak is said once: with calls coming in, an issuer is tried twice a minute for as long as it is down.
    fn failed(&self, error: &Error) {
        self.metrics.failed.increment(1);
        let (failures, pause) = self.pace.lock().failed(Instant::now());
        let (issuer, pause) = (self.source.name(), pause.as_secs());
        if failures > 1 {
            tracing::debug!(issuer, failures, "no keys of `{issuer}`, next try in {pause} s: {error}");
        } else if let Some(kept) = &*self.kept.load() {
            let age = kept.since.elapsed().as_secs();
            tracing::warn!(issuer, "no new keys of `{issuer}`, those of {age} s ago go on serving: {error}");
        } else {
            tracing::warn!(issuer, "no keys of `{issuer}`, its tokens are refused until there are: {error}");
        }
    }
}
