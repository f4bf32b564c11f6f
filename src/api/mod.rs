//! What routes.toml describes: `file.rs` as written, `build.rs` from there to `gateway.rs`, which is
//! checked and ready to serve.

pub mod acme;
pub mod admission;
pub mod build;
pub mod directory;
pub mod file;
pub mod files;
pub mod gateway;
pub mod http_stage;
pub mod kept;
pub mod paths;
pub mod report;
pub mod routes;
mod secrets;
pub mod stage;
pub mod tls;
pub mod watch;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::model::problem::Problems;
use files::Files;
use kept::Kept;

/// A shorter value from the environment keeps nobody out, and hiding it would hide half of every message.
const SHORTEST_SECRET: usize = 6;

/// Reads and checks the text of a routes.toml: a gateway ready to serve, or every problem in the way of
/// one. Warnings may come with either. `files` are those that it names,
/// `kept` is what outlives one load.
pub fn load(
    source: &str,
    env: &dyn Fn(&str) -> Option<String>,
    allow_unset_env: bool,
    files: &Files,
    kept: &Kept,
) -> (Option<gateway::Gateway>, Problems) {
    let told = RefCell::new(BTreeMap::new());
    let telling = |name: &str| {
        let value = env(name)?;
        told.borrow_mut().insert(value.clone(), format!("${{env.{name}}}"));
        Some(value)
    };
    let (file, mut problems) = file::read(source, &telling, allow_unset_env);
    let gateway = file.and_then(|file| {
        let (gateway, more) = build::build(&file, files, kept);
        problems.merge(more);
        gateway
    });
    // The environment is where secrets are, and what is wrong with one can be said without it.
    let mut told: Vec<_> = told.into_inner().into_iter().filter(|(value, _)| value.len() >= SHORTEST_SECRET).collect();
    told.sort_by_key(|(value, _)| Reverse(value.len()));
    let problems = problems.with_hidden(&told).sorted();
    (gateway.filter(|_| !problems.has_problems()), problems)
}
