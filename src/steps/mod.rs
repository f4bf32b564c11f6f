//! What may happen to a call: a folder for each kind of step. Steps do not know each other.

pub mod authorizers;
pub mod cors;
pub mod integrations;
pub mod origins;
pub mod resource_policies;
pub mod throttles;
pub mod transforms;
