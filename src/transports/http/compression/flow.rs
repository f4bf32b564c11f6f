//! A body that is compressed while it flows. Whenever its source has nothing more for now, all that came so far is
//! sent, so that no event, no line of a log waits inside the encoder for the next one.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as _, Frame};

use super::AT_ONCE;
use super::encoder::Encoder;
use crate::model::body::{Body, BodyError};

/// How much output makes a frame, as long as the source has more.
const FRAME: usize = 16 * 1024;

pub struct Compressed {
    source: Body,
    /// `None` once the last data was handed on.
    encoder: Option<Encoder>,
    /// What the source gave and the encoder has not taken in yet.
    rest: Bytes,
    /// The encoder may hold back something that was written.
    unflushed: bool,
    /// How much was taken in since other tasks had their turn.
    taken_in: usize,
    /// What comes behind the last data: the trailers, or why the source broke off.
    behind: Option<Result<HeaderMap, BodyError>>,
}

impl Compressed {
    pub fn new(encoder: Encoder, source: Body) -> Compressed {
        Compressed { source, encoder: Some(encoder), rest: Bytes::new(), unflushed: false, taken_in: 0, behind: None }
    }

    /// The next data; `None` when all of it was handed on.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        while let Some(encoder) = &mut self.encoder {
            if !self.rest.is_empty() {
                if self.taken_in >= AT_ONCE {
                    // A source that always has more would keep this thread to itself.
                    self.taken_in = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let piece = self.rest.split_to(self.rest.len().min(AT_ONCE - self.taken_in));
                self.taken_in += piece.len();
                self.unflushed = true;
                encoder.write(&piece)?;
                if encoder.has_output(FRAME) {
                    return Poll::Ready(Some(Ok(encoder.take_output().into())));
                }
                continue;
            }
            match Pin::new(&mut self.source).poll_frame(cx) {
                Poll::Pending => {
                    self.taken_in = 0;
                    if !mem::take(&mut self.unflushed) {
                        return Poll::Pending;
                    }
                    encoder.flush()?;
                    return Poll::Ready(Some(Ok(encoder.take_output().into())));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => {
                        self.behind = frame.into_trailers().ok().map(Ok);
                        return Poll::Ready(self.finish());
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    // What came before the failure arrives, and the missing end shows that something is missing.
                    encoder.flush()?;
                    let output = encoder.take_output();
                    (self.encoder, self.behind) = (None, Some(Err(error)));
                    if !output.is_empty() {
                        return Poll::Ready(Some(Ok(output.into())));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(self.finish()),
            }
        }
        Poll::Ready(None)
    }

    fn finish(&mut self) -> Option<Result<Bytes, BodyError>> {
        let output = self.encoder.take()?.finish();
        Some(output.map(Bytes::from).map_err(BodyError::from))
    }
}

impl hyper::body::Body for Compressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let data = std::task::ready!(self.poll_data(cx));
        if matches!(data, Some(Err(_))) {
            self.encoder = None;
        }
        Poll::Ready(match data {
            Some(data) => Some(data.map(Frame::data)),
            None => self.behind.take().map(|behind| behind.map(Frame::trailers)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.behind.is_none()
    }
}
