//! What is counted for one route: always for the dashboard, and exported where a stage has `detailed_metrics`.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::count::{Count, Latency};
use crate::model::clock::Tick;
use crate::telemetry::timing::{Snapshot, Timing};

/// How long after one look at a route's counters the next is kept.
const LOOK: std::time::Duration = std::time::Duration::from_secs(30);

pub struct RouteMetrics {
    /// Names the route in a word that a connection can keep.
    pub number: u32,
    pub key: Arc<str>,
    pub calls: Arc<Count>,
    pub client_errors: Arc<Count>,
    pub integration_errors: Arc<Count>,
    pub execution_errors: Arc<Count>,
    pub throttled: Count,
    pub latency: Timing,
    recent: Mutex<Recent>,
    /// Made once a stage has `detailed_metrics`.
    pub(super) exported: OnceLock<Detailed>,
}

/// The counters as they were half a minute ago, or a whole one.
#[derive(Default)]
struct Recent {
    last: Option<Box<Figures>>,
    before: Option<Box<Figures>>,
}

/// The counters of a route at one time.
#[derive(Clone, Default)]
pub struct Figures {
    pub at: Tick,
    pub calls: u64,
    pub client_errors: u64,
    pub integration_errors: u64,
    pub execution_errors: u64,
    pub throttled: u64,
    pub latency: Snapshot,
}

/// How a route did of late.
pub struct Pace {
    /// Each by the second.
    pub calls: f64,
    pub errors: f64,
    pub throttled: f64,
    pub latency: Snapshot,
}

impl RouteMetrics {
    pub(super) fn new(number: u32, key: Arc<str>) -> Self {
        Self {
            number,
            key,
            calls: Arc::default(),
            client_errors: Arc::default(),
            integration_errors: Arc::default(),
            execution_errors: Arc::default(),
            throttled: Count::default(),
            latency: Timing::default(),
            recent: Mutex::default(),
            exported: OnceLock::new(),
        }
    }

    pub fn figures(&self, now: Tick) -> Figures {
        Figures {
            at: now,
            calls: self.calls.get(),
            client_errors: self.client_errors.get(),
            integration_errors: self.integration_errors.get(),
            execution_errors: self.execution_errors.get(),
            throttled: self.throttled.get(),
            latency: self.latency.snapshot(),
        }
    }

    /// Keeps the counters as they are, so that the next half minute can be told from the time before. A route that was
    /// never called needs no memory for it.
    pub fn look(&self, now: Tick) {
        if self.calls.get() == 0 {
            return;
        }
        let mut recent = self.recent.lock();
        if recent.last.as_ref().is_some_and(|last| now.since(last.at) < LOOK) {
            return;
        }
        recent.before = recent.last.take();
        recent.last = Some(Box::new(self.figures(now)));
    }

    /// The pace since half a minute to a minute ago.
    pub fn pace(&self, figures: &Figures) -> Pace {
        let recent = self.recent.lock();
        let zero = Figures { at: Tick(figures.at.0.saturating_sub(LOOK.as_millis() as u64)), ..Figures::default() };
        let since = recent.before.as_deref().or(recent.last.as_deref()).unwrap_or(&zero);
        let seconds = figures.at.since(since.at).as_secs_f64().max(1.0);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let errors = |figures: &Figures| figures.client_errors + figures.integration_errors + figures.execution_errors;
        Pace {
            calls: rate(figures.calls, since.calls),
            errors: rate(errors(figures), errors(since)),
            throttled: rate(figures.throttled, since.throttled),
            latency: figures.latency.since(&since.latency),
        }
    }
}

/// What of a route is exported as well, as long as its stage says so.
#[derive(Clone)]
pub struct Detailed {
    pub latency: Arc<Latency>,
}
