//! What is written down of calls: `access_log`, `logging_level`, and the gateway's `tracing`.

use super::Url;
use crate::model::settings::{
    ByteSize, Expression, OrNone, PositiveDuration, PositiveInteger, Reading, Secret, Share, Table, Text, choice,
    settings,
};

settings! {
    /// A log with one line for each connect, message, push, disconnect or request.
    pub struct AccessLog {
        /// `json`, `clf`, or a text with variables like `$context.requestId`, which must be one of them.
        pub format: Expression = "json",
        /// `stdout`, `stderr`, a file like `/var/log/livegate/access.log` (a path with `/` in it, from this file's folder on,
        /// or `file:access.log`), `syslog`, `syslog://host:514` (UDP), `syslog+tcp://host:514` or `syslog+unix:/path`.
        pub destination: Text = "stdout",
        /// A file that has grown to this is put aside for a new one.
        pub rotate_size: OrNone<ByteSize> = "100MiB",
        /// So is one that is this old.
        pub rotate_every: OrNone<PositiveDuration> = "none",
        /// How many files that were put aside are kept.
        pub keep: PositiveInteger = 7,
        /// What happens to a line when the destination does not keep up: `drop` leaves it out, which is counted and said;
        /// `block` has its call wait, and in time all others.
        pub when_full: WhenFull = "drop",
        /// How much may wait to be written.
        pub buffer: ByteSize = "8MiB",
    }
}

choice! {
    /// What happens when a log's buffer is full.
    pub enum WhenFull {
        /// The line is left out.
        Drop = "drop",
        /// Whoever writes waits.
        Block = "block",
    }
}

choice! {
    /// What the gateway's own log says about single calls.
    pub enum LoggingLevel {
        /// Nothing, storms of failures aside.
        Off = "off",
        /// Calls that were refused or failed, and why.
        Error = "error",
        /// Every call, with the steps it took.
        Info = "info",
    }
}

settings! {
    /// Traces of calls, sent to a collector of OpenTelemetry's by OTLP over HTTP.
    pub struct Tracing {
        /// The collector, such as `http://127.0.0.1:4318`; `/v1/traces` is put behind it unless it is there.
        pub endpoint: Url,
        /// The share of calls that are traced, from 0 to 1, where their caller does not say.
        pub sample: Share = 0.01,
        /// Headers for the collector, such as an API key.
        pub headers: Table<Secret>,
        /// What the gateway is called in traces.
        pub service_name: Text = "livegate",
        /// Has a client's `traceparent` decide whether its call is traced, whatever `sample` says. A backend's decides whether
        /// its push is, in any case.
        pub follow_parent: bool = false,
        check is_sendable;
    }
}

fn is_sendable(tracing: &Tracing, reading: &mut Reading) {
    for header in &tracing.headers {
        if http::HeaderName::from_bytes(header.name.as_bytes()).is_err() {
            let found = format!("`{}` cannot name a header", header.name);
            reading.problems.problem_with_help(&header.place, found, "use letters, digits and `-`");
        }
        if !header.value.unresolved && http::HeaderValue::from_str(header.value.reveal()).is_err() {
            let found = "this is no value of a header";
            reading.problems.problem_with_help(&header.value.place, found, "use visible characters on one line");
        }
    }
}
