//! What is read and written here is held beside hyper; and a connection is watched in everything that may become of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Ended, Service, Unusual, serve, text};
use crate::connections::{Handover, Wire};
use crate::model::answer::Answer;
use crate::model::body::Body;
use crate::model::limits;

type Seen = (Method, Uri, HeaderMap, Bytes);

/// What hyper reads in these bytes, and writes if that is the answer to each request.
fn by_hyper(bytes: &[u8], answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Vec<Seen>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (bytes, answer) = (bytes.to_vec(), Arc::new(answer));
    runtime.block_on(async move {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seeing = seen.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (seeing, answer) = (seeing.clone(), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                if let Ok(body) = body.collect().await {
                    seeing.lock().push((head.method, head.uri, head.headers, body.to_bytes()));
                }
                Ok::<_, Infallible>(answer())
            }
        });
        let serving = tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .max_header_size(limits::REQUEST_HEAD)
                .serve_connection(TokioIo::new(server), service),
        );
        client.write_all(&bytes).await.expect("room for all");
        // Whoever says that nothing more comes gets no answer from hyper, so it has its turns first.
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        client.shutdown().await.expect("an open pipe");
        let mut written = Vec::new();
        client.read_to_end(&mut written).await.expect("an open pipe");
        let _ = serving.await;
        let seen = std::mem::take(&mut *seen.lock());
        (seen, written)
    })
}

/// Pieces of requests, good and bad, in which two readers might not agree.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let method =
        prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "get", "G ET", ""]);
    let target = prop::sample::select(vec![
        "/",
        "/a?b=c&d",
        "/%2F..//x",
        "/a#b",
        "/\u{e9}",
        "*",
        "http://h/x",
        "h:1",
        "//x",
        "/a b",
        "/\"<>",
    ]);
    let version = prop::sample::select([&["HTTP/1.1"; 9][..], &["HTTP/1.0", "HTTP/2.0", "http/1.1", ""]].concat());
    let line = prop::sample::select(vec![
        "Host: h",
        "hOsT:h:80",
        "Host:",
        "X-A: 1",
        "x-a:  two words \t",
        "Connection: keep-alive",
        "connection: Close",
        "Connection: x, CLOSE ,y",
        "Connection: closed",
        "Content-Length: 0",
        "Content-Length: 3",
        "content-length: 3",
        "Content-Length: +3",
        "Content-Length: 3, 3",
        "Content-Length: 03",
        "Content-Length:",
        "Content-Length : 3",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "TE: trailers",
        "Trailer: x",
        "Upgrade: h2c",
        "X-\u{e9}: y",
        "X: \u{e9}",
        "X: \u{1}",
        "no colon",
        " folded: line",
        ": nameless",
    ]);
    let end = prop::sample::select([&["\r\n"; 20][..], &["\n", "\r"]].concat());
    let body =
        prop::sample::select(vec!["", "", "abc", "abcd", "ab", "3\r\nabc\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"]);
    let lines = prop::collection::vec((line, end.clone()), 0..4);
    (method, target, version, lines, end.clone(), end, body).prop_map(|(method, target, version, lines, a, b, body)| {
        let lines: String = lines.into_iter().map(|(line, end)| format!("{line}{end}")).collect();
        format!("{method} {target} {version}{a}{lines}{b}{body}").into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Whatever is read here, hyper reads just so; whatever is not, is hyper's anyway.
    #[test]
    fn what_is_read_is_what_hyper_would_read(mut bytes in pieces(), noise in prop::option::of((any::<usize>(), any::<u8>()))) {
        if let Some((at, byte)) = noise {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Some(whole) = text::read(&bytes) {
            let (seen, written) = by_hyper(&bytes, || Answer::new(Body::default()));
            let [(method, uri, headers, body)] = &seen[..] else { panic!("hyper has read {seen:?}") };
            let (head, Body::Whole(own)) = (*whole.request).into_parts() else { panic!("not whole") };
            prop_assert_eq!((&head.method, &head.uri, &head.headers, &own), (method, uri, headers, body));
            let says_close = String::from_utf8_lossy(&written).contains("connection: close");
            prop_assert_eq!(whole.closes, says_close);
            prop_assert_eq!(whole.wants_upgrade, headers.contains_key("upgrade"));
        }
    }

    /// Whatever is written here, hyper writes just so.
    #[test]
    fn what_is_written_is_what_hyper_would_write(
        status in prop::sample::select(vec![200, 201, 204, 304, 400, 404, 429, 500, 599]),
        lines in prop::collection::vec(prop::sample::select(vec![
            ("x-a", "1"), ("x-a", "2"), ("content-type", "text/plain"), ("set-cookie", "a=b"), ("connection", "close"),
            ("date", "Fri, 21 Nov 2025 00:20:00 GMT"), ("server", ""),
        ]), 0..6),
        length in prop::sample::select(vec![0_usize, 1, 3, 4096, 4097, 70_000]),
        says_length in any::<bool>(),
        closes in any::<bool>(),
        of_body in prop::option::of(prop::sample::select(vec![("trailer", "x-a"), ("transfer-encoding", "chunked")])),
    ) {
        let has_body = !matches!(status, 204 | 304);
        let length = if has_body { length } else { 0 };
        let answer = move || {
            let mut answer = Response::builder().status(status);
            for (name, value) in &lines {
                answer = answer.header(*name, *value);
            }
            if says_length && has_body {
                answer = answer.header("content-length", length);
            }
            if let Some((name, value)) = of_body.filter(|_| !has_body) {
                answer = answer.header(name, value);
            }
            answer.body(Body::from(vec![b'x'; length])).expect("a good answer")
        };
        let mut own = answer();
        if closes {
            text::close(&mut own);
        }
        let written = text::write(&own).expect("nothing unusual");
        let has_close = own.headers().get_all("connection").iter().next().is_some();
        prop_assert_eq!(written.keeps, !has_close);
        let head: &[u8] = if closes { b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n" } else { b"GET / HTTP/1.1\r\n\r\n" };
        let (_, of_hyper) = by_hyper(head, answer);
        prop_assert_eq!(comparable(&[&written.out, written.body].concat()), comparable(&of_hyper));
    }
}

/// An answer without what differs from second to second. Several values of `Connection` may stand in one line.
fn comparable(answer: &[u8]) -> (Vec<String>, usize) {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<_> = head.split("\r\n").map(str::to_owned).collect();
    let is_made = |line: &String| line.starts_with("date: ") && !line.contains("21 Nov 2025 00:20");
    lines.retain(|line| !is_made(line) && !line.starts_with("connection: close"));
    let says_close = head.contains("connection: close");
    lines.push(format!("closes: {says_close}"));
    (lines, body.len())
}

/// Somebody who answers when told to.
#[derive(Clone, Default)]
struct Told {
    /// Answers are kept back until this is notified.
    waits: Option<Arc<Notify>>,
    flows: bool,
    length: usize,
    lost: Arc<Notify>,
    began: Arc<Notify>,
    dropped: Arc<Notify>,
    closing: CancellationToken,
    cut: CancellationToken,
}

impl Service for Told {
    async fn answer(&self, request: Box<Request<Body>>, handover: Option<Handover>) -> Answer {
        struct Dropped(Arc<Notify>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let _dropped = Dropped(self.dropped.clone());
        self.began.notify_one();
        let is_upgrade = handover.is_some();
        if let Some(handover) = handover {
            let lost = self.lost.clone();
            handover.go(&TaskTracker::new(), |connection| async move {
                match connection {
                    Some((mut wire, _)) => wire.write_all(b"hello").await.expect("an open connection"),
                    None => lost.notify_one(),
                }
            });
        }
        if let Some(waits) = &self.waits {
            waits.notified().await;
        }
        let text = format!("{}{}", request.uri(), "x".repeat(self.length));
        let body = if self.flows {
            Body::flowing(http_body_util::Full::new(text.into()).map_err(|e| match e {}))
        } else {
            text.into()
        };
        let mut answer = Answer::new(body);
        if is_upgrade {
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *answer.body_mut() = Body::default();
        }
        answer.headers_mut().insert("date", HeaderValue::from_static("now"));
        answer
    }

    fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

struct Running {
    client: DuplexStream,
    ended: tokio::task::JoinHandle<Ended>,
}

fn run(service: &Told, room: usize) -> Running {
    let (client, server) = tokio::io::duplex(room);
    let service = service.clone();
    let ended = tokio::spawn(async move { serve(&service, Wire::Other(Box::new(server)), Instant::now()).await });
    Running { client, ended }
}

impl Running {
    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.expect("an open connection");
    }

    /// An answer as it must be.
    async fn hear(&mut self, body: &str) {
        let wanted = format!("HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut heard = vec![0; wanted.len()];
        self.client.read_exact(&mut heard).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&heard), wanted);
    }

    /// The connection ended, and nothing more was written.
    async fn ends(mut self) {
        assert!(matches!(self.ended.await.expect("no panic"), Ended::Over));
        assert_eq!(self.client.read(&mut [0; 1]).await.expect("an end"), 0);
    }

    async fn unusual(self) -> Unusual {
        let Ended::Unusual(unusual) = self.ended.await.expect("no panic") else { panic!("hyper is not needed") };
        unusual
    }
}

const GET_A: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const UPGRADE: &str = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
const GET_B: &str = "GET /b HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn requests_are_answered_until_the_client_leaves() {
    let mut running = run(&Told::default(), 1 << 16);
    for _ in 0..3 {
        running.send(GET_A).await;
        running.hear("/a").await;
    }
    running.client.shutdown().await.expect("an open connection");
    running.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_after_its_time_from_the_last_answer() {
    let mut running = run(&Told::default(), 1 << 16);
    tokio::time::sleep(limits::KEEP_ALIVE - Duration::from_secs(1)).await;
    running.send(GET_A).await;
    running.hear("/a").await;
    let answered = Instant::now();
    running.ends().await;
    let idle = answered.elapsed();
    assert!((limits::KEEP_ALIVE..limits::KEEP_ALIVE + Duration::from_secs(1)).contains(&idle), "{idle:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let service = Told { length: 100_000, ..Told::default() };
    let mut running = run(&service, 1 << 10);
    running.send(GET_A).await;
    let asked = Instant::now();
    assert!(matches!(running.ended.await.expect("no panic"), Ended::Over));
    assert!(asked.elapsed() >= limits::STALLED_CLIENT && asked.elapsed() < limits::KEEP_ALIVE);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_its_answer_slowly_gets_all_of_it() {
    let service = Told { length: 10_000, ..Told::default() };
    let mut running = run(&service, 1 << 10);
    running.send(GET_A).await;
    let mut heard = 0;
    let mut piece = [0; 1 << 10];
    while heard < 10_000 {
        tokio::time::sleep(limits::STALLED_CLIENT / 2).await;
        heard += running.client.read(&mut piece).await.expect("an answer");
    }
    running.send(GET_B).await;
    running.client.shutdown().await.expect("an open connection");
    let mut rest = Vec::new();
    running.client.read_to_end(&mut rest).await.expect("an answer");
    assert!(String::from_utf8_lossy(&rest).contains("/bxxx"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_what_it_asked_for() {
    let service = Told { waits: Some(Arc::default()), ..Told::default() };
    let mut running = run(&service, 1 << 16);
    running.send(GET_A).await;
    service.began.notified().await;
    drop(running.client);
    service.dropped.notified().await;
    assert!(matches!(running.ended.await.expect("no panic"), Ended::Over));
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_answer_is_hypers_to_answer_behind_it() {
    let waits = Arc::new(Notify::new());
    let service = Told { waits: Some(waits.clone()), ..Told::default() };
    let mut running = run(&service, 1 << 16);
    running.send(GET_A).await;
    service.began.notified().await;
    running.send(GET_B).await;
    tokio::task::yield_now().await;
    waits.notify_one();
    running.hear("/a").await;
    let Unusual { first, answer, .. } = running.unusual().await;
    assert_eq!((&first[..], answer.is_none()), (GET_B.as_bytes(), true));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_flows_is_hypers_to_write() {
    let mut running = run(&Told { flows: true, ..Told::default() }, 1 << 16);
    running.send("GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let Unusual { first, answer, .. } = running.unusual().await;
    assert!(answer.is_some());
    assert_eq!(&first[..], b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_unusual_is_hypers_as_it_came() {
    let head = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(limits::REQUEST_HEAD));
    let pipelined = format!("{GET_A}{GET_B}");
    let cases = [head, "G", "\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "nonsense\r\n\r\n", &long, &pipelined];
    for text in cases {
        let mut running = run(&Told::default(), 1 << 16);
        running.send(text).await;
        let Unusual { first, answer, .. } = running.unusual().await;
        assert_eq!((String::from_utf8_lossy(&first), answer.is_none()), (text.into(), true));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_hands_the_connection_over_behind_its_answer() {
    let service = Told::default();
    let mut running = run(&service, 1 << 16);
    running.send(UPGRADE).await;
    let mut heard = vec![0; 1024];
    let length = running.client.read(&mut heard).await.expect("an answer");
    let wanted = "HTTP/1.1 101 Switching Protocols\r\ndate: now\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&heard[..length]), wanted);
    let Ended::Speaks(speaking) = running.ended.await.expect("no panic") else { panic!("nobody speaks") };
    speaking.await;
    assert_eq!(running.client.read(&mut heard).await.expect("open"), 5);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_connection_gets_to_know_that_it_was_lost() {
    let waits = Arc::new(Notify::new());
    let service = Told { waits: Some(waits), ..Told::default() };
    let mut running = run(&service, 1 << 16);
    running.send(UPGRADE).await;
    service.began.notified().await;
    drop(running.client);
    service.lost.notified().await;
    assert!(matches!(running.ended.await.expect("no panic"), Ended::Over));
}

#[tokio::test(start_paused = true)]
async fn a_closing_door_ends_idle_connections_at_once_and_others_behind_their_answer() {
    let waits = Arc::new(Notify::new());
    let idle = Told::default();
    let busy = Told { waits: Some(waits.clone()), closing: idle.closing.clone(), ..Told::default() };
    let (resting, mut asking) = (run(&idle, 1 << 16), run(&busy, 1 << 16));
    asking.send(GET_A).await;
    busy.began.notified().await;
    idle.closing.cancel();
    resting.ends().await;
    waits.notify_one();
    asking.hear("/a").await;
    asking.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_all_patience_cuts_what_is_being_answered() {
    let service = Told { waits: Some(Arc::default()), ..Told::default() };
    let mut running = run(&service, 1 << 16);
    running.send(GET_A).await;
    service.began.notified().await;
    service.cut.cancel();
    running.ends().await;
}
