//! HTTP clients: `request.rs` makes a call of what came in, `reply.rs` an answer of what the engine gave
//! back, `passthrough.rs` carries connections on that were upgraded to another protocol, and
//! `compression.rs` makes answers smaller for those who ask for it.

mod compression;
mod passthrough;
mod reply;
mod request;

pub use reply::{not_found, unknown_host};
pub use request::{Arrived, answer, carries_upgrade, has_route};
