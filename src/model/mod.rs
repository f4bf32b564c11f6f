//! The words of the domain: plain data, no I/O, no async.

pub mod address;
pub mod answer;
pub mod body;
pub mod call;
pub mod client;
pub mod clock;
pub mod close;
pub mod forwarded;
pub mod headers;
pub mod id;
pub mod identity;
pub mod json;
pub mod limits;
pub mod lines;
pub mod origin;
pub mod periods;
pub mod problem;
pub mod record;
pub mod refusal;
pub mod request;
pub mod settings;
pub mod signature;
pub mod trace;
