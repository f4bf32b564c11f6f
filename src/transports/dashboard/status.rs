//! How the gateway is: what it serves, how much, and what that takes.

use serde_json::{Value, json};

use super::health;
use crate::engine::Engine;
use crate::model::clock::Timestamp;
use crate::outbound::backends::Backend;
use crate::telemetry::metrics::BackendFigures;
use crate::telemetry::process;

pub fn status(engine: &Engine) -> Value {
    let gateway = engine.gateway();
    let (reasons, warnings) = (health::reasons(engine), health::warnings(engine));
    let reading = engine.readings.last();
    let recent = engine.history.rates();
    let backends: Vec<Value> = gateway.backends.iter().map(|backend| of_backend(backend)).collect();
    let logs = engine.logs();
    let logs = logs.iter().map(|(destination, counts)| {
        json!({
            "destination": destination,
            "written": counts.written.get(),
            "dropped": counts.dropped.get(),
            "failed": counts.failed.get(),
        })
    });
    let tracing = engine.tracer.load_full().map(|tracer| {
        let counts = &tracer.counts;
        json!({
            "exported": counts.exported.get(),
            "dropped": counts.dropped.get(),
            "failed": counts.failed.get(),
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "status": health::word(&reasons),
        "reasons": reasons,
        "warnings": warnings,
        "now": Timestamp::now().0,
        "started_at": (process::started_at() * 1000.0) as u64,
        "read_only": gateway.settings.admin_read_only,
        "reload": {
            "count": reading.count,
            "last_good_at": reading.last_good_at.0,
            "last_attempt_at": reading.last_attempt_at.0,
            "outcome": if reading.problems.is_some() { "problems" } else { "ok" },
            "file": reading.file,
            "report": reading.problems,
        },
        "listeners": *engine.listeners(),
        "connections": engine.connections.count(),
        "rates": recent.rates,
        "latency": recent.latency,
        "process": of_process(engine),
        "backends": backends,
        "access_logs": logs.collect::<Vec<_>>(),
        "tracing": tracing,
    })
}

fn of_process(engine: &Engine) -> Value {
    let Some(figures) = process::figures() else { return Value::Null };
    let uptime = (Timestamp::now().0 as f64 / 1000.0 - figures.started_at).max(0.0);
    json!({
        "cpu_seconds": figures.cpu_seconds,
        "cpu_percent": engine.cpu_percent(),
        "resident_bytes": figures.resident_bytes,
        "open_files": figures.open_files,
        "max_open_files": figures.max_open_files,
        "threads": figures.threads,
        "uptime_seconds": uptime as u64,
    })
}

fn of_backend(backend: &Backend) -> Value {
    let figures = backend.figures();
    let servers = backend.servers().into_iter().map(|(address, condition)| {
        let state = match condition.is_in_service() {
            true if backend.is_checked() => "healthy",
            true => "unchecked",
            false => "ejected",
        };
        json!({ "address": address, "state": state })
    });
    json!({
        "name": backend.name(),
        "servers": servers.collect::<Vec<_>>(),
        "busy": figures.busy,
        "idle": figures.idle,
        "waiting": figures.waiting,
    })
}

/// What is measured only when somebody scrapes.
pub async fn note_for_metrics(engine: &Engine) {
    let gateway = engine.gateway();
    let backends: Vec<_> = gateway
        .backends
        .iter()
        .map(|backend| {
            let servers = backend.servers();
            let healthy = servers.iter().filter(|(_, condition)| condition.is_in_service()).count();
            let figures = backend.figures();
            let ejected = servers.len() - healthy;
            let figures =
                BackendFigures { busy: figures.busy, idle: figures.idle, waiting: figures.waiting, healthy, ejected };
            (backend.name().to_owned(), figures)
        })
        .collect();
    engine.metrics.note_backends(&backends);
    for (destination, counts) in engine.logs().iter() {
        let (written, dropped, failed) = (counts.written.get(), counts.dropped.get(), counts.failed.get());
        engine.metrics.note_access_log(destination, written, dropped, failed);
    }
    if let Some(tracer) = engine.tracer.load_full() {
        let counts = &tracer.counts;
        engine.metrics.note_spans(counts.exported.get(), counts.dropped.get(), counts.failed.get());
    }
    for authorizer in &gateway.authorizers {
        if let (Some(name), Some(entries)) = (authorizer.name(), authorizer.remembered().await) {
            engine.metrics.note_remembered(name, entries);
        }
    }
    engine.metrics.note_ready(health::reasons(engine).is_empty());
    engine.metrics.note_watchers(engine.tail.watchers());
}
