//! Puts everything together: the engine, its listeners, the deadlines, reload and shutdown.

mod acme;
mod dial;
mod direct;
mod exchange;
mod front_door;
mod listener;
mod pace;
mod proxy_protocol;
pub mod reload;
mod shutdown;
pub mod systemd;
mod tls;
mod usage;
mod watch;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::api::gateway::{Gateway, Settings};
use crate::api::kept::Kept;
use crate::api::tls::Material;
use crate::engine::{CallbackBase, Engine};
use crate::model::address::{Address, ListenAt};
use crate::model::clock::{Tick, Timestamp};
use crate::outbound::backends;
use crate::store;
use crate::telemetry::process;
use crate::transports::websocket::sweeper;
use acme::{Acme, Challenges};
use front_door::{Audience, FrontDoor};
use listener::{Bound, Listener};
use systemd::PassedSockets;
use tls::Acceptor;
use usage::Usage;
use watch::{Watch, WatchError};

/// A running gateway.
pub struct Server {
    engine: Arc<Engine>,
    listeners: Mutex<Listeners>,
    /// Sockets that systemd opened for us, until somebody asks for their address.
    passed: Mutex<PassedSockets>,
    /// What is shown to a CA that asks whose a domain is.
    challenges: Arc<Challenges>,
    /// The certificates that are ordered, and from whom.
    ordering: Mutex<Option<Ordering>>,
    /// The health checks of the backends that are served now.
    checks: Mutex<Vec<AbortOnDropHandle<()>>>,
    kept: Arc<Kept>,
    /// Writes what API keys used.
    usage: Arc<Usage>,
    /// Access logs and traces.
    watch: Watch,
    /// The sweeper, the upkeep and the writing of usage: they run until the server is dropped.
    _upkeep: [AbortOnDropHandle<()>; 3],
}

struct Ordering {
    settings: acme::Settings,
    data_dir: PathBuf,
    _running: AbortOnDropHandle<()>,
}

/// The listeners by the address that was asked for; port 0 stands for one that is kept.
#[derive(Default)]
struct Listeners {
    clients: HashMap<ListenAt, Listener>,
    admin: Option<(ListenAt, Listener)>,
    /// What makes TLS of accepted connections; its certificates are swapped, it stays.
    tls: Option<Arc<Acceptor>>,
}

impl Listeners {
    /// The listener on the same port that now speaks TLS and shall not, or the other way round: it stays.
    fn other_tongue(&self, asked: &ListenAt, settings: &Settings) -> Option<ListenAt> {
        let has_port = asked.address.tcp().is_some_and(|address| address.port() != 0);
        let before = ListenAt { address: asked.address.clone(), tls: !asked.tls };
        let is_it = has_port && self.clients.contains_key(&before) && !settings.listen.contains(&before);
        is_it.then_some(before)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}`: {source}")]
pub struct BindError {
    pub address: Address,
    pub source: io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot count what API keys use: {0}")]
    Usage(#[from] store::usage::Error),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl Server {
    /// Binds every listener, then serves.
    pub async fn start(mut gateway: Gateway, passed: PassedSockets, kept: &Arc<Kept>) -> Result<Arc<Self>, StartError> {
        let settings = gateway.settings.clone();
        let (tls, acme) = (gateway.tls.take(), gateway.acme.take());
        let usage = Usage::new(kept.meters.clone());
        usage.prepare(&settings.data_dir)?;
        let watch = Watch::default();
        let opened = watch.open(None, &gateway)?;
        let engine = Arc::new(Engine::new(gateway, kept.metrics.clone()));
        watch.switch(&engine, opened, settings.tracing.clone());
        let sweeping = tokio::spawn(sweeper::run(engine.clone()));
        let upkeep = tokio::spawn(upkeep(engine.clone(), kept.clone()));
        let writing = tokio::spawn(usage.clone().run());
        let server = Arc::new(Self {
            engine,
            listeners: Mutex::default(),
            passed: Mutex::new(passed),
            challenges: Arc::default(),
            ordering: Mutex::default(),
            checks: Mutex::default(),
            kept: kept.clone(),
            usage,
            watch,
            _upkeep: [sweeping, upkeep, writing].map(AbortOnDropHandle::new),
        });
        let bound = server.bind(&settings)?;
        server.take_certificates(tls)?;
        server.order_certificates(acme, &settings);
        server.switch_listeners(&settings, bound);
        server.check_backends();
        kept.buckets.serve();
        kept.metrics.reloads.note(true, Timestamp::now().0 as f64 / 1000.0);
        for address in server.passed.lock().left_over() {
            tracing::warn!("systemd passed a socket for {address}, which the file does not listen on");
        }
        Ok(server)
    }

    /// Where clients reach us, in the order of the file.
    pub fn client_listeners(&self) -> Vec<ListenAt> {
        let listeners = self.listeners.lock();
        let asked = &self.engine.gateway().settings.listen;
        asked.iter().filter_map(|at| listeners.clients.get(at)).map(|listener| listener.at().clone()).collect()
    }

    pub fn admin_listener(&self) -> Option<ListenAt> {
        self.listeners.lock().admin.as_ref().map(|(_, listener)| listener.at().clone())
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Binds the addresses that are not listened on yet; nothing is changed if one fails.
    fn bind(&self, settings: &Settings) -> Result<Vec<(Audience, ListenAt, Bound)>, BindError> {
        let listeners = self.listeners.lock();
        let clients = settings.listen.iter().map(|at| (Audience::Clients, at.clone()));
        let admin = settings.admin_listen.iter().map(|at| (Audience::Operators, at.clone()));
        let missing = clients.chain(admin).filter(|(audience, at)| match audience {
            Audience::Clients => !listeners.clients.contains_key(at) && listeners.other_tongue(at, settings).is_none(),
            Audience::Operators => listeners.admin.as_ref().is_none_or(|(asked, _)| asked != at),
        });
        let bind = |(audience, at): (Audience, ListenAt)| {
            let passed = self.passed.lock().take(&at.address);
            let bound = match passed {
                Some(passed) => Ok(passed),
                None => listener::bind(&at.address, settings.reuse_port),
            };
            let bound = bound.map_err(|source| BindError { address: at.address.clone(), source })?;
            Ok((audience, at, bound))
        };
        missing.map(bind).collect()
    }

    /// Handshakes from now on are made with these certificates; connections that are open stay.
    fn take_certificates(&self, material: Option<Material>) -> Result<(), rustls::Error> {
        let mut listeners = self.listeners.lock();
        match (material, &listeners.tls) {
            (Some(material), Some(acceptor)) => {
                if acceptor.swap(material)? {
                    tracing::info!("certificates were read anew");
                }
            }
            (Some(material), None) => listeners.tls = Some(Arc::new(Acceptor::new(material, self.challenges.clone())?)),
            (None, _) => listeners.tls = None,
        }
        Ok(())
    }

    /// Has certificates ordered and renewed. What is under way for the same settings goes on.
    fn order_certificates(&self, settings: Option<acme::Settings>, of_gateway: &Settings) {
        let mut ordering = self.ordering.lock();
        let acceptor = self.listeners.lock().tls.clone();
        let (Some(settings), Some(acceptor)) = (settings, acceptor.clone()) else {
            *ordering = None;
            if let Some(acceptor) = acceptor {
                acceptor.serve_issued(Vec::new());
            }
            return;
        };
        let data_dir = of_gateway.data_dir.clone();
        let is_same = |at_work: &Ordering| at_work.settings == settings && at_work.data_dir == data_dir;
        if ordering.as_ref().is_some_and(is_same) {
            return;
        }
        let acme = Acme::new(settings.clone(), &data_dir, self.challenges.clone(), &self.engine.metrics);
        let kept = acme.kept();
        if let Some(kept) = &kept {
            acceptor.serve_issued(vec![kept.key.clone()]);
        }
        let running = tokio::spawn(acme.run(kept, move |certificate| acceptor.serve_issued(vec![certificate.key])));
        *ordering = Some(Ordering { settings, data_dir, _running: AbortOnDropHandle::new(running) });
    }

    /// Opens the new listeners, then closes those that the file no longer names. Connections stay.
    fn switch_listeners(&self, settings: &Settings, bound: Vec<(Audience, ListenAt, Bound)>) {
        let mut listeners = self.listeners.lock();
        for asked in &settings.listen {
            let Some(before) = listeners.other_tongue(asked, settings) else { continue };
            let tls = listeners.tls.clone().filter(|_| asked.tls);
            if let Some(mut listener) = listeners.clients.remove(&before) {
                listener.speak(tls);
                listeners.clients.insert(asked.clone(), listener);
            }
        }
        for (audience, asked, bound) in bound {
            let door = match audience {
                Audience::Clients => FrontDoor::for_clients(self.engine.clone(), self.challenges.clone()),
                Audience::Operators => {
                    let dial = dial::to(FrontDoor::for_clients(self.engine.clone(), self.challenges.clone()));
                    FrontDoor::for_operators(self.engine.clone(), self.challenges.clone(), dial)
                }
            };
            let tls = listeners.tls.clone().filter(|_| asked.tls);
            let opened = match Listener::open(&asked, bound, tls, door) {
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
        listeners.clients.retain(|at, _| settings.listen.contains(at));
        if settings.admin_listen.is_none() {
            listeners.admin = None;
        }
        let asked = settings.listen.iter().filter_map(|at| listeners.clients.get(at));
        let asked: Vec<_> = asked.map(Listener::at).collect();
        self.engine.set_listeners(asked.iter().map(ToString::to_string).collect());
        let first = asked.into_iter().find(|at| at.address.tcp().is_some());
        self.engine.set_callback(callback_base(settings, first));
    }

    /// Health checks of the backends that are served now, in place of those of before.
    fn check_backends(&self) {
        let gateway = self.engine.gateway();
        let checks = gateway
            .backends
            .iter()
            .map(|backend| AbortOnDropHandle::new(tokio::spawn(backends::check_forever(backend.clone()))));
        *self.checks.lock() = checks.collect();
    }
}

impl Server {
    /// Log files that were moved away are begun anew.
    pub fn reopen_logs(&self) {
        self.watch.reopen();
    }
}

/// Small chores: the dashboard's figures are noted, connections that backends no longer need are closed, addresses that are
/// quiet are forgotten.
async fn upkeep(engine: Arc<Engine>, kept: Arc<Kept>) {
    let mut cpu = (Tick::now(), cpu_seconds());
    loop {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            engine.history.note(Timestamp::now(), engine.metrics.totals());
            engine.gateway().backends.iter().for_each(|backend| backend.close_idle(Tick::now()));
        }
        engine.metrics.look_at_routes(Tick::now());
        let now = (Tick::now(), cpu_seconds());
        engine.note_cpu_percent(100.0 * (now.1 - cpu.1) / now.0.since(cpu.0).as_secs_f64().max(0.001));
        cpu = now;
        kept.addresses.sweep();
        give_back_memory();
    }
}

fn cpu_seconds() -> f64 {
    process::figures().map_or(0.0, |figures| figures.cpu_seconds)
}

/// What was freed goes back to the system only when the allocator is next at work on that scale, which in a quiet
/// gateway it never is: after a storm its pages would stay. One large block, taken and given back, is such work.
fn give_back_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_BLOCK)));
}

const LARGE_BLOCK: usize = 64 * 1024 * 1024;

/// Backends push to `callback_url`, or to the first listener; one that listens everywhere is reached
/// on this machine's loopback.
fn callback_base(settings: &Settings, first: Option<&ListenAt>) -> CallbackBase {
    if let Some(uri) = &settings.callback_url {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let scheme = uri.scheme_str().unwrap_or("http");
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let host = authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
        let url = format!("{scheme}://{host}{}", uri.path().trim_end_matches('/'));
        return CallbackBase { host, url };
    }
    let Some((mut address, tls)) = first.and_then(|at| Some((at.address.tcp()?, at.tls))) else {
        return CallbackBase::default();
    };
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let (scheme, default_port) = if tls { ("https", 443) } else { ("http", 80) };
    let host = if address.port() == default_port { address.ip().to_string() } else { address.to_string() };
    CallbackBase { url: format!("{scheme}://{host}"), host }
}
