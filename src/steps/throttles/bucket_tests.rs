//! What a bucket lets through, on a clock turned by hand.

use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

use super::*;

fn bucket(per_second: f64, burst: u32) -> (Bucket<FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    (Bucket::with_clock(Rate::new(per_second, burst).unwrap(), clock.clone()), clock)
}

#[test]
fn a_bucket_for_each_connection_is_small() {
    let size = size_of::<Bucket>();
    assert!(size <= 64, "{size}");
    assert_eq!(size_of::<Option<Bucket>>(), size);
}

#[test]
fn a_rate_is_a_number_that_can_be_kept() {
    let check = |per_second: f64, burst: u32, problem: Option<&str>| {
        let found = Rate::new(per_second, burst).err().map(|unusable| unusable.to_string());
        assert_eq!(found.as_deref(), problem, "{per_second} {burst}");
    };
    check(10_000.0, 5_000, None);
    check(0.0, 0, None);
    check(0.0, u32::MAX, None);
    check(0.001, 3_000_000, None);
    check(1.5, u32::MAX, None);
    check(1e9, u32::MAX, None);
    check(1e-300, 0, None);
    check(-1.0, 1, Some("`-1.0` is no rate; write how many a second, like `100` or `0.5`"));
    check(f64::NAN, 1, Some("`NaN` is no rate; write how many a second, like `100` or `0.5`"));
    check(f64::INFINITY, 1, Some("`inf` is no rate; write how many a second, like `100` or `0.5`"));
    check(
        1e18,
        1,
        Some("`1e18` a second is more than can be counted; write at most `1000000000`, or leave the throttle out"),
    );
    let slow = |per_second: &str, burst: u32| {
        format!(
            "a bucket of `{burst}` takes more than a hundred years to fill at `{per_second}` a second; \
             write a higher rate or a smaller burst"
        )
    };
    check(0.1, u32::MAX, Some(&slow("0.1", u32::MAX)));
    check(1e-300, 1, Some(&slow("1e-300", 1)));
}

/// Everything that is wanted at each moment, in nanoseconds; how many get through, and what the last is told.
fn check(per_second: f64, burst: u32, moments: &[(u64, u64)], told: Result<(), Option<u64>>) {
    let (bucket, clock) = bucket(per_second, burst);
    let (mut now, mut last) = (0, Ok(()));
    for &(at, count) in moments {
        clock.advance(Duration::from_nanos(at - now));
        now = at;
        last = bucket.take_many(count);
    }
    let told = told.map_err(|wait| Throttled { retry_after: wait.map(Duration::from_nanos) });
    assert_eq!(last, told, "{per_second} {burst} {moments:?}");
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    const SECOND: u64 = 1_000_000_000;
    check(10.0, 2, &[(0, 1), (0, 1)], Ok(()));
    check(10.0, 2, &[(0, 1), (0, 1), (0, 1)], Err(Some(SECOND / 10)));
    check(10.0, 2, &[(0, 2), (SECOND / 10, 1)], Ok(()));
    check(10.0, 2, &[(0, 2), (SECOND / 10 - 1, 1)], Err(Some(1)));
    check(10.0, 2, &[(0, 2), (SECOND / 10, 2)], Err(Some(SECOND / 10)));
    check(10.0, 2, &[(0, 2), (SECOND, 2), (SECOND, 1)], Err(Some(SECOND / 10)));
    // What is refused takes nothing.
    check(10.0, 2, &[(0, 1), (0, 2), (0, 1)], Ok(()));
    check(10.0, 2, &[(0, 3)], Err(None));
    check(10.0, 2, &[(0, u64::from(u32::MAX) + 1)], Err(None));
    check(10.0, 2, &[(0, u64::MAX)], Err(None));
    check(1e-8, 1, &[(0, u64::from(u32::MAX))], Err(None));
    check(10.0, 2, &[(0, 2), (0, 0)], Ok(()));
    // Slow, fast, and as fast as it goes.
    check(0.1, 1, &[(0, 1), (0, 1)], Err(Some(10 * SECOND)));
    check(1e-9, 3, &[(0, 3), (0, 1)], Err(Some(1_000_000_000 * SECOND)));
    check(
        1e-9,
        3,
        &[(0, 3), (5_000_000_000 * SECOND, 3), (5_000_000_000 * SECOND, 3)],
        Err(Some(3_000_000_000 * SECOND)),
    );
    check(1e8, 1, &[(0, 1), (0, 1)], Err(Some(10)));
    check(1e9, u32::MAX, &[(0, u64::from(u32::MAX)), (0, u64::from(u32::MAX))], Err(Some(u64::from(u32::MAX))));
    // No nanosecond is given away.
    check(3.0, 1, &[(0, 1), (0, 1)], Err(Some(333_333_334)));
    check(6e8, 1, &[(0, 1), (0, 1)], Err(Some(2)));
}

#[test]
fn zero_in_either_refuses_everything_but_nothing() {
    for (per_second, burst) in [(0.0, 0), (0.0, 5), (5.0, 0), (-0.0, 1)] {
        check(per_second, burst, &[(0, 1)], Err(None));
        check(per_second, burst, &[(0, 1), (u64::MAX / 4, 1)], Err(None));
        check(per_second, burst, &[(0, 0)], Ok(()));
    }
}

#[test]
fn retry_after_is_whole_seconds_and_at_least_one() {
    let check = |retry_after, seconds| assert_eq!(Throttled { retry_after }.retry_after_seconds(), seconds);
    check(None, None);
    check(Some(Duration::ZERO), Some(1));
    check(Some(Duration::from_nanos(1)), Some(1));
    check(Some(Duration::from_secs(1)), Some(1));
    check(Some(Duration::new(1, 1)), Some(2));
    check(Some(Duration::from_millis(9_001)), Some(10));
}

#[test]
fn only_a_full_bucket_is_drained() {
    let (bucket, clock) = bucket(1.0, 3);
    bucket.take().unwrap();
    clock.advance(Duration::from_nanos(999_999_999));
    assert!(!bucket.drain_if_full());
    clock.advance(Duration::from_nanos(1));
    assert!(bucket.drain_if_full());
    assert!(bucket.take().is_err());
}

#[test]
fn threads_share_one_burst() {
    // The test lasts less than the 1000 seconds to the next token.
    let bucket = Bucket::new(Rate::new(0.001, 1_000).unwrap());
    let taken: usize = std::thread::scope(|scope| {
        let take = || (0..1_000).filter(|_| bucket.take().is_ok()).count();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1_000);
}

/// As long as a rate is kept by always coming at the first moment, it is kept to the nanosecond a token.
#[test]
fn a_rate_is_right_within_a_nanosecond_a_token() {
    for per_second in [0.1, 0.3, 1.0, 7.5, 99.9, 3_000.0, 10_000.0, 123_456.7, 1e6, 1e8, 3e8, 1e9] {
        let (bucket, clock) = bucket(per_second, 10);
        bucket.take_many(10).unwrap();
        let mut elapsed = Duration::ZERO;
        for _ in 0..1_000 {
            let wait = bucket.take().unwrap_err().retry_after.unwrap();
            clock.advance(wait);
            elapsed += wait;
            bucket.take().unwrap();
        }
        let (elapsed, exact) = (elapsed.as_nanos() as f64, 1_000.0 * 1e9 / per_second);
        assert!((exact - 1e-3..exact + 1_000.0).contains(&elapsed), "{per_second}: {elapsed} {exact}");
    }
}

prop_compose! {
    /// A rate, and calls that come about as fast as it lets them, each with its pause before it and its size.
    fn calls()(
        exponent in -3.0f64..9.0,
        burst in prop_oneof![1u32..20, 1u32..=u32::MAX],
        steps in prop::collection::vec((0.0f64..4.0, 0.0f64..1.2, any::<bool>()), 1..60),
    ) -> (f64, u32, Vec<(Duration, u64)>) {
        let per_second = 10f64.powf(exponent);
        // So that all pauses together are some years at most.
        let burst = burst.min((per_second * 1e8) as u32).max(1);
        let steps = steps.into_iter().map(|(pause, size, is_one)| {
            let count = if is_one { 1 } else { (size * f64::from(burst)) as u64 };
            let pause = pause * count as f64 / per_second * 0.7;
            (Duration::from_secs_f64(pause), count)
        });
        (per_second, burst, steps.collect())
    }
}

proptest! {
    /// In every window between two calls, whatever came before.
    #[test]
    fn no_window_lets_through_more_than_the_burst_and_its_share((per_second, burst, steps) in calls()) {
        let (bucket, clock) = bucket(per_second, burst);
        let mut now = Duration::ZERO;
        let mut passed: Vec<(Duration, u64)> = Vec::new();
        for (pause, count) in steps {
            clock.advance(pause);
            now += pause;
            if bucket.take_many(count).is_ok() {
                passed.push((now, count));
            }
            let mut sum = 0;
            for (from, count) in passed.iter().rev() {
                sum += count;
                // Whole nanoseconds in a float: some years have them, give or take a few.
                let most = f64::from(burst) + per_second * (now - *from).as_secs_f64() * (1.0 + 1e-12);
                prop_assert!(sum as f64 <= most + 1e-6, "{sum} of {most} since {from:?} at {now:?}");
            }
        }
    }

    #[test]
    fn who_waits_as_told_gets_through_and_nobody_earlier((per_second, burst, steps) in calls()) {
        let (bucket, clock) = bucket(per_second, burst);
        for (pause, count) in steps {
            clock.advance(pause);
            match bucket.take_many(count) {
                Ok(()) => prop_assert!(count <= u64::from(burst)),
                Err(Throttled { retry_after: None }) => prop_assert!(count > u64::from(burst)),
                Err(Throttled { retry_after: Some(wait) }) => {
                    prop_assert!(count <= u64::from(burst));
                    clock.advance(wait - Duration::from_nanos(1));
                    prop_assert_eq!(bucket.take_many(count), Err(Throttled { retry_after: Some(Duration::from_nanos(1)) }));
                    clock.advance(Duration::from_nanos(1));
                    prop_assert_eq!(bucket.take_many(count), Ok(()));
                }
            }
        }
    }
}
