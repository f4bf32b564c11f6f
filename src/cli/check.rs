//! `livegate check`: every problem of a file, in one run.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use crate::api::kept::Kept;

pub fn run(path: &Path, allow_unset_env: bool) -> anyhow::Result<ExitCode> {
    let loaded = match super::load(path, allow_unset_env, &Kept::default()) {
        Ok(loaded) => loaded,
        Err(error) => {
            println!("{error:#}");
            return Ok(ExitCode::FAILURE);
        }
    };
    if loaded.problems.is_empty() {
        println!("{}: no problems", path.display());
    } else {
        println!("{}", loaded.report(path, std::io::stdout().is_terminal()).trim_end());
    }
    Ok(if loaded.problems.has_problems() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
