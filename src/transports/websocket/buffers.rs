//! Why an idle socket costs next to nothing: the adapter between a TCP socket and its codec.
//!
//! The codec (tungstenite) is given a read buffer of 512 bytes, because it is allocated for the life
//! of the connection. So that a large frame does not cost hundreds of reads, this adapter reads into
//! one 64 KiB scratch buffer per thread, hands the codec what fits, and keeps the rest only until the
//! codec has taken it. It also follows the frames that it hands out, so that the socket's task knows
//! when the codec stands between two messages and may be made anew: tungstenite keeps the space of
//! the largest frame it has seen, in and out, for as long as it lives.

use std::cell::RefCell;
use std::io::{self, Cursor, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

use crate::connections::Wire;
use crate::model::limits;

const SCRATCH: usize = 64 * 1024;

/// The longest frame header: two bytes, eight of length, four of mask.
const HEADER: usize = 14;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// What reads and writes the frames of one socket.
pub type Codec = WebSocketStream<Buffered<Wire>>;

/// The codec's settings for one socket.
pub fn codec(max_message: usize, max_frame: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(512)
        // Frames are gathered up to here before a write; a flush follows when the outbox is empty.
        .write_buffer_size(4096)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_frame))
}

/// A socket that reads in large pieces and hands out small ones.
pub struct Buffered<S> {
    socket: S,
    /// Read from the socket and not yet taken by the codec. Empty, and without storage, when idle.
    rest: Bytes,
    follower: Follower,
    stopped: bool,
}

impl<S> Buffered<S> {
    /// `already_read` is what came behind the handshake in the same packet.
    pub fn new(socket: S, already_read: Bytes) -> Self {
        Self { socket, rest: already_read, follower: Follower::default(), stopped: false }
    }

    /// From now on only what was already read is handed out: the gateway stops.
    pub fn stop_reading(&mut self) {
        self.stopped = true;
    }

    pub fn resume_reading(&mut self) {
        self.stopped = false;
    }

    /// The codec keeps space for a large frame that it no longer holds.
    pub fn may_renew_codec(&self) -> bool {
        self.follower.large && self.is_between_messages()
    }

    pub fn is_between_messages(&self) -> bool {
        self.rest.is_empty() && self.follower.is_between_messages()
    }

    /// A large frame went out.
    pub fn note_written(&mut self, length: usize) {
        self.follower.large |= length > limits::LARGE_FRAME;
    }

    pub fn codec_renewed(&mut self) {
        self.follower.large = false;
    }

    pub fn into_inner(self) -> S {
        self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Buffered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            let length = this.rest.len().min(buf.remaining());
            let piece = this.rest.split_to(length);
            if this.rest.is_empty() {
                this.rest = Bytes::new();
            }
            this.follower.follow(&piece);
            buf.put_slice(&piece);
            return Poll::Ready(Ok(()));
        }
        if this.stopped {
            // Nobody waits for this: the task that stops the gateway closes the socket.
            return Poll::Pending;
        }
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut scratch = ReadBuf::new(scratch);
            std::task::ready!(Pin::new(&mut this.socket).poll_read(cx, &mut scratch))?;
            let read = scratch.filled();
            let (now, later) = read.split_at(read.len().min(buf.remaining()));
            this.follower.follow(now);
            buf.put_slice(now);
            if !later.is_empty() {
                this.rest = Bytes::copy_from_slice(later);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Buffered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Follows frame headers through the bytes that the codec was given.
#[derive(Default)]
struct Follower {
    /// The beginning of a header that is not whole yet.
    header: [u8; HEADER],
    header_length: u8,
    /// What is still to come of the current frame's payload.
    payload_left: u64,
    in_fragmented_message: bool,
    large: bool,
    /// What came is no WebSocket frame; the codec will say so.
    lost: bool,
}

impl Follower {
    fn is_between_messages(&self) -> bool {
        !self.lost && self.header_length == 0 && self.payload_left == 0 && !self.in_fragmented_message
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            let skipped = self.payload_left.min(bytes.len() as u64);
            self.payload_left -= skipped;
            bytes.advance(skipped as usize);
            if bytes.is_empty() {
                return;
            }
            let held = usize::from(self.header_length);
            let copied = bytes.len().min(self.header.len() - held);
            self.header[held..held + copied].copy_from_slice(&bytes[..copied]);
            let mut cursor = Cursor::new(&self.header[..held + copied]);
            match FrameHeader::parse(&mut cursor) {
                Ok(Some((header, length))) => {
                    let header_length = cursor.position() as usize;
                    bytes.advance(header_length - held);
                    self.header_length = 0;
                    self.payload_left = length;
                    self.large |= length > limits::LARGE_FRAME as u64;
                    // Control frames may stand between the fragments of a message.
                    if matches!(header.opcode, tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode::Data(_))
                    {
                        self.in_fragmented_message = !header.is_final;
                    }
                }
                Ok(None) if copied == bytes.len() => {
                    self.header_length = (held + copied) as u8;
                    return;
                }
                _ => self.lost = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    use super::*;

    fn frame(opcode: OpCode, is_final: bool, length: usize) -> Vec<u8> {
        let mut frame = Frame::message(vec![b'x'; length], opcode, is_final);
        frame.header_mut().mask = Some([1, 2, 3, 4]);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).expect("a Vec takes all");
        bytes
    }

    /// Feeds the bytes in pieces of every size and looks after each whole frame.
    fn check(frames: &[(Vec<u8>, bool)], large: bool) {
        for size in [1, 2, 3, 7, 13, 512, 100_000] {
            let mut follower = Follower::default();
            for (frame, between) in frames {
                for piece in frame.chunks(size) {
                    follower.follow(piece);
                }
                assert_eq!(follower.is_between_messages(), *between, "pieces of {size}");
            }
            assert_eq!(follower.large, large);
        }
    }

    #[test]
    fn the_follower_knows_when_a_message_is_whole() {
        let (text, more) = (OpCode::Data(Data::Text), OpCode::Data(Data::Continue));
        let ping = OpCode::Control(Control::Ping);
        check(&[(frame(text, true, 5), true)], false);
        check(&[(frame(text, true, 0), true)], false);
        check(&[(frame(text, true, 300), true), (frame(text, true, 70_000), true)], true);
        check(&[(frame(text, false, 5), false), (frame(ping, true, 3), false), (frame(more, true, 1), true)], false);
        let mut half = frame(text, true, 5);
        half.pop();
        check(&[(half, false)], false);
    }
}
