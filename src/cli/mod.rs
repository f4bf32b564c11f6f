//! The command line: one file for each verb.

mod admin;
mod check;
mod demo;
mod routes;
mod schema;
mod serve;
mod status;
mod tail;
mod terminal;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::api::files::{Files, Seen};
use crate::api::{self, gateway::Gateway, kept::Kept};
use crate::model::address::Address;
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
    /// Say how a running gateway is
    Status(status::Wanted),
    /// Show what happens in a running gateway while it happens
    Tail(tail::Wanted),
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
        Verb::Status(wanted) => status::run(wanted, admin_address),
        Verb::Tail(wanted) => tail::run(wanted, admin_address),
    };
    log::finish();
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

/// Where a file has its admin listener, and what is shown there; the file may have problems elsewhere.
fn admin_address(path: &Path) -> anyhow::Result<(String, Option<String>)> {
    let source = std::fs::read_to_string(path).map_err(|error| {
        anyhow::anyhow!(
            "cannot read `{}` ({error}); name the file with `--config`, or the address with `--admin`",
            path.display()
        )
    })?;
    let (file, _) = api::file::read(&source, &environment, true);
    let file = file.ok_or_else(|| anyhow::anyhow!("`{}` is no TOML; see `livegate check`", path.display()))?;
    let at = file.gateway.admin_listen.0.as_ref();
    let at = at.ok_or_else(|| anyhow::anyhow!("`{}` has no admin listener (`admin_listen`)", path.display()))?;
    let address = match &at.address {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    let token = file.gateway.admin_token.as_ref().filter(|token| !token.unresolved);
    Ok((address, token.map(|token| token.reveal().to_owned())))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Loaded {
    fn report(&self, path: &Path, colour: bool) -> String {
        api::report::render(&path.display().to_string(), &self.source, &self.problems, colour)
    }
}
