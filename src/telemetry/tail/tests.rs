//! What watchers are told, and what they are not.

use serde_json::{Value, json};

use super::*;
use crate::model::clock::Timestamp;
use crate::model::record::Outcome;

const EVENT: Event<'static> = Event {
    at: Timestamp(1),
    kind: Kind::Message,
    api: "chat",
    stage: "prod",
    route: Some("send"),
    connection: None,
    request: None,
    user: None,
    address: None,
    outcome: Outcome::Ok,
    status: None,
    latency: None,
    integration: None,
    direction: None,
    bytes: None,
    error: None,
    cause: None,
    authorizer: None,
    payload: Some(b"tea"),
};

fn watch(tail: &Tail, query: &str) -> Watcher {
    tail.watch(Filter::parse(query).unwrap()).unwrap()
}

/// The lines that there are now; blank ones are null.
async fn lines(watcher: &mut Watcher) -> Vec<Value> {
    let text = watcher.next().await;
    let text = std::str::from_utf8(&text).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    text.lines().map(|line| if line.is_empty() { Value::Null } else { serde_json::from_str(line).unwrap() }).collect()
}

/// How many events were told, and how many were not.
fn told(lines: &[Value]) -> (usize, u64) {
    let events = lines.iter().filter(|line| line["kind"] == "message").count();
    (events, lines.iter().filter_map(|line| line["dropped"].as_u64()).sum())
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_what_it_wants_to_know() {
    let tail = Tail::default();
    assert!(!tail.is_watched());
    let (mut all, mut pushes) = (watch(&tail, ""), watch(&tail, "kind=push"));
    assert!(tail.is_watched());
    tail.tell(&EVENT);
    tail.tell(&Event { kind: Kind::Push, ..EVENT });
    let kinds = |lines: Vec<Value>| lines.iter().map(|line| line["kind"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds(lines(&mut all).await), [Value::Null, json!("message"), json!("push")]);
    let seen = lines(&mut pushes).await;
    assert_eq!(seen[0], json!({ "note": "watching" }));
    assert_eq!(kinds(seen), [Value::Null, json!("push")]);
    drop((all, pushes));
    assert!(!tail.is_watched());
}

#[tokio::test(start_paused = true)]
async fn payloads_are_for_those_who_ask() {
    let tail = Tail::default();
    let (mut plain, mut full) = (watch(&tail, ""), watch(&tail, "payload=true"));
    tail.tell(&EVENT);
    assert_eq!(lines(&mut plain).await[1]["payload"], Value::Null);
    assert_eq!(lines(&mut full).await[1]["payload"], "tea");
}

#[tokio::test(start_paused = true)]
async fn somebody_who_waits_is_woken() {
    let tail = Tail::default();
    let mut watcher = watch(&tail, "");
    lines(&mut watcher).await;
    let teller = tail.clone();
    tokio::spawn(async move { teller.tell(&EVENT) });
    assert_eq!(told(&lines(&mut watcher).await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_an_empty_line() {
    let tail = Tail::default();
    let mut watcher = watch(&tail, "");
    lines(&mut watcher).await;
    let began = Instant::now();
    for lap in 1..4 {
        assert_eq!(watcher.next().await, "\n");
        assert_eq!(began.elapsed(), lap * SILENCE);
    }
    // Not waiting to the end does not start it anew.
    _ = tokio::time::timeout(SILENCE / 2, watcher.next()).await;
    assert_eq!(watcher.next().await, "\n");
    assert_eq!(began.elapsed(), 4 * SILENCE);
}

#[tokio::test(start_paused = true)]
async fn more_than_anyone_reads_is_counted() {
    let tail = Tail::default();
    let mut watcher = watch(&tail, "");
    for _ in 0..LINES_PER_SECOND + 100 {
        tail.tell(&EVENT);
    }
    assert_eq!(told(&lines(&mut watcher).await), (LINES_PER_SECOND, 0));
    // Nothing more happens, and so it is told of what did.
    let began = Instant::now();
    assert_eq!(lines(&mut watcher).await, [json!({ "dropped": 100 })]);
    assert_eq!(began.elapsed(), TELL_DROPPED);
    tail.tell(&EVENT);
    assert_eq!(told(&lines(&mut watcher).await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_loses_what_does_not_fit() {
    let tail = Tail::default();
    let mut watcher = watch(&tail, "");
    for _ in 0..10 {
        for _ in 0..LINES_PER_SECOND / 2 {
            tail.tell(&EVENT);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // The first line is the note.
    let (fit, all) = (LINES - 1, 10 * LINES_PER_SECOND / 2);
    assert_eq!(told(&lines(&mut watcher).await), (fit, (all - fit) as u64));
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_is_told_where_it_is_missing() {
    let tail = Tail::default();
    let mut watcher = watch(&tail, "");
    for _ in 0..LINES_PER_SECOND + 7 {
        tail.tell(&EVENT);
    }
    tokio::time::advance(Duration::from_millis(1000)).await;
    tail.tell(&Event { route: Some("last"), ..EVENT });
    let seen = lines(&mut watcher).await;
    assert_eq!(seen[seen.len() - 2], json!({ "dropped": 7 }));
    assert_eq!(seen[seen.len() - 1]["route"], "last");
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_bounded_in_bytes_too() {
    let tail = Tail::default();
    let mut watcher = watch(&tail, "");
    let error = "x".repeat(10_000);
    for _ in 0..200 {
        tail.tell(&Event { error: Some(&error), ..EVENT });
    }
    tokio::time::advance(TELL_DROPPED).await;
    let text = watcher.next().await;
    assert!(text.len() <= BYTES + 100, "{}", text.len());
    let fit = BYTES / Event { error: Some(&error), payload: None, ..EVENT }.line().len();
    let end = format!("{{\"dropped\":{}}}\n", 200 - fit);
    assert!(text.ends_with(end.as_bytes()), "{end} {:?}", text.slice(text.len() - 20..));
}

#[test]
fn there_are_no_more_watchers_than_there_may_be() {
    let tail = Tail::default();
    let mut watchers: Vec<_> = (0..WATCHERS).map(|_| watch(&tail, "")).collect();
    assert_eq!(tail.watch(Filter::default()).err(), Some(TooMany));
    assert_eq!(tail.watchers(), WATCHERS);
    watchers.pop();
    watch(&tail, "");
    assert_eq!(tail.watchers(), WATCHERS - 1);
}
