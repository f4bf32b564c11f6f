//! Reaching out: `backends/` calls what routes name, `lambda/` words its events, `fetch.rs` gets what is off the hot
//! path, and `sigv4/` checks the signatures of those who call us.

pub mod backends;
pub mod fetch;
pub mod lambda;
pub mod sigv4;
