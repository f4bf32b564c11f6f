//! The calendar of quotas: days, weeks and months of UTC, and what a usage plan allows in one of them.
//!
//! A week begins on Sunday. AWS's reference names no first day for `WEEK`, but the description of `offset` that its
//! SDKs carried for a while did: with an offset of 0 it is Sunday.

use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan as _};

/// How long a quota lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Day,
    Week,
    Month,
}

/// How many calls an API key may make in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub limit: u64,
    pub period: Period,
}

impl Period {
    /// The first day of the period that holds `date`.
    pub fn start_of(self, date: Date) -> Date {
        match self {
            Period::Day => date,
            Period::Week => date.saturating_sub(date.weekday().to_sunday_zero_offset().days()),
            Period::Month => date.first_of_month(),
        }
    }

    /// The last day of the period that holds `date`.
    pub fn end_of(self, date: Date) -> Date {
        match self {
            Period::Day => date,
            Period::Week => date.saturating_add((6 - date.weekday().to_sunday_zero_offset()).days()),
            Period::Month => date.last_of_month(),
        }
    }

    /// The first day after the period that holds `date`.
    pub fn next_start(self, date: Date) -> Date {
        self.end_of(date).saturating_add(1.day())
    }

    /// How long a client has to wait for the next period, in the whole seconds of `Retry-After`: never too short, and
    /// at least 1.
    pub fn seconds_until_next(self, now: Timestamp) -> u64 {
        let now = Offset::UTC.to_datetime(now);
        let next = self.next_start(now.date()).to_datetime(Time::midnight());
        let wait = now.duration_until(next);
        let begun = u64::from(wait.subsec_nanos() > 0);
        (wait.as_secs().unsigned_abs() + begun).max(1)
    }
}

/// The day whose counts a call at this time belongs to.
pub fn day(now: Timestamp) -> Date {
    Offset::UTC.to_datetime(now).date()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::Period::{Day, Month, Week};
    use super::*;

    #[test]
    fn a_period_goes_from_its_first_day_to_its_last() {
        let check = |period: Period, day: &str, start: &str, end: &str, next: &str| {
            let day: Date = day.parse().unwrap();
            let found = [period.start_of(day), period.end_of(day), period.next_start(day)].map(|day| day.to_string());
            assert_eq!(found, [start, end, next], "{period:?} of {day}");
        };
        check(Day, "2026-11-25", "2026-11-25", "2026-11-25", "2026-11-26");
        check(Day, "2026-12-31", "2026-12-31", "2026-12-31", "2027-01-01");
        // 2026-11-22 is a Sunday.
        check(Week, "2026-11-21", "2026-11-15", "2026-11-21", "2026-11-22");
        check(Week, "2026-11-22", "2026-11-22", "2026-11-28", "2026-11-29");
        check(Week, "2026-11-23", "2026-11-22", "2026-11-28", "2026-11-29");
        check(Week, "2027-01-01", "2026-12-27", "2027-01-02", "2027-01-03");
        check(Month, "2026-11-01", "2026-11-01", "2026-11-30", "2026-12-01");
        check(Month, "2026-12-31", "2026-12-01", "2026-12-31", "2027-01-01");
        check(Month, "2028-02-10", "2028-02-01", "2028-02-29", "2028-03-01");
    }

    #[test]
    fn the_wait_ends_with_the_period() {
        let check = |period: Period, now: &str, seconds| {
            assert_eq!(period.seconds_until_next(now.parse().unwrap()), seconds, "{period:?} at {now}");
        };
        check(Day, "2026-11-25T00:00:00Z", 86_400);
        check(Day, "2026-11-25T23:59:59Z", 1);
        check(Day, "2026-11-25T23:59:58.001Z", 2);
        check(Day, "2026-11-25T23:59:59.999999999Z", 1);
        check(Week, "2026-11-21T23:59:50Z", 10);
        check(Week, "2026-11-22T00:00:00Z", 7 * 86_400);
        check(Month, "2026-11-30T12:00:00Z", 43_200);
        check(Month, "2028-02-01T00:00:00Z", 29 * 86_400);
        check(Month, "1969-12-31T23:59:59.5Z", 1);
    }

    #[test]
    fn a_call_counts_for_its_day_of_utc() {
        assert_eq!(day("2026-11-25T23:59:59.999Z".parse().unwrap()), date(2026, 11, 25));
        assert_eq!(day("2026-11-25T23:30:00-01:00".parse().unwrap()), date(2026, 11, 26));
    }

    proptest! {
        #[test]
        fn every_day_is_in_one_period(
            days in -300_000..2_900_000_i32,
            period in prop::sample::select(&[Day, Week, Month]),
        ) {
            let day = date(1970, 1, 1).saturating_add(days.days());
            let is_first = |day: Date| match period {
                Day => true,
                Week => day.weekday() == jiff::civil::Weekday::Sunday,
                Month => day.day() == 1,
            };
            let first = |mut days: std::ops::RangeInclusive<i32>, step: i32| {
                days.find_map(|days| Some(day.saturating_add((step * days).days())).filter(|day| is_first(*day)))
            };
            prop_assert_eq!(Some(period.start_of(day)), first(0..=31, -1));
            prop_assert_eq!(Some(period.next_start(day)), first(1..=31, 1));
            prop_assert_eq!(period.end_of(day).tomorrow().ok(), Some(period.next_start(day)));
        }

        #[test]
        fn whoever_waits_as_long_as_told_is_in_the_next_period(
            nanoseconds in -2_000_000_000_000_000_000..8_000_000_000_000_000_000_i128,
            period in prop::sample::select(&[Day, Week, Month]),
        ) {
            let now = Timestamp::from_nanosecond(nanoseconds).unwrap();
            let seconds = period.seconds_until_next(now) as i64;
            let after = |seconds: i64| period.start_of(day(now + seconds.seconds()));
            prop_assert!(seconds >= 1);
            prop_assert_eq!(after(seconds), period.next_start(day(now)));
            prop_assert_eq!(after(seconds - 1), period.start_of(day(now)));
        }
    }

    #[test]
    fn the_calendar_ends_without_a_panic() {
        for period in [Day, Week, Month] {
            assert_eq!(period.next_start(Date::MAX), Date::MAX);
            assert!(period.start_of(Date::MIN) >= Date::MIN);
            assert!(period.seconds_until_next(Timestamp::MAX) >= 1);
        }
    }
}
