//! What is counted on the hot path: plain atomics, which the exporter's own handles follow when somebody scrapes.
//!
//! One relaxed addition is less than a handle of the exporter takes, and what is ours can be read by the dashboard too.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

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

/// Seconds; from a fast backend on the same machine to the longest timeout.
const BOUNDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How long something takes, in buckets with round bounds, so that those of several gateways can be added up. The
/// exporter's own keeps each sample until somebody scrapes, which takes ten times as long.
#[derive(Debug, Default)]
pub struct Latency {
    /// By bucket, the last being what is above all bounds.
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Latency {
    pub fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// Its lines in Prometheus's text format; `labels` are written out already.
    pub(super) fn render(&self, name: &str, labels: &str, into: &mut String) {
        let mut count = 0;
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (own, bound) in self.counts.iter().zip(bounds) {
            count += own.load(Relaxed);
            *into += &format!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}\n");
        }
        let sum = self.nanoseconds.load(Relaxed) as f64 / 1e9;
        *into += &format!("{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n");
    }
}
