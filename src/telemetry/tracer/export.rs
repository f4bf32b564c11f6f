//! The task that sends spans to a collector: OTLP as protobuf over HTTP, in batches.
//!
//! A batch is tried twice at most and then counted as failed; meanwhile others wait in the queue. What goes wrong is said
//! once a minute for as long as it lasts, and its end once.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message as _;
use rand::RngExt as _;
use reqwest::Url;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Counts;
use super::span::{Span, attribute};

/// How many spans are sent at once.
const BATCH: usize = 512;

/// How often the queue is looked into.
const LOOK: Duration = Duration::from_millis(100);

/// A collector's longest answer that is read, and the longest wait that it may ask for.
const LONGEST_ANSWER: usize = 64 * 1024;
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The same trouble is said this often.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// How long things take; tests are less patient.
#[derive(Clone, Copy)]
pub struct Pace {
    /// A span waits for others to go with it.
    pub gather: Duration,
    /// One attempt, with its answer.
    pub timeout: Duration,
    /// Between two attempts where the collector names no time.
    pub backoff: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { gather: Duration::from_secs(1), timeout: Duration::from_secs(10), backoff: Duration::from_secs(1) }
    }
}

pub struct Exporter {
    queue: mpsc::Receiver<Span>,
    batch: Vec<Span>,
    /// Spans that are on their way.
    sent: usize,
    collector: Collector,
    resource: Resource,
    counts: Arc<Counts>,
    pace: Pace,
    troubles: Troubles,
}

impl Exporter {
    pub fn new(
        queue: mpsc::Receiver<Span>,
        collector: Collector,
        service_name: String,
        counts: Arc<Counts>,
        pace: Pace,
    ) -> Self {
        let dropped = counts.dropped.get();
        let troubles = Troubles { endpoint: shown(&collector.url), dropped, ..Troubles::default() };
        Self { queue, batch: Vec::new(), sent: 0, collector, resource: resource(service_name), counts, pace, troubles }
    }

    /// Exports until all is out that came before `closing`, or until the deadline.
    pub async fn run(mut self, closing: CancellationToken, deadline: CancellationToken) {
        tokio::select! {
            biased;
            () = deadline.cancelled() => {}
            () = self.export_all(&closing) => {}
        }
        self.queue.close();
        let lost = self.sent + self.batch.len() + self.queue.len();
        if lost > 0 {
            self.counts.dropped.increment(lost as u64);
            tracing::warn!(lost, "the gateway stopped before all spans were exported to {}", self.troubles.endpoint);
        }
    }

    async fn export_all(&mut self, closing: &CancellationToken) {
        while self.gather(closing).await {
            self.export().await;
        }
    }

    /// Fills the batch: until it is full, or its first span has waited long enough. False once no more will come.
    ///
    /// Looks now and then instead of being woken by each span, which would cost the call that ended more than the span.
    async fn gather(&mut self, closing: &CancellationToken) -> bool {
        let mut due = None;
        loop {
            let is_over = loop {
                if self.batch.len() == BATCH {
                    return true;
                }
                match self.queue.try_recv() {
                    Ok(span) => self.batch.push(span),
                    Err(TryRecvError::Empty) => break false,
                    Err(TryRecvError::Disconnected) => break true,
                }
            };
            if is_over {
                return !self.batch.is_empty();
            }
            if !self.batch.is_empty() {
                let due = *due.get_or_insert_with(|| Instant::now() + self.pace.gather);
                if Instant::now() >= due {
                    return true;
                }
            }
            tokio::select! {
                () = closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                () = tokio::time::sleep(self.pace.gather.clamp(Duration::from_millis(1), LOOK)) => {}
            }
        }
    }

    async fn export(&mut self) {
        self.sent = self.batch.len();
        let request = self.request();
        let outcome = self.collector.send(request, self.pace.backoff).await;
        let count = std::mem::take(&mut self.sent) as u64;
        let (failed, why) = match outcome {
            Ok(None) => (0, String::new()),
            Ok(Some(rejected)) => (rejected.count.min(count), format!("it took not all of them: {}", rejected.why)),
            Err(error) => (count, error.to_string()),
        };
        self.counts.exported.increment(count - failed);
        self.counts.failed.increment(failed);
        self.troubles.note(failed, &why, self.counts.dropped.get());
    }

    /// The batch as OTLP has it.
    fn request(&mut self) -> Bytes {
        let scope = InstrumentationScope {
            name: "livegate".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let spans = self.batch.drain(..).map(Span::written).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }
}

/// Who the spans are of: this service, in this process.
fn resource(service_name: String) -> Resource {
    let attributes = vec![
        attribute("service.name", service_name),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", INSTANCE.clone()),
    ];
    Resource { attributes, ..Resource::default() }
}

/// A random UUID (RFC 9562 section 5.4), the same for as long as the process lives.
static INSTANCE: LazyLock<String> = LazyLock::new(|| {
    let random: u128 = rand::random();
    let digits = format!("{random:032x}");
    let variant = char::from(b"89ab"[(random >> 60) as usize & 3]);
    format!("{}-{}-4{}-{variant}{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
});

/// Where spans go.
pub struct Collector {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
}

/// What a collector did not want of a batch that it took.
struct Rejected {
    count: u64,
    why: String,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer: {text}")]
    NoAnswer { text: String, is_timeout: bool },
    #[error("it answered {status}")]
    Status { status: u16, retry_after: Option<Duration> },
}

impl Error {
    /// How long to wait before another attempt, where one makes sense.
    fn pause(&self, backoff: Duration) -> Option<Duration> {
        match self {
            Error::NoAnswer { is_timeout: false, .. } => Some(spread(backoff)),
            // The collector has had its time, and whatever is queued waits behind this batch.
            Error::NoAnswer { is_timeout: true, .. } => None,
            Error::Status { status: 429 | 502 | 503 | 504, retry_after } => {
                Some(retry_after.map_or_else(|| spread(backoff), |wait| wait.min(LONGEST_WAIT)))
            }
            Error::Status { .. } => None,
        }
    }
}

impl Collector {
    pub fn new(url: Url, mut headers: HeaderMap, timeout: Duration) -> Result<Self, String> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let builder = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(1)
            .no_proxy()
            .user_agent(concat!("livegate/", env!("CARGO_PKG_VERSION")));
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { client, url, headers })
    }

    /// Sends a batch, a second time if the first may have failed by chance. A collector that hung up without an answer
    /// may get spans twice, as OTLP wants it: they have ids.
    async fn send(&self, batch: Bytes, backoff: Duration) -> Result<Option<Rejected>, Error> {
        let error = match self.attempt(batch.clone()).await {
            Ok(rejected) => return Ok(rejected),
            Err(error) => error,
        };
        let Some(pause) = error.pause(backoff) else { return Err(error) };
        tokio::time::sleep(pause).await;
        self.attempt(batch).await
    }

    async fn attempt(&self, batch: Bytes) -> Result<Option<Rejected>, Error> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(batch);
        let mut answer = request.send().await.map_err(no_answer)?;
        if !answer.status().is_success() {
            let retry_after = answer.headers().get(RETRY_AFTER).and_then(retry_after);
            return Err(Error::Status { status: answer.status().as_u16(), retry_after });
        }
        let mut whole = Vec::new();
        // Taken is taken, however the answer goes on; but read to its end, so that the connection can be used again.
        while let Ok(Some(piece)) = answer.chunk().await {
            if whole.len() + piece.len() > LONGEST_ANSWER {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        let read = ExportTraceServiceResponse::decode(&*whole).unwrap_or_default();
        let partial = read.partial_success.filter(|partial| partial.rejected_spans > 0);
        Ok(partial.map(|partial| Rejected {
            count: partial.rejected_spans.unsigned_abs(),
            why: partial.error_message.chars().take(200).collect(),
        }))
    }
}

/// With its causes, since the telling one (`Connection refused`) comes last, and without the URL.
fn no_answer(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Error::NoAnswer { text, is_timeout: error.is_timeout() }
}

/// Spread out, so that gateways that failed together do not return together.
fn spread(backoff: Duration) -> Duration {
    backoff.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(SystemTime::from(date.timestamp()).duration_since(SystemTime::now()).unwrap_or_default())
}

/// The endpoint without what may be secret: its login and its query.
pub fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// What is said of batches that were not taken and spans that were dropped.
#[derive(Default)]
struct Troubles {
    endpoint: String,
    /// When it was last said that batches fail, and that spans are dropped.
    failure_said: Option<Instant>,
    drops_said: Option<Instant>,
    /// Spans that failed since it was last said.
    failed: u64,
    /// How many were dropped when it was last said.
    dropped: u64,
    /// It was said that batches fail, and not yet that they do no longer.
    is_failing: bool,
}

impl Troubles {
    /// A batch is done with: so many of it failed, and so many spans were dropped up to now.
    fn note(&mut self, failed: u64, why: &str, dropped: u64) {
        let endpoint = &self.endpoint;
        self.failed += failed;
        if failed > 0 {
            if is_due(&mut self.failure_said) {
                self.is_failing = true;
                let failed = std::mem::take(&mut self.failed);
                tracing::warn!(failed, "spans were not exported to {endpoint}: {why}");
            }
        } else if std::mem::take(&mut self.is_failing) {
            let failed = std::mem::take(&mut self.failed);
            tracing::info!(failed, "spans are exported to {endpoint} again");
        }
        let new = dropped - self.dropped;
        if new > 0 && is_due(&mut self.drops_said) {
            self.dropped = dropped;
            tracing::warn!(dropped = new, "spans were dropped: more of them end than {endpoint} takes");
        }
    }
}

fn is_due(said: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let is_due = said.is_none_or(|said| now.duration_since(said) >= SAID_EVERY);
    if is_due {
        *said = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_repeated_where_it_may_help() {
        let second = Duration::from_secs(1);
        let check = |error: Error, wanted: Option<std::ops::RangeInclusive<Duration>>| {
            let pause = error.pause(second);
            assert_eq!(pause.is_some(), wanted.is_some(), "{error}");
            assert!(wanted.is_none_or(|wanted| wanted.contains(&pause.unwrap())), "{error}: {pause:?}");
        };
        let status = |status, retry_after| Error::Status { status, retry_after };
        let unanswered = |is_timeout| Error::NoAnswer { text: "connection refused".to_owned(), is_timeout };
        let soon = Some(second / 2..=second);
        for code in [429, 502, 503, 504] {
            check(status(code, None), soon.clone());
        }
        check(unanswered(false), soon);
        check(unanswered(true), None);
        check(status(503, Some(5 * second)), Some(5 * second..=5 * second));
        check(status(429, Some(Duration::ZERO)), Some(Duration::ZERO..=Duration::ZERO));
        check(status(429, Some(86_400 * second)), Some(LONGEST_WAIT..=LONGEST_WAIT));
        for code in [301, 400, 401, 404, 413, 500, 501] {
            check(status(code, Some(second)), None);
        }
    }

    #[test]
    fn a_collector_says_when_to_return_in_seconds_or_as_a_date() {
        let check = |text, wanted: Option<u64>| {
            let found = retry_after(&HeaderValue::from_static(text));
            assert_eq!(found.map(|wait| wait.as_secs()), wanted, "{text}");
        };
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("soon", None);
        check("-1", None);
        let date = jiff::Timestamp::now() + Duration::from_secs(100);
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let wait = retry_after(&HeaderValue::from_str(&date).unwrap()).unwrap();
        assert!((98..=100).contains(&wait.as_secs()), "{date}: {wait:?}");
    }

    #[test]
    fn an_instance_is_a_random_uuid() {
        let version_4 = "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";
        assert!(regex::Regex::new(version_4).unwrap().is_match(&INSTANCE), "{}", *INSTANCE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_trouble_is_said_once_a_minute_and_its_end_once() {
        let mut troubles = Troubles::default();
        troubles.note(5, "it answered 503", 0);
        assert_eq!((troubles.failed, troubles.is_failing), (0, true));
        troubles.note(7, "it answered 503", 3);
        assert_eq!((troubles.failed, troubles.dropped), (7, 3));
        troubles.note(1, "it answered 503", 4);
        assert_eq!((troubles.failed, troubles.dropped), (8, 3));
        tokio::time::advance(SAID_EVERY).await;
        troubles.note(2, "it answered 503", 4);
        assert_eq!((troubles.failed, troubles.dropped, troubles.is_failing), (0, 4, true));
        troubles.note(0, "", 4);
        assert!(!troubles.is_failing);
        // A second trouble within the minute is not said, and neither is its end.
        troubles.note(9, "it answered 503", 4);
        assert_eq!((troubles.failed, troubles.is_failing), (9, false));
    }
}
