//! JWTs: who the caller is, by a token that somebody trusted has signed.
//!
//! `keys` are what tokens are verified with, `token` is the one order in which a token is asked, and `invalid` says
//! to the caller what was wrong with it. `issuer` keeps the keys of an issuer that publishes them. `claims` reads what
//! a good token says.

pub mod claims;
mod invalid;
pub mod issuer;
pub mod keys;
#[cfg(test)]
#[path = "samples_tests.rs"]
mod samples;
mod token;

pub use invalid::{Invalid, insufficient_scope};
pub use issuer::{Issuer, Issuers, Metrics, Source};
pub use jsonwebtoken::Algorithm;
pub use keys::KeySet;
pub use token::{Rules, Unverified, Verified, verify};
