//! The two clocks: wall time for what others read, ticks for what we measure.
//!
//! Timers compare ticks, so a corrected wall clock never closes a socket.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Wall time in milliseconds since the epoch, as AWS writes it in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// The kernel's last tick, as `Tick`: some milliseconds old, and cheaper.
    pub fn of_last_tick() -> Self {
        Self(milliseconds(WALL_CLOCK))
    }

    /// `21/Nov/2025:00:20:00 +0000`, the `requestTime` of events and access logs.
    pub fn clf(self) -> String {
        self.format("%d/%b/%Y:%H:%M:%S +0000")
    }

    /// `2025-11-21T00:20:00.118Z`, the form of the `@connections` API.
    pub fn iso8601(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S.%3fZ")
    }

    /// `Fri, 21 Nov 2025 00:20:00 GMT`, the form of the `Date` header (RFC 9110 section 5.6.7).
    pub fn http_date(self) -> String {
        self.format("%a, %d %b %Y %H:%M:%S GMT")
    }

    pub fn minus(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(age.as_millis() as u64))
    }

    fn format(self, pattern: &str) -> String {
        jiff::Timestamp::from_millisecond(self.0 as i64)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .strftime(pattern)
            .to_string()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        // A clock before 1970 reads as 1970: nothing here can do better with it.
        Self(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
    }
}

/// Milliseconds since the process started; never goes back. A call asks for it several times, so it is the kernel's own
/// count of its last tick, which is some milliseconds old and costs a quarter of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub u64);

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

#[cfg(target_os = "linux")]
const WALL_CLOCK: ClockId = ClockId::RealtimeCoarse;
#[cfg(not(target_os = "linux"))]
const WALL_CLOCK: ClockId = ClockId::Realtime;

impl Tick {
    pub fn now() -> Self {
        static START: LazyLock<u64> = LazyLock::new(|| milliseconds(CLOCK));
        // The first who asks may see it begin a moment later than now. One is the first tick, so that zero can mean
        // "never" in an atomic.
        Self(milliseconds(CLOCK).saturating_sub(*START) + 1)
    }

    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn milliseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_as_aws_writes_it() {
        let at = Timestamp(1_763_684_400_118);
        assert_eq!(at.clf(), "21/Nov/2025:00:20:00 +0000");
        assert_eq!(at.iso8601(), "2025-11-21T00:20:00.118Z");
        assert_eq!(Timestamp(1_763_684_400_000).iso8601(), "2025-11-21T00:20:00.000Z");
        assert_eq!(at.http_date(), "Fri, 21 Nov 2025 00:20:00 GMT");
    }
}
