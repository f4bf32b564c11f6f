//! Messages being answered: in the socket's own task, in tasks of their own, or in a line where the stage wants them in
//! order.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;

use parking_lot::Mutex;

use crate::api::stage::Stage;
use crate::connections::{Connection, Outgoing};
use crate::engine::Engine;
use crate::model::call::Incoming;
use crate::model::clock::Tick;

/// One message being answered. Dropped in a panic, it answers with the error frame: the client is
/// not left waiting, and the connection goes on.
pub struct InFlight {
    engine: Arc<Engine>,
    connection: Arc<Connection>,
    /// As it was when the message came.
    stage: Arc<Stage>,
    message: Incoming,
    answered: bool,
    /// Whoever answers is not the socket's own task, which has to be told.
    wakes: bool,
}

/// A message that is answered within the socket's task.
pub type Here = Pin<Box<dyn Future<Output = ()> + Send>>;

impl InFlight {
    pub fn new(engine: &Arc<Engine>, connection: &Arc<Connection>, stage: &Arc<Stage>, message: Incoming) -> Self {
        stage.metrics.in_flight.up(1);
        let (engine, connection, stage) = (engine.clone(), connection.clone(), stage.clone());
        Self { engine, connection, stage, message, answered: false, wakes: true }
    }

    /// Has it answered by whoever polls this. Most connections have one message in flight at a time, and then neither a
    /// task has to be made for it nor the socket's to be woken.
    pub fn here(mut self) -> Here {
        self.wakes = false;
        // A panic ends this call and no other.
        Box::pin(AssertUnwindSafe(self.answer()).catch_unwind().map(drop))
    }

    /// Has it answered beside all others.
    pub fn start(self) {
        let tasks = self.engine.tasks.clone();
        // Boxed, or the runtime moves the whole state of a backend call several times.
        tasks.spawn(Box::pin(self.answer()));
    }

    /// Has it answered after those before it.
    pub fn start_in(self, line: &Arc<Mutex<Line>>) {
        let tasks = self.engine.tasks.clone();
        let was_moving = {
            let mut line = line.lock();
            line.waiting.push_back(self);
            std::mem::replace(&mut line.moving, true)
        };
        if !was_moving {
            tasks.spawn(Line::move_up(line.clone()));
        }
    }

    async fn answer(mut self) {
        let reply = self.engine.message(&self.stage, &self.connection, &self.message).await;
        self.answered = true;
        self.reply(reply);
    }

    fn reply(&self, reply: Option<Outgoing>) {
        let Some(reply) = reply else { return };
        let length = reply.body.len();
        // A client that has left needs no answer.
        if self.connection.outbox.reply(reply, &self.stage.limits.outbox(), Tick::now()).is_ok() {
            self.stage.metrics.queued(length);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.answered {
            self.reply(Some(self.engine.message_panicked(&self.stage, &self.connection, &self.message)));
        }
        self.stage.metrics.in_flight.down(1);
        self.connection.message_answered();
        if self.wakes {
            // It may read again, or close if it waited for this answer.
            self.connection.outbox.wake();
        }
    }
}

/// The messages of one connection in the order they came, answered one by one.
#[derive(Default)]
pub struct Line {
    waiting: VecDeque<InFlight>,
    moving: bool,
}

impl Line {
    /// Answers what waits until nothing does.
    async fn move_up(line: Arc<Mutex<Line>>) {
        while let Some(message) = Self::next(&line) {
            // In a task of its own: should it panic, those behind it still have their turn.
            let tasks = message.engine.tasks.clone();
            let _ = tasks.spawn(Box::pin(message.answer())).await;
        }
    }

    fn next(line: &Mutex<Line>) -> Option<InFlight> {
        let mut line = line.lock();
        let next = line.waiting.pop_front();
        line.moving = next.is_some();
        if next.is_none() {
            line.waiting = VecDeque::new();
        }
        next
    }
}
