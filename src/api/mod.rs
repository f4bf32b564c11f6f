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

use crate::model::problem::Problems;
use files::Files;
use kept::Kept;

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
    let (file, mut problems) = file::read(source, env, allow_unset_env);
    let Some(file) = file else { return (None, problems) };
    let (gateway, more) = build::build(&file, files, kept);
    problems.merge(more);
    let problems = problems.sorted();
    (gateway.filter(|_| !problems.has_problems()), problems)
}
