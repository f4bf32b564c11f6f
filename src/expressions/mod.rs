//! The small languages of `routes.toml`: pure functions from a text and a call to a text.
//!
//! `log_format` is a line of an access log, filled in when a call is over (`log_fields` has its variables).
//! `json_path` finds values in a message, `selection` makes a route key of them, `variables` fills them
//! into URIs and mock responses, and `target` into paths that stay paths. `variable` is a single one of those,
//! and `context_names` knows what `context.` may be followed by; `pieces` is the cut into literal text and
//! variables that `selection` and `variables` share, and `tree` what a JSONPath query looks into.
//! All of them are parsed once, when the file is loaded; what a client sends can no longer be an error.

pub mod context_names;
pub mod json_path;
mod log_fields;
pub mod log_format;
mod pieces;
pub mod scope;
pub mod selection;
pub mod source;
pub mod target;
mod tree;
mod variable;
pub mod variables;

/// Why a text of the operator's is none of these languages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Error {
    /// The byte of the parsed text at which the fault begins.
    pub at: usize,
    /// What was found, with the value in backticks.
    pub message: String,
    /// What would do.
    pub help: String,
}

impl Error {
    pub fn new(at: usize, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: help.into() }
    }

    /// The same error for a text in which the faulty part begins `offset` bytes later.
    pub fn moved(mut self, offset: usize) -> Self {
        self.at += offset;
        self
    }
}
