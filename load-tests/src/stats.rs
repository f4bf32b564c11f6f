//! What the kernel says about processes, latencies, and the report of a run.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// The clock ticks a second in `/proc`, which is 100 on every Linux that Rust's standard library supports.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// The server's process ids, comma separated; their descendants count too
    #[arg(long, value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Process ids that share the generator's core, such as the backend's: counted as busy beside the generator
    #[arg(long, value_delimiter = ',')]
    pub helper_pid: Vec<u32>,
    /// The name of this run in its report
    #[arg(long, default_value = "")]
    pub label: String,
    /// Append the report to this file as well
    #[arg(long)]
    pub out: Option<PathBuf>,
}

impl ReportArgs {
    /// Prints the report as one line of JSON, and appends it to `--out`.
    pub fn write(&self, command: &str, fields: Map<String, Value>) -> anyhow::Result<()> {
        let mut report = Map::from_iter([("label".into(), json!(self.label)), ("command".into(), json!(command))]);
        report.extend(fields);
        let line = Value::Object(report).to_string();
        println!("{line}");
        if let Some(path) = &self.out {
            use std::io::Write;
            let file = fs::OpenOptions::new().create(true).append(true).open(path);
            file.and_then(|mut file| writeln!(file, "{line}")).with_context(|| format!("`{}`", path.display()))?;
        }
        Ok(())
    }
}

/// Processes and all their descendants, as they were when asked for.
pub struct Processes(Vec<u32>);

#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_s: f64,
    pub rss_kib: u64,
}

impl Processes {
    pub fn new(roots: &[u32]) -> Self {
        let mut parents: Vec<(u32, u32)> = Vec::new();
        if !roots.is_empty() {
            for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
                if let Some(parent) = stat_field(pid, 1) {
                    parents.push((pid, parent as u32));
                }
            }
        }
        let mut all = roots.to_vec();
        let mut at = 0;
        while at < all.len() {
            let parent = all[at];
            let children = parents.iter().filter(|(pid, of)| *of == parent && !roots.contains(pid));
            all.extend(children.map(|(pid, _)| *pid));
            at += 1;
        }
        Processes(all)
    }

    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for pid in &self.0 {
            usage.cpu_s += cpu_seconds(*pid);
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            usage.rss_kib += kib_of(&status, "VmRSS:");
        }
        usage
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A number among the fields of `/proc/PID/stat` behind the command's name; field 0 is the state.
fn stat_field(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also blanks and brackets: what counts is the last one.
    let (_, behind) = stat.rsplit_once(") ")?;
    behind.split_whitespace().nth(field)?.parse().ok()
}

fn cpu_seconds(pid: u32) -> f64 {
    let user_and_system = stat_field(pid, 11).unwrap_or(0) + stat_field(pid, 12).unwrap_or(0);
    user_and_system as f64 / TICKS_PER_SECOND
}

/// What all cores did so far, time stolen by a neighbour of a virtual machine included.
fn machine_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map_while(|ticks| ticks.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows counts guests, who are in user already.
    ticks.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, ticks)| ticks).sum::<f64>()
        / TICKS_PER_SECOND
}

fn kib_of(text: &str, key: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What the whole machine has left, in KiB.
pub fn available_kib() -> u64 {
    kib_of(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:")
}

/// Counts and latencies that the tasks of one run share.
#[derive(Clone)]
pub struct Latencies(Rc<RefCell<Histogram<u64>>>);

impl Latencies {
    /// From 100 nanoseconds to a minute, to three digits.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("the bounds are in order");
        Latencies(Rc::new(RefCell::new(histogram)))
    }

    pub fn record(&self, latency: Duration) {
        self.0.borrow_mut().saturating_record(latency.as_nanos() as u64);
    }

    pub fn micros(&self) -> Value {
        let all = self.0.borrow();
        let at = |quantile: f64| (all.value_at_quantile(quantile) as f64 / 100.0).round() / 10.0;
        json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99_9": at(0.999), "max": at(1.0)})
    }
}

/// A number that all tasks of a run add to.
#[derive(Clone, Default)]
pub struct Count(Rc<Cell<u64>>);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// Adds one, and gives what was there before.
    pub fn next(&self) -> u64 {
        self.0.replace(self.0.get() + 1)
    }
}

/// Rounds for reading: three digits behind the point, none from a hundred on.
pub fn round(x: f64) -> Value {
    let scale = if x.abs() >= 100.0 { 1.0 } else { 1000.0 };
    json!((x * scale).round() / scale)
}

/// Wall clock and CPU over the measured part of a run.
pub struct Window {
    server: Processes,
    /// The generator itself, what it started, and its helpers.
    generator: Processes,
    server_before: f64,
    generator_before: f64,
    machine_before: f64,
    start: Instant,
}

impl Window {
    pub fn open(args: &ReportArgs) -> Self {
        let server = Processes::new(&args.pid);
        let generator = Processes::new(&[&args.helper_pid[..], &[std::process::id()]].concat());
        Window {
            server_before: server.usage().cpu_s,
            generator_before: generator.usage().cpu_s,
            machine_before: machine_cpu_seconds(),
            server,
            generator,
            start: Instant::now(),
        }
    }

    /// The rate of `count` events named `unit`, what one thousand of them cost the server, and who else was busy.
    pub fn close(&self, unit: &str, count: u64) -> Map<String, Value> {
        let secs = self.start.elapsed().as_secs_f64();
        let generator = self.generator.usage().cpu_s - self.generator_before;
        let now = self.server.usage();
        let server = now.cpu_s - self.server_before;
        let mut out = Map::new();
        out.insert(unit.into(), json!(count));
        out.insert(format!("{unit}_per_s"), round(count as f64 / secs));
        out.insert("secs".into(), round(secs));
        out.insert("loadgen_cpu_pct".into(), round(100.0 * generator / secs));
        if !self.server.is_empty() {
            let others = (machine_cpu_seconds() - self.machine_before - generator - server).max(0.0);
            out.insert("others_cpu_pct".into(), round(100.0 * others / secs));
            out.insert("server_cpu_pct".into(), round(100.0 * server / secs));
            out.insert("server_rss_mib".into(), round(now.rss_kib as f64 / 1024.0));
            if count > 0 {
                out.insert(format!("server_cpu_ms_per_1k_{unit}"), round(server * 1e6 / count as f64));
            }
        }
        out
    }
}
