//! Puts everything together: the engine, its listeners, the deadlines, reload and shutdown.

mod front_door;
mod listener;
pub mod reload;
mod shutdown;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::api::gateway::{Gateway, Settings};
use crate::engine::{CallbackBase, Engine};
use crate::model::clock::Tick;
use crate::outbound::backends::Backends;
use crate::telemetry::metrics::Metrics;
use crate::transports::websocket::sweeper;
use front_door::{Audience, FrontDoor};
use listener::Listener;

/// A running gateway.
pub struct Server {
    engine: Arc<Engine>,
    listeners: Mutex<Listeners>,
    /// The sweeper and the metrics' upkeep: they run until the server is dropped.
    _upkeep: [AbortOnDropHandle<()>; 2],
}

/// The listeners by the address that was asked for; port 0 stands for one that is kept.
#[derive(Default)]
struct Listeners {
    clients: HashMap<SocketAddr, Listener>,
    admin: Option<(SocketAddr, Listener)>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}`: {source}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot set up TLS towards backends: {0}")]
    Backends(#[source] io::Error),
}

impl Server {
    /// Binds every listener, then serves.
    pub async fn start(gateway: Gateway, metrics: Metrics) -> Result<Arc<Self>, StartError> {
        let settings = gateway.settings.clone();
        let backends = Backends::new().map_err(StartError::Backends)?;
        let engine = Arc::new(Engine::new(gateway, backends, metrics));
        let sweeping = tokio::spawn(sweeper::run(engine.clone()));
        let upkeep = tokio::spawn(upkeep(engine.clone()));
        let server = Arc::new(Self {
            engine,
            listeners: Mutex::default(),
            _upkeep: [AbortOnDropHandle::new(sweeping), AbortOnDropHandle::new(upkeep)],
        });
        let bound = server.bind(&settings)?;
        server.switch_listeners(&settings, bound);
        Ok(server)
    }

    /// The addresses that clients reach, in the order of the file.
    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.lock();
        let asked = &self.engine.gateway().settings.listen;
        asked.iter().filter_map(|address| listeners.clients.get(address)).map(Listener::address).collect()
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.listeners.lock().admin.as_ref().map(|(_, listener)| listener.address())
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Binds the addresses that are not listened on yet; nothing is changed if one fails.
    fn bind(&self, settings: &Settings) -> Result<Vec<(Audience, SocketAddr, std::net::TcpListener)>, BindError> {
        let listeners = self.listeners.lock();
        let clients = settings.listen.iter().map(|address| (Audience::Clients, *address));
        let admin = settings.admin_listen.iter().map(|address| (Audience::Operators, *address));
        let missing = clients.chain(admin).filter(|(audience, address)| match audience {
            Audience::Clients => !listeners.clients.contains_key(address),
            Audience::Operators => listeners.admin.as_ref().is_none_or(|(asked, _)| asked != address),
        });
        let bind = |(audience, address)| {
            let socket = listener::bind(address).map_err(|source| BindError { address, source })?;
            Ok((audience, address, socket))
        };
        missing.map(bind).collect()
    }

    /// Opens the new listeners, then closes those that the file no longer names. Connections stay.
    fn switch_listeners(&self, settings: &Settings, bound: Vec<(Audience, SocketAddr, std::net::TcpListener)>) {
        let mut listeners = self.listeners.lock();
        for (audience, asked, socket) in bound {
            let door = FrontDoor::new(self.engine.clone(), audience);
            let opened = match Listener::open(socket, door) {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::error!(%error, "a bound listener on {asked} could not be opened");
                    continue;
                }
            };
            match audience {
                Audience::Clients => {
                    listeners.clients.insert(asked, opened);
                }
                Audience::Operators => listeners.admin = Some((asked, opened)),
            }
        }
        listeners.clients.retain(|address, _| settings.listen.contains(address));
        if settings.admin_listen.is_none() {
            listeners.admin = None;
        }
        let first = settings.listen.first().and_then(|address| listeners.clients.get(address)).map(Listener::address);
        self.engine.set_callback(callback_base(settings, first));
    }
}

/// Small chores: histograms fold their samples, connections that backends no longer need are closed.
async fn upkeep(engine: Arc<Engine>) {
    loop {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            engine.gateway().backends.iter().for_each(|backend| backend.close_idle(Tick::now()));
        }
        engine.metrics.run_upkeep();
    }
}

/// Backends push to `callback_url`, or to the first listener; one that listens everywhere is reached
/// on this machine's loopback.
fn callback_base(settings: &Settings, first: Option<SocketAddr>) -> CallbackBase {
    if let Some(uri) = &settings.callback_url {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let scheme = uri.scheme_str().unwrap_or("http");
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let host = authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
        let url = format!("{scheme}://{host}{}", uri.path().trim_end_matches('/'));
        return CallbackBase { host, url };
    }
    let Some(mut address) = first else { return CallbackBase::default() };
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let host = if address.port() == 80 { address.ip().to_string() } else { address.to_string() };
    CallbackBase { url: format!("http://{host}"), host }
}
