//! The body of a backend's answer while it flows: it drives the connection that it comes on, and gives
//! that back at its end. Dropped before its end, as when the client left, it closes the connection: that
//! is how a backend learns that nobody listens any more.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::Lease;
use super::connection::Connection;
use super::kept::Shared;
use crate::model::body::{Body, BodyError};

pub struct Answering {
    /// Gone once it was given back.
    carrier: Option<Carrier>,
    body: Incoming,
    /// What came with the head, be it that no more comes.
    first: Option<Result<Frame<Bytes>, BodyError>>,
    lease: Option<Lease>,
}

/// What an answer comes on.
pub enum Carrier {
    Own(Connection),
    /// A stream of an HTTP/2 connection, which is driven elsewhere; held, so that the stream is counted.
    Shared(#[expect(dead_code, reason = "it is there to be counted")] Shared),
}

impl Answering {
    pub fn new(carrier: Carrier, body: Incoming, lease: Lease) -> Self {
        Self { carrier: Some(carrier), body, first: None, lease: Some(lease) }
    }

    /// Takes what is there already: most answers are there as a whole, and then nothing flows.
    pub fn begin(mut self, cx: &mut Context<'_>) -> Body {
        if self.body.is_end_stream() {
            return Body::default();
        }
        match self.poll(cx) {
            Poll::Ready(Some(Ok(frame))) if self.body.is_end_stream() => match frame.into_data() {
                Ok(whole) => {
                    self.finish(cx);
                    return Body::Whole(whole);
                }
                Err(frame) => self.first = Some(Ok(frame)),
            },
            Poll::Ready(first) => self.first = first,
            Poll::Pending => {}
        }
        Body::flowing(self)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(Carrier::Own(connection)) = &mut self.carrier {
            connection.turn(cx);
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(BodyError::from)
    }

    /// The answer is over: another call may have the connection.
    fn finish(&mut self, cx: &mut Context<'_>) {
        let Some(lease) = self.lease.take() else { return };
        if let Some(Carrier::Own(mut connection)) = self.carrier.take()
            && connection.is_reusable(cx)
        {
            lease.give_back(connection);
        }
    }
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let polled = self.poll(cx);
        if let Poll::Ready(None) = polled {
            self.finish(cx);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        let first = self.first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref()).map_or(0, Bytes::len) as u64;
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest + first),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Whoever knows the length need not ask for the end.
        if hyper::body::Body::is_end_stream(self) {
            self.finish(&mut Context::from_waker(Waker::noop()));
        }
    }
}
