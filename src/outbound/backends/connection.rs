//! One HTTP/1.1 connection to a backend, driven by the call that borrowed it.
//!
//! hyper splits a connection into a half that sends requests and a half that does the reading and
//! writing. Both are polled here by the same task, so nothing has to wake another.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::connector::Stream;
use crate::model::body::Body;

pub struct Connection {
    sender: http1::SendRequest<Body>,
    /// Gone once the connection is over: a request that waits in it is then given back.
    driver: Option<Box<http1::Connection<TokioIo<Stream>, Body>>>,
    /// Where the driver ended: an upgrade hands the stream over.
    released: Option<(Stream, Bytes)>,
}

/// Why there is no answer.
pub enum Unsent {
    /// Not a byte was sent: the request may go elsewhere.
    Request(Box<Request<Body>>),
    Lost(hyper::Error),
}

impl Connection {
    pub async fn open(stream: Stream) -> hyper::Result<Self> {
        // One buffer and one plain write: for messages of the usual size cheaper than gathering two.
        let (sender, driver) = http1::Builder::new().writev(false).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::new(driver)), released: None })
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Unsent> {
        // A kept connection that the backend has closed meanwhile gives the request back.
        let answer = self.sender.try_send_request(request);
        self.drive(answer).await.map_err(|mut error| match error.take_message() {
            Some(request) => Unsent::Request(Box::new(request)),
            None => Unsent::Lost(error.into_error()),
        })
    }

    /// After a 101: the stream, and what the backend has already said on it.
    pub async fn release(mut self) -> Option<(Stream, Bytes)> {
        self.drive(std::future::ready(())).await;
        self.released
    }

    /// Whether another call may have the connection, now that this one's answer was read.
    pub fn is_reusable(&mut self, cx: &mut Context<'_>) -> bool {
        self.turn(cx);
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Waits for `outcome` while the connection reads and writes.
    async fn drive<F: Future>(&mut self, outcome: F) -> F::Output {
        let mut outcome = pin!(outcome);
        poll_fn(|cx| {
            self.turn(cx);
            outcome.as_mut().poll(cx)
        })
        .await
    }

    /// Lets the connection do what it can without waiting. Why it ended is told through the outcome.
    pub fn turn(&mut self, cx: &mut Context<'_>) {
        let Some(driver) = &mut self.driver else { return };
        // Without a shutdown, since an upgraded stream goes on.
        match driver.poll_without_shutdown(cx) {
            Poll::Pending => {}
            Poll::Ready(ended) => {
                let parts = self.driver.take().map(|driver| driver.into_parts());
                self.released = parts.filter(|_| ended.is_ok()).map(|parts| (parts.io.into_inner(), parts.read_buf));
            }
        }
    }
}
