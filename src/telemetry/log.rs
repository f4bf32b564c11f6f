//! Log lines on stderr, as text for people or JSON for machines.
//!
//! They go out by a thread of their own: whoever reads stderr may stop, and a gateway that waits for it would stop too.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::sink::{Destination, Settings, Sink, WhenFull};
use crate::model::clock::Tick;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// What is logged less of, whoever asks for all: the codec would write down messages, tokens in them too, and the watcher
/// of files every growth of a log beside the watched file, which is such a growth again.
const QUIET: [&str; 4] = ["notify=off", "inotify=off", "tungstenite=info", "tokio_tungstenite=info"];

/// Lines that may wait for whoever reads stderr; beyond it they are dropped, and how many is said later.
const WAITING: usize = 8 * 1024 * 1024;

/// How long the last lines may take to go out.
const PATIENCE: Duration = Duration::from_secs(1);

static STDERR: OnceLock<Arc<Sink>> = OnceLock::new();

/// Starts logging for the whole process. `filter` is `RUST_LOG`'s language; without one, `info`.
pub fn start(filter: Option<&str>, format: Option<Format>) {
    let mut filter = match filter {
        Some(filter) => EnvFilter::new(filter),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    for quiet in QUIET {
        filter = filter.add_directive(quiet.parse().expect("the list holds directives"));
    }
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let settings = Settings {
        destination: Destination::Stderr,
        when_full: WhenFull::Drop,
        buffer: WAITING,
        gathering: Duration::from_millis(1),
    };
    if let Ok(sink) = Sink::open(settings) {
        // A second start (tests in one process) keeps the first one's.
        let _ = STDERR.set(sink);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lines);
    // A closed stderr must not end the gateway.
    let builder = builder.log_internal_errors(false);
    // A second start (tests in one process) keeps the first one's settings.
    let _ = match format {
        Format::Text => builder.with_ansi(terminal).with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
}

/// What was logged goes out; the process ends.
pub fn finish() {
    if let Some(stderr) = STDERR.get() {
        stderr.close(PATIENCE);
    }
}

/// Takes one event with each write.
struct Lines;

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match STDERR.get() {
            Some(stderr) => stderr.write(event),
            None => io::stderr().write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line that a stranger can cause as often as they like is written once a second.
#[derive(Default)]
pub struct OncePerSecond {
    last: AtomicU64,
    unsaid: AtomicU64,
}

impl OncePerSecond {
    pub const fn new() -> Self {
        Self { last: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// How many lines were left out before this one; `None` if this one is left out too.
    pub fn is_worth_a_line(&self, now: Tick) -> Option<u64> {
        let last = self.last.load(Relaxed);
        let is_due = last == 0 || now.since(Tick(last)) >= Duration::from_secs(1);
        if is_due && self.last.compare_exchange(last, now.0, Relaxed, Relaxed).is_ok() {
            return Some(self.unsaid.swap(0, Relaxed));
        }
        self.unsaid.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_failures_is_one_line_a_second() {
        let lines = OncePerSecond::new();
        let check = |tick, line| assert_eq!(lines.is_worth_a_line(Tick(tick)), line, "{tick}");
        check(5, Some(0));
        check(6, None);
        check(1004, None);
        check(1005, Some(2));
        check(1006, None);
    }
}
