//! The report of a gateway, as a terminal shows it.

use serde_json::json;
use unicode_width::UnicodeWidthStr as _;

use super::*;

fn status() -> Value {
    json!({
        "version": "0.1.0", "status": "ready", "reasons": [], "warnings": [],
        "now": 1_763_684_400_118_u64, "started_at": 1_763_672_880_000_u64, "read_only": false,
        "reload": { "count": 3, "last_good_at": 1_763_684_340_000_u64, "last_attempt_at": 1_763_684_390_000_u64,
                    "outcome": "ok", "file": "routes.toml", "report": null },
        "listeners": ["http://127.0.0.1:8080"], "connections": 18_000,
        "rates": { "messages_in": 1234.5, "messages_out": 12, "pushes": 3, "requests": 0, "errors": 0 },
        "latency": { "p50": 0.000_345, "p95": 0.004, "p99": 1.5 },
        "process": { "cpu_seconds": 1.2, "cpu_percent": 3.1, "resident_bytes": 12_900_000, "open_files": 42,
                     "max_open_files": 20_000, "threads": 5, "uptime_seconds": 11_520 },
        "backends": [
            { "name": "http://127.0.0.1:3000", "busy": 1, "idle": 3, "waiting": 0, "servers": [
                { "address": "127.0.0.1:3000", "state": "healthy" }, { "address": "127.0.0.1:3001", "state": "ejected" }
            ] },
            { "name": "茶館", "busy": 0, "idle": 0, "waiting": 0, "servers": [] }
        ],
        "access_logs": [{ "destination": "stdout", "written": 100, "dropped": 0, "failed": 0 }],
        "tracing": { "exported": 7, "dropped": 0, "failed": 2 }
    })
}

#[test]
fn a_report_has_sections_and_columns() {
    let wanted = "\
livegate 0.1.0  ready
up 3 h 12 min, since 2025-11-20 21:08:00 UTC

TRAFFIC of the last 10 s
  messages in   1234.50/s  connections   18000
  messages out    12.00/s  latency p50  345 µs
  pushes           3.00/s  latency p95  4.0 ms
  requests         0.00/s  latency p99  1.50 s
  errors           0.00/s

LISTENERS
  http://127.0.0.1:8080

BACKENDS
  NAME                   SERVER          STATE    BUSY  IDLE  WAITING
  http://127.0.0.1:3000  127.0.0.1:3000  healthy     1     3        0
                         127.0.0.1:3001  ejected
  茶館                   -               -           0     0        0

ACCESS LOGS
  DESTINATION  WRITTEN  DROPPED  FAILED
  stdout           100        0       0

SPANS
  EXPORTED  DROPPED  FAILED
         7        0       2

PROCESS
  cpu         3.1 % now, 1.2 s in all
  memory      12.3 MiB
  open files  42 of 20000
  threads     5

CONFIGURATION
  file       routes.toml
  outcome    ok
  last read  2025-11-21 00:19:50 UTC, 10 s ago
  last good  2025-11-21 00:19:00 UTC, 1 min 0 s ago
  reloads    3
";
    assert_eq!(render(&status(), 80, false), wanted);
}

#[test]
fn colours_change_no_column() {
    let mut coloured = render(&status(), 80, true);
    assert!(coloured.contains("\x1b[31mejected\x1b[0m") && coloured.contains("\x1b[32mready\x1b[0m"));
    for code in [0, 1, 2, 31, 32, 33] {
        coloured = coloured.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(coloured, render(&status(), 80, false));
}

#[test]
fn what_is_wrong_comes_first() {
    let mut status = status();
    status["status"] = json!("not_ready");
    status["reasons"] = json!([{ "code": "draining", "message": "the gateway drains" }]);
    status["warnings"] = json!([{ "code": "reload_failed", "message": "routes.toml has a problem; ".repeat(6) }]);
    status["reload"]["outcome"] = json!("problems");
    status["reload"]["report"] = json!("error: no such route\n  --> routes.toml:7\n   |\t\n\x1b[2J 7 | x = 1\n");
    let text = render(&status, 80, false);
    assert!(text.starts_with("livegate 0.1.0  not ready\n"), "{text}");
    assert!(text.contains("\nNOT READY BECAUSE\n  draining  the gateway drains\n"), "{text}");
    assert!(text.contains("\n  error: no such route\n    --> routes.toml:7\n     |\n  [2J 7 | x = 1\n"), "{text}");
    assert!(text.lines().all(|line| line.width() <= 80), "{text}");
}

#[test]
fn what_is_long_or_odd_still_fits_and_moves_no_cursor() {
    let mut status = status();
    let long = format!("http://{}.example.com:8080", "a".repeat(90));
    status["backends"][0]["name"] = json!(long);
    status["backends"][0]["servers"][0]["address"] = json!("[2001:db8:1:2:3:4:5:6]:30000\x1b[31m\r\u{202e}");
    status["access_logs"][0]["destination"] = json!("file:/".to_owned() + &"茶館/".repeat(40));
    status["listeners"] = json!([long, 7, null]);
    let text = render(&status, 80, false);
    assert!(text.lines().all(|line| line.width() <= 80), "{text}");
    assert!(!text.contains(['\x1b', '\r', '\u{202e}']), "{text:?}");
}

#[test]
fn a_gateway_that_says_less_has_a_report_as_well() {
    let text = render(&json!({ "status": "ready", "version": "9.0.0" }), 80, false);
    assert!(text.starts_with("livegate 9.0.0  ready\nup -, since -\n"), "{text}");
    assert!(render(&json!(null), 80, false).starts_with("livegate -  -\n"));
}

#[test]
fn spans_and_sizes_are_short() {
    let check = |seconds, wanted: &str| assert_eq!(span(seconds), wanted);
    check(0, "0 s");
    check(59, "59 s");
    check(61, "1 min 1 s");
    check(3600, "1 h 0 min");
    check(200_000, "2 d 7 h");
    assert_eq!(
        [0, 1023, 1024, 1 << 20, 1 << 40].map(bytes),
        ["0.0 KiB", "1.0 KiB", "1.0 KiB", "1.0 MiB", "1024.0 GiB"]
    );
}
