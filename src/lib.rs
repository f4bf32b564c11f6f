//! Livegate: a WebSocket-first real-time API gateway.
//!
//! A client calls, the gateway finds the route, walks a few steps, asks a backend, and answers.
//! Folders stand on floors; each imports only from those below its own.
//!
//! | floor | folder | holds |
//! |---|---|---|
//! | 7 | `server` | listeners, reload, shutdown; puts everything together |
//! | 6 | `transports` | how a call arrives and its answer leaves |
//! | 5 | `engine` | the one place that knows the order of things |
//! | 4 | `api` | what routes.toml describes, checked and ready to serve |
//! | 3 | `connections`, `steps` | the connection manager; what may happen to a call |
//! | 2 | `outbound`, `store` | the way to backends, events, signatures; what outlives the process |
//! | 1 | `expressions`, `telemetry` | the small languages; metrics, logs, traces, live events |
//! | 0 | `model` | the words of the domain |
//!
//! `cli`, with one file for each verb, stands on top.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod connections;
pub mod engine;
pub mod expressions;
pub mod model;
pub mod outbound;
pub mod server;
pub mod steps;
pub mod store;
pub mod telemetry;
pub mod transports;
