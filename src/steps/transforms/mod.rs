//! What is changed about a call on its way to the backend, and about the answer on its way back.
//!
//! Parameter mappings change headers, query and path of the request, on HTTP routes (`http_parameters`) also the
//! answer's headers and status, on WebSocket routes (`parameters`) the request alone. They leave bodies alone.

pub mod http_parameters;
pub mod parameters;
