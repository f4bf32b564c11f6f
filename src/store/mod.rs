//! State that outlives a call: `usage` keeps on disk what API keys used.

pub mod usage;
