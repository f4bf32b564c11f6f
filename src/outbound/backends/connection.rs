//! One HTTP/1.1 connection to a backend, driven by the call that borrowed it.
//!
//! hyper's client splits a connection into halves that pass requests and answers through channels, and makes a map of
//! every header; for the messages of WebSocket clients that was a third of what the gateway did. Here a call writes its
//! request and reads its answer itself: one write and one read, and nothing has to wake another task.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{Method, StatusCode};
use hyper::body::{Body as _, Frame};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::broken::Broken;
use super::connector::Stream;
use super::framing::{Framing, Malformed, Piece};
use super::head::{self, AnswerHead, Headers, Length};
use super::outgoing::{Head, Outgoing, end_written};
use super::patience::{Alarm, Patience};
use super::sending::Sending;
use crate::model::body::Body;
use crate::model::limits;

const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// What is read lands here first, so that connections need no buffers of their own.
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A body up to this length is written together with its head, which costs less than writing from two places.
const COPIED_BODY: usize = 4096;

/// What a connection keeps of its buffer between two requests.
const KEPT_BUFFER: usize = 4096;

pub struct Connection {
    stream: Stream,
    alarm: Alarm,
    /// It has carried a request before: its server may have closed it since.
    is_used: bool,
    /// Bytes of the request, of which so many were written.
    out: Vec<u8>,
    written: usize,
    /// A piece of the request's body, which goes out behind `out`, and what ends it.
    piece: Bytes,
    end: &'static [u8],
    /// Written and perhaps not yet sent: TLS gathers.
    unflushed: bool,
    /// A request's body that still comes.
    sending: Option<Sending>,
    /// The request cannot be sent any further. An answer may have come all the same.
    broken: Option<io::Error>,
    method: Method,
    wanted: Headers,
    /// The beginning of an answer's head.
    partial: Vec<u8>,
    /// Read, and not yet taken: of the answer's body, or what came behind it.
    rest: Bytes,
    framing: Framing,
    keeps: bool,
}

/// Why there is no answer.
pub enum Unsent {
    /// Not a byte was sent: the request may go elsewhere.
    Request(Box<Outgoing>),
    Lost(Broken),
    /// There was none in time.
    Late,
}

impl Connection {
    pub fn new(stream: Stream) -> Box<Self> {
        Box::new(Self {
            stream,
            alarm: Alarm::default(),
            is_used: false,
            out: Vec::new(),
            written: 0,
            piece: Bytes::new(),
            end: b"",
            unflushed: false,
            sending: None,
            broken: None,
            method: Method::GET,
            wanted: Headers::All,
            partial: Vec::new(),
            rest: Bytes::new(),
            framing: Framing::Done,
            keeps: true,
        })
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(&mut self, outgoing: Outgoing, patience: Patience<'_>) -> Result<AnswerHead, Unsent> {
        let mut outgoing = Some(outgoing);
        self.alarm.set(&patience);
        poll_fn(|cx| {
            if let Some(outgoing) = outgoing.take() {
                // A kept connection that the backend has closed meanwhile gives the request back.
                if std::mem::replace(&mut self.is_used, true) && self.is_closed(cx) {
                    return Poll::Ready(Err(Unsent::Request(Box::new(outgoing))));
                }
                self.begin(outgoing);
            }
            if let Poll::Ready(answer) = self.poll_head(cx) {
                return Poll::Ready(answer.map_err(Unsent::Lost));
            }
            self.alarm.poll(cx, &patience).map(|()| Err(Unsent::Late))
        })
        .await
    }

    /// After a 101: the stream, and what the backend has already said on it.
    pub fn release(self: Box<Self>) -> (Stream, Bytes) {
        (self.stream, self.rest)
    }

    /// Whether another call may have the connection, now that this one's answer was read.
    pub fn is_reusable(&self) -> bool {
        self.keeps
            && matches!(self.framing, Framing::Done)
            // What comes unasked belongs to nobody.
            && self.rest.is_empty()
            && self.broken.is_none()
            && self.sending.is_none()
            && self.is_written()
    }

    fn is_written(&self) -> bool {
        self.out.is_empty() && self.piece.is_empty() && self.end.is_empty() && !self.unflushed
    }

    pub fn is_end_of_body(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }

    /// What is still to come of the body, where that is known.
    pub fn body_left(&self) -> Option<u64> {
        match &self.framing {
            Framing::Done => Some(0),
            Framing::Length(left) => Some(*left),
            Framing::Chunks(_) | Framing::UntilClose | Framing::Broken => None,
        }
    }

    /// The next piece of the answer's body. Sends the rest of the request meanwhile.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.framing.take(&mut self.rest) {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(trailers))) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Some(Piece::End)) => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(self.fail(error.into())))),
            }
            if let Err(error) = self.send_on(cx) {
                return Poll::Ready(Some(Err(self.fail(error))));
            }
            match ready!(self.read(cx, |_, bytes| Ok(Bytes::copy_from_slice(bytes)))) {
                Ok(bytes) if bytes.is_empty() => {
                    if let Err(error) = self.framing.close() {
                        return Poll::Ready(Some(Err(self.fail(error.into()))));
                    }
                }
                Ok(bytes) => self.rest = bytes,
                Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
            }
        }
    }

    fn fail(&mut self, error: Broken) -> Broken {
        (self.keeps, self.framing) = (false, Framing::Broken);
        error
    }

    /// Whether the server has closed it, or said what nobody asked for. Asks the kernel only if something has come.
    fn is_closed(&mut self, cx: &mut Context<'_>) -> bool {
        self.read(cx, |_, _| Ok(())).is_ready()
    }

    fn begin(&mut self, Outgoing { head, body, wanted, added }: Outgoing) {
        self.written = 0;
        self.wanted = wanted;
        let (body, flow) = match body {
            Body::Whole(body) => (body, None),
            Body::Flowing(flow) if flow.is_end_stream() => (Bytes::new(), None),
            Body::Flowing(flow) => (Bytes::new(), Some(flow)),
        };
        match head {
            Head::Written(head) => {
                self.method = Method::POST;
                self.out = head;
                end_written(&mut self.out, body.len());
            }
            Head::Parts(parts) => {
                self.out.clear();
                let length = match &flow {
                    None => Length::Known(body.len() as u64),
                    Some(flow) => Sending::length(&parts.headers, flow),
                };
                head::write(&parts, added.as_deref(), length, &mut self.out);
                self.sending = flow.map(|flow| Sending::new(flow, length, &parts.headers));
                self.method = parts.method;
            }
        }
        if body.len() <= COPIED_BODY {
            self.out.extend_from_slice(&body);
        } else {
            self.piece = body;
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, Broken>> {
        self.send_on(cx)?;
        loop {
            let parsed = match ready!(self.read(cx, Self::parse)) {
                Ok(parsed) => parsed,
                Err(error) => return Poll::Ready(Err(self.broken.take().map_or(error, Broken::Io))),
            };
            if let Some(head) = parsed {
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// Reads the head that stands in what came, or keeps that until more comes.
    fn parse(&mut self, bytes: &[u8]) -> Result<Option<AnswerHead>, Broken> {
        if bytes.is_empty() {
            return Err(Broken::Ended);
        }
        if self.partial.is_empty() {
            let (head, read) = self.parse_whole(bytes)?;
            match head {
                Some(_) => self.rest = Bytes::copy_from_slice(&bytes[read..]),
                None => self.partial.extend_from_slice(&bytes[read..]),
            }
            return Ok(head);
        }
        self.partial.extend_from_slice(bytes);
        let is_too_long = self.partial.len() > limits::ANSWER_HEAD;
        // Only a line's end can end the head.
        if !bytes.contains(&b'\n') {
            return if is_too_long { Err(Malformed::LongHead.into()) } else { Ok(None) };
        }
        let partial = std::mem::take(&mut self.partial);
        let (head, read) = self.parse_whole(&partial)?;
        match head {
            Some(_) => self.rest = Bytes::from(partial).slice(read..),
            None if is_too_long => return Err(Malformed::LongHead.into()),
            None if read == 0 => self.partial = partial,
            None => self.partial = partial[read..].to_vec(),
        }
        Ok(head)
    }

    /// The head, unless it is not whole, and how much was read. Heads that only announce another are skipped.
    fn parse_whole(&mut self, bytes: &[u8]) -> Result<(Option<AnswerHead>, usize), Broken> {
        let mut read = 0;
        loop {
            let parsed = head::read(&bytes[read..], &self.method, self.wanted).map_err(Broken::Malformed)?;
            let Some(parsed) = parsed else { return Ok((None, read)) };
            read += parsed.length;
            let status = parsed.head.status;
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                (self.framing, self.keeps) = (parsed.framing, parsed.keeps);
                return Ok((Some(parsed.head), read));
            }
        }
    }

    /// Hands what came to `take`; nothing at the connection's end.
    fn read<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Self, &[u8]) -> Result<T, Broken>,
    ) -> Poll<Result<T, Broken>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut scratch = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
            Poll::Ready(take(self, scratch.filled()))
        })
    }

    /// Sends what of the request can be sent now. That the server takes no more is told later, should no answer have come.
    fn send_on(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        if self.broken.is_some() {
            return Ok(());
        }
        match self.poll_send(cx) {
            Poll::Pending | Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(Broken::Io(error))) => {
                (self.broken, self.sending) = (Some(error), None);
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.poll_write(cx))?;
            let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
            let polled = sending.poll(cx, &mut self.out);
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(Some((piece, end)))) => (self.piece, self.end) = (piece, end),
                Poll::Ready(Ok(None)) => self.sending = None,
            }
        }
    }

    /// Writes `out`, `piece` and `end`.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.is_written() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let first = &self.out[self.written..];
            if first.is_empty() && self.piece.is_empty() && self.end.is_empty() {
                break;
            }
            self.unflushed = true;
            let stream = Pin::new(&mut self.stream);
            let length = if self.piece.is_empty() && self.end.is_empty() {
                ready!(stream.poll_write(cx, first))?
            } else {
                let all = [IoSlice::new(first), IoSlice::new(&self.piece), IoSlice::new(self.end)];
                ready!(stream.poll_write_vectored(cx, &all))?
            };
            if length == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            let of_first = length.min(first.len());
            let of_piece = (length - of_first).min(self.piece.len());
            self.written += of_first;
            self.piece.advance(of_piece);
            self.end = &self.end[length - of_first - of_piece..];
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        (self.written, self.unflushed) = (0, false);
        if self.out.capacity() > KEPT_BUFFER {
            self.out = Vec::new()
        } else {
            self.out.clear()
        }
        self.piece = Bytes::new();
        Poll::Ready(Ok(()))
    }
}
