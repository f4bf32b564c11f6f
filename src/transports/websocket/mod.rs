//! WebSocket clients: `upgrade.rs` settles the handshake, `socket.rs` is the one task that owns a
//! socket, `in_flight.rs` has its messages answered, `farewell.rs` closes it so that the Close
//! arrives, `codec.rs` reads and writes its frames, and `sweeper.rs` holds all of them to their deadlines
//! without a timer for each.

mod codec;
mod farewell;
mod in_flight;
pub mod socket;
pub mod sweeper;
pub mod upgrade;
