//! Which answers are compressed, what their headers say, and when their bytes leave.

use std::io::{Read, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::model::body::BodyError;

const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

type Piece = Result<Frame<Bytes>, BodyError>;

fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        Coding::Zstd => zstd::stream::copy_decode(bytes, &mut plain).expect("zstd"),
        Coding::Brotli => brotli::BrotliDecompress(&mut { bytes }, &mut plain).expect("brotli"),
        Coding::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip")),
    }
    plain
}

/// What a client can read of a compressed body that has not ended.
fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        Coding::Zstd => {
            let mut decoder = zstd::stream::write::Decoder::new(&mut plain).expect("memory");
            decoder.write_all(bytes).and_then(|()| decoder.flush()).expect("zstd");
        }
        Coding::Brotli => {
            // The decoder that is written to stops early; this one ends in an error, for want of an end.
            let mut decoder = brotli::Decompressor::new(bytes, 4096);
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = decoder.read(&mut buffer) {
                plain.extend_from_slice(&buffer[..length]);
            }
        }
        Coding::Gzip => {
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            decoder.write_all(bytes).and_then(|()| decoder.flush()).expect("gzip");
            plain.clone_from(decoder.get_ref());
        }
    }
    plain
}

fn text(length: usize) -> String {
    let mut text = String::new();
    for line in 0u64.. {
        if text.len() >= length {
            break;
        }
        text += &format!("line {line}, {:x}\n", line.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    text.truncate(length);
    text
}

fn headers_of(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    *answer.headers_mut() = headers_of(headers);
    answer
}

fn flowing(pieces: impl futures_util::Stream<Item = Piece> + Send + 'static) -> Body {
    Body::flowing(StreamBody::new(pieces))
}

fn compressed(coding: Coding, source: Body) -> Compressed {
    Compressed::new(Encoder::new(coding, None).expect("memory"), source)
}

const SETTINGS: Compression = Compression { minimum_size: 100, event_streams: false };

fn compress_for(accepted: &str, answer: &mut Response<Body>) {
    compress(SETTINGS, &Method::GET, &headers_of(&[("accept-encoding", accepted)]), answer);
}

/// How far an answer got: `br`, `vary` if it would have been compressed for another client, or nothing.
fn check(method: Method, request: &[(&'static str, &str)], mut answer: Response<Body>, wanted: &str) {
    let shown = format!("{method} {request:?} {answer:?}");
    let request: Vec<_> = [("accept-encoding", "br")].iter().chain(request).copied().collect();
    compress(SETTINGS, &method, &headers_of(&request), &mut answer);
    let got = match (answer.headers().get("content-encoding"), answer.headers().get("vary")) {
        (Some(coding), Some(_)) => coding.to_str().expect("text"),
        (None, Some(_)) => "vary",
        _ => "",
    };
    assert_eq!(got, wanted, "{shown}");
}

#[test]
fn only_whole_plain_long_answers_are_compressed() {
    let json = ("content-type", "application/json");
    let get = |status, headers: &[(&'static str, &str)], wanted| {
        let headers: Vec<_> = [json].iter().chain(headers).copied().collect();
        check(Method::GET, &[], answer(status, &headers, text(1000)), wanted);
    };
    get(200, &[], "br");
    get(404, &[], "br");
    get(502, &[], "br");
    get(101, &[], "");
    get(204, &[], "");
    get(205, &[], "");
    get(206, &[], "");
    get(304, &[], "");
    get(200, &[("content-encoding", "gzip")], "");
    get(200, &[("cache-control", "public, No-Transform")], "");
    get(200, &[("cache-control", "no-cache")], "br");
    let by = |method, request: &[(&'static str, &str)], wanted| {
        check(method, request, answer(200, &[json], text(1000)), wanted);
    };
    by(Method::POST, &[], "br");
    by(Method::HEAD, &[("x", "no length is said")], "vary");
    by(Method::GET, &[("cache-control", "no-transform")], "");
    let long = |length: &str, wanted| {
        check(Method::HEAD, &[], answer(200, &[json, ("content-length", length)], ""), wanted);
    };
    long("100", "vary");
    long("99", "");
    let whole = |length, wanted| check(Method::GET, &[], answer(200, &[json], text(length)), wanted);
    whole(100_000, "br");
    whole(100, "br");
    whole(99, "");
    whole(0, "");
    let unknown = |headers: &[(&'static str, &str)], wanted| {
        let headers: Vec<_> = [json].iter().chain(headers).copied().collect();
        let mut open = answer(200, &headers, "");
        *open.body_mut() = flowing(stream::pending());
        check(Method::GET, &[], open, wanted);
    };
    unknown(&[], "br");
    unknown(&[("content-length", "100")], "br");
    unknown(&[("content-length", "99")], "");
}

#[test]
fn only_text_is_compressed() {
    let typed = |name: &str, wanted| {
        check(Method::GET, &[], answer(200, &[("content-type", name)], text(1000)), wanted);
    };
    for name in [
        "text/html",
        "Text/HTML; charset=utf-8",
        "text/css",
        "application/json",
        "application/json ;charset=utf-8",
        "application/javascript",
        "application/xml",
        "application/wasm",
        "application/problem+json",
        "application/atom+xml",
        "image/svg+xml",
    ] {
        typed(name, "br");
    }
    for name in ["image/png", "application/octet-stream", "video/mp4", "", "text", "application/jsonx", "x+json+zip"] {
        typed(name, "");
    }
    typed("text/event-stream", "");
    check(Method::GET, &[], answer(200, &[], text(1000)), "");
    let mut events = answer(200, &[("content-type", "text/event-stream;charset=utf-8")], text(1000));
    let settings = Compression { event_streams: true, ..SETTINGS };
    compress(settings, &Method::GET, &headers_of(&[("accept-encoding", "gzip")]), &mut events);
    assert_eq!(events.headers()["content-encoding"], "gzip");
}

#[test]
fn what_would_not_be_smaller_stays_as_it_is() {
    let random: Vec<u8> = (0..200u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    check(Method::GET, &[], answer(200, &[("content-type", "text/plain"), ("etag", "\"a\"")], random), "vary");
}

#[tokio::test]
async fn headers_say_what_the_body_has_become() {
    let headers = [
        ("content-type", "text/plain"),
        ("content-length", "1000"),
        ("etag", "\"abc\""),
        ("accept-ranges", "bytes"),
        ("content-md5", "x"),
        ("digest", "x"),
        ("content-digest", "x"),
        ("repr-digest", "x"),
        ("vary", "Origin"),
        ("x-own", "stays"),
    ];
    let mut zipped = answer(200, &headers, text(1000));
    compress_for("gzip", &mut zipped);
    let wanted = [
        ("content-type", "text/plain"),
        ("etag", "W/\"abc\""),
        ("vary", "Origin"),
        ("vary", "accept-encoding"),
        ("x-own", "stays"),
        ("content-encoding", "gzip"),
    ];
    assert_eq!(zipped.headers(), &headers_of(&wanted));
    assert!(matches!(zipped.body(), Body::Whole(body) if body.len() < 1000), "{:?}", zipped.body());

    let mut plain = answer(200, &headers, text(1000));
    compress_for("identity", &mut plain);
    let mut wanted = headers_of(&headers);
    wanted.append("vary", HeaderValue::from_static("accept-encoding"));
    assert_eq!(plain.headers(), &wanted);
    assert_eq!(plain.into_body().read(1000).await.expect("in memory"), text(1000));
}

#[test]
fn a_weak_tag_stays_weak_and_a_304_repeats_it() {
    let check = |if_none_match: &str, tag: &str, wanted: &str| {
        let mut unchanged = answer(304, &[("etag", tag)], "");
        compress(SETTINGS, &Method::GET, &headers_of(&[("if-none-match", if_none_match)]), &mut unchanged);
        assert_eq!(unchanged.headers()["etag"], wanted, "{if_none_match} {tag}");
        assert_eq!(unchanged.headers().contains_key("vary"), tag != wanted, "{if_none_match} {tag}");
    };
    check("W/\"a\"", "\"a\"", "W/\"a\"");
    check("\"b\", W/\"a\"", "\"a\"", "W/\"a\"");
    check("\"a\"", "\"a\"", "\"a\"");
    check("W/\"b\"", "\"a\"", "\"a\"");
    check("W/\"a\"", "W/\"a\"", "W/\"a\"");
    let mut weak = answer(200, &[("content-type", "text/plain"), ("etag", "W/\"a\"")], text(1000));
    compress_for("br", &mut weak);
    assert_eq!(weak.headers()["etag"], "W/\"a\"");
}

#[tokio::test]
async fn every_length_comes_back_as_it_went() {
    for (coding, length) in
        ALL.iter().flat_map(|coding| [100, 1000, AT_ONCE, AT_ONCE + 1, 1_000_000].map(|n| (*coding, n)))
    {
        let mut large = answer(200, &[("content-type", "text/plain")], text(length));
        compress_for(coding.name(), &mut large);
        assert_eq!(large.headers()["content-encoding"], coding.name());
        assert_eq!(matches!(large.body(), Body::Whole(_)), length <= AT_ONCE, "{length}");
        let bytes = large.into_body().read(length).await.expect("smaller");
        assert!(decoded(coding, &bytes) == text(length).as_bytes(), "{coding:?} {length}");
    }
}

#[tokio::test]
async fn a_slow_piece_arrives_before_the_next_is_there() {
    for coding in ALL {
        let (sender, mut receiver) = mpsc::channel::<Piece>(1);
        let mut body = compressed(coding, flowing(stream::poll_fn(move |cx| receiver.poll_recv(cx))));
        let (mut bytes, mut sent) = (Vec::new(), String::new());
        for piece in ["data: one\n\n", "data: two\n\n", &text(50_000), "data: three\n\n"] {
            sender.send(Ok(Frame::data(piece.to_owned().into()))).await.expect("the body is there");
            sent += piece;
            while let Poll::Ready(frame) = futures_util::poll!(pin!(body.frame())) {
                let frame = frame.expect("not the end").expect("no failure");
                bytes.extend_from_slice(&frame.into_data().expect("data"));
            }
            assert!(decoded_so_far(coding, &bytes) == sent.as_bytes(), "{coding:?}");
            // Nothing is sent for nothing: an idle stream stays silent.
            assert!(futures_util::poll!(pin!(body.frame())).is_pending(), "{coding:?}");
        }
        drop(sender);
        bytes.extend_from_slice(&body.collect().await.expect("no failure").to_bytes());
        assert!(decoded(coding, &bytes) == sent.as_bytes(), "{coding:?}");
    }
}

#[tokio::test]
async fn trailers_come_behind_the_data() {
    for coding in ALL {
        let trailers = headers_of(&[("x-sum", "7")]);
        let pieces = [Ok(Frame::data(Bytes::from("abc"))), Ok(Frame::trailers(trailers.clone()))];
        let body = compressed(coding, flowing(stream::iter(pieces))).collect().await.expect("no failure");
        assert_eq!(body.trailers(), Some(&trailers));
        assert_eq!(decoded(coding, &body.to_bytes()), b"abc");
    }
}

#[tokio::test]
async fn a_failure_comes_behind_what_was_there_before_it() {
    for coding in ALL {
        let pieces = [Ok(Frame::data(Bytes::from("abc"))), Err("gone".into())];
        let mut body = compressed(coding, flowing(stream::iter(pieces)));
        let data = body.frame().await.expect("data").expect("no failure yet").into_data().expect("data");
        assert_eq!(decoded_so_far(coding, &data), b"abc");
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.expect("the failure").expect_err("a failure").to_string(), "gone");
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }
}

#[tokio::test]
async fn nothing_compressed_is_still_a_body() {
    for coding in ALL {
        let body = compressed(coding, flowing(stream::empty())).collect().await.expect("no failure");
        assert_eq!(decoded(coding, &body.to_bytes()), b"");
    }
}

#[tokio::test]
async fn a_source_that_always_has_more_leaves_room_for_others() {
    for coding in ALL {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let zeros = Bytes::from(vec![0; 1000]);
        let pieces = stream::repeat_with(move || {
            count.fetch_add(1000, Ordering::Relaxed);
            Ok(Frame::data(zeros.clone()))
        });
        let mut body = compressed(coding, flowing(pieces.take(10_000)));
        let waker = futures_util::task::noop_waker();
        let mut polls = 0;
        loop {
            let before = taken.load(Ordering::Relaxed);
            let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
            assert!(taken.load(Ordering::Relaxed) - before <= AT_ONCE + 1000, "{coding:?}");
            polls += 1;
            if let Poll::Ready(None) = polled {
                break;
            }
        }
        assert!(polls > 10_000_000 / AT_ONCE, "{coding:?}: {polls}");
    }
}

proptest! {
    #[test]
    fn however_it_is_divided_it_comes_back_as_it_went(
        pieces in proptest::collection::vec((0usize..3000, any::<bool>()), 0..12),
        coding in 0usize..3,
    ) {
        let (coding, all) = (ALL[coding], text(36_000));
        let (mut sent, mut frames) = (0, Vec::new());
        for (length, waits) in pieces {
            frames.push((Bytes::copy_from_slice(&all.as_bytes()[sent..sent + length]), waits));
            sent += length;
        }
        let frames = stream::iter(frames).then(|(piece, waits)| async move {
            if waits {
                tokio::task::yield_now().await;
            }
            Ok(Frame::data(piece))
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let body = runtime.block_on(compressed(coding, flowing(frames)).collect()).expect("no failure");
        prop_assert!(decoded(coding, &body.to_bytes()) == all.as_bytes()[..sent]);
    }
}
