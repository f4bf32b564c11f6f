//! One client's connection, as everyone but its socket's task sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::outbox::Outbox;
use crate::model::client::Client;
use crate::model::clock::{Tick, Timestamp};

pub struct Connection {
    pub client: Client,
    pub outbox: Outbox,
    opened: Tick,
    /// The last data message either way.
    last_active: AtomicU64,
    /// When the idle timeout began to run: as `last_active`, but moved on while the socket is not read.
    idle_since: AtomicU64,
    /// The last pong, or the ping that is still without one (then the lowest bit is set).
    heartbeat: AtomicU64,
    /// Messages taken from the socket and not yet answered.
    in_flight: AtomicU32,
    pub traffic: Traffic,
    /// The number of the last message's route; `NO_ROUTE` before the first.
    last_route: AtomicU32,
    last_error: Mutex<Option<Arc<LastError>>>,
}

/// What a connection has carried.
#[derive(Default)]
pub struct Traffic {
    pub messages_in: AtomicU32,
    pub messages_out: AtomicU32,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

/// What went wrong last on a connection.
pub struct LastError {
    pub at: Timestamp,
    pub text: String,
}

const NO_ROUTE: u32 = u32::MAX;

/// Where the exchange of server pings and pongs stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Heartbeat {
    QuietSince(Tick),
    AwaitingPongSince(Tick),
}

impl Connection {
    pub fn new(client: Client) -> Self {
        let now = Tick::now();
        Self {
            client,
            outbox: Outbox::default(),
            opened: now,
            last_active: AtomicU64::new(now.0),
            idle_since: AtomicU64::new(now.0),
            heartbeat: AtomicU64::new(now.0 << 1),
            in_flight: AtomicU32::new(0),
            traffic: Traffic::default(),
            last_route: AtomicU32::new(NO_ROUTE),
            last_error: Mutex::default(),
        }
    }

    /// A data message came, or was fully written to the socket.
    pub fn touch(&self, now: Tick) {
        self.last_active.store(now.0, Relaxed);
        self.idle_since.store(now.0, Relaxed);
    }

    /// A control frame came on a stage with `idle_counts_pings`.
    pub fn postpone_idle(&self, now: Tick) {
        self.idle_since.store(now.0, Relaxed);
    }

    /// The socket was not read for this long, so its deadlines stand still for as long.
    pub fn pause_deadlines(&self, pause: Duration) {
        let pause = pause.as_millis() as u64;
        self.idle_since.fetch_add(pause, Relaxed);
        self.heartbeat.fetch_add(pause << 1, Relaxed);
    }

    pub fn age(&self, now: Tick) -> Duration {
        now.since(self.opened)
    }

    pub fn idle_for(&self, now: Tick) -> Duration {
        now.since(Tick(self.idle_since.load(Relaxed)))
    }

    pub fn last_active_at(&self) -> Timestamp {
        let age = Tick::now().since(Tick(self.last_active.load(Relaxed)));
        Timestamp::now().minus(age).max(self.client.connected_at)
    }

    pub fn heartbeat(&self) -> Heartbeat {
        let word = self.heartbeat.load(Relaxed);
        if word & 1 == 1 {
            Heartbeat::AwaitingPongSince(Tick(word >> 1))
        } else {
            Heartbeat::QuietSince(Tick(word >> 1))
        }
    }

    pub fn ping_sent(&self, now: Tick) {
        self.heartbeat.store(now.0 << 1 | 1, Relaxed);
    }

    pub fn pong_received(&self, now: Tick) {
        self.heartbeat.store(now.0 << 1, Relaxed);
    }

    /// A message came, of so many bytes.
    pub fn note_message(&self, length: usize) {
        self.traffic.messages_in.fetch_add(1, Relaxed);
        self.traffic.bytes_in.fetch_add(length as u64, Relaxed);
    }

    /// Messages were written to the socket.
    pub fn note_written(&self, messages: u32, bytes: usize) {
        self.traffic.messages_out.fetch_add(messages, Relaxed);
        self.traffic.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// The route that a message took, by its number.
    pub fn note_route(&self, number: u32) {
        self.last_route.store(number, Relaxed);
    }

    pub fn last_route(&self) -> Option<u32> {
        Some(self.last_route.load(Relaxed)).filter(|number| *number != NO_ROUTE)
    }

    pub fn note_error(&self, at: Timestamp, text: String) {
        *self.last_error.lock() = Some(Arc::new(LastError { at, text }));
    }

    pub fn last_error(&self) -> Option<Arc<LastError>> {
        self.last_error.lock().clone()
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    pub fn message_taken(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub fn message_answered(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }
}
