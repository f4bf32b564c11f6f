//! Frames in and out of one socket, and why an idle one costs next to nothing.
//!
//! Headers are tungstenite's. Its own codec keeps a buffer for each socket, moves every message through that, and holds the
//! space of the largest frame it has seen; here what is read lands in one buffer per thread, a message that came as a whole
//! is copied out of it once, and a socket on which nothing happens keeps no buffer at all. What a frame may be is
//! RFC 6455's: a client that breaks a rule is heard no further.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader, Utf8Bytes};

use crate::model::close::Close;

/// What one read may bring.
const SCRATCH: usize = 64 * 1024;

/// Frames are gathered up to here before a write; a flush follows when the outbox is empty.
const GATHERED: usize = 4096;

/// The longest header of a frame: two bytes, eight of length, four of mask.
const LONGEST_HEADER: usize = 14;

/// The longest payload of a control frame.
const LONGEST_CONTROL: usize = 125;

/// A message is given room for as much as this before any of it has come.
const TRUSTED: usize = 16 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A client's frame, or whole message.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// It is UTF-8.
    Text(Bytes),
    Binary(Bytes),
    /// Its pong is on its way.
    Ping,
    Pong,
    /// Its answer is on its way.
    Close(Option<CloseFrame>),
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended, or broke.
    Lost,
    Protocol,
    NotUtf8,
    TooBig,
}

impl Failure {
    /// With which Close the client is told.
    pub fn close(self) -> Option<Close> {
        match self {
            Failure::Lost => None,
            Failure::Protocol => Some(Close::PROTOCOL),
            Failure::NotUtf8 => Some(Close::NOT_UTF8),
            Failure::TooBig => Some(Close::TOO_BIG),
        }
    }
}

/// How long a client's messages and frames may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub message: usize,
    pub frame: usize,
}

pub struct Codec<S> {
    socket: S,
    /// Read from the socket and not yet taken. Without storage when idle, as everything here.
    rest: Bytes,
    /// A message of which not everything has come.
    partial: Option<Box<Partial>>,
    /// Frames to be written, and how much of them was.
    out: Vec<u8>,
    written: usize,
    /// The answer to the last ping for which there was no room; an older one is given up for it (RFC 6455 section 5.5.3).
    pong: Option<Box<Frame>>,
    unflushed: bool,
    stopped: bool,
}

/// What is known of a message, or of a frame, while it comes.
#[derive(Default)]
struct Partial {
    /// The beginning of a header that is not whole yet.
    header: [u8; LONGEST_HEADER],
    header_length: usize,
    /// The frame that is being read, and how much of it is still to come.
    frame: Option<(FrameHeader, usize)>,
    control: Vec<u8>,
    /// The message of which this is a frame.
    message: Option<(Data, Vec<u8>)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Codec<S> {
    /// `already_read` is what came behind the handshake in the same packet.
    pub fn new(socket: S, already_read: Bytes) -> Self {
        Self {
            socket,
            rest: already_read,
            partial: None,
            out: Vec::new(),
            written: 0,
            pong: None,
            unflushed: false,
            stopped: false,
        }
    }

    /// From now on only what was already read is handed out: the gateway stops.
    pub fn stop_reading(&mut self) {
        self.stopped = true;
    }

    pub fn resume_reading(&mut self) {
        self.stopped = false;
    }

    pub fn into_inner(self) -> S {
        self.socket
    }

    /// The next message of the client's.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, bounds: Bounds) -> Poll<Result<Message, Failure>> {
        loop {
            if !self.rest.is_empty() {
                let came = std::mem::take(&mut self.rest);
                let mut input = &came[..];
                let message = self.take(&mut input, bounds)?;
                self.rest = came.slice(came.len() - input.len()..);
                if self.rest.is_empty() {
                    self.rest = Bytes::new();
                }
                if let Some(message) = message {
                    return Poll::Ready(Ok(message));
                }
            }
            if self.stopped {
                // Nobody waits for this: the task that stops the gateway closes the socket.
                return Poll::Pending;
            }
            if let Some(message) = ready!(self.read(cx, bounds))? {
                return Poll::Ready(Ok(message));
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, bounds: Bounds) -> Poll<Result<Option<Message>, Failure>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut scratch = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => {}
                _ => return Poll::Ready(Err(Failure::Lost)),
            }
            let mut input = scratch.filled();
            let message = self.take(&mut input, bounds)?;
            if !input.is_empty() {
                self.rest = Bytes::copy_from_slice(input);
            }
            Poll::Ready(Ok(message))
        })
    }

    /// Takes the next message off what came, or all of it if that is none yet.
    fn take(&mut self, input: &mut &[u8], bounds: Bounds) -> Result<Option<Message>, Failure> {
        while !input.is_empty() {
            let taken = match &mut self.partial {
                Some(partial) => partial.take(input, bounds)?,
                None => match whole(input, bounds)? {
                    Some(taken) => Some(taken),
                    None => {
                        self.partial = Some(Box::default());
                        continue;
                    }
                },
            };
            if self.partial.as_ref().is_some_and(|partial| partial.is_over()) {
                self.partial = None;
            }
            let Some((opcode, payload)) = taken else { continue };
            return self.message(opcode, payload).map(Some);
        }
        Ok(None)
    }

    fn message(&mut self, opcode: OpCode, payload: Vec<u8>) -> Result<Message, Failure> {
        Ok(match opcode {
            OpCode::Data(Data::Text) => {
                std::str::from_utf8(&payload).map_err(|_| Failure::NotUtf8)?;
                Message::Text(payload.into())
            }
            OpCode::Data(_) => Message::Binary(payload.into()),
            OpCode::Control(Control::Ping) => {
                let pong = Frame::pong(payload);
                if self.out.len() < GATHERED {
                    self.send(&pong);
                } else {
                    self.pong = Some(Box::new(pong));
                }
                Message::Ping
            }
            OpCode::Control(Control::Pong) => Message::Pong,
            OpCode::Control(_) => {
                let close = close(payload)?;
                self.send(&Frame::close(close.clone()));
                Message::Close(close)
            }
        })
    }

    /// Whether another frame can be given to `send`. After it was pending, all that was given before has been written.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written == 0 && self.out.len() < GATHERED {
            return Poll::Ready(Ok(()));
        }
        self.poll_write(cx)
    }

    /// Puts a frame behind those that wait to be written.
    pub fn send(&mut self, frame: &Frame) {
        let length = frame.payload().len();
        self.out.reserve(frame.header().len(length as u64) + length);
        // A `Vec` takes everything.
        let _ = frame.header().format(length as u64, &mut self.out);
        self.out.extend_from_slice(frame.payload());
    }

    /// Writes everything.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write(cx))?;
            match self.pong.take() {
                Some(pong) => self.send(&pong),
                None => break,
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.out[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.unflushed = true;
        }
        (self.out, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

/// An opcode, and the payload that came with it.
type Taken = (OpCode, Vec<u8>);

/// The frame at the front of `input`, if all of it is there and it is a whole message: what most are.
fn whole(input: &mut &[u8], bounds: Bounds) -> Result<Option<Taken>, Failure> {
    let mut cursor = Cursor::new(*input);
    let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) else { return Ok(None) };
    let start = cursor.position() as usize;
    let length = checked(&header, length, bounds.frame.min(bounds.message))?;
    let payload = input.get(start..).and_then(|payload| payload.get(..length));
    let (true, Some(payload)) = (header.is_final && header.opcode != OpCode::Data(Data::Continue), payload) else {
        return Ok(None);
    };
    let mut payload = payload.to_vec();
    unmask(&mut payload, header.mask.unwrap_or_default());
    input.advance(start + length);
    Ok(Some((header.opcode, payload)))
}

/// The length of a frame's payload, if such a frame may come from a client.
fn checked(header: &FrameHeader, length: u64, most: usize) -> Result<usize, Failure> {
    if header.rsv1 || header.rsv2 || header.rsv3 || header.mask.is_none() {
        return Err(Failure::Protocol);
    }
    match header.opcode {
        OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => Err(Failure::Protocol),
        OpCode::Control(_) if !header.is_final || length > LONGEST_CONTROL as u64 => Err(Failure::Protocol),
        OpCode::Control(_) => Ok(length as usize),
        OpCode::Data(_) if length > most as u64 => Err(Failure::TooBig),
        OpCode::Data(_) => Ok(length as usize),
    }
}

impl Partial {
    /// The next message is a beginning again.
    fn is_over(&self) -> bool {
        self.header_length == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn take(&mut self, input: &mut &[u8], bounds: Bounds) -> Result<Option<Taken>, Failure> {
        let (header, left) = match self.frame.take() {
            Some(frame) => frame,
            None => match self.begin(input, bounds)? {
                Some(frame) => frame,
                None => return Ok(None),
            },
        };
        let is_control = matches!(header.opcode, OpCode::Control(_));
        let into = match &mut self.message {
            Some((_, message)) if !is_control => message,
            _ => &mut self.control,
        };
        let (now, later) = input.split_at(left.min(input.len()));
        let start = into.len();
        into.extend_from_slice(now);
        unmask(&mut into[start..], header.mask.unwrap_or_default());
        *input = later;
        if now.len() < left {
            // What comes next begins at another byte of the mask.
            let mask = header.mask.map(|mut mask| {
                mask.rotate_left(now.len() % 4);
                mask
            });
            self.frame = Some((FrameHeader { mask, ..header }, left - now.len()));
            return Ok(None);
        }
        if is_control {
            return Ok(Some((header.opcode, std::mem::take(&mut self.control))));
        }
        let message = if header.is_final { self.message.take() } else { None };
        Ok(message.map(|(kind, message)| (OpCode::Data(kind), message)))
    }

    /// Reads a frame's header, once it is whole.
    fn begin(&mut self, input: &mut &[u8], bounds: Bounds) -> Result<Option<(FrameHeader, usize)>, Failure> {
        let held = self.header_length;
        let copied = input.len().min(LONGEST_HEADER - held);
        self.header[held..held + copied].copy_from_slice(&input[..copied]);
        let mut cursor = Cursor::new(&self.header[..held + copied]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Failure::Protocol)? else {
            self.header_length += copied;
            input.advance(copied);
            return Ok(None);
        };
        input.advance(cursor.position() as usize - held);
        self.header_length = 0;
        let length = checked(&header, length, bounds.frame)?;
        if let OpCode::Data(kind) = header.opcode {
            let message = match (kind, &mut self.message) {
                (Data::Continue, Some((_, message))) => message,
                (Data::Text | Data::Binary, message @ None) => {
                    &mut message.insert((kind, Vec::with_capacity(length.min(TRUSTED)))).1
                }
                _ => return Err(Failure::Protocol),
            };
            if message.len() + length > bounds.message {
                return Err(Failure::TooBig);
            }
        }
        Ok(Some((header, length)))
    }
}

/// A Close frame's code and reason. A code that may not be sent is answered as what it is.
fn close(payload: Vec<u8>) -> Result<Option<CloseFrame>, Failure> {
    let mut payload = Bytes::from(payload);
    if payload.is_empty() {
        return Ok(None);
    }
    let code = CloseCode::from(payload.try_get_u16().map_err(|_| Failure::Protocol)?);
    let reason = Utf8Bytes::try_from(payload).map_err(|_| Failure::NotUtf8)?;
    Ok(Some(match code.is_allowed() {
        true => CloseFrame { code, reason },
        false => CloseFrame { code: CloseCode::Protocol, reason: Utf8Bytes::from_static("Protocol violation") },
    }))
}

/// RFC 6455 section 5.3.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u32::from_ne_bytes(mask);
    let mut words = payload.chunks_exact_mut(4);
    for bytes in &mut words {
        let bytes: &mut [u8; 4] = bytes.try_into().expect("there are four");
        *bytes = (u32::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
