//! Throttles: how much may come from one connection, from one address, on one API key, to one route, through the whole
//! gateway.
//!
//! `bucket` is the one kind of throttle there is, `addresses` keeps some of them for each client address, `api_keys`
//! says whose key a caller shows and what its usage plan grants, and `meters` counts what was used.
//!
//! A call that passes several buckets takes from the narrowest first, its connection's or its address's, then the
//! route's, then the gateway's, as at AWS. What a bucket gave is not put back when a later one refuses. In this order
//! that matters little: a flood is stopped at its own bucket and costs the wider ones nothing, and while a wide bucket
//! is empty, what calls take from the narrow ones would have helped none of them.

mod addresses;
pub mod api_keys;
mod bucket;
pub mod meters;

pub use self::addresses::{Addresses, Limits, Place, Refused};
pub use self::bucket::{Bucket, Rate, Throttled, Unusable};
