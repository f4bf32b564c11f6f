//! How often an issuer is asked for its keys: seldom when it fails, and seldom for tokens that name keys nobody has.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Fetches for unknown names that may follow at once: a rotation and its corrections.
const BURST: u32 = 3;

/// How long it takes for one more of them. A stranger can make up names as fast as he likes.
const REFILL: Duration = Duration::from_secs(10);

/// Why the issuer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// There are no keys, or old ones.
    Age,
    /// A token names a key that is not among ours.
    UnknownKid,
}

/// Never lets more than `BURST` fetches plus one for each `REFILL` through for unknown names, and none during a pause.
#[derive(Debug)]
pub(super) struct Pace {
    /// Failures since the last success.
    failures: u32,
    paused_until: Option<Instant>,
    /// When `BURST` fetches for unknown names may follow at once again; each puts it off by `REFILL`.
    full_at: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Pace {
        Pace { failures: 0, paused_until: None, full_at: now }
    }

    /// Whether the issuer may be asked now; if so it counts as asked.
    pub fn admit(&mut self, reason: Reason, now: Instant) -> bool {
        if self.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        reason == Reason::Age || self.take_name(now)
    }

    /// How many failures in a row it ends.
    pub fn succeeded(&mut self) -> u32 {
        self.paused_until = None;
        std::mem::take(&mut self.failures)
    }

    /// How many failures in a row it is now, and how long the issuer is left alone.
    pub fn failed(&mut self, now: Instant) -> (u32, Duration) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.paused_until = Some(now + pause);
        (self.failures, pause)
    }

    fn take_name(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now);
        let is_left = full_at - now <= REFILL * (BURST - 1);
        if is_left {
            self.full_at = full_at + REFILL;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_to_half_a_minute_and_end_with_a_success() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let pauses: Vec<_> = (0..7).map(|_| pace.failed(begun).1.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        for reason in [Reason::Age, Reason::UnknownKid] {
            assert!(!pace.admit(reason, begun + LONGEST_PAUSE - Duration::from_millis(1)));
            assert!(pace.admit(reason, begun + LONGEST_PAUSE));
        }
        pace.succeeded();
        assert!(pace.admit(Reason::Age, begun));
        assert_eq!(pace.failed(begun), (1, FIRST_PAUSE));
        assert_eq!((0..100).map(|_| pace.failed(begun)).last(), Some((101, LONGEST_PAUSE)));
    }

    #[test]
    fn three_unknown_names_at_once_and_one_each_ten_seconds() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let mut check = |second: u64, admitted: usize| {
            let now = begun + Duration::from_secs(second);
            assert_eq!((0..10).filter(|_| pace.admit(Reason::UnknownKid, now)).count(), admitted, "at {second} s");
        };
        check(100, 3);
        check(109, 0);
        check(110, 1);
        check(119, 0);
        check(135, 2);
        check(139, 0);
        check(140, 1);
        check(10_000, 3);
    }

    #[test]
    fn unknown_names_do_not_keep_keys_from_being_renewed() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        while pace.admit(Reason::UnknownKid, begun) {}
        assert!(pace.admit(Reason::Age, begun));
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_time_brings(pauses in prop::collection::vec(0u64..15_000, 1..200)) {
            let begun = Instant::now();
            let mut pace = Pace::new(begun);
            let (mut elapsed, mut admitted) = (0, 0);
            for pause in pauses {
                elapsed += pause;
                admitted += u64::from(pace.admit(Reason::UnknownKid, begun + Duration::from_millis(elapsed)));
                prop_assert!(admitted <= 3 + elapsed / 10_000);
            }
        }
    }
}
