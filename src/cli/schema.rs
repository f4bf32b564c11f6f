//! `livegate schema`: the JSON Schema of routes.toml, for editors.

use std::process::ExitCode;

pub fn run() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&crate::api::file::schema())?);
    Ok(ExitCode::SUCCESS)
}
