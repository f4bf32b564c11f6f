//! Log lines on stderr, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// What is logged less of, whoever asks for all: the codec would write down messages, tokens in them too, and the watcher
/// of files every growth of a log beside the watched file, which is such a growth again.
const QUIET: [&str; 4] = ["notify=off", "inotify=off", "tungstenite=info", "tokio_tungstenite=info"];

/// Starts logging for the whole process. `filter` is `RUST_LOG`'s language; without one, `info`.
pub fn start(filter: Option<&str>, format: Option<Format>) {
    let mut filter = match filter {
        Some(filter) => EnvFilter::new(filter),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    for quiet in QUIET {
        filter = filter.add_directive(quiet.parse().expect("the list holds directives"));
    }
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A closed stderr must not end the gateway.
    let builder = builder.log_internal_errors(false);
    // A second start (tests in one process) keeps the first one's settings.
    let _ = match format {
        Format::Text => builder.with_ansi(terminal).with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
}
