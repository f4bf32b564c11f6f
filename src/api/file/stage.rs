//! The `[apis.<api>.stages.<stage>]` tables: AWS's limits and times, all of them settable.

use super::{AccessLog, LoggingLevel, PolicyStatement, StageLimits, Throttle};
use crate::model::settings::{
    ByteSize, Duration, OrNone, PositiveDuration, PositiveInteger, Setting as _, Table, TableName, Text, choice,
    is_plain_name, settings,
};

choice! {
    /// In which order the messages of one connection are answered.
    pub enum Ordering {
        /// They run concurrently, as at AWS.
        None = "none",
        /// One after the other, as they came.
        Connection = "connection",
    }
}

settings! {
    /// One stage of an API. An API without stages has the stage `$default`, which has no segment in the URL.
    pub struct Stage {
        /// Values for `${stageVariables.NAME}`.
        pub stage_variables: Table<Text, VariableName>,
        /// Closes a socket after this long without a data message either way (AWS: 10 minutes).
        pub idle_timeout: OrNone<PositiveDuration> = "10m",
        /// Closes a socket this long after it was opened (AWS: 2 hours).
        pub max_duration: OrNone<PositiveDuration> = "2h",
        /// The largest message, from a client or pushed (AWS: 128 KiB).
        pub max_message: OrNone<ByteSize> = "128KiB",
        /// The largest request body of an HTTP API (AWS: 10 MB); it is passed on while it comes, not held.
        pub max_body: OrNone<ByteSize> = "10MiB",
        /// Compresses answers of an HTTP API from this size on, for clients that accept it: gzip, br or zstd.
        pub minimum_compression_size: OrNone<ByteSize> = "none",
        /// Compresses event streams as well, which some clients then see late.
        pub compress_event_streams: bool = false,
        /// The largest frame (AWS: 32 KiB).
        pub max_frame: OrNone<ByteSize> = "32KiB",
        /// Takes binary frames as messages; `false` closes the socket with 1003, as AWS does.
        pub binary: bool = false,
        /// `none` runs the messages of a connection concurrently, as AWS does; `connection` in the order they came.
        pub ordering: Ordering = "none",
        /// How many messages of one connection may be answered at a time; above it the socket is not read.
        pub max_in_flight: PositiveInteger = 32,
        /// What may wait to be sent to one connection; when it is full, pushes get 429.
        pub outbox: Outbox,
        /// Closes a socket whose outbox was full for this long.
        pub slow_consumer_timeout: OrNone<PositiveDuration> = "10s",
        /// Pings clients this often (AWS: never).
        pub ping_interval: OrNone<PositiveDuration> = "none",
        /// Closes a socket that did not answer a ping for this long.
        pub pong_timeout: PositiveDuration = "10s",
        /// How long a client may take to send its handshake, from the first byte.
        pub handshake_timeout: PositiveDuration = "10s",
        /// Lets a client's pings and pongs reset `idle_timeout`, as a message does.
        pub idle_counts_pings: bool = false,
        /// How long a `$disconnect` that a backend did not take is tried again; `0s` tries once.
        pub disconnect_retry: Duration = "1m",
        /// A bucket of this size for each route: handshakes, messages or requests beyond it get 429 or the frame
        /// `Too Many Requests` (at AWS 10,000 and 5,000).
        pub throttle: OrNone<Throttle> = "none",
        /// Limits by client address and connection, beyond AWS's.
        pub limits: StageLimits,
        /// Who may reach the stage.
        pub resource_policy: Vec<PolicyStatement> = [],
        /// The origins whose pages may open a WebSocket here from a browser, such as `https://app.example.com`,
        /// `https://*.example.com` or `*`. Absent: a browser that sends cookies must come from the stage's own host.
        pub allowed_origins: Option<Vec<Text>>,
        /// Exports metrics of each route as well.
        pub detailed_metrics: bool = false,
        /// A log with one line for each call.
        pub access_log: OrNone<AccessLog> = "none",
        /// What the gateway's own log says about single calls.
        pub logging_level: LoggingLevel = "off",
        /// Shows bodies: in the log at `logging_level = "info"`, and to who watches live. They may hold what is nobody's business.
        pub data_trace: bool = false,
    }
}

impl Stage {
    /// The stage of an API that names none.
    pub fn absent_in(api: &super::Api) -> Option<Self> {
        Self::absent(&api.place).filter(|_| api.stages.is_empty())
    }
}

settings! {
    /// What may wait to be sent to one connection.
    pub struct Outbox {
        /// Bytes waiting.
        pub bytes: ByteSize = "1MiB",
        /// Messages waiting.
        pub messages: PositiveInteger = 1024,
    }
}

/// Names of stages.
#[derive(Debug, Clone)]
pub struct StageName;

impl TableName for StageName {
    const PLACEHOLDER: &'static str = "<stage>";

    fn check(name: &str) -> Result<(), (String, String)> {
        if name == "$default" || is_plain_name(name, &['-'], 128) {
            return Ok(());
        }
        let help = "use 1 to 128 of `A-Z a-z 0-9 _ -`, or `\"$default\"` for the stage without a segment in the URL";
        Err((format!("`{name}` cannot name a stage"), help.into()))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^([A-Za-z0-9_-]{1,128}|\$default)$")
    }
}

/// Names of stage variables.
#[derive(Debug, Clone)]
pub struct VariableName;

impl TableName for VariableName {
    const PLACEHOLDER: &'static str = "<variable>";
    const MOST: Option<usize> = Some(100);

    fn check(name: &str) -> Result<(), (String, String)> {
        if is_plain_name(name, &[], usize::MAX) {
            return Ok(());
        }
        Err((format!("`{name}` cannot name a stage variable"), "use `A-Z a-z 0-9 _`".into()))
    }

    fn pattern() -> Option<&'static str> {
        Some("^[A-Za-z0-9_]+$")
    }
}
