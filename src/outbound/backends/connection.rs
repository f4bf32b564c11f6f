//! One connection to a backend, driven by the call that borrowed it.
//!
//! hyper splits a connection into a half that sends requests and a half that does the reading and
//! writing. Both are polled here by the same task, so nothing has to wake another.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::connector::Stream;
use super::{Error, Keep};
use crate::model::limits;

pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Gone once the connection is over: a request that waits in it is then given back.
    driver: Option<Box<http1::Connection<TokioIo<Stream>, Full<Bytes>>>>,
}

/// Why there is no answer.
pub enum Unsent {
    /// Not a byte was sent: the request may go elsewhere.
    Request(Box<Request<Full<Bytes>>>),
    Lost(hyper::Error),
}

impl Connection {
    pub async fn open(stream: Stream) -> hyper::Result<Self> {
        // One buffer and one plain write: for messages of the usual size cheaper than gathering two.
        let (sender, driver) = http1::Builder::new().writev(false).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::new(driver)) })
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unsent> {
        // A kept connection that the backend has closed meanwhile gives the request back.
        let answer = self.sender.try_send_request(request);
        self.drive(answer).await.map_err(|mut error| match error.take_message() {
            Some(request) => Unsent::Request(Box::new(request)),
            None => Unsent::Lost(error.into_error()),
        })
    }

    /// Reads the body of the answer.
    pub async fn read(&mut self, mut body: Incoming, keep: Keep) -> Result<Bytes, Error> {
        let most = match keep {
            Keep::Nothing => limits::REFUSAL_BODY,
            Keep::Whole(most) | Keep::Beginning(most) => most,
        };
        let mut whole = Bytes::new();
        let mut pieces = BytesMut::new();
        let mut length = 0;
        while !body.is_end_stream() {
            let Some(frame) = self.drive(body.frame()).await else { break };
            let Ok(mut piece) = frame.map_err(Error::Lost)?.into_data() else { continue };
            length += piece.len();
            let is_too_long = length > most;
            if is_too_long && matches!(keep, Keep::Whole(_)) {
                return Err(Error::TooLong(most));
            }
            if is_too_long {
                piece.truncate(piece.len() - (length - most));
            }
            if length == piece.len() {
                // Most answers are one piece, which needs no copy.
                whole = piece;
            } else if keep != Keep::Nothing {
                pieces.extend_from_slice(&std::mem::take(&mut whole));
                pieces.extend_from_slice(&piece);
            }
            if is_too_long {
                // The rest is not waited for, so the connection cannot be used again.
                self.driver = None;
                break;
            }
        }
        Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
    }

    /// Whether another call may have the connection, now that this one's answer was read.
    pub async fn is_reusable(&mut self) -> bool {
        poll_fn(|cx| {
            self.turn(cx);
            Poll::Ready(())
        })
        .await;
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
    fn turn(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.driver = None;
        }
    }
}
