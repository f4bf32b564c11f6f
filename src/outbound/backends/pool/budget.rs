//! The retry budget: repeated calls are a share of the calls of late, so that servers in trouble are not asked twice
//! as much for it.

use parking_lot::Mutex;

use crate::model::clock::Tick;

/// How far back "of late" goes, in seconds.
const WINDOW: usize = 10;

/// Repeated calls that each second may have in any case: of few calls a share would be none.
const LEAST_A_SECOND: u32 = 10;

/// Never lets more be repeated than `percent` of the calls plus `LEAST_A_SECOND` for each second.
pub(super) struct Budget {
    percent: u32,
    window: Mutex<Window>,
}

/// A ring of seconds with the sums over all of them.
#[derive(Default)]
struct Window {
    seconds: [Counts; WINDOW],
    sum: Counts,
    /// The second since the process started that was counted last.
    current: u64,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    calls: u32,
    repeats: u32,
}

impl Budget {
    pub fn new(percent: u32) -> Self {
        Self { percent, window: Mutex::default() }
    }

    /// Notes a call; its repetitions are no calls.
    pub fn note_call(&self, now: Tick) {
        let mut window = self.window.lock();
        window.second(now).calls += 1;
        window.sum.calls += 1;
    }

    /// Takes one repetition, if there is any left.
    pub fn take(&self, now: Tick) -> bool {
        let mut window = self.window.lock();
        let in_this_second = window.second(now).repeats;
        let Counts { calls, repeats } = window.sum;
        let is_within_share = (u64::from(repeats) + 1) * 100 <= u64::from(calls) * u64::from(self.percent);
        if !is_within_share && in_this_second >= LEAST_A_SECOND {
            return false;
        }
        window.second(now).repeats += 1;
        window.sum.repeats += 1;
        true
    }
}

impl Window {
    /// The counts of this second, after those that are too old were taken out.
    fn second(&mut self, now: Tick) -> &mut Counts {
        // Ticks of two threads may come in the wrong order; what is a second late counts for the current one.
        let second = (now.0 / 1_000).max(self.current);
        for passed in 0..(second - self.current).min(WINDOW as u64) {
            let oldest = std::mem::take(&mut self.seconds[((self.current + 1 + passed) % WINDOW as u64) as usize]);
            self.sum.calls -= oldest.calls;
            self.sum.repeats -= oldest.repeats;
        }
        self.current = second;
        &mut self.seconds[(second % WINDOW as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many of `wanted` repetitions are let through at `second` after so many calls at second 0.
    fn check(percent: u32, calls: usize, second: u64, wanted: usize) {
        let budget = Budget::new(percent);
        (0..calls).for_each(|_| budget.note_call(Tick(0)));
        let taken = (0..10_000).filter(|_| budget.take(Tick(second * 1_000))).count();
        assert_eq!(taken, wanted, "{percent} % of {calls} calls at {second} s");
    }

    #[test]
    fn a_share_of_the_calls_of_late_and_a_few_in_any_case() {
        check(20, 0, 0, 10);
        check(20, 49, 0, 10);
        check(20, 1_000, 0, 200);
        check(20, 1_000, 9, 200);
        check(20, 1_000, 10, 10);
        check(20, 1_000, 1_000_000, 10);
        check(0, 1_000, 0, 10);
        check(100, 1_000, 0, 1_000);
    }

    proptest! {
        /// At every moment, whatever came before: the share of all calls, and the few of each second.
        #[test]
        fn no_more_than_the_budget_is_repeated(
            percent in 0u32..=100,
            steps in prop::collection::vec((0u64..2_500, 0usize..60, 0usize..60), 1..80),
        ) {
            let budget = Budget::new(percent);
            let mut now = 0;
            let mut seconds = std::collections::BTreeSet::new();
            let (mut calls, mut repeats) = (0usize, 0usize);
            for (pause, more_calls, wishes) in steps {
                now += pause;
                seconds.insert(now / 1_000);
                (0..more_calls).for_each(|_| budget.note_call(Tick(now)));
                calls += more_calls;
                repeats += (0..wishes).filter(|_| budget.take(Tick(now))).count();
                prop_assert!(repeats * 100 <= calls * percent as usize + seconds.len() * 1_000);
            }
        }
    }
}
