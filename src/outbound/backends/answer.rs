//! The body of a backend's answer while it flows: it drives the connection that it comes on, and gives
//! that back at its end. Dropped before its end, as when the client left, it closes the connection: that
//! is how a backend learns that nobody listens any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::Lease;
use super::connection::Connection;
use super::kept::Shared;
use crate::model::body::{Body, BodyError};

pub struct Answering {
    /// Gone once it was given back.
    carrier: Option<Carrier>,
    /// What came with the head, be it that no more comes.
    first: Option<Result<Frame<Bytes>, BodyError>>,
    lease: Option<Lease>,
}

/// What an answer comes on.
pub enum Carrier {
    Own(Box<Connection>),
    /// A stream of an HTTP/2 connection, which is driven elsewhere; that is held, so that the stream is counted.
    Shared(Box<Incoming>, #[expect(dead_code, reason = "it is there to be counted")] Shared),
}

impl Carrier {
    fn is_end(&self) -> bool {
        match self {
            Carrier::Own(connection) => connection.is_end_of_body(),
            Carrier::Shared(body, _) => body.is_end_stream(),
        }
    }

    fn left(&self) -> Option<u64> {
        match self {
            Carrier::Own(connection) => connection.body_left(),
            Carrier::Shared(body, _) => body.size_hint().exact(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Carrier::Own(connection) => connection.poll_body(cx).map_err(BodyError::from),
            Carrier::Shared(body, _) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
        }
    }
}

impl Answering {
    pub fn new(carrier: Carrier, lease: Lease) -> Self {
        Self { carrier: Some(carrier), first: None, lease: Some(lease) }
    }

    /// Takes what is there already: most answers are there as a whole, and then nothing flows.
    pub fn begin(mut self, cx: &mut Context<'_>) -> Body {
        if self.is_end() {
            self.finish();
            return Body::default();
        }
        match self.poll(cx) {
            Poll::Ready(Some(Ok(frame))) if self.is_end() => match frame.into_data() {
                Ok(whole) => {
                    self.finish();
                    return Body::Whole(whole);
                }
                Err(frame) => self.first = Some(Ok(frame)),
            },
            Poll::Ready(first) => self.first = first,
            Poll::Pending => {}
        }
        Body::flowing(self)
    }

    fn is_end(&self) -> bool {
        self.carrier.as_ref().is_none_or(Carrier::is_end)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.carrier {
            Some(carrier) => carrier.poll(cx),
            None => Poll::Ready(None),
        }
    }

    /// The answer is over: another call may have the connection.
    fn finish(&mut self) {
        if let (Some(lease), Some(Carrier::Own(connection))) = (self.lease.take(), self.carrier.take())
            && connection.is_reusable()
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
            self.finish();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref()).map_or(0, Bytes::len) as u64;
        match self.carrier.as_ref().map_or(Some(0), Carrier::left) {
            Some(rest) => SizeHint::with_exact(rest + first),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Whoever knows the length need not ask for the end.
        if hyper::body::Body::is_end_stream(self) {
            self.finish();
        }
    }
}
