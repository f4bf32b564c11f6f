//! What is changed about a call on its way to the backend, and about the answer on its way back.
//!
//! Parameter mappings (`parameters`) fill headers, query and path of the request; they leave bodies alone.

pub mod parameters;
