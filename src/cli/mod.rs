//! The command line: one file for each verb.

mod check;
mod demo;
mod routes;
mod schema;
mod serve;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::api::files::{Files, Seen};
use crate::api::{self, gateway::Gateway, kept::Kept};
use crate::model::problem::Problems;
use crate::telemetry::log;

/// A WebSocket-first real-time API gateway that speaks Amazon API Gateway's dialect.
#[derive(Parser)]
#[command(name = "livegate", version)]
struct Command {
    /// What to log, in RUST_LOG's language (`info`, `livegate=debug`); without it RUST_LOG, else `info`
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// How to log; without it text on a terminal, else JSON
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<log::Format>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a gateway, an example chat and its page, with nothing else needed
    Demo,
    /// Serve what a file describes
    Serve {
        #[arg(long, value_name = "FILE", default_value = "routes.toml")]
        config: PathBuf,
    },
    /// Say everything that is wrong with a file
    Check {
        #[arg(value_name = "FILE", default_value = "routes.toml")]
        file: PathBuf,
        /// Let `${env.NAME}` be unset, for machines without the secrets
        #[arg(long)]
        allow_unset_env: bool,
    },
    /// List the APIs, stages and routes of a file
    Routes {
        #[arg(value_name = "FILE", default_value = "routes.toml")]
        file: PathBuf,
    },
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Report what API keys used, by day
    Usage(usage::Wanted),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let command = Command::parse();
    log::start(command.log.as_deref(), command.log_format);
    let outcome = match command.verb {
        Verb::Demo => demo::run(),
        Verb::Serve { config } => serve::run(&config),
        Verb::Check { file, allow_unset_env } => check::run(&file, allow_unset_env),
        Verb::Routes { file } => routes::run(&file),
        Verb::Schema => schema::run(),
        Verb::Usage(wanted) => usage::run(wanted),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("livegate: {error:#}");
        ExitCode::FAILURE
    })
}

/// One reading of a routes.toml: what came of it, and the text that a report points into.
struct Loaded {
    gateway: Option<Gateway>,
    problems: Problems,
    source: String,
    /// The files that it names.
    seen: Seen,
}

fn load(path: &Path, allow_unset_env: bool, kept: &Kept) -> anyhow::Result<Loaded> {
    let source =
        std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("cannot read `{}`: {error}", path.display()))?;
    let files = Files::of(path);
    let (gateway, problems) = api::load(&source, &environment, allow_unset_env, &files, kept);
    Ok(Loaded { gateway, problems, source, seen: files.seen() })
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Loaded {
    fn report(&self, path: &Path, colour: bool) -> String {
        api::report::render(&path.display().to_string(), &self.source, &self.problems, colour)
    }
}
