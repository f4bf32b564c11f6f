//! How long calls take, as counts in fixed buckets: cheap to record, and percentiles of any stretch of time.
//!
//! The buckets are log-linear, eight to each power of two. Counts are modulo 2^32 and only ever compared with earlier
//! ones, so that they may run over.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// What takes less than 2^15 ns (33 µs) is all the same to us, and what takes 2^36 ns (69 s) or more is as well.
const LOWEST: u32 = 15;
const HIGHEST: u32 = 36;

/// 2^3 buckets to each power of two.
const FINENESS: u32 = 3;
const BUCKETS: usize = ((HIGHEST - LOWEST) as usize) << FINENESS;

/// The two ends have a bucket each.
const COUNTS: usize = BUCKETS + 2;

/// Takes note of durations from any thread, in a few nanoseconds.
pub struct Timing([AtomicU32; COUNTS]);

/// The counts at one time, or what was added between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot([u32; COUNTS]);

impl Timing {
    pub fn record(&self, took: Duration) {
        self.0[bucket(took)].fetch_add(1, Relaxed);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(std::array::from_fn(|bucket| self.0[bucket].load(Relaxed)))
    }
}

impl Snapshot {
    /// Counts those of another `Timing` as well.
    pub fn add(&mut self, other: &Snapshot) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count = count.wrapping_add(*more);
        }
    }

    /// What was recorded since an earlier snapshot, less than 2^31 in any bucket.
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        Snapshot(std::array::from_fn(|bucket| {
            let more = self.0[bucket].wrapping_sub(earlier.0[bucket]);
            // So much is a count that went down: a stage is gone, and what it counted with it.
            if more > u32::MAX / 2 { 0 } else { more }
        }))
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// What the share `q` (0 to 1) of the durations took at most, within 10 % of it between the two ends; `None` without
    /// any. Above the upper end it is the upper end.
    pub fn percentile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        for (bucket, count) in self.0.iter().map(|count| u64::from(*count)).enumerate() {
            if below + count >= rank {
                let share = ((rank - below) as f64 - 0.5) / count as f64;
                return Some(Duration::from_nanos(between(lower_end(bucket), lower_end(bucket + 1), share)));
            }
            below += count;
        }
        None
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; COUNTS])
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self([0; COUNTS])
    }
}

fn bucket(took: Duration) -> usize {
    let nanoseconds = took.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(took.subsec_nanos()));
    let Some(power) = nanoseconds.checked_ilog2().filter(|power| *power >= LOWEST) else { return 0 };
    if power >= HIGHEST {
        return COUNTS - 1;
    }
    let part = (nanoseconds >> (power - FINENESS)) as usize & ((1 << FINENESS) - 1);
    1 + (((power - LOWEST) as usize) << FINENESS) + part
}

/// The least nanoseconds that a bucket holds. The last bucket has no upper end, so it ends where it begins.
fn lower_end(bucket: usize) -> u64 {
    let Some(bucket) = bucket.checked_sub(1) else { return 0 };
    let bucket = bucket.min(BUCKETS);
    let (power, part) = (bucket >> FINENESS, (bucket & ((1 << FINENESS) - 1)) as u64);
    ((1 << FINENESS) + part) << (power + (LOWEST - FINENESS) as usize)
}

/// A place in the middle half of a bucket: were all of it used, a bucket whose calls all took the same would be read
/// wrong by its whole width, which is up to an eighth.
fn between(low: u64, high: u64, share: f64) -> u64 {
    low + ((high - low) as f64 * (0.25 + share / 2.0)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timing(durations: impl IntoIterator<Item = Duration>) -> Timing {
        let timing = Timing::default();
        durations.into_iter().for_each(|took| timing.record(took));
        timing
    }

    #[test]
    fn every_bucket_begins_where_the_one_below_ends() {
        for at in 0..COUNTS {
            assert_eq!(bucket(Duration::from_nanos(lower_end(at))), at);
            if at > 0 {
                assert_eq!(bucket(Duration::from_nanos(lower_end(at) - 1)), at - 1);
            }
        }
        assert_eq!(bucket(Duration::MAX), COUNTS - 1);
    }

    #[test]
    fn the_counts_are_small() {
        assert!(size_of::<Timing>() <= 700 && size_of::<Snapshot>() <= 700);
    }

    #[test]
    fn nothing_recorded_has_no_percentiles() {
        assert_eq!(Snapshot::default().percentile(0.5), None);
        assert_eq!(Snapshot::default().count(), 0);
    }

    #[test]
    fn the_ends_stand_for_all_beyond_them() {
        let soon = timing([Duration::ZERO; 3]).snapshot().percentile(0.99).unwrap();
        assert!(soon < Duration::from_nanos(1 << LOWEST), "{soon:?}");
        let late = timing([Duration::from_secs(3600)]).snapshot().percentile(0.5);
        assert_eq!(late, Some(Duration::from_nanos(1 << HIGHEST)));
    }

    #[test]
    fn what_was_added_can_be_told_from_what_was_there() {
        let timing = timing([Duration::from_millis(1); 100]);
        let before = timing.snapshot();
        timing.record(Duration::from_secs(1));
        let added = timing.snapshot().since(&before);
        assert_eq!(added.count(), 1);
        assert!(added.percentile(0.5).unwrap() > Duration::from_millis(900));
        let mut both = before.clone();
        both.add(&added);
        assert_eq!(both, timing.snapshot());
    }

    #[test]
    fn counts_may_run_over_and_may_go_down() {
        let (mut before, mut now) = (Snapshot::default(), Snapshot::default());
        (before.0[7], now.0[7]) = (u32::MAX - 1, 3);
        assert_eq!(now.since(&before).count(), 5);
        (before.0[7], now.0[7]) = (1000, 3);
        assert_eq!(now.since(&before).count(), 0);
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_a_sorted_list(
            mut durations in prop::collection::vec(33_000_u64..68_000_000_000, 1..200),
            alike in prop::collection::vec(100_000_u64..200_000, 0..200),
            q in 0.0..=1.0_f64,
        ) {
            durations.extend(alike);
            durations.sort_unstable();
            let rank = ((q * durations.len() as f64).ceil() as usize).max(1);
            let wanted = durations[rank - 1] as f64;
            let snapshot = timing(durations.iter().copied().map(Duration::from_nanos)).snapshot();
            prop_assert_eq!(snapshot.count(), durations.len() as u64);
            let found = snapshot.percentile(q).unwrap().as_nanos() as f64;
            prop_assert!((found - wanted).abs() <= wanted * 0.1, "{} for {}", found, wanted);
        }
    }
}
