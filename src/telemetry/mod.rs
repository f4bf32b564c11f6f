//! What operators see: metrics (one list) and logs.

pub mod log;
pub mod metrics;
