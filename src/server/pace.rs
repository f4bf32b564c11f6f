//! What an HTTP connection is doing, and since when: so that nobody holds one without a reason.
//!
//! A client that is slow to say what it wants costs no more than its socket: the time of a request's
//! head runs from its first byte, and a connection that is kept alive between requests has a longer one.
//! While a request is answered its own deadlines count, and that its client reads at all.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connections::Wire;
use crate::model::body::{Body, BodyError};
use crate::model::clock::Tick;
use crate::model::limits;

/// One word, so that reading and serving can tell.
pub struct Pace {
    /// The tick of the last change above two bits that say what is done.
    word: AtomicU64,
    /// Requests being answered, of which HTTP/2 may have several.
    in_flight: AtomicU32,
    /// Since when the client takes nothing of what is written; 0 if it does.
    stalled: AtomicU64,
    length_seen: AtomicU32,
    /// HTTP/2 frames come at any time and begin nothing.
    is_http_2: AtomicBool,
    /// The last request had a body, of which something may still be on its way.
    has_body: AtomicBool,
    /// The answers that flow on an HTTP/2 connection, each at its client's pace.
    flows: Mutex<Vec<Weak<Flow>>>,
}

/// Bytes that are written in one piece.
const SMALL: usize = 1024;

const WAITING: u64 = 0;
const READING: u64 = 1;
const SERVING: u64 = 2;

impl Pace {
    pub fn new() -> Self {
        let pace = Self {
            word: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            stalled: AtomicU64::new(0),
            length_seen: AtomicU32::new(0),
            is_http_2: AtomicBool::new(false),
            has_body: AtomicBool::new(false),
            flows: Mutex::default(),
        };
        pace.set(WAITING);
        pace
    }

    fn set(&self, doing: u64) {
        self.word.store(Tick::now().0 << 2 | doing, Relaxed);
    }

    /// Nothing has been read so far.
    pub fn begin_http_1(&self) {
        self.set(WAITING);
    }

    /// The preface and the first request have the time of a head.
    pub fn begin_http_2(&self) {
        self.is_http_2.store(true, Relaxed);
        self.set(READING);
    }

    /// A request is served until what this gives is dropped.
    pub fn begin_serving(self: &Arc<Self>) -> Serving {
        self.in_flight.fetch_add(1, Relaxed);
        Serving(self.clone())
    }

    /// Whether what comes next may be the rest of a body. Then the connection keeps its state.
    pub fn note_body(&self, has_body: bool) {
        self.has_body.store(has_body, Relaxed);
    }

    pub fn may_rest(&self) -> bool {
        !self.has_body.load(Relaxed)
    }

    /// What the connection does, and since when; while anything is served that has deadlines of its own.
    fn doing(&self) -> (u64, Tick) {
        let is_serving = self.in_flight.load(Acquire) > 0;
        let word = self.word.load(Relaxed);
        let doing = if is_serving { SERVING } else { word & 3 };
        (doing, Tick(word >> 2))
    }

    /// A `Content-Length` came with the head of the request that is served now. (Looked for in each read where heads
    /// are expected: a body that spells the words counts too, which costs its client a connection at worst; a name that
    /// two packets share is not seen, and then the connection stays open behind a body that was read as it should be.)
    pub fn take_length_seen(&self) -> bool {
        self.length_seen.swap(0, Relaxed) > 0
    }

    /// Over HTTP/2 the socket does not show that a client leaves one of its answers lying. What that answer holds of
    /// its backend is let go; the client gets to know if it ever asks.
    pub fn let_go_of_stalled(&self, now: Tick) {
        for flow in self.flows.lock().iter().filter_map(Weak::upgrade) {
            let since = flow.unasked.load(Relaxed);
            if since != 0 && now.since(Tick(since)) >= limits::STALLED_STREAM {
                flow.body.lock().take();
            }
        }
    }

    /// Bytes came: the head of a request has begun, unless one is being read or served already.
    fn note_read(&self, read: &[u8]) {
        if self.is_http_2.load(Relaxed) {
            return;
        }
        let (doing, _) = self.doing();
        if doing == WAITING {
            self.set(READING);
        }
        if doing != SERVING && names_length(read) {
            self.length_seen.store(1, Relaxed);
        }
    }

    fn note_written(&self, is_taken: bool) {
        if !is_taken {
            let _ = self.stalled.compare_exchange(0, Tick::now().0, Relaxed, Relaxed);
        } else if self.stalled.load(Relaxed) != 0 {
            self.stalled.store(0, Relaxed);
            // What is still written of the last answer is not idleness.
            if self.doing().0 == WAITING {
                self.set(WAITING);
            }
        }
    }

    /// Since when nothing has been asked, if everything was answered and taken.
    pub fn idle_for(&self, now: Tick) -> Option<Duration> {
        let (doing, since) = self.doing();
        (doing == WAITING && self.stalled.load(Relaxed) == 0).then(|| now.since(since))
    }

    pub fn is_over(&self, patience: Duration) -> bool {
        self.time_left(patience, Tick::now()).is_zero()
    }

    /// When to look again: a head may begin right now, so never later than its whole time.
    pub fn next_look(&self, patience: Duration) -> Duration {
        self.time_left(patience, Tick::now()).clamp(Duration::from_millis(1), patience.max(Duration::from_millis(1)))
    }

    fn time_left(&self, patience: Duration, now: Tick) -> Duration {
        let (doing, since) = self.doing();
        let of_phase = match doing {
            WAITING => Some(limits::KEEP_ALIVE),
            READING => Some(patience),
            _ => None,
        };
        let left = of_phase.map_or(Duration::MAX, |time| time.saturating_sub(now.since(since)));
        match self.stalled.load(Relaxed) {
            0 => left,
            since => left.min(limits::STALLED_CLIENT.saturating_sub(now.since(Tick(since)))),
        }
    }
}

/// Whether a line begins with `Content-Length`.
fn names_length(read: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    let mut lines = read.split(|byte| *byte == b'\n');
    lines.any(|line| line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME)))
}

/// A request being served: from its head until its answer is over, as far as the gateway is concerned, or its client
/// left.
pub struct Serving(Arc<Pace>);

impl Drop for Serving {
    fn drop(&mut self) {
        // First the time, then the count: in between nobody takes the connection for one that has long been idle.
        self.0.set(WAITING);
        self.0.in_flight.fetch_sub(1, Release);
    }
}

/// An answer's body that flows, and is served until it ends or nobody wants more of it.
pub struct Served {
    flow: Arc<Flow>,
    _serving: Serving,
}

struct Flow {
    /// Gone when its client has not wanted the next piece for too long.
    body: Mutex<Option<Body>>,
    /// Since when nobody has asked for the next piece; 0 while it is asked for.
    unasked: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
#[error("the client did not take the answer")]
struct Stalled;

impl Served {
    pub fn wrap(body: Body, serving: Serving) -> Body {
        match body {
            Body::Flowing(_) => {
                let flow = Arc::new(Flow { body: Mutex::new(Some(body)), unasked: AtomicU64::new(Tick::now().0) });
                let pace = &serving.0;
                if pace.is_http_2.load(Relaxed) {
                    let mut flows = pace.flows.lock();
                    flows.retain(|flow| flow.strong_count() > 0);
                    flows.push(Arc::downgrade(&flow));
                }
                Body::flowing(Served { flow, _serving: serving })
            }
            whole => whole,
        }
    }
}

impl hyper::body::Body for Served {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut body = self.flow.body.lock();
        let Some(body) = body.as_mut() else { return Poll::Ready(Some(Err(Stalled.into()))) };
        let polled = Pin::new(body).poll_frame(cx);
        // A piece was handed out: from here on it is the client that keeps us waiting.
        let since = if polled.is_ready() { Tick::now() } else { Tick::default() };
        self.flow.unasked.store(since.0, Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.flow.body.lock().as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.flow.body.lock().as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// A client's connection that notes when bytes come and go.
pub struct Paced {
    /// What was read of the connection before it came here.
    pub first: Bytes,
    pub wire: Wire,
    pub pace: Arc<Pace>,
}

impl Paced {
    /// The connection, and what was read of it: `read`, of which nobody has seen more than that it is there, and what is left
    /// of `first`.
    pub fn rest(self, read: Bytes) -> (Wire, Bytes) {
        // A copy, mostly of nothing: the original is a view of hyper's whole buffer, and would keep its 8 KiB for as long
        // as the connection lives.
        (self.wire, Bytes::from([&read[..], &self.first[..]].concat()))
    }

    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.pace.note_written(polled.is_ready());
        polled
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = if self.first.is_empty() {
            Pin::new(&mut self.wire).poll_read(cx, buf)
        } else {
            let length = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(length));
            if self.first.is_empty() {
                self.first = Bytes::new();
            }
            Poll::Ready(Ok(()))
        };
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            self.pace.note_read(read);
        }
        polled
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.wire).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length > SMALL {
            let polled = Pin::new(&mut self.wire).poll_write_vectored(cx, bufs);
            return self.note(polled);
        }
        // Head and body of a small answer as one: copying them is cheaper than the system's gathering.
        let mut whole = [0; SMALL];
        let mut at = 0;
        for buf in bufs {
            whole[at..at + buf.len()].copy_from_slice(buf);
            at += buf.len();
        }
        let polled = Pin::new(&mut self.wire).poll_write(cx, &whole[..length]);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.wire).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_names_the_length_is_seen() {
        let check = |read: &[u8], seen| assert_eq!(names_length(read), seen, "{read:?}");
        check(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", true);
        check(b"POST / HTTP/1.1\ncoNTent-length:3\n\n", true);
        check(b"POST / HTTP/1.1\r\nX-Content-Length: 3\r\n\r\n", false);
        check(b"GET / HTTP/1.1\r\n\r\n", false);
        check(b"", false);
    }

    #[test]
    fn a_connection_idles_only_when_all_is_answered_and_taken() {
        let pace = Arc::new(Pace::new());
        assert!(pace.idle_for(Tick::now()).is_some());
        let (one, other) = (pace.begin_serving(), pace.begin_serving());
        drop(one);
        assert!(pace.idle_for(Tick::now()).is_none());
        pace.note_written(false);
        drop(other);
        assert!(pace.idle_for(Tick::now()).is_none());
        pace.note_written(true);
        assert!(pace.idle_for(Tick::now()).is_some());
    }
}
