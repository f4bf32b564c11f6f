//! What each API key has used: counted in memory call by call, and handed to the store once a second.
//!
//! A meter outlives reloads, and what the store had of earlier days is told to it before it is asked, so that neither a
//! restart nor a reload gives anybody a new quota.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use jiff::Timestamp;
use jiff::civil::Date;
use parking_lot::Mutex;

use crate::model::periods::day;
pub use crate::model::periods::{Period, Quota};
use crate::store::usage::{Counts, Row};

/// One key on one plan.
#[derive(Default)]
pub struct Meter(Mutex<State>);

#[derive(Default)]
struct State {
    /// What was used on each day, as far back as a period can reach.
    days: BTreeMap<Date, u64>,
    /// Counted and not yet handed to the store.
    pending: BTreeMap<Date, Counts>,
    /// The sum of the period that was asked for last.
    sum: Option<Sum>,
}

struct Sum {
    period: Period,
    start: Date,
    used: u64,
}

impl Meter {
    /// Counts one call as over the quota, if it would be; then with the time until the next period begins.
    pub fn check(&self, quota: Option<Quota>, now: Timestamp) -> Result<(), Duration> {
        self.0.lock().check(quota, now)
    }

    /// Counts one call as used, or as over the quota, as `check` does.
    pub fn take(&self, quota: Option<Quota>, now: Timestamp) -> Result<(), Duration> {
        let today = day(now);
        let mut state = self.0.lock();
        state.check(quota, now)?;
        state.pending.entry(today).or_default().used += 1;
        *state.days.entry(today).or_default() += 1;
        if let Some(sum) = &mut state.sum {
            // Of an earlier period, if there is no quota any more that would have asked; then it is made anew.
            sum.used += 1;
        }
        Ok(())
    }

    pub fn note_throttled(&self, now: Timestamp) {
        self.0.lock().pending.entry(day(now)).or_default().throttled += 1;
    }

    fn note_stored(&self, day: Date, used: u64) {
        let mut state = self.0.lock();
        *state.days.entry(day).or_default() += used;
        state.sum = None;
    }

    /// What the store has of a day by now, of other gateways that share it too.
    fn follow(&self, day: Date, stored: u64) {
        let mut state = self.0.lock();
        let pending = state.pending.get(&day).map_or(0, |counts| counts.used);
        let known = state.days.entry(day).or_default();
        // Never less: in another folder the store begins at nothing, and the quota does not.
        if *known < stored + pending {
            *known = stored + pending;
            state.sum = None;
        }
    }

    fn take_pending(&self) -> BTreeMap<Date, Counts> {
        let mut state = self.0.lock();
        while state.days.len() > DAYS {
            state.days.pop_first();
        }
        std::mem::take(&mut state.pending)
    }

    fn put_back(&self, day: Date, counts: Counts) {
        let mut state = self.0.lock();
        let pending = state.pending.entry(day).or_default();
        pending.used += counts.used;
        pending.throttled += counts.throttled;
        pending.over_quota += counts.over_quota;
    }
}

/// The longest period is a month.
const DAYS: usize = 31;

impl State {
    fn check(&mut self, quota: Option<Quota>, now: Timestamp) -> Result<(), Duration> {
        let today = day(now);
        match quota {
            Some(quota) if self.used(quota.period, today) >= quota.limit => {
                self.pending.entry(today).or_default().over_quota += 1;
                Err(Duration::from_secs(quota.period.seconds_until_next(now)))
            }
            _ => Ok(()),
        }
    }

    fn used(&mut self, period: Period, today: Date) -> u64 {
        let start = period.start_of(today);
        match &self.sum {
            Some(sum) if (sum.period, sum.start) == (period, start) => sum.used,
            _ => {
                let used = self.days.range(start..).map(|(_, used)| used).sum();
                self.sum = Some(Sum { period, start, used });
                used
            }
        }
    }
}

/// All meters of this process, by API key and usage plan.
#[derive(Default)]
pub struct Meters(DashMap<(Arc<str>, Arc<str>), Arc<Meter>>);

impl Meters {
    /// The meter of a key on a plan; the same one after a reload. Whether it is new says whether the store has to be
    /// asked what it had.
    pub fn of(&self, api_key: &Arc<str>, usage_plan: &Arc<str>) -> Arc<Meter> {
        self.0.entry((api_key.clone(), usage_plan.clone())).or_default().clone()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells meters what the store has of before they were made.
    pub fn note_stored(&self, rows: Vec<Row>, mut is_new: impl FnMut(&str, &str) -> bool) {
        for row in rows.into_iter().filter(|row| is_new(&row.api_key, &row.usage_plan)) {
            let key: (Arc<str>, Arc<str>) = (row.api_key.into(), row.usage_plan.into());
            if let Some(meter) = self.0.get(&key) {
                meter.note_stored(row.day, row.counts.used);
            }
        }
    }

    /// Takes over what the store has of one day, once all that was pending has been added to it.
    pub fn follow(&self, rows: Vec<Row>) {
        for row in rows {
            let key: (Arc<str>, Arc<str>) = (row.api_key.into(), row.usage_plan.into());
            if let Some(meter) = self.0.get(&key) {
                meter.follow(row.day, row.counts.used);
            }
        }
    }

    /// The keys and plans that there are meters of.
    pub fn names(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.0.iter().map(|held| held.key().clone()).collect()
    }

    /// What was counted since the last time.
    pub fn take_pending(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for held in &self.0 {
            let (api_key, usage_plan) = held.key();
            for (day, counts) in held.value().take_pending() {
                rows.push(Row { api_key: api_key.to_string(), usage_plan: usage_plan.to_string(), day, counts });
            }
        }
        rows
    }

    /// The store did not take them.
    pub fn put_back(&self, rows: Vec<Row>) {
        for row in rows {
            let key: (Arc<str>, Arc<str>) = (row.api_key.into(), row.usage_plan.into());
            self.0.entry(key).or_default().put_back(row.day, row.counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_quota_is_used_up_and_begins_anew() {
        let meter = Meter::default();
        let quota = Some(Quota { limit: 2, period: Period::Day });
        assert_eq!(meter.take(quota, at("2026-11-25T23:59:58Z")), Ok(()));
        assert_eq!(meter.take(quota, at("2026-11-25T23:59:58Z")), Ok(()));
        assert_eq!(meter.take(quota, at("2026-11-25T23:59:58Z")), Err(Duration::from_secs(2)));
        assert_eq!(meter.take(quota, at("2026-11-26T00:00:00Z")), Ok(()));
        // A reload that makes a day a month counts what there was.
        let month = Some(Quota { limit: 4, period: Period::Month });
        assert_eq!(meter.take(month, at("2026-11-26T00:00:01Z")), Ok(()));
        assert!(meter.take(month, at("2026-11-26T00:00:02Z")).is_err());
        assert_eq!(meter.take(None, at("2026-11-26T00:00:02Z")), Ok(()));
    }

    #[test]
    fn what_the_store_had_counts() {
        let meters = Meters::default();
        let meter = meters.of(&"acme".into(), &"gold".into());
        let row = |used| Row {
            api_key: "acme".into(),
            usage_plan: "gold".into(),
            day: "2026-11-24".parse().unwrap(),
            counts: Counts { used, ..Counts::default() },
        };
        meters.note_stored(vec![row(2)], |_, _| true);
        let quota = Some(Quota { limit: 3, period: Period::Month });
        assert_eq!(meter.take(quota, at("2026-11-25T00:00:00Z")), Ok(()));
        assert!(meter.take(quota, at("2026-11-25T00:00:00Z")).is_err());
        meter.note_throttled(at("2026-11-25T00:00:00Z"));
        let pending = meters.take_pending();
        let counts = Counts { used: 1, throttled: 1, over_quota: 1 };
        assert_eq!(pending.iter().map(|row| row.counts).collect::<Vec<_>>(), [counts]);
        assert!(meters.take_pending().is_empty());
        meters.put_back(pending);
        assert_eq!(meters.take_pending()[0].counts, counts);
    }
}
