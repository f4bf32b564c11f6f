//! What is noted once a second, as it comes out again.

use std::time::Duration;

use super::*;
use crate::telemetry::timing::Timing;

/// In the middle of a minute, as most times are.
const START: u64 = 1_763_684_400_118;

/// Totals of a gateway to which `messages` came in all.
fn messages(messages: u64) -> Totals {
    Totals { connections: 7, messages_in: messages, ..Totals::default() }
}

/// A history of looks at these milliseconds after the start, each with its messages so far.
fn history(looks: impl IntoIterator<Item = (u64, u64)>) -> History {
    let history = History::default();
    for (at, total) in looks {
        history.kept.lock().note(Tick(50 + at), Timestamp(START + at), messages(total));
    }
    history
}

/// What `name` was in the steps that were seen, from the newest back, and how many steps were not seen.
fn seen(history: &History, range: Range, name: &str) -> (Vec<f64>, usize) {
    let overview = history.overview(range);
    let all = overview["series"][name].as_array().unwrap();
    assert_eq!(all.len(), overview["series"]["time"].as_array().unwrap().len());
    let seen: Vec<f64> = all.iter().rev().filter_map(Value::as_f64).collect();
    let unseen = all.len() - seen.len();
    (seen, unseen)
}

#[test]
fn all_of_it_takes_less_than_a_mebibyte() {
    // As many looks as there may be, and more steps than there are in a day.
    let history = history((0..90_000).map(|second| (second * 1000, second)));
    let kept = history.kept.lock();
    let steps: usize = kept.rings.iter().map(|ring| ring.steps.capacity()).sum();
    assert_eq!(kept.rings.each_ref().map(|ring| ring.steps.len()), RINGS.map(|(_, capacity)| capacity));
    let looks = kept.looks.capacity() + kept.rings.len();
    let bytes = steps * size_of::<Step>() + looks * size_of::<Look>() + size_of::<History>();
    assert!(bytes < 200 << 10, "{bytes}");
}

#[test]
fn a_range_has_all_its_steps_and_those_before_the_start_are_null() {
    let history = history((0..=120).map(|second| (second * 1000, 3 * second)));
    for (range, step, steps, seen_steps) in [
        (Range::FiveMinutes, 1, 300, 120),
        (Range::FifteenMinutes, 5, 180, 24),
        (Range::Hour, 10, 360, 12),
        (Range::SixHours, 60, 360, 2),
        (Range::Day, 60, 1440, 2),
    ] {
        let (seen, unseen) = seen(&history, range, "messages_in");
        assert!(seen.iter().all(|rate| *rate == 3.0), "{range:?} {seen:?}");
        assert_eq!((seen.len(), unseen), (seen_steps, steps - seen_steps), "{range:?}");
        let overview = history.overview(range);
        let times: Vec<_> = overview["series"]["time"].as_array().unwrap().iter().map(Value::as_u64).collect();
        assert_eq!(overview["step"], step);
        assert_eq!(times[0].unwrap() * 1000, overview["from"].as_u64().unwrap());
        assert!(times.windows(2).all(|two| two[1].unwrap() - two[0].unwrap() == step));
        assert_eq!(times.last().unwrap().unwrap() + step, START / 1000 + 120);
        assert_eq!(overview["series"]["errors"]["bad_answer"].as_array().unwrap().len(), steps);
    }
}

#[test]
fn the_step_that_is_running_is_shown_as_far_as_it_went() {
    let (seen, _) = seen(&history([(0, 0), (1000, 60), (2000, 90)]), Range::Day, "messages_in");
    assert_eq!(seen, [45.0]);
}

#[test]
fn nothing_noted_is_an_overview_and_rates_as_well() {
    let history = History::default();
    assert_eq!(seen(&history, Range::Hour, "connections"), (vec![], 360));
    assert!(history.overview(Range::Hour)["from"].as_u64().unwrap() > START);
    let recent = serde_json::to_value(history.rates()).unwrap();
    assert_eq!(recent["latency"], json!({ "p50": null, "p95": null, "p99": null }));
    assert_eq!(recent["rates"]["messages_in"], 0);
}

#[test]
fn a_late_look_is_divided_by_the_time_that_really_passed() {
    // The second look is 300 ms late, the third a whole second.
    let (seen, _) = seen(&history([(0, 0), (1300, 130), (3300, 330)]), Range::FiveMinutes, "messages_in");
    assert_eq!(seen, [100.0, 100.0, 100.0]);
}

#[test]
fn what_happened_before_the_first_look_is_counted() {
    let history = History { since: Tick(50), ..History::default() };
    history.note_at(Tick(1050), Timestamp(START + 1000), messages(30));
    history.note_at(Tick(2050), Timestamp(START + 2000), messages(50));
    assert_eq!(seen(&history, Range::FiveMinutes, "messages_in").0, [20.0, 30.0]);
    assert_eq!(history.rates().rates["messages_in"], 25);
}

#[test]
fn two_looks_in_a_second_are_one_step() {
    let (seen, _) = seen(&history([(0, 0), (900, 90), (1100, 110), (2000, 200)]), Range::FiveMinutes, "messages_in");
    assert_eq!(seen, [100.0, 100.0]);
}

#[test]
fn a_time_nobody_looked_at_is_null_but_for_its_end() {
    let history = history([(0, 0), (1000, 100), (61_000, 700), (62_000, 800)]);
    let overview = history.overview(Range::FiveMinutes);
    let rates = overview["series"]["messages_in"].as_array().unwrap();
    assert_eq!(rates[298..], [json!(10), json!(100)]);
    assert!(rates[240..298].iter().all(Value::is_null));
    assert_eq!(rates[238], 100);
}

#[test]
fn a_jump_of_the_wall_clock_moves_the_whole_history() {
    for jump in [-86_400_000_i64, -1_000_000, 3_600_000, 400 * 86_400_000] {
        let history = history((0..10).map(|second| (second * 1000, 5 * second)));
        for second in 10..20 {
            let at = Timestamp((START + second * 1000).saturating_add_signed(jump));
            history.kept.lock().note(Tick(50 + second * 1000), at, messages(5 * second));
        }
        let (seen, _) = seen(&history, Range::FiveMinutes, "messages_in");
        assert_eq!(seen, [5.0; 19]);
        let overview = history.overview(Range::FiveMinutes);
        let last = overview["series"]["time"][299].as_u64().unwrap();
        assert!((START / 1000 + 18).saturating_add_signed(jump / 1000).abs_diff(last) <= 1, "{jump}");
    }
}

#[test]
fn a_wall_clock_that_trembles_moves_nothing() {
    let history = history([(0, 0)]);
    let from = || history.overview(Range::FiveMinutes)["from"].as_u64().unwrap();
    for second in 1..20 {
        let at = Timestamp(START + second * 1000 + second % 3 * 400 - 400);
        let before = from();
        history.kept.lock().note(Tick(50 + second * 1000), at, messages(0));
        assert_eq!(from() - before, 1000);
    }
}

#[test]
fn counts_that_went_down_are_no_rate() {
    let (seen, _) = seen(&history([(0, 500), (1000, 20), (2000, 30)]), Range::FiveMinutes, "messages_in");
    assert_eq!(seen, [10.0, 0.0]);
}

#[test]
fn percentiles_are_of_their_step_alone() {
    let (history, timing) = (History::default(), Timing::default());
    for (second, took) in [(1, 1), (2, 1), (3, 500), (4, 0)] {
        history.kept.lock().note(
            Tick(second * 1000),
            Timestamp(START + second * 1000),
            Totals { latency: timing.snapshot(), ..Totals::default() },
        );
        (0..100).filter(|_| took > 0).for_each(|_| timing.record(Duration::from_millis(took)));
    }
    let overview = history.overview(Range::FiveMinutes);
    let p50 = |at: usize| overview["series"]["p50"][at].as_f64().unwrap();
    assert!((p50(299) - 0.5).abs() < 0.05 && (p50(298) - 0.001).abs() < 0.0001, "{}", overview["series"]["p50"]);
    let recent = history.rates();
    assert!((recent.latency["p99"].as_f64().unwrap() - 0.5).abs() < 0.05, "{recent:?}");
}

#[test]
fn recent_is_the_last_ten_seconds() {
    let quiet = history((0..=20).map(|second| (second * 1000, 700.min(70 * second))));
    assert_eq!(quiet.rates().rates["messages_in"], 0);
    let busy = history((0..=20).map(|second| (second * 1000, 7 * second)));
    assert_eq!(busy.rates().rates["messages_in"], 7);
    let young = history([(0, 0), (2000, 5)]);
    assert_eq!(young.rates().rates["messages_in"], 2.5);
}

#[test]
fn errors_are_told_apart_and_summed() {
    let history = History::default();
    for second in 0..=1_u64 {
        let errors = std::array::from_fn(|at| second * (at as u64 + 1));
        history.kept.lock().note(Tick(second * 1000), Timestamp(START), Totals { errors, ..Totals::default() });
    }
    assert_eq!(history.rates().rates["errors"], 45);
    let overview = history.overview(Range::FiveMinutes);
    for (at, name) in ERRORS.iter().enumerate() {
        assert_eq!(overview["series"]["errors"][name][299], at + 1, "{name}");
    }
}

#[test]
fn numbers_have_no_more_digits_than_they_mean() {
    let check = |value: f64, digits, text: &str| assert_eq!(number(value, digits).to_string(), text, "{value}");
    check(0.0, 4, "0");
    check(12.0, 4, "12");
    check(1.0 / 3.0, 4, "0.3333");
    check(1.0 / 60.0, 4, "0.01667");
    check(123_456.789, 4, "123457");
    check(0.001_234_567, 3, "0.00123");
    check(f64::from(0.1_f32), 4, "0.1");
    check(f64::NAN, 4, "null");
}

#[test]
fn a_range_is_one_of_five_words() {
    assert_eq!(Range::parse("15m"), Ok(Range::FifteenMinutes));
    assert_eq!(Range::parse("7m"), Err("`7m` is no range; there are 5m, 15m, 1h, 6h, 24h".to_owned()));
    assert!(Range::parse("").is_err());
}
