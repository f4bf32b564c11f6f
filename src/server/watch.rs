//! Access logs and traces of the file that is served: opened before it is, closed once nobody writes to them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::api::gateway::Gateway;
use crate::api::watch::{AccessLog, StageWatch};
use crate::engine::Engine;
use crate::telemetry::sink::{self, Sink};
use crate::telemetry::tracer::{self, Counts, Tracer};

/// How long what is buffered may take to go out, when a log or a tracer is closed.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Watch {
    logs: Mutex<Vec<(sink::Settings, Arc<Sink>)>>,
    /// Logs of files before, as long as a call of theirs is being answered.
    old: Mutex<Vec<Weak<Sink>>>,
    /// What became of lines, by destination, over all reloads.
    counts: Mutex<BTreeMap<String, Arc<sink::Counts>>>,
    tracing: Mutex<Option<tracer::Settings>>,
    spans: Arc<Counts>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write the access log `{destination}`: {source}")]
pub struct LogError {
    destination: String,
    source: io::Error,
}

/// What was opened for a file that is not served yet.
pub(super) struct Opened {
    logs: Vec<(sink::Settings, Arc<Sink>)>,
    tracer: Option<Arc<Tracer>>,
}

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot trace calls: {0}")]
    Tracer(String),
}

impl Watch {
    /// Opens what the gateway writes to. What is open already stays.
    pub(super) fn open(&self, engine: Option<&Engine>, gateway: &Gateway) -> Result<Opened, WatchError> {
        let mut logs: Vec<(sink::Settings, Arc<Sink>)> = Vec::new();
        for log in access_logs(gateway) {
            let known = logs.iter().chain(&*self.logs.lock()).find(|(settings, _)| *settings == log.settings).cloned();
            let opened = match known {
                Some((_, sink)) => sink,
                None => {
                    let destination = log.settings.destination.to_string();
                    let counts = self.counts.lock().get(&destination).cloned().unwrap_or_default();
                    Sink::open_with(log.settings.clone(), counts).map_err(|source| LogError { destination, source })?
                }
            };
            if !logs.iter().any(|(settings, _)| *settings == log.settings) {
                logs.push((log.settings.clone(), opened.clone()));
            }
            // A stage is opened once, for it is made anew by each reading of the file.
            let _ = log.sink.set(opened);
        }
        let tracer = match &gateway.settings.tracing {
            None => None,
            Some(settings) => {
                let running = engine.and_then(|engine| engine.tracer.load_full());
                match running.filter(|_| self.tracing.lock().as_ref() == Some(settings)) {
                    Some(running) => Some(running),
                    None => Some(Tracer::start(settings.clone(), self.spans.clone()).map_err(WatchError::Tracer)?),
                }
            }
        };
        Ok(Opened { logs, tracer })
    }

    /// The gateway that it was opened for is served from now on.
    pub(super) fn switch(&self, engine: &Engine, opened: Opened, tracing: Option<tracer::Settings>) {
        let Opened { logs, tracer } = opened;
        *self.tracing.lock() = tracing;
        let before = engine.tracer.swap(tracer.clone());
        if let Some(before) = before.filter(|before| tracer.as_ref().is_none_or(|now| !Arc::ptr_eq(before, now))) {
            tokio::spawn(async move { before.close(PATIENCE).await });
        }
        let mut counts = self.counts.lock();
        counts.extend(logs.iter().map(|(settings, sink)| (settings.destination.to_string(), sink.counts.clone())));
        engine.set_logs(counts.iter().map(|(destination, counts)| (destination.clone(), counts.clone())).collect());
        drop(counts);
        // What nobody writes to any more closes by itself, once the last call of its file is over.
        let before = std::mem::replace(&mut *self.logs.lock(), logs);
        let mut old = self.old.lock();
        old.retain(|sink| sink.strong_count() > 0);
        old.extend(before.iter().map(|(_, sink)| Arc::downgrade(sink)));
    }

    /// Nobody waits for a log any more: the gateway stops.
    pub(super) fn release(&self) {
        self.all().iter().for_each(|sink| sink.release());
    }

    fn all(&self) -> Vec<Arc<Sink>> {
        let now = self.logs.lock();
        let old = self.old.lock();
        now.iter().map(|(_, sink)| sink.clone()).chain(old.iter().filter_map(Weak::upgrade)).collect()
    }

    /// Files that were moved away are begun anew.
    pub(super) fn reopen(&self) {
        self.all().iter().for_each(|sink| sink.reopen());
    }

    /// What is buffered goes out; the gateway stops.
    pub(super) async fn close(&self, engine: &Engine, patience: Duration) {
        let logs = self.all();
        let closing: Vec<_> =
            logs.into_iter().map(|sink| tokio::task::spawn_blocking(move || sink.close(patience))).collect();
        if let Some(tracer) = engine.tracer.swap(None) {
            tracer.close(patience).await;
        }
        for closing in closing {
            let _ = closing.await;
        }
    }
}

fn access_logs(gateway: &Gateway) -> impl Iterator<Item = &AccessLog> {
    let of_sockets = gateway.stages.values().map(|stage| &stage.watch);
    let watches = of_sockets.chain(gateway.http_stages.values().map(|stage| &stage.watch));
    watches.filter_map(|watch: &StageWatch| watch.access_log.as_ref())
}
