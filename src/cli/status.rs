//! `livegate status`: how a gateway that runs is doing.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::admin::{OfFile, Whom};
use super::terminal::{self, Cell, Colour, plain};

/// What every terminal has.
const WIDTH: usize = 80;
const INDENT: &str = "  ";

/// What somebody waits for, who has asked how it is.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub struct Wanted {
    #[command(flatten)]
    whom: Whom,
    /// The gateway's answer as it is
    #[arg(long)]
    json: bool,
}

/// Succeeds when the gateway is ready.
#[tokio::main(flavor = "current_thread")]
pub async fn run(wanted: Wanted, of_file: OfFile) -> anyhow::Result<ExitCode> {
    let admin = wanted.whom.find(of_file)?;
    let asking = async { admin.whole(admin.get("/api/status").await?).await };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    let answer = answer.with_context(|| format!("no answer from {} within {PATIENCE:?}", admin.shown))??;
    let status: Value = serde_json::from_slice(&answer)
        .with_context(|| format!("{} answers no JSON: is that a gateway's `admin_listen`?", admin.shown))?;
    let text = match wanted.json {
        true => answer,
        false => render(&status, WIDTH, terminal::wants_colour()).into_bytes(),
    };
    // Whoever reads only the beginning still gets the right exit code.
    let _ = std::io::stdout().write_all(&text);
    if wanted.json && !text.ends_with(b"\n") {
        let _ = std::io::stdout().write_all(b"\n");
    }
    Ok(if status["status"] == "ready" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The report, in lines of at most this width where that is possible.
fn render(status: &Value, width: usize, colour: bool) -> String {
    let mut page = Page { text: String::new(), width, colour };
    head(&mut page, status);
    causes(&mut page, "NOT READY BECAUSE", &status["reasons"], Colour::Red);
    causes(&mut page, "WARNINGS", &status["warnings"], Colour::Yellow);
    traffic(&mut page, status);
    listeners(&mut page, status);
    backends(&mut page, status);
    access_logs(&mut page, status);
    tracing(&mut page, status);
    process(&mut page, &status["process"]);
    file(&mut page, status);
    page.text
}

struct Page {
    text: String,
    width: usize,
    colour: bool,
}

impl Page {
    fn section(&mut self, name: &str, mut rows: Vec<Vec<Cell>>) {
        if rows.is_empty() {
            return;
        }
        if !self.colour {
            rows.iter_mut().flatten().for_each(|cell| cell.colour = None);
        }
        self.text += &format!("\n{}\n", self.painted(name, Colour::Bold));
        for line in terminal::table(&rows, self.width - INDENT.len()) {
            self.text += &format!("{INDENT}{line}\n");
        }
    }

    fn painted(&self, text: &str, colour: Colour) -> String {
        terminal::painted(text, self.colour.then_some(colour))
    }
}

fn head(page: &mut Page, status: &Value) {
    let (word, colour) = match text(&status["status"]) {
        ready if ready == "ready" => (ready, Colour::Green),
        other => (other.replace('_', " "), Colour::Red),
    };
    let read_only = if status["read_only"] == true { ", read-only" } else { "" };
    page.text += &format!("livegate {}  {}{read_only}\n", text(&status["version"]), page.painted(&word, colour));
    let uptime = match (status["now"].as_u64(), status["started_at"].as_u64()) {
        (Some(now), Some(started_at)) => span(now.saturating_sub(started_at) / 1000),
        _ => "-".to_owned(),
    };
    page.text += &format!("up {uptime}, since {}\n", time(&status["started_at"]));
}

fn causes(page: &mut Page, name: &str, causes: &Value, colour: Colour) {
    let row = |cause: &Value| {
        vec![Cell::text(text(&cause["code"])).coloured(Some(colour)), Cell::text(text(&cause["message"]))]
    };
    page.section(name, list(causes).map(row).collect());
}

fn traffic(page: &mut Page, status: &Value) {
    let (rates, latency) = (&status["rates"], &status["latency"]);
    let names = ["messages in", "messages out", "pushes", "requests", "errors"];
    let rate = |name: &str| Cell::number(per_second(&rates[name.replace(' ', "_")]));
    let mut rows: Vec<_> = names.iter().map(|name| vec![Cell::text(*name), rate(name)]).collect();
    if rates["errors"].as_f64().is_some_and(|errors| errors > 0.0) {
        rows[4][1].colour = Some(Colour::Yellow);
    }
    rows[0].extend([Cell::text("connections"), Cell::number(text(&status["connections"]))]);
    for (row, name) in rows[1..].iter_mut().zip(["p50", "p95", "p99"]) {
        row.extend([Cell::text(format!("latency {name}")), Cell::number(seconds(&latency[name]))]);
    }
    page.section("TRAFFIC of the last 10 s", rows);
}

fn listeners(page: &mut Page, status: &Value) {
    let row = |address: &Value| vec![Cell::text(text(address))];
    page.section("LISTENERS", list(&status["listeners"]).map(row).collect());
}

fn backends(page: &mut Page, status: &Value) {
    let mut rows = vec![["NAME", "SERVER", "STATE"].map(Cell::text).to_vec()];
    rows[0].extend(["BUSY", "IDLE", "WAITING"].map(Cell::number));
    for backend in list(&status["backends"]) {
        let counts = ["busy", "idle", "waiting"].map(|count| Cell::number(text(&backend[count])));
        let servers: Vec<_> = list(&backend["servers"]).map(|server| server_cells(server).to_vec()).collect();
        let mut servers = servers.into_iter();
        let first = servers.next().unwrap_or_else(|| vec![Cell::text("-"), Cell::text("-")]);
        rows.push([vec![Cell::text(text(&backend["name"]))], first, counts.to_vec()].concat());
        rows.extend(servers.map(|server| [vec![Cell::text("")], server].concat()));
    }
    if rows.len() > 1 {
        page.section("BACKENDS", rows);
    }
}

fn server_cells(server: &Value) -> [Cell; 2] {
    let state = text(&server["state"]);
    let colour = match &*state {
        "healthy" => Some(Colour::Green),
        "ejected" => Some(Colour::Red),
        _ => None,
    };
    [Cell::text(text(&server["address"])), Cell::text(state).coloured(colour)]
}

fn access_logs(page: &mut Page, status: &Value) {
    let mut rows = vec![vec![Cell::text("DESTINATION")]];
    rows[0].extend(["WRITTEN", "DROPPED", "FAILED"].map(Cell::number));
    for log in list(&status["access_logs"]) {
        let mut row = vec![Cell::text(text(&log["destination"]))];
        row.extend(lines(log, "written"));
        rows.push(row);
    }
    if rows.len() > 1 {
        page.section("ACCESS LOGS", rows);
    }
}

fn tracing(page: &mut Page, status: &Value) {
    let tracing = &status["tracing"];
    if tracing.is_object() {
        let head = ["EXPORTED", "DROPPED", "FAILED"].map(Cell::number).to_vec();
        page.section("SPANS", vec![head, lines(tracing, "exported").to_vec()]);
    }
}

/// What went well, what was dropped and what failed.
fn lines(counts: &Value, well: &str) -> [Cell; 3] {
    let lost = |name: &str| {
        let is_lost = counts[name].as_u64().is_some_and(|count| count > 0);
        Cell::number(text(&counts[name])).coloured(is_lost.then_some(Colour::Yellow))
    };
    [Cell::number(text(&counts[well])), lost("dropped"), lost("failed")]
}

fn process(page: &mut Page, process: &Value) {
    if !process.is_object() {
        return;
    }
    let cpu = format!("{} % now, {} s in all", text(&process["cpu_percent"]), text(&process["cpu_seconds"]));
    let files = format!("{} of {}", text(&process["open_files"]), text(&process["max_open_files"]));
    let rows = [
        ("cpu", cpu),
        ("memory", process["resident_bytes"].as_u64().map_or("-".to_owned(), bytes)),
        ("open files", files),
        ("threads", text(&process["threads"])),
    ];
    page.section("PROCESS", rows.map(|(name, value)| vec![Cell::text(name), Cell::text(value)]).to_vec());
}

fn file(page: &mut Page, status: &Value) {
    let reload = &status["reload"];
    let (outcome, colour) = match text(&reload["outcome"]) {
        ok if ok == "ok" => (ok, None),
        other => (other, Some(Colour::Red)),
    };
    let ago = |at: &Value| match (status["now"].as_u64(), at.as_u64()) {
        (Some(now), Some(at)) => format!("{}, {} ago", time(&Value::from(at)), span(now.saturating_sub(at) / 1000)),
        _ => "never".to_owned(),
    };
    let rows = [
        ("file", Cell::text(text(&reload["file"]))),
        ("outcome", Cell::text(outcome).coloured(colour)),
        ("last read", Cell::text(ago(&reload["last_attempt_at"]))),
        ("last good", Cell::text(ago(&reload["last_good_at"]))),
        ("reloads", Cell::text(text(&reload["count"]))),
    ];
    page.section("CONFIGURATION", rows.map(|(name, value)| vec![Cell::text(name), value]).to_vec());
    // Its columns point into the lines above them, so it stays as wide as it is.
    for line in reload["report"].as_str().unwrap_or_default().trim_end().lines() {
        page.text += format!("{INDENT}{}", plain(line)).trim_end();
        page.text.push('\n');
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// As it stands in the JSON; `-` for what is not there.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

fn per_second(rate: &Value) -> String {
    rate.as_f64().map_or("-".to_owned(), |rate| format!("{rate:.2}/s"))
}

fn seconds(took: &Value) -> String {
    match took.as_f64() {
        None => "-".to_owned(),
        Some(took) if took < 0.001 => format!("{:.0} µs", took * 1e6),
        Some(took) if took < 1.0 => format!("{:.1} ms", took * 1e3),
        Some(took) => format!("{took:.2} s"),
    }
}

fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB"];
    let power = (bytes.max(1).ilog2() / 10).clamp(1, 3);
    format!("{:.1} {}", bytes as f64 / 1024_f64.powi(power as i32), units[power as usize - 1])
}

/// In its two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn time(milliseconds: &Value) -> String {
    let time = milliseconds.as_i64().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    time.map_or("-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
