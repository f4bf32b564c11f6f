//! `table`: the reports of interleaved rounds as one Markdown table of medians, ranges and ratios.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::Value;

#[derive(Args, Debug)]
pub struct TableArgs {
    /// What `--out` wrote, with labels of the form scenario/server
    pub reports: PathBuf,
}

/// A figure of a report: the scenario in its label, what the reader sees, the field, and that of the rate.
struct Figure {
    scenario: &'static str,
    title: &'static str,
    field: &'static str,
    rate: &'static str,
    /// The server that the others are divided by; it stands first.
    floor: &'static str,
}

const FIGURES: &[Figure] = &[
    figure(
        "a",
        "a. message to a backend and back, 64 clients: CPU ms per 1,000",
        "server_cpu_ms_per_1k_msgs",
        "msgs_per_s",
    ),
    figure("a1", "a. the same with one client: p50, µs", "latency_us.p50", "msgs_per_s"),
    figure("b", "b. push to one of 1,000: CPU ms per 1,000", "server_cpu_ms_per_1k_deliveries", "deliveries_per_s"),
    figure("d", "d. memory of an idle connection: KiB", "server_kib_per_conn", ""),
    figure("d32k", "d. after each has echoed 32,000 bytes: KiB", "server_kib_per_conn", ""),
    figure("e", "e. handshake: CPU ms per 1,000", "server_cpu_ms_per_1k_handshakes", "handshakes_per_s"),
    figure(
        "f",
        "f. HTTP request to a backend and back, 64 clients: CPU ms per 1,000",
        "server_cpu_ms_per_1k_requests",
        "requests_per_s",
    )
    .beside("nginx"),
    figure("fh", "f. at half of that rate: p50, µs", "latency_us.p50", "requests_per_s").beside("nginx"),
    figure("fh", "f. at half of that rate: p99, µs", "latency_us.p99", "requests_per_s").beside("nginx"),
    figure("g", "g. memory of an idle HTTP client that asked once: KiB", "server_kib_per_conn", "").beside("nginx"),
    figure("h", "h. HTTP request among routes: CPU ms per 1,000", "server_cpu_ms_per_1k_requests", "requests_per_s")
        .beside("livegate-10"),
    figure(
        "i",
        "i. message of an admitted client, as in a: CPU ms per 1,000",
        "server_cpu_ms_per_1k_msgs",
        "msgs_per_s",
    )
    .beside("livegate-plain"),
    figure("j", "j. message that is written down, as in a: CPU ms per 1,000", "server_cpu_ms_per_1k_msgs", "msgs_per_s")
        .beside("livegate-plain"),
    figure("soak", "soak. pushes at a fixed rate among held sockets: p99, µs", "delivery_us.p99", "deliveries_per_s"),
];

const fn figure(scenario: &'static str, title: &'static str, field: &'static str, rate: &'static str) -> Figure {
    Figure { scenario, title, field, rate, floor: "raw" }
}

impl Figure {
    const fn beside(self, floor: &'static str) -> Figure {
        Figure { floor, ..self }
    }
}

/// What must be zero in a report, or the run proves nothing.
const MISHAPS: &[&str] = &["failed", "lost", "errors", "dropped"];

/// The part of a fixed rate below which the run did not keep it.
const KEPT_RATE: f64 = 0.99;

pub fn run(args: TableArgs) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.reports).with_context(|| format!("`{}`", args.reports.display()))?;
    let reports = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    print!("{}", render(&reports));
    let mishaps: Vec<String> = reports.iter().flat_map(mishaps).collect();
    println!("\nRuns: {}. Errors, failed, lost or dropped: {}.", reports.len(), mishaps.len());
    for mishap in &mishaps {
        println!("- {mishap}");
    }
    ensure!(mishaps.is_empty(), "a run saw errors: its figures do not count");
    Ok(())
}

fn render(reports: &[Value]) -> String {
    let mut out =
        String::from("| Figure | Server | Median | Range | ÷ first | Rate, /s | Generator busy | Others busy |\n");
    out.push_str("|---|---|---:|---:|---:|---:|---:|---:|\n");
    for figure in FIGURES {
        let mut servers: BTreeMap<(bool, &str), Vec<&Value>> = BTreeMap::new();
        for report in reports {
            if let Some((scenario, server)) = label(report).split_once('/')
                && scenario == figure.scenario
            {
                servers.entry((server != figure.floor, server)).or_default().push(report);
            }
        }
        let floor = servers.get(&(false, figure.floor)).and_then(|runs| Summary::of(runs, figure.field));
        for ((_, server), runs) in &servers {
            let Some(seen) = Summary::of(runs, figure.field) else { continue };
            let ratio = floor.as_ref().map_or("–".into(), |floor| format!("{:.2}", seen.median / floor.median));
            let rate = Summary::of(runs, figure.rate).map_or("–".into(), |rate| format!("{:.0}", rate.median));
            let busy = |field| Summary::of(runs, field).map_or("–".into(), |busy| format!("{:.0} %", busy.median));
            let (generator, others) = (busy("loadgen_cpu_pct"), busy("others_cpu_pct"));
            let (median, least, most) = (digits(seen.median), digits(seen.least), digits(seen.most));
            out.push_str(&format!(
                "| {} | {server} | {median} | {least}–{most} | {ratio} | {rate} | {generator} | {others} |\n",
                figure.title
            ));
        }
    }
    out
}

struct Summary {
    median: f64,
    least: f64,
    most: f64,
}

impl Summary {
    fn of(runs: &[&Value], field: &str) -> Option<Summary> {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| number(run, field)).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let (least, most) = (*values.first()?, *values.last()?);
        let median =
            if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        Some(Summary { median, least, most })
    }
}

/// A number in a report; a point leads into an object.
fn number(report: &Value, field: &str) -> Option<f64> {
    field.split('.').try_fold(report, |value, key| value.get(key))?.as_f64()
}

fn label(report: &Value) -> &str {
    report["label"].as_str().unwrap_or_default()
}

fn digits(x: f64) -> String {
    if x >= 100.0 { format!("{x:.0}") } else { format!("{x:.2}") }
}

fn mishaps(report: &Value) -> Vec<String> {
    let label = label(report);
    let counted = MISHAPS.iter().filter_map(|field| {
        let n = number(report, field).filter(|n| *n > 0.0)?;
        Some(format!("{label}: {n} {field}"))
    });
    let mut all: Vec<String> = counted.collect();
    for (unit, rate) in [("pushes", "deliveries_per_s"), ("requests", "requests_per_s")] {
        if let (Some(asked), Some(kept)) = (number(report, "rate_asked"), number(report, rate))
            && kept < asked * KEPT_RATE
        {
            all.push(format!("{label}: {kept:.0} {unit}/s of the {asked:.0} asked for"));
        }
    }
    if let (Some(held), Some(echoed)) = (number(report, "held"), number(report, "held_echoed"))
        && echoed < held
    {
        all.push(format!("{label}: {echoed} of {held} held sockets answered at the end"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run_of(label: &str, cost: f64) -> Value {
        json!({"label": label, "server_cpu_ms_per_1k_msgs": cost, "msgs_per_s": 1000, "loadgen_cpu_pct": 99.6})
    }

    #[test]
    fn rounds_become_a_median_a_range_and_a_ratio() {
        let reports =
            [("a/livegate", 20.0), ("a/raw", 10.0), ("a/livegate", 18.0), ("a/raw", 12.0), ("a/livegate", 22.0)];
        let text = render(&reports.map(|(label, cost)| run_of(label, cost)));
        let rows: Vec<&str> = text.lines().skip(2).map(|row| row.split_once("1,000 |").unwrap().1).collect();
        assert_eq!(rows[0], " raw | 11.00 | 10.00–12.00 | 1.00 | 1000 | 100 % | – |");
        assert_eq!(rows[1], " livegate | 20.00 | 18.00–22.00 | 1.82 | 1000 | 100 % | – |");
    }

    #[test]
    fn a_figure_is_divided_by_its_own_floor() {
        let run = |label: &str, kib: f64| json!({"label": label, "server_kib_per_conn": kib});
        let text = render(&[run("g/livegate", 3.0), run("g/nginx", 2.0), run("g/haproxy", 5.0)]);
        let rows: Vec<&str> = text.lines().skip(2).map(|row| row.split_once("KiB |").unwrap().1).collect();
        assert_eq!(rows[0], " nginx | 2.00 | 2.00–2.00 | 1.00 | – | – | – |");
        assert_eq!(rows[2], " livegate | 3.00 | 3.00–3.00 | 1.50 | – | – | – |");
        assert!(!render(&[run("g/livegate", 3.0)]).contains("1.00"), "nothing to divide by");
    }

    fn check(report: Value, expected: &[&str]) {
        assert_eq!(mishaps(&report), expected);
    }

    #[test]
    fn what_went_wrong_is_named() {
        check(json!({"label": "b/raw", "failed": 0, "lost": 0, "errors": 0}), &[]);
        check(json!({"label": "b/raw", "lost": 3}), &["b/raw: 3 lost"]);
        let slow = json!({"label": "soak/livegate", "rate_asked": 10_000, "deliveries_per_s": 9_000});
        check(slow, &["soak/livegate: 9000 pushes/s of the 10000 asked for"]);
        let slow = json!({"label": "fh/nginx", "rate_asked": 10_000, "requests_per_s": 9_800});
        check(slow, &["fh/nginx: 9800 requests/s of the 10000 asked for"]);
        let silent = json!({"label": "soak/livegate", "held": 18_000, "held_echoed": 17_999});
        check(silent, &["soak/livegate: 17999 of 18000 held sockets answered at the end"]);
    }
}
