//! What operators see: metrics (one list), their recent past (`history`), logs, where lines of access logs go (`sink`), live events
//! (`tail`) and traces (`tracer`).

pub mod history;
pub mod log;
pub mod metrics;
pub mod process;
pub mod sink;
pub mod tail;
pub mod timing;
pub mod tracer;
