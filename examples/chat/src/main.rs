//! `cargo run -p chat`: the chat backend as a process of its own, beside `livegate serve`.

use std::{env, process::ExitCode};

use tokio::net::TcpListener;

const USAGE: &str = "usage: chat [--port PORT]   (or PORT in the environment; 3000 by default)";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("chat: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let port = port()?;
    // Loopback only: whoever reaches this port is believed to be the gateway.
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener.map_err(|error| format!("cannot listen on port {port}: {error}; try --port"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("chat backend on {address}; its page is reached through the gateway");
    chat::serve(listener).await.map_err(|error| error.to_string())
}

fn port() -> Result<u16, String> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let text = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => env::var("PORT").unwrap_or_else(|_| "3000".into()),
        ["--port", port] => port.to_owned(),
        [argument] if argument.starts_with("--port=") => argument.replacen("--port=", "", 1),
        _ => return Err(USAGE.into()),
    };
    text.parse().map_err(|_| format!("`{text}` is no port\n{USAGE}"))
}
