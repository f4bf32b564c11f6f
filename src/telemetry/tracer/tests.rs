//! A tracer, and a collector that takes what comes.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span as Written;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A collector in this process. It answers one after the other of what it was told, and the last for good.
struct World {
    address: String,
    requests: mpsc::UnboundedReceiver<(Request<()>, ExportTraceServiceRequest)>,
    /// Answers wait for one of these each.
    answers: Arc<Semaphore>,
}

fn answer(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}

async fn collector(answers: Vec<Response<Full<Bytes>>>) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, requests) = mpsc::unbounded_channel();
    let may_answer = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    let answers = Arc::new(Mutex::new(answers.into_iter().collect::<std::collections::VecDeque<_>>()));
    let permits = may_answer.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, permits, answers) = (sender.clone(), permits.clone(), answers.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (sender, permits, answers) = (sender.clone(), permits.clone(), answers.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let spans = ExportTraceServiceRequest::decode(body).unwrap();
                    sender.send((Request::from_parts(head, ()), spans)).unwrap();
                    permits.acquire().await.unwrap().forget();
                    let mut answers = answers.lock();
                    let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    World { address, requests, answers: may_answer }
}

impl World {
    async fn request(&mut self) -> (Request<()>, ExportTraceServiceRequest) {
        tokio::time::timeout(PATIENCE, self.requests.recv()).await.unwrap().unwrap()
    }

    async fn names(&mut self) -> Vec<String> {
        spans(&self.request().await.1).iter().map(|span| span.name.clone()).collect()
    }

    fn tracer(&self, change: impl FnOnce(&mut Settings)) -> Arc<Tracer> {
        let mut settings = settings(&format!("http://{}", self.address));
        change(&mut settings);
        start(settings)
    }
}

fn settings(endpoint: &str) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        headers: Vec::new(),
        sample: 1.0,
        service_name: "livegate".to_owned(),
        follow_parent: true,
    }
}

/// With little patience, save for answers.
fn start(settings: Settings) -> Arc<Tracer> {
    let pace = Pace { gather: Duration::from_millis(20), backoff: Duration::from_millis(1), ..Pace::default() };
    Tracer::paced(settings, Arc::default(), pace).unwrap()
}

/// `exported`, `dropped`, `failed`.
fn counts(tracer: &Tracer) -> [u64; 3] {
    let Counts { exported, dropped, failed } = &*tracer.counts;
    [exported.get(), dropped.get(), failed.get()]
}

fn spans(request: &ExportTraceServiceRequest) -> &[Written] {
    assert_eq!(request.resource_spans.len(), 1);
    assert_eq!(request.resource_spans[0].scope_spans.len(), 1);
    &request.resource_spans[0].scope_spans[0].spans
}

fn span(tracer: &Tracer, name: &'static str) -> Span {
    Span {
        context: tracer.begin(None, false).unwrap(),
        parent: None,
        kind: Kind::Server,
        name: name.into(),
        began: SystemTime::now(),
        took: Duration::from_millis(1),
        attributes: Vec::new(),
        error: None,
    }
}

fn parent(span_id: Option<[u8; 8]>, sampled: Option<bool>) -> Parent {
    Parent { trace_id: [7; 16], span_id, sampled, state: Some(HeaderValue::from_static("a=1")) }
}

// What is sent

#[tokio::test]
async fn a_span_reaches_its_collector_as_otlp() {
    let mut world = collector(vec![answer(200)]).await;
    let tracer = world.tracer(|settings| {
        settings.headers =
            vec![("X-Key".to_owned(), "a secret".to_owned()), ("Content-Type".to_owned(), "no".to_owned())];
        settings.service_name = "gate".to_owned();
    });
    let parent = parent(Some([5; 8]), Some(true));
    let context = tracer.begin(Some(&parent), false).unwrap();
    let child = context.next();
    let attributes =
        vec![("http.route", "/pets".into()), ("http.response.status_code", 503.into()), ("x", true.into())];
    tracer.end(Span {
        context: context.clone(),
        parent: parent.span_id,
        attributes,
        error: Some("the backend answered 503".to_owned()),
        ..span(&tracer, "GET /pets")
    });
    let (kind, parent) = (Kind::Client, Some(context.span_id));
    tracer.end(Span { context: child.clone(), parent, kind, ..span(&tracer, "integration") });

    let (head, request) = world.request().await;
    assert_eq!((head.method().as_str(), head.uri().path()), ("POST", "/v1/traces"));
    assert_eq!(
        (head.headers()["x-key"].as_bytes(), &head.headers()["content-type"]),
        (&b"a secret"[..], &HeaderValue::from_static("application/x-protobuf"))
    );
    let resource = request.resource_spans[0].resource.clone().unwrap().attributes;
    let resource: Vec<_> = resource.into_iter().map(|pair| (pair.key, pair.value.unwrap().value.unwrap())).collect();
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    assert_eq!(resource[0], ("service.name".to_owned(), text("gate")));
    assert_eq!(resource[1], ("service.version".to_owned(), text(env!("CARGO_PKG_VERSION"))));
    assert_eq!((resource[2].0.as_str(), resource.len()), ("service.instance.id", 3));
    assert_eq!(request.resource_spans[0].scope_spans[0].scope.as_ref().unwrap().name, "livegate");

    let [first, second] = spans(&request) else { panic!("there are two spans") };
    assert_eq!((first.name.as_str(), first.kind), ("GET /pets", 2));
    assert_eq!((&*first.trace_id, &*first.span_id), (&[7; 16][..], &context.span_id[..]));
    assert_eq!((&*first.parent_span_id, first.trace_state.as_str(), first.flags), (&[5; 8][..], "a=1", 0x301));
    assert_eq!(first.end_time_unix_nano - first.start_time_unix_nano, 1_000_000);
    let status = first.status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "the backend answered 503"));
    let values: Vec<_> = first.attributes.iter().map(|pair| pair.value.clone().unwrap().value.unwrap()).collect();
    assert_eq!(values, [text("/pets"), any_value::Value::IntValue(503), any_value::Value::BoolValue(true)]);
    assert_eq!((second.name.as_str(), second.kind, &second.status), ("integration", 3, &None));
    assert_eq!((&second.parent_span_id, &second.trace_id), (&first.span_id, &first.trace_id));
    assert_eq!(*second.span_id, child.span_id);

    tracer.close(PATIENCE).await;
    assert_eq!(counts(&tracer), [2, 0, 0]);
}

#[tokio::test]
async fn many_spans_go_in_batches_on_one_connection() {
    let mut world = collector(vec![answer(200)]).await;
    let tracer = world.tracer(|_| {});
    for _ in 0..1300 {
        tracer.end(span(&tracer, "one"));
    }
    for count in [512, 512, 276] {
        assert_eq!(world.names().await.len(), count);
    }
    tracer.close(PATIENCE).await;
    assert_eq!(counts(&tracer), [1300, 0, 0]);
}

#[tokio::test]
async fn a_span_that_is_not_sampled_is_forgotten() {
    let mut world = collector(vec![answer(200)]).await;
    let tracer = world.tracer(|_| {});
    let mut unsampled = span(&tracer, "unsampled");
    unsampled.context.sampled = false;
    tracer.end(unsampled);
    tracer.end(span(&tracer, "sampled"));
    assert_eq!(world.names().await, ["sampled"]);
    tracer.close(PATIENCE).await;
    assert_eq!(counts(&tracer), [1, 0, 0]);
}

// Which calls are traced

#[tokio::test]
async fn a_parent_decides_unless_it_leaves_it_to_us() {
    let check = |sample: f64, follow_parent: bool, sampled: Option<bool>, wanted: bool| {
        let tracer = start(Settings { sample, follow_parent, ..settings("http://127.0.0.1:9") });
        for span_id in [Some([5; 8]), None] {
            let context = tracer.begin(Some(&parent(span_id, sampled)), false).unwrap();
            assert_eq!(context.sampled, wanted, "{sample} {follow_parent} {sampled:?}");
            assert_eq!((context.trace_id, context.state), ([7; 16], Some(HeaderValue::from_static("a=1"))));
            assert!(context.span_id != [0; 8] && context.span_id != [5; 8]);
        }
    };
    for sample in [0.0, 1.0] {
        check(sample, true, Some(false), false);
        check(sample, true, Some(true), true);
        for said in [None, Some(false), Some(true)] {
            check(sample, false, said, sample > 0.5);
        }
        check(sample, true, None, sample > 0.5);
    }
    let tracer = start(Settings { sample: 0.0, follow_parent: false, ..settings("http://127.0.0.1:9") });
    assert!(tracer.begin(Some(&parent(None, Some(true))), true).is_some_and(|context| context.sampled), "one of ours");
}

#[tokio::test]
async fn a_share_of_calls_is_traced_and_each_has_ids_of_its_own() {
    let of = |sample: f64| {
        let tracer = start(Settings { sample, ..settings("http://127.0.0.1:9") });
        (0..10_000).filter_map(|_| tracer.begin(None, false)).collect::<Vec<_>>()
    };
    assert_eq!((of(0.0).len(), of(1.0).len()), (0, 10_000));
    let some = of(0.1);
    // Seven standard deviations on either side.
    assert!((790..1210).contains(&some.len()), "{}", some.len());
    let (traces, spans): (HashSet<_>, HashSet<_>) = some.iter().map(|c| (c.trace_id, c.span_id)).unzip();
    assert_eq!((traces.len(), spans.len()), (some.len(), some.len()));
    assert!(some.iter().all(|context| context.sampled && context.state.is_none()));
}

// A collector in trouble

#[tokio::test]
async fn a_batch_is_tried_twice() {
    let check = async |answers: &[u16], wanted: [u64; 3], attempts: usize| {
        let answers = answers.iter().map(|status| answer(*status)).collect();
        let mut world = collector(answers).await;
        let tracer = world.tracer(|_| {});
        tracer.end(span(&tracer, "one"));
        tracer.close(PATIENCE).await;
        assert_eq!(counts(&tracer), wanted);
        for _ in 0..attempts {
            assert_eq!(world.names().await, ["one"]);
        }
        assert!(world.requests.try_recv().is_err());
    };
    for status in [429, 502, 503, 504] {
        check(&[status, 200], [1, 0, 0], 2).await;
        check(&[status, status, 200], [0, 0, 1], 2).await;
    }
    for status in [301, 400, 401, 413, 500] {
        check(&[status, 200], [0, 0, 1], 1).await;
    }
    check(&[202], [1, 0, 0], 1).await;
}

#[tokio::test]
async fn a_collector_says_when_to_return() {
    let mut busy = answer(503);
    busy.headers_mut().insert("retry-after", HeaderValue::from_static("0"));
    let mut world = collector(vec![busy, answer(200)]).await;
    let pace = Pace { gather: Duration::ZERO, backoff: Duration::from_secs(3600), ..Pace::default() };
    let tracer = Tracer::paced(settings(&format!("http://{}", world.address)), Arc::default(), pace).unwrap();
    tracer.end(span(&tracer, "one"));
    for _ in 0..2 {
        assert_eq!(world.names().await, ["one"]);
    }
    tracer.close(PATIENCE).await;
    assert_eq!(counts(&tracer), [1, 0, 0]);
}

#[tokio::test]
async fn a_collector_may_take_part_of_a_batch() {
    let partial = |rejected_spans| ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message: "too old".to_owned() }),
    };
    let check = async |body: Vec<u8>, wanted: [u64; 3]| {
        let answer = Response::new(Full::from(body));
        let world = collector(vec![answer]).await;
        let tracer = world.tracer(|_| {});
        for _ in 0..3 {
            tracer.end(span(&tracer, "one"));
        }
        tracer.close(PATIENCE).await;
        assert_eq!(counts(&tracer), wanted);
    };
    check(partial(2).encode_to_vec(), [1, 0, 2]).await;
    check(partial(9).encode_to_vec(), [0, 0, 3]).await;
    check(partial(0).encode_to_vec(), [3, 0, 0]).await;
    check(partial(-1).encode_to_vec(), [3, 0, 0]).await;
    check(b"{}".to_vec(), [3, 0, 0]).await;
    check(vec![0xff; 100_000], [3, 0, 0]).await;
}

#[tokio::test]
async fn a_collector_that_is_gone_fails_spans_until_it_is_back() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let tracer = start(settings(&format!("http://{closed}")));
    for _ in 0..700 {
        tracer.end(span(&tracer, "one"));
    }
    tracer.close(PATIENCE).await;
    assert_eq!(counts(&tracer), [0, 0, 700]);
}

#[tokio::test]
async fn a_slow_collector_costs_spans_and_no_time() {
    let mut world = collector(vec![answer(200)]).await;
    world.answers.forget_permits(usize::MAX);
    let tracer = world.tracer(|_| {});
    tracer.end(span(&tracer, "first"));
    assert_eq!(world.names().await, ["first"]);
    // The first is under way, and no more than a queue of others waits.
    let began = Instant::now();
    for _ in 0..QUEUE + 100 {
        tracer.end(span(&tracer, "other"));
    }
    assert!(began.elapsed() < PATIENCE / 10);
    assert_eq!(counts(&tracer), [0, 100, 0]);
    world.answers.add_permits(1000);
    tracer.close(PATIENCE).await;
    assert_eq!(counts(&tracer), [QUEUE as u64 + 1, 100, 0]);
}

// The end

#[tokio::test]
async fn what_is_queued_goes_out_at_the_end_and_nothing_after_it() {
    let mut world = collector(vec![answer(200)]).await;
    let pace = Pace { gather: Duration::from_secs(3600), ..Pace::default() };
    let tracer = Tracer::paced(settings(&format!("http://{}", world.address)), Arc::default(), pace).unwrap();
    tracer.end(span(&tracer, "early"));
    tracer.close(PATIENCE).await;
    assert_eq!(world.names().await, ["early"]);
    tracer.end(span(&tracer, "late"));
    tracer.close(PATIENCE).await;
    assert_eq!(counts(&tracer), [1, 1, 0]);
}

#[tokio::test]
async fn the_end_waits_no_longer_than_it_was_told_to() {
    let mut world = collector(vec![answer(200)]).await;
    world.answers.forget_permits(usize::MAX);
    let tracer = world.tracer(|_| {});
    tracer.end(span(&tracer, "under way"));
    assert_eq!(world.names().await, ["under way"]);
    for _ in 0..600 {
        tracer.end(span(&tracer, "queued"));
    }
    tracer.close(Duration::from_millis(50)).await;
    assert_eq!(counts(&tracer), [0, 601, 0]);
}

#[tokio::test]
async fn a_tracer_that_is_let_go_of_sends_what_it_has() {
    let mut world = collector(vec![answer(200)]).await;
    let tracer = world.tracer(|_| {});
    let counts = tracer.counts.clone();
    tracer.end(span(&tracer, "last"));
    let exporter = tracer.exporter.lock().take().unwrap();
    drop(tracer);
    exporter.await.unwrap();
    assert_eq!(world.names().await, ["last"]);
    assert_eq!(counts.exported.get(), 1);
}

// Settings

#[test]
fn an_endpoint_is_where_the_collector_listens() {
    let check = |text: &str, wanted: Option<&str>| {
        assert_eq!(endpoint(text).ok().as_ref().map(Url::as_str), wanted, "{text}");
    };
    check("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces"));
    check("http://127.0.0.1:4318/", Some("http://127.0.0.1:4318/v1/traces"));
    check("http://127.0.0.1:4318/v1/traces", Some("http://127.0.0.1:4318/v1/traces"));
    check("http://127.0.0.1:4318/v1/traces/", Some("http://127.0.0.1:4318/v1/traces/"));
    check("https://otlp.example.com/tenant/?key=1", Some("https://otlp.example.com/tenant/v1/traces?key=1"));
    check("http://[::1]:4318", Some("http://[::1]:4318/v1/traces"));
    check("https://user:pass@example.com", Some("https://user:pass@example.com/v1/traces"));
    check("grpc://127.0.0.1:4317", None);
    check("127.0.0.1:4318", None);
    check("http://", None);
    check("http://a b", None);
    check("http://127.0.0.1:4318#traces", None);
    check("", None);
}

#[test]
fn what_cannot_be_sent_is_no_setting() {
    let header = |name: &str, value: &str| headers(&[(name.to_owned(), value.to_owned())]);
    assert!(header("x-key", "a secret").is_ok());
    assert_eq!(header("x key", "a secret").unwrap_err(), "`x key` is no header's name");
    assert_eq!(header("x-key", "a\nsecret").unwrap_err(), "the value of `x-key` cannot stand in a header");
    assert_eq!(sampler(1.5).unwrap_err(), "`1.5` is no share of calls; write a number from 0 to 1");
    assert!(sampler(-0.1).is_err() && sampler(f64::NAN).is_err() && sampler(0.0).is_ok() && sampler(1.0).is_ok());
}

#[test]
fn secrets_are_not_shown() {
    let mut settings = settings("https://user:secret@example.com:4318/tenant?key=secret");
    settings.headers = vec![("x-key".to_owned(), "secret".to_owned())];
    let shown = format!("{settings:?}");
    assert!(!shown.contains("secret") && !shown.contains("user"), "{shown}");
    assert!(shown.contains("https://example.com:4318/tenant/v1/traces") && shown.contains("x-key"), "{shown}");
    assert!(format!("{:?}", headers(&settings.headers).unwrap()).contains("Sensitive"));
}
