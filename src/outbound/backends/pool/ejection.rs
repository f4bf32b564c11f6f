//! Ejection: a server that failed several calls in a row gets none for a while, then one at a time until one succeeds.
//!
//! A call tells of the time in which it began: what began before an ejection neither ends nor lengthens it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::EjectionRules;
use crate::model::clock::Tick;

/// However often a server was ejected, it is tried again after this long, or after the time that the file says if
/// that is longer.
const LONGEST: Duration = Duration::from_secs(300);

/// What is known of one server from the calls it got. Ejections and returns are decided under the lock of `past`;
/// picking only looks at the atomics.
pub(super) struct Ejection {
    /// The first moment of a trial; zero while the server is in service.
    trial_from: AtomicU64,
    /// The same for calls that cannot be repeated.
    trial_for_all_from: AtomicU64,
    /// Begins at one and goes up with each ejection and each return.
    era: AtomicU32,
    /// The era whose trial is in progress. A trial of an era that is over hinders no other, however long it lasts.
    trial: AtomicU32,
    failures: AtomicU32,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    /// How often the next ejection's time is doubled.
    doublings: u32,
    in_service_since: Tick,
}

/// A call's share in this: when it began, and whether it is the trial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    era: u32,
    is_trial: bool,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            trial_from: AtomicU64::new(0),
            trial_for_all_from: AtomicU64::new(0),
            era: AtomicU32::new(1),
            trial: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            past: Mutex::default(),
        }
    }
}

impl Ejection {
    pub fn is_ejected(&self) -> bool {
        self.trial_from.load(Ordering::Acquire) != 0
    }

    /// Whether a call may begin here: the server is in service, or its time is over and nobody is trying it.
    ///
    /// A call that cannot be repeated waits twice as long before it is risked on a trial: if there are any others
    /// they find out first, and a client whose trial fails on them sees the answer of another server.
    pub fn may_begin(&self, now: Tick, repeatable: bool) -> bool {
        !self.is_ejected() || (self.is_trial_due(now, repeatable) && self.trial.load(Ordering::Relaxed) != self.era())
    }

    /// Begins a call; `None` if another call began the trial first.
    pub fn begin(&self, now: Tick, repeatable: bool) -> Option<Ticket> {
        let era = self.era();
        if !self.is_ejected() {
            return Some(Ticket { era, is_trial: false });
        }
        let tried = self.trial.load(Ordering::Relaxed);
        let is_ours = tried != era
            && self.is_trial_due(now, repeatable)
            && self.trial.compare_exchange(tried, era, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_ours.then_some(Ticket { era, is_trial: true })
    }

    /// Begins a call although the server may be ejected.
    pub fn begin_regardless(&self) -> Ticket {
        Ticket { era: self.era(), is_trial: false }
    }

    /// Notes that a call went well; says whether that brought the server back.
    pub fn note_success(&self, ticket: Ticket, now: Tick) -> bool {
        // The way of nearly all calls, which touches nothing that others write.
        if !self.is_ejected() && self.failures.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut past = self.past.lock();
        if ticket.era != self.era() {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        let comes_back = self.is_ejected();
        if comes_back {
            past.in_service_since = now;
            self.begin_era(0, 0);
        }
        comes_back
    }

    /// Notes that a call failed; says for how long the server is ejected, if that did it.
    pub fn note_failure(&self, ticket: Ticket, rules: EjectionRules, now: Tick) -> Option<Duration> {
        let mut past = self.past.lock();
        if ticket.era != self.era() {
            return None;
        }
        if self.is_ejected() {
            if !ticket.is_trial {
                // It was asked as a last resort, and failing was to be expected.
                return None;
            }
        } else {
            let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
            if failures < rules.failures {
                return None;
            }
            let served = now.since(past.in_service_since);
            past.forgive(served, rules.time);
        }
        let time = past.next(rules.time);
        let milliseconds = time.as_millis() as u64;
        self.begin_era(now.0 + milliseconds, now.0 + 2 * milliseconds);
        Some(time)
    }

    /// The call is over, whatever became of it.
    pub fn end(&self, ticket: Ticket) {
        if ticket.is_trial {
            // If it told no outcome, another call is the next trial.
            let _ = self.trial.compare_exchange(ticket.era, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Puts the server back into service as if nothing had been.
    pub fn forget(&self) {
        let mut past = self.past.lock();
        *past = Past::default();
        self.begin_era(0, 0);
    }

    /// Only under the lock.
    fn begin_era(&self, trial_from: u64, trial_for_all_from: u64) {
        self.failures.store(0, Ordering::Relaxed);
        self.era.fetch_add(1, Ordering::Relaxed);
        self.trial_for_all_from.store(trial_for_all_from, Ordering::Relaxed);
        // Last: who sees this sees the rest.
        self.trial_from.store(trial_from, Ordering::Release);
    }

    fn era(&self) -> u32 {
        self.era.load(Ordering::Relaxed)
    }

    fn is_trial_due(&self, now: Tick, repeatable: bool) -> bool {
        let from = if repeatable { &self.trial_from } else { &self.trial_for_all_from };
        now.0 >= from.load(Ordering::Acquire)
    }
}

impl Past {
    /// The time of the ejection that begins now; the next one's is twice as long.
    fn next(&mut self, first: Duration) -> Duration {
        let time = doubled(first, self.doublings);
        if doubled(first, self.doublings + 1) > time {
            self.doublings += 1;
        }
        time
    }

    /// Takes back a doubling for each time that the server served as long as it had been ejected.
    fn forgive(&mut self, mut served: Duration, first: Duration) {
        while self.doublings > 0 {
            let Some(rest) = served.checked_sub(doubled(first, self.doublings - 1)) else { break };
            served = rest;
            self.doublings -= 1;
        }
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(first.max(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: EjectionRules = EjectionRules { failures: 3, time: Duration::from_secs(10) };

    /// A story, a word a second: `ok` and `no` are calls that go well and fail, `N` lets seconds pass, and what is
    /// told in between is `>N` for an ejection of so many seconds and `<` for a return. Calls that may not begin are `x`.
    fn check(story: &str) {
        let ejection = Ejection::default();
        let mut now = 1;
        let mut words = story.split(' ').peekable();
        while let Some(word) = words.next() {
            let ticket = ejection.begin(Tick(now), true);
            if let Some(ticket) = ticket {
                ejection.end(ticket);
            }
            let told = match (word, ticket) {
                ("x", ticket) => {
                    assert!(ticket.is_none(), "{story}: at {now} ms a call may begin");
                    None
                }
                ("ok", Some(ticket)) => ejection.note_success(ticket, Tick(now)).then(|| "<".to_owned()),
                ("no", Some(ticket)) => {
                    ejection.note_failure(ticket, RULES, Tick(now)).map(|time| format!(">{}", time.as_secs()))
                }
                ("ok" | "no", None) => panic!("{story}: at {now} ms no call may begin"),
                (seconds, _) => {
                    now += 1_000 * seconds.parse::<u64>().unwrap();
                    continue;
                }
            };
            let wanted = words.next_if(|word| word.starts_with(['<', '>'])).map(str::to_owned);
            assert_eq!(told, wanted, "{story}: at {now} ms");
        }
    }

    #[test]
    fn failures_in_a_row_eject() {
        check("no no no >10 x");
        check("no no ok no no ok no no no >10 x");
    }

    #[test]
    fn an_ejected_server_is_tried_when_its_time_is_over() {
        check("no no no >10 9 x 1 ok < ok ok");
    }

    #[test]
    fn each_failed_trial_doubles_the_time_up_to_five_minutes() {
        check("no no no >10 10 no >20 19 x 1 no >40 40 no >80 80 no >160 160 no >300 299 x 1 no >300");
    }

    #[test]
    fn good_service_halves_the_time_again() {
        check("no no no >10 10 ok < no no no >20 20 ok < no no no >40");
        check("no no no >10 10 ok < 10 no no no >10");
        check("no no no >10 10 no >20 20 ok < 19 no no no >40");
        check("no no no >10 10 no >20 20 ok < 20 no no no >20");
        check("no no no >10 10 no >20 20 ok < 30 no no no >10");
    }

    #[test]
    fn one_trial_at_a_time() {
        let ejection = ejected();
        let now = Tick(10_000);
        let trial = ejection.begin(now, true).unwrap();
        assert!(ejection.begin(now, true).is_none());
        // The client went away: nothing was learned, and the next call is the trial.
        ejection.end(trial);
        assert!(ejection.begin(now, true).is_some());
    }

    #[test]
    fn a_trial_that_still_flows_hinders_no_later_one() {
        let ejection = ejected();
        let trial = ejection.begin(Tick(10_000), true).unwrap();
        assert!(ejection.note_success(trial, Tick(10_000)));
        let call = ejection.begin(Tick(10_000), true).unwrap();
        (0..3).for_each(|_| _ = ejection.note_failure(call, RULES, Tick(10_000)));
        let second = ejection.begin(Tick(30_000), true).unwrap();
        ejection.end(trial);
        assert!(second.is_trial && ejection.begin(Tick(30_000), true).is_none());
    }

    #[test]
    fn what_cannot_be_repeated_is_risked_later() {
        let ejection = ejected();
        assert!(!ejection.may_begin(Tick(10_000), false) && ejection.begin(Tick(10_000), false).is_none());
        assert!(ejection.may_begin(Tick(20_000), false) && ejection.begin(Tick(20_000), false).is_some());
    }

    #[test]
    fn calls_from_before_an_ejection_change_nothing() {
        let ejection = Ejection::default();
        let early = ejection.begin(Tick(0), true).unwrap();
        (0..3).for_each(|_| _ = ejection.note_failure(early, RULES, Tick(0)));
        assert!(!ejection.note_success(early, Tick(1)) && ejection.is_ejected());
        let trial = ejection.begin(Tick(10_000), true).unwrap();
        assert!(ejection.note_success(trial, Tick(10_000)));
        (0..9).for_each(|_| assert_eq!(ejection.note_failure(early, RULES, Tick(10_001)), None));
    }

    #[test]
    fn a_last_resort_brings_back_but_does_not_lengthen() {
        let ejection = ejected();
        assert_eq!(ejection.note_failure(ejection.begin_regardless(), RULES, Tick(5)), None);
        assert!(ejection.may_begin(Tick(10_000), true));
        assert!(ejection.note_success(ejection.begin_regardless(), Tick(6)));
        assert!(!ejection.is_ejected());
    }

    fn ejected() -> Ejection {
        let ejection = Ejection::default();
        let call = ejection.begin(Tick(0), true).unwrap();
        (0..3).for_each(|_| _ = ejection.note_failure(call, RULES, Tick(0)));
        assert!(ejection.is_ejected());
        ejection
    }
}
