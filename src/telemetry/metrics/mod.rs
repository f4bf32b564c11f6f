//! Every metric of the gateway, in one list (`list.rs`), with AWS's name where AWS has one.
//!
//! On the hot path plain atomics are counted (`count.rs`), those of a stage in `stage.rs`, those of a route in `route.rs`;
//! the exporter learns of them when somebody scrapes. Labels are the operator's own words (API, stage, route, backend) or
//! a short list of ours, never a connection, a path or a key.

mod count;
mod list;
mod route;
mod stage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dashmap::DashMap;
use metrics::{Counter, Gauge, Label, Recorder, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::{Mutex, RwLock};

use crate::model::client::StageKey;
use crate::telemetry::history::Totals;
use crate::telemetry::process;
use crate::telemetry::timing::Timing;
pub use count::{Count, Latency, Level};
use list::*;
pub use list::{ALL, About, reference};
pub use route::{Detailed, Figures, Pace, RouteMetrics};
pub use stage::{ExecutionErrors, Pushes, StageMetrics};

/// The recorder of one gateway. Several may live in one process, as they do in tests.
#[derive(Clone)]
pub struct Metrics {
    exporter: Arc<Exporter>,
    stages: Arc<DashMap<StageKey, Arc<StageMetrics>>>,
    routes: Arc<Routes>,
    authorizers: Arc<DashMap<String, Arc<AuthorizerMetrics>>>,
    pub reloads: Arc<Reloads>,
    pub accept_errors: Arc<Count>,
    pub handshake_errors: Arc<Count>,
    process: Arc<OfProcess>,
}

/// Routes over all reloads, by stage and key and by number.
#[derive(Default)]
struct Routes {
    by_key: DashMap<(StageKey, Arc<str>), Arc<RouteMetrics>>,
    by_number: RwLock<Vec<Arc<RouteMetrics>>>,
    next: AtomicU32,
}

pub struct Reloads {
    pub ok: Arc<Count>,
    pub unchanged: Arc<Count>,
    pub problems: Arc<Count>,
    last_ok: Gauge,
    last_problems: Gauge,
    is_config_ok: Gauge,
}

impl Reloads {
    /// The file was read; `at` is in seconds since 1970.
    pub fn note(&self, is_ok: bool, at: f64) {
        let last = if is_ok { &self.last_ok } else { &self.last_problems };
        last.set(at);
        self.is_config_ok.set(if is_ok { 1.0 } else { 0.0 });
    }
}

/// The kept handles of the certificate that is ordered for a domain.
pub struct CertificateMetrics {
    pub ordered: Counter,
    pub failed: Counter,
    /// Seconds since 1970.
    pub expiration: Gauge,
}

/// What an authorizer remembered.
pub struct AuthorizerMetrics {
    pub hits: Arc<Count>,
    pub misses: Arc<Count>,
}

/// What is measured of a backend when somebody scrapes.
pub struct BackendFigures {
    pub busy: usize,
    pub idle: usize,
    pub waiting: usize,
    pub healthy: usize,
    pub ejected: usize,
}

struct OfProcess {
    resident_memory: Gauge,
    open_files: Gauge,
    max_open_files: Gauge,
    threads: Gauge,
    start_time: Gauge,
}

/// Our counts, and the exporter's handles that follow them.
struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    counts: Mutex<Vec<(Arc<Count>, Counter)>>,
    levels: Mutex<Vec<(Arc<Level>, Gauge)>>,
    /// By name and labels.
    latencies: Mutex<BTreeMap<&'static str, Vec<Labelled>>>,
    /// Backends that were told of, so that one that is gone reads as nothing.
    backends: Mutex<Vec<String>>,
}

impl Exporter {
    fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for about in ALL.iter().filter(|about| about.name != CPU_SECONDS) {
            let unit = about.name.ends_with("_seconds").then_some(Unit::Seconds);
            let (name, help) = (about.name.into(), about.help.into());
            match about.kind {
                "counter" => recorder.describe_counter(name, unit, help),
                "gauge" => recorder.describe_gauge(name, unit, help),
                // Those are ours.
                _ => {}
            }
        }
        let handle = recorder.handle();
        Self {
            recorder,
            handle,
            counts: Mutex::default(),
            levels: Mutex::default(),
            latencies: Mutex::default(),
            backends: Mutex::default(),
        }
    }

    fn count(&self, name: &'static str, labels: Labels<'_>) -> Arc<Count> {
        let count = Arc::default();
        self.follow(&count, name, labels);
        count
    }

    /// Has the exporter follow a count that somebody else made.
    fn follow(&self, count: &Arc<Count>, name: &'static str, labels: Labels<'_>) {
        self.counts.lock().push((count.clone(), self.counter(name, labels)));
    }

    fn level(&self, name: &'static str, labels: Labels<'_>) -> Arc<Level> {
        let level = Arc::default();
        self.levels.lock().push((Arc::clone(&level), self.gauge(name, labels)));
        level
    }

    fn counter(&self, name: &'static str, labels: Labels<'_>) -> Counter {
        self.recorder.register_counter(&key_of(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: Labels<'_>) -> Gauge {
        self.recorder.register_gauge(&key_of(name, labels), &METADATA)
    }

    fn latency(&self, name: &'static str, labels: Labels<'_>) -> Arc<Latency> {
        let latency = Arc::default();
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        self.latencies.lock().entry(name).or_default().push((labels.join(","), Arc::clone(&latency)));
        latency
    }

    fn render_latencies(&self, text: &mut String) {
        for (name, all) in &*self.latencies.lock() {
            let about = ALL.iter().find(|about| about.name == *name).expect("names come from the list");
            *text += &format!("# HELP {name} {}\n# TYPE {name} histogram\n", about.help);
            for (labels, latency) in all {
                latency.render(name, labels, text);
            }
            text.push('\n');
        }
    }

    fn catch_up(&self) {
        for (count, counter) in &*self.counts.lock() {
            counter.absolute(count.get());
        }
        for (level, gauge) in &*self.levels.lock() {
            gauge.set(level.get() as f64);
        }
    }
}

/// A histogram, and its labels as they are written out.
type Labelled = (String, Arc<Latency>);

type Labels<'a> = &'a [(&'static str, &'a str)];

impl Default for Metrics {
    fn default() -> Self {
        let exporter = Exporter::new();
        let with = |outcome| exporter.count(RELOADS, &[("outcome", outcome)]);
        let last = |outcome| exporter.gauge(LAST_RELOAD, &[("outcome", outcome)]);
        let reloads = Reloads {
            ok: with("ok"),
            unchanged: with("unchanged"),
            problems: with("problems"),
            last_ok: last("ok"),
            last_problems: last("problems"),
            is_config_ok: exporter.gauge(CONFIG_OK, &[]),
        };
        exporter.gauge(BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        let process = OfProcess {
            resident_memory: exporter.gauge(RESIDENT_MEMORY, &[]),
            open_files: exporter.gauge(OPEN_FILES, &[]),
            max_open_files: exporter.gauge(MAX_OPEN_FILES, &[]),
            threads: exporter.gauge(THREADS, &[]),
            start_time: exporter.gauge(START_TIME, &[]),
        };
        Self {
            stages: Arc::default(),
            routes: Arc::default(),
            authorizers: Arc::default(),
            reloads: Arc::new(reloads),
            accept_errors: exporter.count(ACCEPT_ERRORS, &[]),
            handshake_errors: exporter.count(HANDSHAKE_ERRORS, &[]),
            process: Arc::new(process),
            exporter: Arc::new(exporter),
        }
    }
}

impl Metrics {
    /// The counters of a stage; the same ones again after a reload.
    pub fn stage(&self, key: &StageKey) -> Arc<StageMetrics> {
        self.stages.entry(key.clone()).or_insert_with(|| Arc::new(StageMetrics::new(&self.exporter, key))).clone()
    }

    /// The counters of a route; the same ones again after a reload.
    pub fn route(&self, stage: &StageKey, key: &Arc<str>) -> Arc<RouteMetrics> {
        let made = || {
            let mut by_number = self.routes.by_number.write();
            let route = Arc::new(RouteMetrics::new(self.routes.next.fetch_add(1, Relaxed), key.clone()));
            by_number.push(route.clone());
            route
        };
        self.routes.by_key.entry((stage.clone(), key.clone())).or_insert_with(made).clone()
    }

    /// The route of this number.
    pub fn route_of(&self, number: u32) -> Option<Arc<RouteMetrics>> {
        self.routes.by_number.read().get(number as usize).cloned()
    }

    /// Has a route's counters exported.
    pub fn export(&self, stage: &StageKey, route: &RouteMetrics) -> Detailed {
        let labels = &[("api", &*stage.api), ("stage", &*stage.stage), ("route", &*route.key)];
        route.exported.get_or_init(|| {
            self.exporter.follow(&route.calls, ROUTE_CALLS, labels);
            self.exporter.follow(&route.client_errors, ROUTE_CLIENT_ERRORS, labels);
            self.exporter.follow(&route.integration_errors, ROUTE_INTEGRATION_ERRORS, labels);
            self.exporter.follow(&route.execution_errors, ROUTE_EXECUTION_ERRORS, labels);
            Detailed { latency: self.exporter.latency(ROUTE_LATENCY, labels) }
        });
        route.exported.get().expect("it was just made").clone()
    }

    /// The handles of the certificate whose first domain this is.
    pub fn certificate(&self, domain: &str) -> CertificateMetrics {
        let orders = |outcome| self.exporter.counter(CERTIFICATE_ORDERS, &[("domain", domain), ("outcome", outcome)]);
        CertificateMetrics {
            ordered: orders("ok"),
            failed: orders("failed"),
            expiration: self.exporter.gauge(CERTIFICATE_EXPIRATION, &[("domain", domain)]),
        }
    }

    /// Fetches of the keys of an authorizer's issuer: those that went well, and those that did not.
    pub fn key_fetches(&self, authorizer: &str) -> (Counter, Counter) {
        let with = |outcome| self.exporter.counter(KEY_FETCHES, &[("authorizer", authorizer), ("outcome", outcome)]);
        (with("ok"), with("failed"))
    }

    /// How often an authorizer's memory could answer; the same counts again after a reload.
    pub fn authorizer(&self, name: &str) -> Arc<AuthorizerMetrics> {
        let made = || {
            let with = |outcome| self.exporter.count(AUTHORIZER_CACHE, &[("authorizer", name), ("outcome", outcome)]);
            Arc::new(AuthorizerMetrics { hits: with("hit"), misses: with("miss") })
        };
        self.authorizers.entry(name.to_owned()).or_insert_with(made).clone()
    }

    /// How many answers an authorizer's memory holds.
    pub fn note_remembered(&self, authorizer: &str, entries: u64) {
        self.exporter.gauge(AUTHORIZER_CACHE_ENTRIES, &[("authorizer", authorizer)]).set(entries as f64);
    }

    /// How the backends stand that are called now.
    pub fn note_backends(&self, backends: &[(String, BackendFigures)]) {
        let mut known = self.exporter.backends.lock();
        let gone = BackendFigures { busy: 0, idle: 0, waiting: 0, healthy: 0, ejected: 0 };
        for name in known.iter().filter(|name| !backends.iter().any(|(other, _)| other == *name)) {
            self.note_backend(name, &gone);
        }
        for (name, figures) in backends {
            self.note_backend(name, figures);
        }
        *known = backends.iter().map(|(name, _)| name.clone()).collect();
    }

    fn note_backend(&self, name: &str, figures: &BackendFigures) {
        let BackendFigures { busy, idle, waiting, healthy, ejected } = *figures;
        self.exporter.gauge(BACKEND_WAITING, &[("backend", name)]).set(waiting as f64);
        let states = [
            (BACKEND_CONNECTIONS, "busy", busy),
            (BACKEND_CONNECTIONS, "idle", idle),
            (BACKEND_SERVERS, "healthy", healthy),
            (BACKEND_SERVERS, "ejected", ejected),
        ];
        for (metric, state, value) in states {
            self.exporter.gauge(metric, &[("backend", name), ("state", state)]).set(value as f64);
        }
    }

    /// How a log's lines went.
    pub fn note_access_log(&self, destination: &str, written: u64, dropped: u64, failed: u64) {
        for (outcome, count) in [("written", written), ("dropped", dropped), ("failed", failed)] {
            let labels = [("destination", destination), ("outcome", outcome)];
            self.exporter.counter(ACCESS_LOG_LINES, &labels).absolute(count);
        }
    }

    /// How spans went.
    pub fn note_spans(&self, exported: u64, dropped: u64, failed: u64) {
        for (outcome, count) in [("exported", exported), ("dropped", dropped), ("failed", failed)] {
            self.exporter.counter(SPANS, &[("outcome", outcome)]).absolute(count);
        }
    }

    pub fn note_ready(&self, is_ready: bool) {
        self.exporter.gauge(READY, &[]).set(if is_ready { 1.0 } else { 0.0 });
    }

    pub fn note_watchers(&self, watchers: usize) {
        self.exporter.gauge(TAIL_WATCHERS, &[]).set(watchers as f64);
    }

    /// All stages together.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for stage in self.stages.iter() {
            stage.add_to(&mut totals);
        }
        totals
    }

    /// Every half minute the counters of routes are kept, to tell their pace by.
    pub fn look_at_routes(&self, now: crate::model::clock::Tick) {
        for route in self.routes.by_number.read().iter() {
            route.look(now);
        }
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.exporter.catch_up();
        if let Some(figures) = process::figures() {
            self.process.resident_memory.set(figures.resident_bytes as f64);
            self.process.open_files.set(figures.open_files as f64);
            self.process.max_open_files.set(figures.max_open_files as f64);
            self.process.threads.set(figures.threads as f64);
            self.process.start_time.set(figures.started_at);
        }
        let mut text = self.exporter.handle.render();
        self.exporter.render_latencies(&mut text);
        if let Some(figures) = process::figures() {
            // The exporter's counters are whole numbers, and a second of processor time is a lot.
            let about = ALL.iter().find(|about| about.name == CPU_SECONDS).expect("it is in the list");
            text += &format!("# HELP {CPU_SECONDS} {}\n# TYPE {CPU_SECONDS} counter\n", about.help);
            text += &format!("{CPU_SECONDS} {:.2}\n\n", figures.cpu_seconds);
        }
        text
    }
}

static METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new("livegate", metrics::Level::INFO, Some("livegate"));

/// A label's value as the text format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn key_of(name: &'static str, labels: Labels<'_>) -> metrics::Key {
    let labels: Vec<_> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    metrics::Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_list_is_rendered_once_used() {
        let metrics = Metrics::default();
        let stage = metrics.stage(&StageKey { api: "chat".into(), stage: "prod".into() });
        metrics.certificate("chat.example.com").expiration.set(1.0);
        metrics.key_fetches("users").0.increment(1);
        let route = metrics.route(&StageKey { api: "chat".into(), stage: "prod".into() }, &"ping".into());
        let took = std::time::Duration::from_millis(10);
        metrics.export(&StageKey { api: "chat".into(), stage: "prod".into() }, &route).latency.record(took);
        for latency in [&stage.push_latency, &stage.request_latency, &stage.integration_latency] {
            latency.record(took);
        }
        metrics.authorizer("users").hits.increment(1);
        metrics.note_remembered("users", 1);
        let figures = BackendFigures { busy: 1, idle: 1, waiting: 0, healthy: 1, ejected: 0 };
        metrics.note_backends(&[("127.0.0.1:3000".to_owned(), figures)]);
        metrics.note_access_log("stdout", 1, 2, 3);
        metrics.note_spans(1, 2, 3);
        metrics.note_watchers(0);
        metrics.note_ready(true);
        metrics.reloads.note(true, 1.0);
        let text = metrics.render();
        for about in ALL {
            assert!(text.contains(&format!("# TYPE {} {}", about.name, about.kind)), "{} in {text}", about.name);
        }
    }
}
