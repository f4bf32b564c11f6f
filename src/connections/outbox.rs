//! One socket's bounded queue of frames, for replies and pushes alike.
//!
//! A push that finds the queue full is refused, never made to wait, so no slow client delays
//! another. A reply is always taken: the socket is not read while the queue is full, so there can
//! be no more of them than messages in flight. The queue's storage goes when it is empty, because
//! most connections are idle most of the time.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::model::clock::Tick;
use crate::model::close::Close;

#[derive(Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the one task that owns the socket.
    socket: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    messages: usize,
    full_since: Option<Tick>,
    ping: bool,
    closing: Option<(Close, When)>,
    /// The socket is gone; what still comes is dropped.
    shut: bool,
}

/// One message on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub body: Bytes,
    /// Text must be UTF-8: who makes an `Outgoing` has checked it.
    pub binary: bool,
}

/// How much an outbox holds, and how a message is cut into frames.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes: usize,
    pub messages: usize,
    pub max_frame: usize,
}

/// When a close that the gateway decided on goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Messages in flight are answered first: the gateway stops, or the stage is gone.
    AfterReplies,
    /// Queued frames go first: a client told to go away drops what follows.
    AfterPushes,
    /// What is queued is dropped: the client does not read it anyway.
    Now,
}

/// Why a push was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no such connection is open")]
    Gone,
    #[error("the connection's outbox is full")]
    Full,
}

impl Outbox {
    /// Queues a push, or refuses it if the queue has no room for it.
    pub fn push(&self, message: Outgoing, bounds: &Bounds, now: Tick) -> Result<(), Error> {
        {
            let mut queue = self.queue.lock();
            if queue.shut {
                return Err(Error::Gone);
            }
            // One message always fits an empty queue, however small the operator made it.
            if queue.messages > 0 && queue.is_full_with(message.body.len(), bounds) {
                queue.full_since.get_or_insert(now);
                return Err(Error::Full);
            }
            queue.append(message, bounds.max_frame);
        }
        self.socket.wake();
        Ok(())
    }

    /// Queues a reply or an error frame; never refused (see above), unless the socket is gone. It is the socket's own
    /// task that does so; anybody else has to wake it.
    pub fn reply(&self, message: Outgoing, bounds: &Bounds, now: Tick) -> Result<(), Error> {
        let mut queue = self.queue.lock();
        if queue.shut {
            return Err(Error::Gone);
        }
        queue.append(message, bounds.max_frame);
        if queue.is_full_with(0, bounds) {
            queue.full_since.get_or_insert(now);
        }
        Ok(())
    }

    /// Asks the socket's task to close. The most urgent close wins, the first among equals.
    pub fn close(&self, close: Close, when: When) {
        {
            let mut queue = self.queue.lock();
            match &queue.closing {
                Some((_, earlier)) if *earlier >= when => return,
                _ => queue.closing = Some((close, when)),
            }
        }
        self.socket.wake();
    }

    pub fn closing(&self) -> Option<(Close, When)> {
        self.queue.lock().closing.clone()
    }

    /// Asks for a ping, ahead of what is queued.
    pub fn ping(&self) {
        self.queue.lock().ping = true;
        self.socket.wake();
    }

    /// The next frame to write.
    pub fn take(&self) -> Option<Frame> {
        let mut queue = self.queue.lock();
        if std::mem::take(&mut queue.ping) {
            return Some(Frame::ping(Bytes::new()));
        }
        let frame = queue.frames.pop_front()?;
        queue.bytes -= frame.payload().len();
        if frame.header().is_final {
            queue.messages -= 1;
        }
        queue.full_since = None;
        if queue.frames.is_empty() {
            queue.frames = VecDeque::new();
        }
        Some(frame)
    }

    /// The socket is gone: drops everything that is queued, and gives back how many bytes and messages that was.
    pub fn shut(&self) -> (usize, usize) {
        let mut queue = self.queue.lock();
        queue.shut = true;
        queue.frames = VecDeque::new();
        (std::mem::take(&mut queue.bytes), std::mem::take(&mut queue.messages))
    }

    /// Bytes and messages that wait.
    pub fn depth(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.bytes, queue.messages)
    }

    pub fn has_room(&self, bounds: &Bounds) -> bool {
        !self.queue.lock().is_full_with(0, bounds)
    }

    /// How long nothing has left a queue that was full.
    pub fn full_for(&self, now: Tick) -> Option<Duration> {
        self.queue.lock().full_since.map(|since| now.since(since))
    }

    /// The socket's task, before it looks at the queue and sleeps.
    pub fn register(&self, socket: &Waker) {
        self.socket.register(socket);
    }

    /// Something else that the socket's task waits for has happened.
    pub fn wake(&self) {
        self.socket.wake();
    }
}

impl Queue {
    fn is_full_with(&self, more: usize, bounds: &Bounds) -> bool {
        self.messages >= bounds.messages || self.bytes.saturating_add(more) > bounds.bytes
    }

    /// Cuts the message into frames of at most `max_frame`; they stay together in the queue.
    fn append(&mut self, message: Outgoing, max_frame: usize) {
        self.bytes += message.body.len();
        self.messages += 1;
        let mut rest = message.body;
        let mut kind = if message.binary { Data::Binary } else { Data::Text };
        loop {
            let piece = rest.split_to(rest.len().min(max_frame));
            let is_final = rest.is_empty();
            self.frames.push_back(Frame::message(piece, OpCode::Data(kind), is_final));
            if is_final {
                return;
            }
            kind = Data::Continue;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 10, messages: 3, max_frame: 4 };

    fn text(body: &'static str) -> Outgoing {
        Outgoing { body: Bytes::from_static(body.as_bytes()), binary: false }
    }

    #[test]
    fn a_full_outbox_refuses_by_bytes_and_by_messages() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(text("12345678"), &BOUNDS, Tick(1)), Ok(()));
        assert_eq!(outbox.push(text("123"), &BOUNDS, Tick(2)), Err(Error::Full));
        assert_eq!(outbox.push(text("1"), &BOUNDS, Tick(3)), Ok(()));
        assert_eq!(outbox.push(text(""), &BOUNDS, Tick(4)), Ok(()));
        assert_eq!(outbox.push(text(""), &BOUNDS, Tick(5)), Err(Error::Full));
        assert_eq!(outbox.full_for(Tick(12)), Some(Duration::from_millis(10)));
    }

    #[test]
    fn a_message_above_the_frame_limit_is_fragmented_in_order() {
        let outbox = Outbox::default();
        outbox.push(text("123456789"), &BOUNDS, Tick(1)).expect("room");
        let frames: Vec<_> = std::iter::from_fn(|| outbox.take())
            .map(|frame| (frame.header().opcode, frame.header().is_final, frame.payload().to_vec()))
            .collect();
        assert_eq!(
            frames,
            [
                (OpCode::Data(Data::Text), false, b"1234".to_vec()),
                (OpCode::Data(Data::Continue), false, b"5678".to_vec()),
                (OpCode::Data(Data::Continue), true, b"9".to_vec()),
            ]
        );
        assert!(outbox.has_room(&BOUNDS));
    }

    #[test]
    fn an_empty_message_is_one_empty_frame() {
        let outbox = Outbox::default();
        outbox.push(text(""), &BOUNDS, Tick(1)).expect("room");
        assert!(outbox.take().is_some_and(|frame| frame.is_empty() || frame.payload().is_empty()));
        assert!(outbox.take().is_none());
    }

    #[test]
    fn a_message_larger_than_the_outbox_fits_when_it_is_empty() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(text("0123456789abc"), &BOUNDS, Tick(1)), Ok(()));
        assert_eq!(outbox.push(text("x"), &BOUNDS, Tick(1)), Err(Error::Full));
    }

    #[test]
    fn the_most_urgent_close_wins() {
        let outbox = Outbox::default();
        outbox.close(Close::GOING_AWAY, When::AfterReplies);
        outbox.close(Close::SLOW_CONSUMER, When::Now);
        outbox.close(Close::DELETED, When::AfterPushes);
        assert_eq!(outbox.closing(), Some((Close::SLOW_CONSUMER, When::Now)));
    }
}
