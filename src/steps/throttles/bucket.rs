//! One token bucket: so many calls a second in the long run, and so many at once.
//!
//! It is governor's, which keeps one number, the time when the bucket will be full again (GCRA). Nothing has to run for
//! it to fill, and any number of threads may take from it without a lock.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// The highest rate: a token takes a whole nanosecond to come.
const HIGHEST: f64 = 1e9;

/// How long a bucket may take to fill, in nanoseconds: a hundred years. The sums of a few such times and the age of the
/// process still fit the 64 bits that governor counts in; what does not fit would wrap and let everything through.
const LONGEST: f64 = 100.0 * 365.0 * 86_400.0 * 1e9;

/// Calls a second and the size of the bucket, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// From 0 to `HIGHEST`, and the bucket is full within `LONGEST`.
    per_second: f64,
    burst: u32,
}

/// Why a pair of rate and burst cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Unusable {
    #[error("`{0:?}` is no rate; write how many a second, like `100` or `0.5`")]
    NoRate(f64),
    #[error("`{0:?}` a second is more than can be counted; write at most `1000000000`, or leave the throttle out")]
    TooHigh(f64),
    #[error(
        "a bucket of `{burst}` takes more than a hundred years to fill at `{per_second:?}` a second; write a higher rate or a smaller burst"
    )]
    TooSlow { per_second: f64, burst: u32 },
}

impl Rate {
    /// Zero in either refuses everything.
    pub fn new(per_second: f64, burst: u32) -> Result<Rate, Unusable> {
        if !per_second.is_finite() || per_second < 0.0 {
            return Err(Unusable::NoRate(per_second));
        }
        if per_second > HIGHEST {
            return Err(Unusable::TooHigh(per_second));
        }
        let rate = Rate { per_second, burst };
        match per_second > 0.0 && rate.nanoseconds() * f64::from(burst) > LONGEST {
            true => Err(Unusable::TooSlow { per_second, burst }),
            false => Ok(rate),
        }
    }

    pub fn per_second(self) -> f64 {
        self.per_second
    }

    pub fn burst(self) -> u32 {
        self.burst
    }

    /// How long a token takes to come. Rounded up, so that no second lets through more than it should.
    fn nanoseconds(self) -> f64 {
        (1e9 / self.per_second).ceil()
    }

    /// `None` lets nothing through.
    fn quota(self) -> Option<Quota> {
        let burst = NonZeroU32::new(self.burst).filter(|_| self.per_second > 0.0)?;
        let period = Duration::from_nanos(self.nanoseconds() as u64);
        Some(Quota::with_period(period)?.allow_burst(burst))
    }
}

/// Starts full. It is small, 56 bytes, so that each connection may have its own.
pub struct Bucket<C: Clock = MonotonicClock> {
    rate: Rate,
    /// `None` lets nothing through.
    limiter: Option<Limiter<C>>,
}

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Too much came, and nothing was taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// When the same would pass if nobody else came; `None` is never, at this rate or for something this large.
    pub retry_after: Option<Duration>,
}

impl Bucket {
    pub fn new(rate: Rate) -> Self {
        Self::with_clock(rate, MonotonicClock)
    }
}

impl<C: Clock> Bucket<C> {
    pub fn with_clock(rate: Rate, clock: C) -> Self {
        Self { rate, limiter: rate.quota().map(|quota| RateLimiter::direct_with_clock(quota, clock)) }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one token.
    pub fn take(&self) -> Result<(), Throttled> {
        self.take_many(1)
    }

    /// Takes so many tokens, or none if they are not all there. More than the burst are never there; none at all are
    /// free.
    pub fn take_many(&self, count: u64) -> Result<(), Throttled> {
        const NEVER: Throttled = Throttled { retry_after: None };
        let Ok(count) = u32::try_from(count) else { return Err(NEVER) };
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        // Asked before governor is: it would multiply first, and the product of a large count may not fit.
        let limiter = self.limiter.as_ref().filter(|_| count.get() <= self.rate.burst).ok_or(NEVER)?;
        limiter.check_n(count).map_err(|_| NEVER)?.map_err(|until| {
            let wait = until.wait_time_from(limiter.clock().now());
            Throttled { retry_after: Some(wait) }
        })
    }

    /// Whether nothing is missing, so that a new bucket would do as well. If so, this one is empty from now on: only
    /// by taking all of it can governor be asked.
    pub(super) fn drain_if_full(&self) -> bool {
        self.limiter.is_none() || self.take_many(self.rate.burst.into()).is_ok()
    }
}

impl Throttled {
    /// As `Retry-After` has it: whole seconds, rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let wait = self.retry_after?;
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(wait) => write!(f, "throttled for another {wait:?}"),
            None => f.write_str("throttled: the rate or the burst never lets this through"),
        }
    }
}

impl std::error::Error for Throttled {}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
