//! How a call arrives and its answer leaves: `websocket/` for clients, `callback/` for backends that
//! push, `dashboard/` for those who watch. They do not know each other.

pub mod callback;
pub mod dashboard;
pub mod http;
pub mod websocket;
