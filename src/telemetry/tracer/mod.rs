//! Traces for an OpenTelemetry collector: which calls are traced, and a bounded queue of spans that a task of its own sends.
//!
//! A call that is not traced costs one random number. `span.rs` is what a span says, `export.rs` the task; a collector
//! that is slow or gone loses spans and slows no call.

mod export;
mod span;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use rand::distr::{Bernoulli, Distribution as _};
use reqwest::Url;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::model::trace::{Parent, TraceContext};
use crate::telemetry::metrics::Count;
use export::{Collector, Exporter, Pace};
pub use span::{Kind, Span, Value};

/// How many spans may wait for the collector; those that end beyond are dropped.
const QUEUE: usize = 4096;

/// Where spans go, and which calls have any.
#[derive(Clone, PartialEq)]
pub struct Settings {
    /// `http` or `https`; `/v1/traces` is appended unless its path ends so.
    pub endpoint: String,
    pub headers: Vec<(String, String)>,
    /// The share of calls that are traced, of those whose caller did not decide it.
    pub sample: f64,
    pub service_name: String,
    /// What a caller traces is traced here as well, and what it does not is not. Without it such a call is one of `sample`
    /// like any other.
    pub follow_parent: bool,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    pub exported: Count,
    /// Given up here: the queue was full, or the gateway stopped.
    pub dropped: Count,
    /// Not taken by the collector.
    pub failed: Count,
}

pub struct Tracer {
    pub counts: Arc<Counts>,
    sampler: Bernoulli,
    follow_parent: bool,
    queue: mpsc::Sender<Span>,
    exporter: Mutex<Option<JoinHandle<()>>>,
    /// No more spans come, and what is queued goes out.
    closing: CancellationToken,
    /// What has not gone out by now is lost.
    deadline: CancellationToken,
}

impl Tracer {
    /// Starts the task that exports, on the runtime of the caller.
    pub fn start(settings: Settings, counts: Arc<Counts>) -> Result<Arc<Self>, String> {
        Self::paced(settings, counts, Pace::default())
    }

    fn paced(settings: Settings, counts: Arc<Counts>, pace: Pace) -> Result<Arc<Self>, String> {
        let Settings { endpoint: url, headers: named, sample, service_name, follow_parent } = settings;
        let collector = Collector::new(endpoint(&url)?, headers(&named)?, pace.timeout)?;
        let sampler = sampler(sample)?;
        let (queue, spans) = mpsc::channel(QUEUE);
        let (closing, deadline) = (CancellationToken::new(), CancellationToken::new());
        let exporter = Exporter::new(spans, collector, service_name, counts.clone(), pace);
        let exporter = Mutex::new(Some(tokio::spawn(exporter.run(closing.clone(), deadline.clone()))));
        Ok(Arc::new(Self { counts, sampler, follow_parent, queue, exporter, closing, deadline }))
    }

    /// The context of a span that a call begins with. `None` when the call is not traced and there is nothing to hand on;
    /// a caller that traces without us gets its trace handed on, in the name of a span that is not written down. What a
    /// caller that `is_ours` decided is decided; others' word counts with `follow_parent`.
    pub fn begin(&self, parent: Option<&Parent>, is_ours: bool) -> Option<TraceContext> {
        let decided = parent.and_then(|parent| parent.sampled).filter(|_| is_ours || self.follow_parent);
        let sampled = decided.unwrap_or_else(|| self.sampler.sample(&mut rand::rng()));
        match parent {
            Some(parent) => Some(parent.next(sampled)),
            None => sampled.then(TraceContext::begin),
        }
    }

    /// A span is over. It waits for the collector, or is dropped where too many do; one that is not sampled is forgotten.
    pub fn end(&self, span: Span) {
        if span.context.sampled && self.queue.try_send(span.cut()).is_err() {
            self.counts.dropped.increment(1);
        }
    }

    /// What is queued goes out, within so long; what ends from now on is dropped.
    pub async fn close(&self, patience: Duration) {
        let Some(mut exporter) = self.exporter.lock().take() else { return };
        self.closing.cancel();
        if tokio::time::timeout(patience, &mut exporter).await.is_err() {
            self.deadline.cancel();
            // It only counts what it has left.
            let _ = exporter.await;
        }
    }
}

/// Where spans are sent to, for an endpoint as an operator writes it.
pub fn endpoint(text: &str) -> Result<Url, String> {
    const PATH: &str = "/v1/traces";
    let wrong = || "write a URL like `http://127.0.0.1:4318`".to_owned();
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.fragment().is_some() {
        return Err(wrong());
    }
    let path = url.path().trim_end_matches('/');
    if !path.ends_with(PATH) {
        let path = format!("{path}{PATH}");
        url.set_path(&path);
    }
    Ok(url)
}

/// What is sent along with spans. The values are secrets.
pub fn headers(named: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in named {
        let known = HeaderName::try_from(name).map_err(|_| format!("`{name}` is no header's name"))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| format!("the value of `{name}` cannot stand in a header"))?;
        value.set_sensitive(true);
        headers.append(known, value);
    }
    Ok(headers)
}

fn sampler(sample: f64) -> Result<Bernoulli, String> {
    Bernoulli::new(sample).map_err(|_| format!("`{sample}` is no share of calls; write a number from 0 to 1"))
}

impl fmt::Debug for Settings {
    /// Without the headers' values and what an endpoint may hold of a login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = endpoint(&self.endpoint).map(|url| export::shown(&url));
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Settings")
            .field("endpoint", &endpoint)
            .field("headers", &headers)
            .field("sample", &self.sample)
            .field("service_name", &self.service_name)
            .field("follow_parent", &self.follow_parent)
            .finish()
    }
}
