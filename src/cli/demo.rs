//! `livegate demo`: the gateway, an example chat backend and its page, in one process on loopback.
//!
//! The file served is the repository's own routes.toml, built in; the backend is `examples/chat`, which
//! knows nothing of the gateway but its HTTP requests. The page comes through the gateway, as its socket does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::serve::{self, Signals};
use crate::api;
use crate::api::files::Files;
use crate::api::kept::Kept;
use crate::server::Server;
use crate::server::systemd::PassedSockets;

const ROUTES: &str = include_str!("../../routes.toml");

const GATEWAY_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 8081;
const BACKEND_PORT: u16 = 3000;

#[tokio::main]
pub async fn run() -> anyhow::Result<ExitCode> {
    serve::raise_open_files();
    let backend = match tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, BACKEND_PORT)).await {
        Ok(backend) => backend,
        Err(_) => tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    };
    let routes = routes(free_port(GATEWAY_PORT), free_port(ADMIN_PORT), backend.local_addr()?.port());
    let kept = Arc::new(Kept::default());
    let (gateway, problems) = api::load(&routes, &|_| None, false, &Files::new(Path::new(".")), &kept);
    let mut gateway = gateway.with_context(|| api::report::render("routes.toml", &routes, &problems, false))?;
    // Nobody waits half a minute for a demo to stop.
    gateway.settings.drain_timeout = Duration::from_secs(2);
    let mut signals = Signals::new()?;
    let server = Server::start(gateway, PassedSockets::default(), &kept).await?;
    let address =
        server.client_listeners().first().and_then(|at| at.address.tcp()).context("the demo has a listener")?;
    let chat = tokio::spawn(chat::serve(backend));
    println!("Livegate's demo is running. Open this in two browser tabs:\n\n  http://{address}/\n");
    tokio::select! {
        ended = chat => ended?.context("the chat backend ended")?,
        () = serve::stopped(&mut signals.terminate, &mut signals.interrupt) => {}
    }
    serve::drain(&server, &mut signals).await
}

/// The usual port, or any other if somebody has that one.
fn free_port(usual: u16) -> u16 {
    let usual_address = SocketAddr::from((Ipv4Addr::LOCALHOST, usual));
    std::net::TcpListener::bind(usual_address).map_or(0, |_| usual)
}

/// The built-in file with other ports.
fn routes(gateway: u16, admin: u16, backend: u16) -> String {
    let ports = [(GATEWAY_PORT, gateway), (ADMIN_PORT, admin), (BACKEND_PORT, backend)];
    ports.iter().fold(ROUTES.to_owned(), |routes, (usual, port)| {
        routes.replace(&format!("127.0.0.1:{usual}"), &format!("127.0.0.1:{port}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_file_has_no_problems_and_takes_other_ports() {
        let routes = routes(1, 2, 3);
        for port in [GATEWAY_PORT, ADMIN_PORT, BACKEND_PORT] {
            assert!(ROUTES.contains(&format!("127.0.0.1:{port}")), "{port}");
            assert!(!routes.contains(&format!("127.0.0.1:{port}")), "{port}");
        }
        let (gateway, problems) = api::load(&routes, &|_| None, false, &Files::new(Path::new(".")), &Kept::default());
        assert!(gateway.is_some() && problems.is_empty(), "{}", api::report::render("x", &routes, &problems, false));
    }
}
