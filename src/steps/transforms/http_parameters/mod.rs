//! Parameter mappings of HTTP APIs: what changes about a request on its way to the backend, and about the
//! answer on its way back.
//!
//! `key` reads what a mapping does (`append:header.X-Name`), `value` what it puts there (`$request.body.name`);
//! `request` and `response` apply them in the file's order, `query` to the text of a query. Values are taken from
//! what the client sent and the backend answered, never from what an earlier mapping wrote. A value that is
//! empty leaves everything as it was. On WebSocket routes `parameters` does this in AWS's older words, which
//! are understood here as well: `integration.request.header.X` is `overwrite:header.X`.

mod key;
mod query;
pub mod request;
pub mod response;
mod value;

pub use super::parameters::Error;
pub use request::{Outgoing, RequestParameters};
pub use response::{Answered, ResponseParameters};

#[cfg(test)]
mod tests;
