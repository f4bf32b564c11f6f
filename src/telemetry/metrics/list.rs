//! The list: every metric's name, kind, labels and meaning, from which the reference is printed.

/// One metric as operators meet it.
pub struct About {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static str,
    pub help: &'static str,
}

macro_rules! metrics_list {
    ($($(#[$doc:meta])* $constant:ident = $name:literal $kind:literal ($labels:literal) $help:literal;)*) => {
        $($(#[$doc])* pub const $constant: &str = $name;)*

        /// The reference that `docs/metrics.md` is printed from.
        pub const ALL: &[About] =
            &[$(About { name: $name, kind: $kind, labels: $labels, help: $help }),*];
    };
}

metrics_list! {
    CONNECTIONS_OPEN = "livegate_connections_open" "gauge" ("api, stage")
        "Connections open now: WebSockets, and upgraded connections of HTTP APIs";
    CONNECTS = "livegate_connects_total" "counter" ("api, stage, outcome")
        "Handshakes by outcome: opened, refused (by the backend or before it was asked), failed (AWS: ConnectCount)";
    CONNECTIONS_CLOSED = "livegate_connections_closed_total" "counter" ("api, stage, code")
        "Connections closed, by close code; client codes outside the gateway's own list count as other";
    MESSAGES = "livegate_messages_total" "counter" ("api, stage, direction")
        "Messages from clients (in) and frames of data written to clients (out) (AWS: MessageCount)";
    BYTES = "livegate_bytes_total" "counter" ("api, stage, direction")
        "Bytes of messages from clients (in) and of frames written to clients (out), without the frames' own heads";
    IN_FLIGHT = "livegate_in_flight" "gauge" ("api, stage")
        "Messages and requests being answered now";
    REQUESTS = "livegate_requests_total" "counter" ("api, stage, status")
        "Requests of HTTP APIs by the answer's status, 1xx to 5xx, or cancelled by their client (AWS: Count, 4xx, 5xx)";
    REQUEST_LATENCY = "livegate_request_latency_seconds" "histogram" ("api, stage")
        "Time from the head of a request of an HTTP API to the head of its answer (AWS: Latency)";
    DATA_PROCESSED = "livegate_data_processed_bytes_total" "counter" ("api, stage")
        "Bytes in the bodies of requests and answers of HTTP APIs (AWS: DataProcessed)";
    PUSHES = "livegate_pushes_total" "counter" ("api, stage, outcome")
        "Calls of the @connections API by outcome: ok, gone, full, throttled, refused, invalid, too_large";
    PUSH_LATENCY = "livegate_push_latency_seconds" "histogram" ("api, stage")
        "Time from a whole @connections request to its answer";
    INTEGRATION_LATENCY = "livegate_integration_latency_seconds" "histogram" ("api, stage")
        "Time from the call of a backend to its whole answer (AWS: IntegrationLatency)";
    INTEGRATION_ERRORS = "livegate_integration_errors_total" "counter" ("api, stage")
        "Backend answers with a status of 4xx or 5xx (AWS: IntegrationError)";
    EXECUTION_ERRORS = "livegate_execution_errors_total" "counter" ("api, stage, reason")
        "Calls of a backend or an authorizer that failed: unreachable, busy, timeout, bad_answer, authorizer, internal (AWS: ExecutionError)";
    REFUSALS = "livegate_refusals_total" "counter" ("api, stage, cause")
        "Calls not let in, by cause: origin, resource_policy, api_key, unauthorized, denied, authorizer_failure, quota, and what was throttled by which limit: gateway_throttle, route_throttle, usage_plan_throttle, push_throttle, address_connections, address_connects, address_requests, connection_messages, connection_bytes";
    KEY_FETCHES = "livegate_authorizer_key_fetches_total" "counter" ("authorizer, outcome")
        "Fetches of an issuer's keys for an authorizer of type jwt: ok, failed (the old keys then go on serving)";
    CLIENT_ERRORS = "livegate_client_errors_total" "counter" ("api, stage")
        "Messages, handshakes and requests turned away before any backend was called (AWS: ClientError)";
    OUTBOX_BYTES = "livegate_outbox_bytes" "gauge" ("api, stage")
        "Bytes queued for clients and not yet handed to their sockets";
    OUTBOX_MESSAGES = "livegate_outbox_messages" "gauge" ("api, stage")
        "Messages queued for clients and not yet handed to their sockets";
    OUTBOX_STALLS = "livegate_outbox_stalls_total" "counter" ("api, stage")
        "Pushes refused because the connection's outbox was full, and connections closed because it stayed so";
    DISCONNECT_RETRIES = "livegate_disconnect_retries_total" "counter" ("api, stage")
        "$disconnect calls that failed and were repeated";
    DISCONNECTS_LOST = "livegate_disconnects_lost_total" "counter" ("api, stage")
        "$disconnect calls given up after disconnect_retry, at the end of a drain, or for want of room";
    ROUTE_CALLS = "livegate_route_calls_total" "counter" ("api, stage, route")
        "Handshakes, messages, disconnects or requests of a route; as the other metrics of routes only where the stage has `detailed_metrics` (AWS: Count by Route)";
    ROUTE_CLIENT_ERRORS = "livegate_route_client_errors_total" "counter" ("api, stage, route")
        "Those turned away before any backend was called (AWS: ClientError by Route)";
    ROUTE_INTEGRATION_ERRORS = "livegate_route_integration_errors_total" "counter" ("api, stage, route")
        "Those that the backend answered with a status of 4xx or 5xx (AWS: IntegrationError by Route)";
    ROUTE_EXECUTION_ERRORS = "livegate_route_execution_errors_total" "counter" ("api, stage, route")
        "Those whose backend or authorizer failed (AWS: ExecutionError by Route)";
    ROUTE_LATENCY = "livegate_route_latency_seconds" "histogram" ("api, stage, route")
        "Time from the call to its answer, the backend's included (AWS: Latency by Route)";
    BACKEND_CONNECTIONS = "livegate_backend_connections" "gauge" ("backend, state")
        "Connections to a backend's servers: busy with a call, or idle and kept for the next";
    BACKEND_WAITING = "livegate_backend_waiting" "gauge" ("backend")
        "Calls that wait for their turn on a backend";
    BACKEND_SERVERS = "livegate_backend_servers" "gauge" ("backend, state")
        "Servers of a backend: healthy, or ejected for failed calls or checks";
    AUTHORIZER_CACHE = "livegate_authorizer_cache_total" "counter" ("authorizer, outcome")
        "Calls whose authorizer's answer was remembered (hit), or had to be asked for (miss)";
    AUTHORIZER_CACHE_ENTRIES = "livegate_authorizer_cache_entries" "gauge" ("authorizer")
        "Answers of an authorizer that are remembered now";
    RELOADS = "livegate_reloads_total" "counter" ("outcome")
        "Reloads of routes.toml by outcome: ok, unchanged, problems";
    LAST_RELOAD = "livegate_last_reload_timestamp_seconds" "gauge" ("outcome")
        "When routes.toml was last read, in seconds since 1970: well (ok), or with problems; 0 for never";
    READY = "livegate_ready" "gauge" ("")
        "1 while new clients are welcome, as `/readyz` says; 0 while the gateway drains";
    CONFIG_OK = "livegate_config_ok" "gauge" ("")
        "1 while what is served is what routes.toml says, 0 since a reload met problems";
    CERTIFICATE_ORDERS = "livegate_certificate_orders_total" "counter" ("domain, outcome")
        "Orders of an ACME certificate by outcome: ok, failed; the domain is its first";
    CERTIFICATE_EXPIRATION = "livegate_certificate_expiration_timestamp_seconds" "gauge" ("domain")
        "When the ACME certificate expires, in seconds since 1970; 0 while there is none";
    HANDSHAKE_ERRORS = "livegate_handshake_errors_total" "counter" ("")
        "Connections that ended in their TLS handshake or PROXY protocol header";
    ACCEPT_ERRORS = "livegate_accept_errors_total" "counter" ("")
        "Connections that could not be accepted, for want of open files above all";
    ACCESS_LOG_LINES = "livegate_access_log_lines_total" "counter" ("destination, outcome")
        "Lines of access logs: written; dropped because the buffer was full; failed to be written";
    SPANS = "livegate_spans_total" "counter" ("outcome")
        "Spans of traces: exported; dropped because the queue was full; failed to be exported";
    TAIL_WATCHERS = "livegate_tail_watchers" "gauge" ("")
        "Who watches live events now";
    BUILD_INFO = "livegate_build_info" "gauge" ("version")
        "1, labelled with what is running";
    CPU_SECONDS = "process_cpu_seconds_total" "counter" ("")
        "Processor time of the process, user and system";
    RESIDENT_MEMORY = "process_resident_memory_bytes" "gauge" ("")
        "Memory of the process that is not swapped out";
    OPEN_FILES = "process_open_fds" "gauge" ("")
        "Open files of the process; every connection is one";
    MAX_OPEN_FILES = "process_max_fds" "gauge" ("")
        "How many files the process may have open";
    START_TIME = "process_start_time_seconds" "gauge" ("")
        "When the process started, in seconds since 1970";
    THREADS = "process_threads" "gauge" ("")
        "Threads of the process";
}

/// The table of `docs/metrics.md`.
pub fn reference() -> String {
    let mut table = String::from("| metric | type | labels | counts |\n|---|---|---|---|\n");
    for about in ALL {
        let labels = if about.labels.is_empty() { "none" } else { about.labels };
        table += &format!("| `{}` | {} | {} | {} |\n", about.name, about.kind, labels, about.help);
    }
    table
}
