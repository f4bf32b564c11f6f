//! A body in one of two states: whole, or still flowing from the one who sends it.
//!
//! What need not be read is passed on piece by piece and never held; a step that must read a body asks for
//! the whole of it, within a bound.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::clock::Tick;

pub type Flow = Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// Why a flowing body ended before its end.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// The body of a request or an answer.
pub enum Body {
    Whole(Bytes),
    Flowing(Flow),
}

/// Why there is no whole body.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    #[error("the body broke off: {0}")]
    BrokeOff(BodyError),
}

/// How far a flowing request body has come. The pace of its sender is not the backend's fault, and neither
/// is its length.
#[derive(Debug, Default)]
pub struct Progress {
    /// The tick of the last piece; 0 before the first.
    last: AtomicU64,
    length: AtomicU64,
    too_long: AtomicBool,
    broken: AtomicBool,
    waiting: AtomicBool,
}

impl Progress {
    pub fn note(&self, now: Tick) {
        self.last.store(now.0, Relaxed);
    }

    /// A piece of this length came.
    pub fn note_piece(&self, length: usize) {
        self.length.fetch_add(length as u64, Relaxed);
    }

    /// All of it, which had come with the head, was taken.
    pub fn note_whole(&self, length: usize) {
        self.length.store(length as u64, Relaxed);
    }

    /// Bytes that came so far and were asked for.
    pub fn length(&self) -> u64 {
        self.length.load(Relaxed)
    }

    pub fn note_too_long(&self) {
        self.too_long.store(true, Relaxed);
    }

    pub fn is_too_long(&self) -> bool {
        self.too_long.load(Relaxed)
    }

    /// Whether the next piece is asked for and has not come.
    pub fn note_waiting(&self, is_waiting: bool) {
        self.waiting.store(is_waiting, Relaxed);
    }

    /// The next piece is the client's to send.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    /// Whatever went wrong, the body's sender has its part in it; that time ran out, if its next piece was missing.
    pub fn is_to_blame(&self, is_late: bool) -> bool {
        self.is_too_long() || self.is_broken() || is_late && self.is_waiting()
    }

    /// The client broke it off, or sent what is no body.
    pub fn note_broken(&self) {
        self.broken.store(true, Relaxed);
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// How long nothing has come, if anything came at all.
    pub fn quiet(&self) -> Option<Duration> {
        let last = Tick(self.last.load(Relaxed));
        (last != Tick::default()).then(|| Tick::now().since(last))
    }
}

impl Body {
    pub fn flowing(body: impl hyper::body::Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Body::Flowing(Box::pin(body))
    }

    /// What hyper has of it.
    pub fn of_hyper(body: Incoming) -> Self {
        if body.is_end_stream() { Self::default() } else { Self::flowing(body.map_err(BodyError::from)) }
    }

    /// The whole of it, of at most `most` bytes.
    pub async fn read(self, most: usize) -> Result<Bytes, Unread> {
        if self.size_hint().lower() > most as u64 {
            return Err(Unread::TooLong(most));
        }
        let (whole, is_all) = self.gather(most).await.map_err(Unread::BrokeOff)?;
        if is_all { Ok(whole) } else { Err(Unread::TooLong(most)) }
    }

    /// Its first `most` bytes, or all of it if there are fewer. The rest is not waited for.
    pub async fn read_beginning(self, most: usize) -> Result<Bytes, BodyError> {
        let (mut beginning, _) = self.gather(most).await?;
        beginning.truncate(most);
        Ok(beginning)
    }

    /// Reads until the end or until there are more than `most` bytes, and says whether that was all.
    async fn gather(self, most: usize) -> Result<(Bytes, bool), BodyError> {
        let mut body = match self {
            Body::Whole(whole) => {
                let is_all = whole.len() <= most;
                return Ok((whole, is_all));
            }
            Body::Flowing(body) => body,
        };
        let (mut whole, mut pieces) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame?.into_data() else { continue };
            if whole.is_empty() && pieces.is_empty() {
                // Most bodies are one piece, which needs no copy.
                whole = piece;
            } else {
                pieces.extend_from_slice(&std::mem::take(&mut whole));
                pieces.extend_from_slice(&piece);
            }
            if whole.len() + pieces.len() > most {
                return Ok((if pieces.is_empty() { whole } else { pieces.freeze() }, false));
            }
            if body.is_end_stream() {
                break;
            }
        }
        Ok((if pieces.is_empty() { whole } else { pieces.freeze() }, true))
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::Whole(Bytes::new())
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(whole: T) -> Self {
        Body::Whole(whole.into())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Whole(whole) => write!(f, "{} bytes", whole.len()),
            Body::Flowing(_) => f.write_str("flowing"),
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut *self {
            Body::Whole(whole) if whole.is_empty() => Poll::Ready(None),
            Body::Whole(whole) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(whole))))),
            Body::Flowing(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(whole) => whole.is_empty(),
            Body::Flowing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(whole) => SizeHint::with_exact(whole.len() as u64),
            Body::Flowing(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_whole_body_is_read_within_its_bound() {
        assert_eq!(Body::from("abc").read(3).await.expect("three bytes"), "abc");
        assert!(matches!(Body::from("abcd").read(3).await, Err(Unread::TooLong(3))));
    }

    #[tokio::test]
    async fn a_flowing_body_is_gathered_within_its_bound() {
        let pieces = |pieces: &'static [&'static str]| {
            let frames = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
            Body::flowing(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
        };
        assert_eq!(pieces(&["ab", "c", "d"]).read(4).await.expect("four bytes"), "abcd");
        assert_eq!(pieces(&[]).read(4).await.expect("nothing"), "");
        assert!(matches!(pieces(&["ab", "c", "de"]).read(4).await, Err(Unread::TooLong(4))));
    }
}
