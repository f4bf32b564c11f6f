//! Reaching out: `backends.rs` calls what routes name, `sigv4/` checks the signatures of those who call us.

pub mod backends;
pub mod sigv4;
