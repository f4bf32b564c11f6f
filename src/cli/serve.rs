//! `livegate serve`: serves a file until it is told to stop, and follows the file meanwhile.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::files::Seen;
use crate::api::kept::Kept;
use crate::model::clock::Timestamp;
use crate::server::Server;
use crate::server::reload::Watch;
use crate::server::systemd::{self, PassedSockets};
use crate::telemetry::log;

/// The sockets are taken over before any other thread runs, as the environment is changed by it.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    serve(path, PassedSockets::take_over())
}

#[tokio::main]
async fn serve(path: &Path, passed: PassedSockets) -> anyhow::Result<ExitCode> {
    raise_open_files();
    let kept = Arc::new(Kept::default());
    // Before the file is read, or a change made meanwhile would go unseen.
    let mut watch = Watch::new(path).context("the file cannot be watched for changes")?;
    let loaded = super::load(path, false, &kept)?;
    if !loaded.problems.is_empty() {
        // A closed pipe is no reason to stop, here and below.
        let _ = write!(std::io::stderr(), "{}", loaded.report(path, std::io::stderr().is_terminal()));
    }
    let Some(gateway) = loaded.gateway else { return Ok(ExitCode::FAILURE) };
    // Before the first client: a signal during start-up must not end the process in the middle.
    let mut signals = Signals::new()?;
    let server = Server::start(gateway, passed, &kept).await?;
    print_listeners(&server);
    systemd::notify_ready();
    watch.follow(loaded.seen.keys());
    let read = Some((loaded.source, loaded.seen));
    let file = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    server.engine().readings.name(file);
    let mut config = Config { path: path.to_owned(), read, kept, server: server.clone() };
    loop {
        tokio::select! {
            _ = signals.reload.recv() => {
                server.reopen_logs();
                config.reload(true, &mut watch);
            }
            () = watch.changed() => config.reload(false, &mut watch),
            () = stopped(&mut signals.terminate, &mut signals.interrupt) => break,
        }
    }
    systemd::notify_stopping();
    drain(&server, &mut signals).await
}

/// Drains; a second signal ends the process at once.
pub async fn drain(server: &Server, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    tokio::select! {
        () = server.drain() => Ok(ExitCode::SUCCESS),
        () = stopped(&mut signals.terminate, &mut signals.interrupt) => {
            tracing::warn!("a second signal: stopping at once");
            log::finish();
            std::process::exit(130);
        }
    }
}

pub struct Signals {
    pub reload: Signal,
    pub terminate: Signal,
    pub interrupt: Signal,
}

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

pub async fn stopped(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The file being served.
struct Config {
    path: PathBuf,
    /// What was read last, with the files that it names; nothing if it could not be read, or not be served.
    read: Option<(String, Seen)>,
    kept: Arc<Kept>,
    server: Arc<Server>,
}

impl Config {
    /// Takes the file as it is now; with any problem nothing changes. An unchanged file is read again
    /// only when somebody asked.
    fn reload(&mut self, asked: bool, watch: &mut Watch) {
        systemd::notify_reloading();
        self.take(asked, watch);
        systemd::notify_ready();
    }

    fn take(&mut self, asked: bool, watch: &mut Watch) {
        let loaded = match super::load(&self.path, false, &self.kept) {
            Ok(loaded) => loaded,
            // Said once, not at every event around a file that is away.
            Err(_) if self.read.is_none() && !asked => return,
            Err(error) => {
                self.read = None;
                tracing::error!("not reloaded, nothing has changed: {error:#}");
                return self.note_problems(format!("{error:#}"));
            }
        };
        watch.follow(loaded.seen.keys().chain([&self.path]));
        let report = loaded.report(&self.path, false);
        let warnings = loaded.problems.len();
        let read = Some((loaded.source, loaded.seen));
        if self.read == read && !asked {
            self.kept.metrics.reloads.unchanged.increment(1);
            return;
        }
        // A file that is wrong is reported once, not at every event in its directory.
        self.read = read;
        let Some(gateway) = loaded.gateway else {
            tracing::error!("not reloaded, nothing has changed: {} has problems\n{report}", self.path.display());
            return self.note_problems(report);
        };
        if let Err(error) = self.server.reload(gateway) {
            // The same file may be served once the address is free.
            self.read = None;
            tracing::error!("not reloaded, nothing has changed: {error}");
            return self.note_problems(error.to_string());
        }
        let counters = &self.kept.metrics.reloads;
        counters.ok.increment(1);
        counters.note(true, Timestamp::now().0 as f64 / 1000.0);
        self.server.engine().readings.note_good();
        match warnings {
            0 => tracing::info!("reloaded {}", self.path.display()),
            _ => tracing::warn!("reloaded {}, which could be better\n{report}", self.path.display()),
        }
        print_listeners(&self.server);
    }

    /// What is served stays, and why is there to be read.
    fn note_problems(&self, report: String) {
        let counters = &self.kept.metrics.reloads;
        counters.problems.increment(1);
        counters.note(false, Timestamp::now().0 as f64 / 1000.0);
        self.server.engine().readings.note_problems(report);
    }
}

/// One line for each listener that accepts; with port 0 the only place to learn the port.
pub fn print_listeners(server: &Server) {
    let mut stdout = std::io::stdout();
    for at in server.client_listeners() {
        let _ = writeln!(stdout, "listening on {at}");
    }
    if let Some(at) = server.admin_listener() {
        let _ = writeln!(stdout, "admin listening on {at}");
    }
}

/// Every socket is an open file: as many as the system lets us have.
pub fn raise_open_files() {
    match (rlimit::Resource::NOFILE.get(), rlimit::increase_nofile_limit(u64::MAX)) {
        (Ok((soft, hard)), Ok(now)) => {
            tracing::info!(was = soft, now, hard, "raised the limit of open files; each connection takes one");
        }
        (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}
