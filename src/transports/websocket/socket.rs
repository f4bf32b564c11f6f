//! The one task that owns a socket: frames → calls, outbox → frames.
//!
//! Each turn drains the outbox, flushes once, and reads what has come, unless as many messages as
//! allowed are already being answered, or the outbox is full: then the socket is not read, and TCP
//! pushes back on the client. A call of a backend is polled beside the socket, so pings are answered and a close is
//! noticed while it takes its time; further calls meanwhile have tasks of their own. There is no timer here: the
//! sweeper keeps the deadlines.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

use super::codec::{Bounds, Codec, Failure, Message};
use super::farewell::{self, Leaving};
use super::in_flight::{Here, InFlight, Line};
use crate::api::stage::{Ordering, Stage};
use crate::connections::{Connection, When, Wire};
use crate::engine::Engine;
use crate::model::call::Incoming;
use crate::model::clock::Tick;
use crate::model::close::Close;
use crate::model::id::Id;
use crate::model::limits;
use crate::model::refusal::{Cause, Kind, Refusal};
use crate::steps::throttles::{Bucket, Place, Rate, Throttled};
use crate::telemetry::tail::Direction;

/// How a connection came to its end.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// The client sent a Close frame; its answer waits in the codec.
    ByClient(Close),
    /// The client broke a rule.
    ByError(Close),
    /// The gateway closes, for its own reasons or a backend's.
    Asked(Close, When),
    /// The socket is gone.
    Lost,
}

/// Carries a connection from its handshake to its `$disconnect`. No `async fn`, because the future of one keeps its
/// arguments beside what is made of them, and there is one for each idle socket.
pub fn run(
    engine: Arc<Engine>,
    connection: Arc<Connection>,
    stage: Arc<Stage>,
    place: Place,
    (socket, already_read): (Wire, Bytes),
) -> impl Future<Output = ()> + Send {
    let mut departure = Departure { engine: engine.clone(), connection: connection.clone(), owed: true, _place: place };
    let generation = engine.generation();
    let mut socket = Socket {
        engine,
        connection,
        stage,
        generation,
        codec: Codec::new(socket, already_read),
        here: None,
        line: None,
        unflushed: false,
        unconfirmed: 0,
        unconfirmed_bytes: 0,
        blocked: false,
        drained: true,
        held_back: false,
        buckets: None,
    };
    socket.follow_limits();
    async move {
        match poll_fn(|cx| socket.poll(cx)).await {
            // Nobody is there to say goodbye to, and nothing is waited for.
            Ended::Lost if socket.here.is_none() && socket.stage.limits.ordering != Ordering::Connection => {
                drop(socket);
                departure.take(Close::LOST);
            }
            // Boxed, because an idle socket should not keep room for its end.
            ended => Box::pin(leave(departure, socket, ended)).await,
        }
    }
}

async fn leave(mut departure: Departure, socket: Socket, ended: Ended) {
    departure.engine.connections.remove(&departure.connection.client.id);
    let Socket { codec, stage, here, unconfirmed, unconfirmed_bytes, .. } = socket;
    if let Some(here) = here {
        // The backend has been asked, and is heard.
        let connection = departure.connection.clone();
        departure.engine.tasks.spawn(async move {
            here.await;
            connection.outbox.wake();
        });
    }
    let close = ended.close();
    let deadline = departure.engine.deadline.clone();
    let unconfirmed = (unconfirmed, unconfirmed_bytes);
    let (engine, connection) = (departure.engine.clone(), departure.connection.clone());
    let leaving = Leaving { engine: &engine, connection: &connection, stage: &stage, unconfirmed };
    tokio::select! {
        () = end(codec, ended, &leaving) => {}
        () = farewell::out_of_time(&deadline) => {}
    }
    departure.take(close);
}

/// Everything between the last message and the `$disconnect`.
async fn end(codec: Codec<Wire>, ended: Ended, leaving: &Leaving<'_>) {
    let Leaving { connection, stage, .. } = leaving;
    match ended {
        Ended::ByClient(_) => farewell::answer_close(codec).await,
        Ended::ByError(close) => farewell::refuse(codec, &close).await,
        Ended::Asked(close, when) => farewell::go(codec, leaving, &close, when).await,
        Ended::Lost => drop(codec),
    }
    if stage.limits.ordering == Ordering::Connection {
        // What the client had said comes before the news that it left.
        poll_fn(|cx| {
            connection.outbox.register(cx.waker());
            if connection.in_flight() == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Ended {
    /// As `$disconnect` tells it.
    fn close(&self) -> Close {
        match self {
            Ended::ByClient(close) | Ended::ByError(close) | Ended::Asked(close, _) => close.clone(),
            Ended::Lost => Close::LOST,
        }
    }
}

/// Owes the backend its `$disconnect`, even if this task panics.
struct Departure {
    engine: Arc<Engine>,
    connection: Arc<Connection>,
    owed: bool,
    /// One of those that its client's address may have.
    _place: Place,
}

impl Departure {
    fn take(&mut self, close: Close) {
        self.owed = false;
        self.engine.disconnected(self.connection.clone(), close);
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if self.owed {
            self.take(Close::INTERNAL);
        }
    }
}

struct Socket {
    engine: Arc<Engine>,
    connection: Arc<Connection>,
    stage: Arc<Stage>,
    /// Which reload `stage` is from.
    generation: u64,
    codec: Codec<Wire>,
    /// A message that is being answered in this task.
    here: Option<Here>,
    /// Messages that wait for the one before them; only with `ordering = "connection"`.
    line: Option<Arc<Mutex<Line>>>,
    /// Something was given to the codec since the last whole flush.
    unflushed: bool,
    /// Data messages given to the codec since the last whole flush.
    unconfirmed: u32,
    unconfirmed_bytes: usize,
    /// The socket took no more at the last attempt.
    blocked: bool,
    /// The codec has given out every whole message that it had.
    drained: bool,
    /// Reading stopped for want of room, not of messages.
    held_back: bool,
    /// What the connection may send, where the stage has limits.
    buckets: Option<Box<Buckets>>,
}

/// What one connection may send.
struct Buckets {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Buckets {
    fn take(&self, length: usize) -> Result<(), Refusal> {
        let refused = |cause| {
            move |throttled: Throttled| {
                Kind::Throttled.because("the connection sends too much").by(cause).until(throttled.retry_after)
            }
        };
        if let Some(messages) = &self.messages {
            messages.take().map_err(refused(Cause::ConnectionMessages))?;
        }
        if let Some(bytes) = &self.bytes {
            bytes.take_many(length as u64).map_err(refused(Cause::ConnectionBytes))?;
        }
        Ok(())
    }
}

impl Socket {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.connection.outbox.register(cx.waker());
        self.follow_reload();
        self.answer(cx);
        if self.write(cx).is_err() {
            return Poll::Ready(self.last_words(cx));
        }
        let closing = self.connection.outbox.closing();
        match &closing {
            Some((_, When::Now | When::AfterPushes)) => {}
            _ => {
                let stop = closing.is_some() || self.engine.is_draining();
                if let Some(ended) = self.read(cx, stop) {
                    return Poll::Ready(ended);
                }
            }
        }
        if let Some((close, when)) = closing
            && (when != When::AfterReplies || self.drained && self.connection.in_flight() == 0)
        {
            return Poll::Ready(Ended::Asked(close, when));
        }
        if self.unflushed && self.write(cx).is_err() {
            return Poll::Ready(self.last_words(cx));
        }
        if self.held_back && self.may_read() {
            // What was in the way has left since, and nothing else would wake this task to read on.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Lets the call of this task go on.
    fn answer(&mut self, cx: &mut Context<'_>) {
        if let Some(here) = &mut self.here
            && here.as_mut().poll(cx).is_ready()
        {
            self.here = None;
            // There may be a reply.
            self.unflushed = true;
        }
    }

    /// Nothing can be written any more. What the client had said before it left is still heard, and why it left.
    fn last_words(&mut self, cx: &mut Context<'_>) -> Ended {
        while self.may_read() {
            let Poll::Ready(Ok(message)) = self.codec.poll_next(cx, bounds(&self.stage)) else { break };
            if let Some(ended) = self.receive(message) {
                return ended;
            }
        }
        Ended::Lost
    }

    /// Takes the stage as it is now: limits of live sockets change with a reload.
    fn follow_reload(&mut self) {
        let generation = self.engine.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        if let Some(stage) = self.engine.stage_of(&self.connection.client) {
            self.stage = stage;
            self.follow_limits();
        }
    }

    /// Buckets of the stage's rates; those that have them already stay as full as they are.
    fn follow_limits(&mut self) {
        let (messages, bytes) = (self.stage.limits.messages, self.stage.limits.bytes);
        if messages.is_none() && bytes.is_none() {
            self.buckets = None;
            return;
        }
        let kept = self.buckets.take().map_or((None, None), |buckets| (buckets.messages, buckets.bytes));
        let bucket = |rate: Option<Rate>, kept: Option<Bucket>| {
            let kept = kept.filter(|bucket| Some(bucket.rate()) == rate);
            kept.or_else(|| rate.map(Bucket::new))
        };
        self.buckets = Some(Box::new(Buckets { messages: bucket(messages, kept.0), bytes: bucket(bytes, kept.1) }));
    }

    /// Outbox → codec → socket, as far as the socket takes it.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let (mut taken, mut taken_messages) = (0, 0);
        let (mut confirmed, mut messages, mut bytes) = (false, 0, 0);
        let outcome = loop {
            match self.codec.poll_ready(cx) {
                Poll::Pending => {
                    self.blocked = true;
                    break Ok(());
                }
                Poll::Ready(Err(error)) => break Err(error),
                // What was in its way has been written in full.
                Poll::Ready(Ok(())) => confirmed |= std::mem::take(&mut self.blocked) && self.unconfirmed > 0,
            }
            if confirmed && self.unconfirmed > 0 {
                messages += std::mem::take(&mut self.unconfirmed);
                bytes += std::mem::take(&mut self.unconfirmed_bytes);
            }
            let Some(frame) = self.connection.outbox.take() else {
                if self.unflushed {
                    match self.codec.poll_flush(cx) {
                        Poll::Pending => {}
                        Poll::Ready(Err(error)) => break Err(error),
                        Poll::Ready(Ok(())) => {
                            self.unflushed = false;
                            confirmed |= self.unconfirmed > 0;
                            messages += std::mem::take(&mut self.unconfirmed);
                            bytes += std::mem::take(&mut self.unconfirmed_bytes);
                        }
                    }
                }
                break Ok(());
            };
            let (length, header) = (frame.payload().len(), frame.header());
            let is_whole = header.is_final && matches!(header.opcode, OpCode::Data(_));
            taken += length;
            taken_messages += usize::from(is_whole);
            self.unflushed = true;
            self.unconfirmed += u32::from(is_whole);
            self.unconfirmed_bytes += length;
            if matches!(header.opcode, OpCode::Data(_)) {
                self.engine.note_frame(&self.stage, &self.connection, Direction::Out, frame.payload());
            }
            self.codec.send(&frame);
        };
        if taken > 0 || taken_messages > 0 {
            self.stage.metrics.unqueued(taken, taken_messages);
        }
        if confirmed {
            self.stage.metrics.written(messages, bytes);
            self.connection.note_written(messages, bytes);
            self.connection.touch(Tick::now());
        }
        outcome
    }

    /// Socket → codec → calls, as far as the bounds allow. `stop` lets only through what was read before.
    fn read(&mut self, cx: &mut Context<'_>, stop: bool) -> Option<Ended> {
        if stop {
            self.codec.stop_reading();
        }
        for _ in 0..limits::MESSAGES_PER_TURN {
            self.held_back = !self.may_read();
            if self.held_back {
                return None;
            }
            match self.codec.poll_next(cx, bounds(&self.stage)) {
                Poll::Pending => {
                    self.drained = true;
                    return None;
                }
                Poll::Ready(Ok(message)) => {
                    self.drained = false;
                    if let Some(ended) = self.receive(message) {
                        return Some(ended);
                    }
                    self.answer(cx);
                }
                Poll::Ready(Err(failure)) => return Some(ended_by(failure)),
            }
        }
        // There is more, but other sockets want their turn.
        cx.waker().wake_by_ref();
        None
    }

    fn may_read(&self) -> bool {
        let limits = &self.stage.limits;
        self.connection.in_flight() < limits.max_in_flight && self.connection.outbox.has_room(&limits.outbox())
    }

    fn receive(&mut self, message: Message) -> Option<Ended> {
        let (body, binary) = match message {
            Message::Text(text) => (text, false),
            Message::Binary(_) if !self.stage.limits.binary => return Some(Ended::ByError(Close::BINARY)),
            Message::Binary(bytes) => (bytes, true),
            Message::Ping => {
                // The codec has its pong.
                self.unflushed = true;
                self.note_control();
                return None;
            }
            Message::Pong => {
                self.connection.pong_received(Tick::now());
                self.note_control();
                return None;
            }
            Message::Close(frame) => return Some(ended_by_client(frame)),
        };
        let now = Tick::now();
        self.connection.touch(now);
        let message = Incoming { id: Id::random(), body, binary };
        self.connection.note_message(message.body.len());
        self.engine.note_frame(&self.stage, &self.connection, Direction::In, &message.body);
        if let Some(buckets) = &self.buckets
            && let Err(refusal) = buckets.take(message.body.len())
        {
            let reply = self.engine.message_throttled(&self.stage, &self.connection, &message, &refusal);
            let length = reply.body.len();
            if self.connection.outbox.reply(reply, &self.stage.limits.outbox(), now).is_ok() {
                self.stage.metrics.queued(length);
                self.unflushed = true;
            }
            return None;
        }
        self.connection.message_taken();
        self.start(message);
        None
    }

    fn note_control(&self) {
        if self.stage.limits.idle_counts_pings {
            self.connection.postpone_idle(Tick::now());
        }
    }

    /// Has the message answered in this task, in one of its own, or after those before it.
    fn start(&mut self, message: Incoming) {
        let in_flight = InFlight::new(&self.engine, &self.connection, &self.stage, message);
        match self.stage.limits.ordering {
            Ordering::None if self.here.is_none() => self.here = Some(in_flight.here()),
            Ordering::None => in_flight.start(),
            Ordering::Connection => in_flight.start_in(self.line.get_or_insert_default()),
        }
    }
}

fn bounds(stage: &Stage) -> Bounds {
    Bounds { message: stage.limits.max_message, frame: stage.limits.max_frame }
}

fn ended_by_client(frame: Option<CloseFrame>) -> Ended {
    Ended::ByClient(match frame {
        Some(frame) => Close::by_client(frame.code.into(), &frame.reason),
        None => Close::NO_STATUS,
    })
}

fn ended_by(failure: Failure) -> Ended {
    failure.close().map_or(Ended::Lost, Ended::ByError)
}
