//! HTTP/1.1 without hyper, for what nearly every client sends: a request that comes in one piece, and an answer that is there
//! as a whole.
//!
//! hyper's server keeps buffers and state for all that HTTP/1.1 may be, and that was most of what a handshake, a push or a
//! small request cost. Here a connection has no state between requests: one read, one answer, one write. What is unusual in
//! any way (`text.rs` says what) is hyper's, which gets the bytes as if nobody had seen them; so does an answer that flows.

#[cfg(test)]
mod tests;
mod text;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::connections::{Handover, Slot, Speaking, Wire};
use crate::model::answer::Answer;
use crate::model::body::Body;
use crate::model::limits;
use text::{Whole, Written};

const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// What is read lands here, so that connections need no buffers of their own.
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// What hyper has to go on with.
pub struct Unusual {
    pub wire: Wire,
    /// What was read, and nobody has seen.
    pub first: Bytes,
    /// The answer to the request that `first` begins with: it was answered already.
    pub answer: Option<Answer>,
}

/// Whoever answers the requests of one connection.
pub trait Service {
    /// Answers one request. `handover` is there if it may be about another protocol.
    fn answer(&self, request: Box<Request<Body>>, handover: Option<Handover>) -> impl Future<Output = Answer> + Send;

    /// Ends when a connection that is asked for nothing shall close.
    fn closing(&self) -> &CancellationToken;

    /// Ends when whatever there is shall end.
    fn cut(&self) -> &CancellationToken;
}

/// What becomes of a connection.
pub enum Ended {
    Over,
    /// Another protocol was agreed on.
    Speaks(Speaking),
    Unusual(Unusual),
}

/// Answers what comes on `wire`, on which nothing has happened since `since`.
pub async fn serve(service: &impl Service, wire: Wire, since: Instant) -> Ended {
    let mut line = Line { wire, since, alarm: Alarm::default() };
    let mut closing = pin!(service.closing().cancelled());
    let mut cut = pin!(service.cut().cancelled());
    loop {
        let Whole { request, wants_upgrade, closes } = match poll_fn(|cx| line.poll_next(cx, closing.as_mut())).await {
            Came::Whole(whole) => whole,
            Came::Unusual(first) => return Ended::Unusual(Unusual { wire: line.wire, first, answer: None }),
            Came::Nothing => {
                line.shut_down().await;
                return Ended::Over;
            }
        };
        let slot = wants_upgrade.then(Slot::default);
        let mut early = Bytes::new();
        let answer = {
            let mut answering = pin!(service.answer(request, slot.clone().map(Handover::Own)));
            poll_fn(|cx| match answering.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if cut.as_mut().poll(cx).is_ready() => Poll::Ready(None),
                Poll::Pending => line.poll_gone(cx, &mut early).map(|()| None),
            })
            .await
        };
        let Some(mut answer) = answer else { return Ended::Over };
        if closes {
            text::close(&mut answer);
        }
        let Some(Written { out, body, keeps }) = text::write(&answer) else {
            let first = text::like_first(closes, &early);
            return Ended::Unusual(Unusual { wire: line.wire, first, answer: Some(answer) });
        };
        if line.write(&out, body, cut.as_mut()).await.is_none() {
            return Ended::Over;
        }
        if !keeps || service.closing().is_cancelled() {
            if let Some(slot) = slot.filter(|_| answer.status() == StatusCode::SWITCHING_PROTOCOLS) {
                return slot.speak(line.wire, early).map_or(Ended::Over, Ended::Speaks);
            }
            line.shut_down().await;
            return Ended::Over;
        }
        if !early.is_empty() {
            return Ended::Unusual(Unusual { wire: line.wire, first: early, answer: None });
        }
        line.since = Instant::now();
    }
}

/// A connection, and how long nothing has happened on it.
struct Line {
    wire: Wire,
    /// When the last answer was written.
    since: Instant,
    alarm: Alarm,
}

/// What came where a request may begin.
enum Came {
    Whole(Whole),
    Unusual(Bytes),
    /// The connection is over.
    Nothing,
}

impl Line {
    fn poll_next(&mut self, cx: &mut Context<'_>, closing: Pin<&mut impl Future>) -> Poll<Came> {
        let read = self.poll_read(cx, |bytes| match text::read(bytes) {
            Some(whole) => Came::Whole(whole),
            None => Came::Unusual(Bytes::copy_from_slice(bytes)),
        });
        match read {
            Poll::Ready(came) => Poll::Ready(came.unwrap_or(Came::Nothing)),
            Poll::Pending if closing.poll(cx).is_ready() => Poll::Ready(Came::Nothing),
            Poll::Pending => self.alarm.poll(cx, self.since, limits::KEEP_ALIVE).map(|()| Came::Nothing),
        }
    }

    /// Ends when the client has left. What it says before the answer is kept in `early`, and then no more is read.
    fn poll_gone(&mut self, cx: &mut Context<'_>, early: &mut Bytes) -> Poll<()> {
        if !early.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_read(cx, Bytes::copy_from_slice)) {
            Some(bytes) => {
                *early = bytes;
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Hands what came to `take`; `None` at the connection's end.
    fn poll_read<T>(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> T) -> Poll<Option<T>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut scratch = ReadBuf::new(scratch);
            let read = ready!(Pin::new(&mut self.wire).poll_read(cx, &mut scratch));
            Poll::Ready((read.is_ok() && !scratch.filled().is_empty()).then(|| take(scratch.filled())))
        })
    }

    /// Says goodbye, where the protocol below has a word for it and the client still listens.
    async fn shut_down(&mut self) {
        poll_fn(|cx| {
            // Looked at once: nobody waits for a client that is let go.
            let _ = Pin::new(&mut self.wire).poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Writes one after the other; `None` if the client does not take them, or not in time.
    async fn write(&mut self, out: &[u8], body: &[u8], mut cut: Pin<&mut impl Future>) -> Option<()> {
        let mut pieces = [IoSlice::new(out), IoSlice::new(body)];
        let mut left = if body.is_empty() { &mut pieces[..1] } else { &mut pieces[..] };
        let mut stalled = None;
        poll_fn(|cx| {
            match Self::poll_write(&mut self.wire, cx, &mut left, &mut stalled) {
                Poll::Ready(written) => return Poll::Ready(written),
                Poll::Pending if cut.as_mut().poll(cx).is_ready() => return Poll::Ready(None),
                Poll::Pending => {}
            }
            let since = *stalled.get_or_insert_with(|| {
                self.alarm.set(limits::STALLED_CLIENT);
                Instant::now()
            });
            self.alarm.poll(cx, since, limits::STALLED_CLIENT).map(|()| None)
        })
        .await
    }

    fn poll_write(
        wire: &mut Wire,
        cx: &mut Context<'_>,
        left: &mut &mut [IoSlice<'_>],
        stalled: &mut Option<Instant>,
    ) -> Poll<Option<()>> {
        while !left.is_empty() {
            let polled = match &left[..] {
                [piece] => Pin::new(&mut *wire).poll_write(cx, piece),
                pieces => Pin::new(&mut *wire).poll_write_vectored(cx, pieces),
            };
            match ready!(polled) {
                Ok(length) if length > 0 => IoSlice::advance_slices(left, length),
                _ => return Poll::Ready(None),
            }
            *stalled = None;
        }
        Pin::new(wire).poll_flush(cx).map(Result::ok)
    }
}

/// A timer that outlives the requests it is for, so that none is set and taken back for each: one that rings for what was
/// before is set anew for what is now.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// It rings so late at the latest.
    fn set(&mut self, time: Duration) {
        self.0 = Some(Box::pin(tokio::time::sleep(time)));
    }

    /// Waits until nothing has happened for that time.
    fn poll(&mut self, cx: &mut Context<'_>, since: Instant, time: Duration) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            let left = time.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(Instant::now() + left);
        }
    }
}
