//! What the dashboard draws: how much happened of late, and for a day back in ever larger steps.
//!
//! Once a second the totals are noted, and what was added since becomes a step. Steps are told apart by a steady clock
//! that is set by the wall's once: when the wall clock jumps, the whole history moves with it.
//!
//! Memory is bounded: 2,280 steps of 68 bytes, and 15 times the totals of about 800, are 170 KiB.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::timing::Snapshot;
use crate::model::clock::{Tick, Timestamp};

/// The kinds of errors that are told apart, in the order of `Totals::errors`.
pub const ERRORS: [&str; 9] =
    ["throttled", "denied", "client", "integration", "unreachable", "timeout", "bad_answer", "authorizer", "internal"];

const RATES: [&str; 4] = ["messages_in", "messages_out", "pushes", "requests"];
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// Seconds of a step, and how many steps are kept.
const RINGS: [(u64, usize); 4] = [(1, 300), (5, 180), (10, 360), (60, 1440)];

/// How far back `rates` goes, in looks.
const RECENT: usize = 10;

/// After so many milliseconds without a look nobody can say when things happened.
const BLIND: u64 = 10_000;

/// Digits that are shown of a rate and of a latency, whose buckets are no finer.
const RATE_DIGITS: i32 = 4;
const LATENCY_DIGITS: i32 = 3;

/// Connections now, and how much has happened since the process started.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub connections: u64,
    pub messages_in: u64,
    pub messages_out: u64,
    pub pushes: u64,
    pub requests: u64,
    pub errors: [u64; ERRORS.len()],
    pub latency: Snapshot,
}

/// How far back somebody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    FiveMinutes,
    FifteenMinutes,
    Hour,
    SixHours,
    Day,
}

/// How much happens in a second, over the last ten.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recent {
    pub rates: Map<String, Value>,
    /// Seconds; null without calls.
    pub latency: Map<String, Value>,
}

/// Everything that was noted. It is made when the process starts, and nothing has happened yet.
pub struct History {
    since: Tick,
    kept: Mutex<Kept>,
}

struct Kept {
    clock: Option<Steady>,
    rings: [Ring; RINGS.len()],
    /// Newest last.
    looks: VecDeque<Look>,
}

/// Wall time as it would be had nobody touched the clock since the first look.
#[derive(Clone, Copy)]
struct Steady {
    /// What it shows at tick 0.
    zero: i64,
    /// Seconds that the wall clock has moved from it.
    moved: i64,
}

/// The totals at one time of the steady clock, in milliseconds.
#[derive(Clone)]
struct Look {
    at: u64,
    totals: Totals,
}

/// Steps of one length.
struct Ring {
    /// In milliseconds.
    step: u64,
    /// The first look of the step that is running.
    since: Option<Look>,
    /// Newest last, and as many as there is capacity for.
    steps: VecDeque<Step>,
}

/// What happened in a second on average over a step; not a number where nobody looked.
#[derive(Clone, Copy)]
struct Step {
    connections: f32,
    rates: [f32; RATES.len()],
    percentiles: [f32; PERCENTILES.len()],
    errors: [f32; ERRORS.len()],
}

impl History {
    /// Takes note of the totals, about once a second. `at` is the wall clock's time.
    pub fn note(&self, at: Timestamp, totals: Totals) {
        self.note_at(Tick::now(), at, totals);
    }

    fn note_at(&self, now: Tick, at: Timestamp, totals: Totals) {
        let mut kept = self.kept.lock();
        if kept.clock.is_none() {
            kept.note(self.since, at.minus(now.since(self.since)), Totals::default());
        }
        kept.note(now, at, totals);
    }

    /// The series of `GET /api/overview`.
    pub fn overview(&self, range: Range) -> Value {
        let (step, first, steps) = self.kept.lock().steps(range, Timestamp::now());
        let series = |digits, of: &dyn Fn(&Step) -> f32| -> Value {
            steps.iter().map(|step| number(of(step).into(), digits)).collect()
        };
        let mut all = Map::new();
        let times = (0..steps.len() as u64).map(|number| (first + number * step) / 1000);
        all.insert("time".to_owned(), times.collect());
        all.insert("connections".to_owned(), series(RATE_DIGITS, &|step| step.connections));
        for (at, name) in RATES.iter().enumerate() {
            all.insert((*name).to_owned(), series(RATE_DIGITS, &|step| step.rates[at]));
        }
        for (at, (name, _)) in PERCENTILES.iter().enumerate() {
            all.insert((*name).to_owned(), series(LATENCY_DIGITS, &|step| step.percentiles[at]));
        }
        let errors = ERRORS.iter().enumerate();
        let errors = errors.map(|(at, name)| ((*name).to_owned(), series(RATE_DIGITS, &|step| step.errors[at])));
        all.insert("errors".to_owned(), Value::Object(errors.collect()));
        json!({ "step": step / 1000, "from": first, "series": all })
    }

    /// `rates` and `latency` of `GET /api/status`.
    pub fn rates(&self) -> Recent {
        let kept = self.kept.lock();
        let step = match (kept.looks.front(), kept.looks.back()) {
            (Some(earlier), Some(now)) => Step::between(earlier, now),
            _ => Step::QUIET,
        };
        let rates = RATES.iter().zip(step.rates);
        let rates = rates.chain([(&"errors", step.errors.iter().sum())]);
        let latency = PERCENTILES.iter().zip(step.percentiles);
        let named = |name: &str, value: f32, digits| (name.to_owned(), number(value.into(), digits));
        Recent {
            rates: rates.map(|(name, rate)| named(name, rate, RATE_DIGITS)).collect(),
            latency: latency.map(|((name, _), took)| named(name, took, LATENCY_DIGITS)).collect(),
        }
    }
}

impl Default for History {
    fn default() -> Self {
        let ring = |(seconds, capacity): (u64, usize)| Ring {
            step: seconds * 1000,
            since: None,
            steps: VecDeque::with_capacity(capacity),
        };
        let kept = Kept { clock: None, rings: RINGS.map(ring), looks: VecDeque::with_capacity(RECENT + 1) };
        Self { since: Tick::now(), kept: Mutex::new(kept) }
    }
}

impl Range {
    const ALL: [(&str, Range); 5] = [
        ("5m", Range::FiveMinutes),
        ("15m", Range::FifteenMinutes),
        ("1h", Range::Hour),
        ("6h", Range::SixHours),
        ("24h", Range::Day),
    ];

    /// Or what is wrong, and what would do.
    pub fn parse(text: &str) -> Result<Range, String> {
        let known = Range::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, range)| *range).ok_or_else(|| {
            let names = Range::ALL.map(|(name, _)| name).join(", ");
            format!("`{text}` is no range; there are {names}")
        })
    }

    /// The ring that it is read from, and how many of its steps.
    fn of(self) -> (usize, usize) {
        match self {
            Range::FiveMinutes => (0, 300),
            Range::FifteenMinutes => (1, 180),
            Range::Hour => (2, 360),
            Range::SixHours => (3, 360),
            Range::Day => (3, 1440),
        }
    }
}

impl Kept {
    fn note(&mut self, now: Tick, at: Timestamp, totals: Totals) {
        let clock = self.clock.get_or_insert_with(|| Steady::set(now, at));
        let look = Look { at: clock.read(now, at), totals };
        for ring in &mut self.rings {
            ring.note(&look);
        }
        if self.looks.len() > RECENT {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    /// The milliseconds of a step, when the first one began by the wall clock, and as many steps as the range has.
    fn steps(&self, range: Range, now: Timestamp) -> (u64, u64, Vec<Step>) {
        let (ring, wanted) = range.of();
        let ring = &self.rings[ring];
        let mut steps: Vec<Step> = ring.steps.iter().copied().collect();
        let mut end = ring.since.as_ref().map_or(now.0, |since| since.at) / ring.step * ring.step;
        // What is running is shown as far as it went: nobody waits a minute to see a first point.
        if let (Some(since), Some(last)) = (&ring.since, self.looks.back())
            && since.at < last.at
        {
            steps.push(Step::between(since, last));
            end += ring.step;
        }
        let missing = wanted.saturating_sub(steps.len());
        steps.drain(..steps.len().saturating_sub(wanted));
        steps.splice(..0, std::iter::repeat_n(Step::UNSEEN, missing));
        let first = end.saturating_sub(ring.step * wanted as u64);
        let moved = self.clock.map_or(0, |clock| clock.moved * 1000);
        (ring.step, first.saturating_add_signed(moved), steps)
    }
}

impl Steady {
    /// Looks then fall in the middle of a second, and one that is a little late falls in no other.
    fn set(now: Tick, at: Timestamp) -> Self {
        Self { zero: (at.0 / 1000 * 1000 + 500) as i64 - now.0 as i64, moved: 0 }
    }

    /// What it shows now, and how far `at` has moved from it: as a rule not at all.
    fn read(&mut self, now: Tick, at: Timestamp) -> u64 {
        let shown = self.zero + now.0 as i64;
        let ahead = at.0 as i64 - shown;
        // By less than this it may be off for the half second above, and for looks that are late.
        if (ahead - self.moved * 1000).abs() > 1500 {
            self.moved = (ahead + 500).div_euclid(1000);
        }
        shown as u64
    }
}

impl Ring {
    fn note(&mut self, look: &Look) {
        let Some(since) = &self.since else {
            self.since = Some(look.clone());
            return;
        };
        let passed = look.at / self.step - since.at / self.step;
        if passed == 0 {
            return;
        }
        let step = Step::between(since, look);
        let is_blind = look.at - since.at > self.step + BLIND;
        // A look that is late speaks for the steps that it missed as well; one that is far too late for the last alone.
        let unseen = if is_blind { passed - 1 } else { 0 };
        self.since = Some(look.clone());
        self.push(Step::UNSEEN, unseen);
        self.push(step, passed - unseen);
    }

    fn push(&mut self, step: Step, times: u64) {
        for _ in 0..times.min(self.steps.capacity() as u64) {
            if self.steps.len() == self.steps.capacity() {
                self.steps.pop_front();
            }
            self.steps.push_back(step);
        }
    }
}

impl Step {
    const UNSEEN: Step =
        Step { connections: f32::NAN, rates: [f32::NAN; 4], percentiles: [f32::NAN; 3], errors: [f32::NAN; 9] };
    const QUIET: Step = Step { connections: 0.0, rates: [0.0; 4], percentiles: [f32::NAN; 3], errors: [0.0; 9] };

    fn between(earlier: &Look, later: &Look) -> Step {
        let seconds = (later.at - earlier.at).max(1) as f64 / 1000.0;
        let (then, now) = (&earlier.totals, &later.totals);
        // A stage that is gone takes what it counted with it.
        let rate = |then: u64, now: u64| (now.saturating_sub(then) as f64 / seconds) as f32;
        let latency = now.latency.since(&then.latency);
        Step {
            connections: now.connections as f32,
            rates: [
                rate(then.messages_in, now.messages_in),
                rate(then.messages_out, now.messages_out),
                rate(then.pushes, now.pushes),
                rate(then.requests, now.requests),
            ],
            percentiles: PERCENTILES.map(|(_, q)| latency.percentile(q).map_or(f32::NAN, |took| took.as_secs_f32())),
            errors: std::array::from_fn(|at| rate(then.errors[at], now.errors[at])),
        }
    }
}

/// With so many digits, or as many as there are before the point; null for what is not a number.
fn number(value: f64, digits: i32) -> Value {
    if !value.is_finite() {
        return Value::Null;
    }
    let decimals = if value == 0.0 { 0 } else { (digits - 1 - value.abs().log10().floor() as i32).max(0) };
    let scale = 10_f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    // `0` is shorter than `0.0`, and most numbers are zeros.
    if rounded.fract() == 0.0 { Value::from(rounded as i64) } else { Value::from(rounded) }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
