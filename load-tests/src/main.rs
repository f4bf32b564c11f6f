//! Loads a WebSocket and HTTP gateway and says what it cost: generator, HTTP backend and floor servers in one binary.
//!
//! Every command runs on one thread, so that `taskset` decides what it competes with, and talks to loopback addresses
//! only. `load-tests/run` puts the commands together; README.md says what each figure means.

mod adapters;
mod backend;
mod churn;
mod echo;
mod floor;
mod gateway_floor;
mod hold;
mod holders;
mod http;
mod http1;
mod memory;
mod net;
mod pace;
mod publish;
mod push;
mod session;
mod signer;
mod stats;
mod storm;
mod ws;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Each connection sends a message and waits for the reply
    Echo(echo::EchoArgs),
    /// Publish to single connections, and measure from POST to frame
    Push(push::PushArgs),
    /// Publish once to all, and measure until the last delivery
    Broadcast(push::BroadcastArgs),
    /// Open, upgrade, reset, repeat
    Churn(churn::ChurnArgs),
    /// Open connections and hold them, obeying lines on standard input
    Hold(hold::HoldArgs),
    /// Open connections, and all of them again as soon as the server is back from wherever it went
    Storm(storm::StormArgs),
    /// The server's memory for a connection, as a slope over several counts
    Memory(memory::MemoryArgs),
    /// HTTP requests on kept connections, in a closed loop or at a fixed rate
    Http(http::HttpArgs),
    /// The HTTP backend: echoes, names connections, speaks application/websocket-events
    Backend(backend::BackendArgs),
    /// Servers that do as little as the protocols allow
    Floor(floor::FloorArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    net::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(61).build()?;
    let local = tokio::task::LocalSet::new();
    let done = local.block_on(&runtime, async {
        match cli.command {
            Command::Echo(args) => echo::run(args).await,
            Command::Push(args) => push::push(args).await,
            Command::Broadcast(args) => push::broadcast(args).await,
            Command::Churn(args) => churn::run(args).await,
            Command::Hold(args) => hold::run(args).await,
            Command::Storm(args) => storm::run(args).await,
            Command::Memory(args) => memory::run(args).await,
            Command::Http(args) => http::run(args).await,
            Command::Backend(args) => backend::run(args).await,
            Command::Floor(args) => floor::run(args).await,
        }
    });
    if let Err(e) = done {
        eprintln!("error: {e:#}");
        std::process::exit(1);
    }
    // The kernel resets what is still open. An orderly end of 18,000 connections would only keep the server busy.
    std::process::exit(0);
}
