//! When a certificate is renewed, and how long a failed order waits for the next one.

use std::time::Duration;

use super::certificate::Certificate;
use crate::model::clock::Timestamp;

/// How often the clock is looked at: timers stand still while a machine sleeps, certificates grow older.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Let's Encrypt allows five failed validations of a name in an hour; the first retries may use them up.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);
/// The shortest time after which a CA that said "too many" may think otherwise.
const RATE_LIMITED_PAUSE: Duration = Duration::from_secs(60 * 60);

/// How long a certificate needs no renewal, an hour at most; `None` if it needs one now. `roll` from 0 to 1 spreads
/// the gateways of this world over time.
pub fn rest(certificate: &Certificate, domains: &[String], now: Timestamp, roll: f64) -> Option<Duration> {
    if !domains.iter().all(|domain| certificate.domains.contains(domain)) {
        return None;
    }
    let due = due(certificate.not_before, certificate.not_after);
    let left = Duration::from_millis(due.0.saturating_sub(now.0));
    (!left.is_zero()).then(|| spread(left.min(LOOK), roll))
}

/// When a third of its life is left.
fn due(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let life = not_after.0.saturating_sub(not_before.0);
    Timestamp(not_after.0 - life / 3)
}

/// How long to wait after this many failures in a row, the last of them perhaps a rate limit.
pub fn pause(failures: u32, is_rate_limited: bool, roll: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    spread(if is_rate_limited { pause.max(RATE_LIMITED_PAUSE) } else { pause }, roll)
}

/// Up to a tenth longer.
fn spread(time: Duration, roll: f64) -> Duration {
    time.mul_f64(1.0 + roll.clamp(0.0, 1.0) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    fn seconds(duration: Duration) -> u64 {
        duration.as_secs()
    }

    /// A certificate for `a.example` that was valid from second 1000 on, looked at `age` later.
    fn check(life: u64, age: u64, wanted: Option<u64>) {
        let from = 1000;
        let at = |second: u64| Timestamp(second * 1000);
        let certificate = Certificate::of_no_use("a.example", at(from), at(from + life));
        let rest = rest(&certificate, &["a.example".into()], at(from + age), 0.0);
        assert_eq!(rest.map(seconds), wanted, "life {life}, age {age}");
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        check(90 * DAY, 0, Some(HOUR));
        check(90 * DAY, 60 * DAY - 2 * HOUR, Some(HOUR));
        check(90 * DAY, 60 * DAY - 10, Some(10));
        check(90 * DAY, 60 * DAY, None);
        check(90 * DAY, 89 * DAY, None);
        check(90 * DAY, 100 * DAY, None);
        check(6, 0, Some(4));
        check(6, 4, None);
        check(0, 0, None);
    }

    #[test]
    fn a_certificate_without_one_of_the_names_is_renewed_now() {
        let certificate = Certificate::of_no_use("a.example", Timestamp(0), Timestamp(90 * DAY * 1000));
        let needs = |domains: &[&str]| {
            let domains: Vec<_> = domains.iter().map(|domain| domain.to_string()).collect();
            rest(&certificate, &domains, Timestamp(0), 0.0).is_none()
        };
        assert!(!needs(&["a.example"]));
        assert!(needs(&["a.example", "b.example"]));
        assert!(needs(&["b.example"]));
    }

    #[test]
    fn gateways_look_at_different_times_and_never_too_early() {
        let certificate = Certificate::of_no_use("a.example", Timestamp(0), Timestamp(90 * DAY * 1000));
        let look = |roll| rest(&certificate, &["a.example".into()], Timestamp(0), roll).map(seconds);
        assert_eq!(look(0.0), Some(HOUR));
        assert_eq!(look(1.0), Some(HOUR + HOUR / 10));
    }

    #[test]
    fn pauses_double_from_a_minute_to_six_hours() {
        let pauses: Vec<_> = (1..=12).map(|failures| seconds(pause(failures, false, 0.0)) / 60).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]);
        assert_eq!(seconds(pause(u32::MAX, false, 0.0)), 6 * HOUR);
        assert_eq!(seconds(pause(1, false, 1.0)), 66);
    }

    #[test]
    fn a_rate_limit_waits_an_hour_at_least() {
        assert_eq!(seconds(pause(1, true, 0.0)), HOUR);
        assert_eq!(seconds(pause(10, true, 0.0)), 6 * HOUR);
    }
}
