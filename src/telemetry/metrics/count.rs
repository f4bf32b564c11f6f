//! What is counted on the hot path: plain atomics, which the exporter's own handles follow when somebody scrapes.
//!
//! One relaxed addition is less than a handle of the exporter takes, and what is ours can be read by the dashboard too.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::Histogram;

use crate::telemetry::timing::{Snapshot, Timing};

/// Goes up only.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    pub fn up(&self, by: usize) {
        self.0.fetch_add(by as i64, Relaxed);
    }

    pub fn down(&self, by: usize) {
        self.0.fetch_sub(by as i64, Relaxed);
    }

    /// What is in two places at once may be taken from one before it was added to the other: never below zero.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Relaxed)).unwrap_or_default()
    }
}

/// How long something takes: a histogram of our own for percentiles, and the exported one with round bounds.
pub struct Latency {
    own: Timing,
    exported: Histogram,
}

impl Latency {
    pub fn new(exported: Histogram) -> Self {
        Self { own: Timing::default(), exported }
    }

    pub fn record(&self, took: Duration) {
        self.own.record(took);
        self.exported.record(took.as_secs_f64());
    }

    pub fn snapshot(&self) -> Snapshot {
        self.own.snapshot()
    }
}
