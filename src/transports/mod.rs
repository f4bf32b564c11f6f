//! How a call arrives and its answer leaves: `websocket/` for clients, `callback/` for backends that
//! push, `operations.rs` for those who watch. They do not know each other.

pub mod callback;
pub mod http;
pub mod operations;
pub mod websocket;
