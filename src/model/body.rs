//! A body in one of two states: whole, or still flowing from the one who sends it.
//!
//! What need not be read is passed on piece by piece and never held; a step that must read a body asks for
//! the whole of it, within a bound.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, SizeHint};

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

impl Body {
    pub fn flowing(body: impl hyper::body::Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Body::Flowing(Box::pin(body))
    }

    /// The whole of it, of at most `most` bytes.
    pub async fn read(self, most: usize) -> Result<Bytes, Unread> {
        let mut body = match self {
            Body::Whole(whole) if whole.len() <= most => return Ok(whole),
            Body::Whole(_) => return Err(Unread::TooLong(most)),
            Body::Flowing(body) => body,
        };
        if body.size_hint().lower() > most as u64 {
            return Err(Unread::TooLong(most));
        }
        let (mut whole, mut pieces) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(Unread::BrokeOff)?.into_data() else { continue };
            if whole.len() + pieces.len() + piece.len() > most {
                return Err(Unread::TooLong(most));
            }
            if whole.is_empty() && pieces.is_empty() {
                // Most bodies are one piece, which needs no copy.
                whole = piece;
            } else {
                pieces.extend_from_slice(&std::mem::take(&mut whole));
                pieces.extend_from_slice(&piece);
            }
        }
        Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
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
