//! The connection manager: client sockets by connection id.
//!
//! `connection.rs` is what is known of one, `outbox.rs` its bounded queue, and this file the map of
//! all that this node holds. One task owns each socket (`transports/websocket/socket.rs`); everyone
//! else reaches it through the outbox. A connection stands in the map from the moment its `$connect`
//! was answered with 2xx until its close begins: what is not in the map is gone (410).

pub mod connection;
pub mod outbox;
pub mod wire;

use std::sync::Arc;

use dashmap::DashMap;

use crate::model::clock::Tick;
use crate::model::close::Close;
use crate::model::id::{ByItself, ConnectionId};
pub use connection::{Connection, Heartbeat, Traffic};
pub use outbox::{Bounds, Error, Outgoing, When};
pub use wire::{Handover, Peer, Slot, Speaking, Wire, discard};

#[derive(Default)]
pub struct Connections {
    here: DashMap<ConnectionId, Arc<Connection>, ByItself>,
}

impl Connections {
    pub fn open(&self, connection: Arc<Connection>) {
        self.here.insert(connection.client.id, connection);
    }

    /// Takes a connection out of the map: its close has begun.
    pub fn remove(&self, id: &ConnectionId) {
        self.here.remove(id);
    }

    pub fn find(&self, id: &ConnectionId) -> Result<Arc<Connection>, Error> {
        // The reference is cloned out at once: a guard held longer would block its shard.
        self.here.get(id).map(|held| held.value().clone()).ok_or(Error::Gone)
    }

    /// Queues a push; `Ok` means handed to the connection, not received by the client.
    pub fn send(&self, connection: &Connection, message: Outgoing, bounds: &Bounds) -> Result<(), Error> {
        connection.outbox.push(message, bounds, Tick::now())
    }

    /// Closes a connection after what is queued for it; it is gone for everyone at once.
    pub fn close(&self, connection: &Connection, close: Close) {
        self.remove(&connection.client.id);
        connection.outbox.close(close, When::AfterPushes);
    }

    /// All connections held now, as a snapshot: no lock is held while the caller works through it.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.here.iter().map(|held| held.value().clone()).collect()
    }

    /// Looks at each connection in place. The visitor must not open or remove connections.
    pub fn visit(&self, mut visitor: impl FnMut(&Connection)) {
        self.here.iter().for_each(|held| visitor(held.value()));
    }

    pub fn count(&self) -> usize {
        self.here.len()
    }
}
