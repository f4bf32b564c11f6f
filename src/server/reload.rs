//! Serving another routes.toml without losing a socket.
//!
//! Everything changes at once, or nothing does: the new file is read, checked and its new addresses are
//! bound before anything of the old one is touched.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Server, StartError};
use crate::api::gateway::Gateway;
use crate::connections::When;
use crate::model::close::Close;

/// Editors and Kubernetes replace a file in several steps; one reload is enough for all of them.
const DEBOUNCE: Duration = Duration::from_millis(200);

impl Server {
    /// Serves this gateway from now on. Sockets stay, their next message takes the new routes; those
    /// of a stage that is gone are closed, after what they have in flight, and their `$disconnect`
    /// goes where it would have gone.
    pub fn reload(&self, mut gateway: Gateway) -> Result<(), StartError> {
        let bound = self.bind(&gateway.settings)?;
        self.usage.prepare(&gateway.settings.data_dir)?;
        let opened = self.watch.open(Some(self.engine()), &gateway)?;
        self.take_certificates(gateway.tls.take())?;
        self.order_certificates(gateway.acme.take(), &gateway.settings);
        let settings = gateway.settings.clone();
        let old = self.engine().gateway();
        for (key, stage) in old.stages.iter().chain(&old.retired) {
            if !gateway.stages.contains_key(key) {
                gateway.retired.insert(key.clone(), stage.clone());
            }
        }
        for (key, stage) in &old.http_stages {
            match gateway.http_stages.get(key) {
                Some(successor) => successor.succeed(stage),
                None => stage.retired().cancel(),
            }
        }
        let before = &old.settings;
        let is_for_others =
            before.admin_token != settings.admin_token || before.admin_read_only != settings.admin_read_only;
        self.engine().replace_gateway(gateway);
        if is_for_others {
            self.engine().end_watching();
        }
        self.watch.switch(self.engine(), opened, settings.tracing.clone());
        self.kept.buckets.serve();
        self.switch_listeners(&settings, bound);
        self.check_backends();
        let current = self.engine().gateway();
        self.engine().connections.visit(|connection| {
            if current.retired.contains_key(&connection.client.stage) {
                connection.outbox.close(Close::GOING_AWAY, When::AfterReplies);
            }
        });
        Ok(())
    }
}

/// Tells of changes to a file and to those that it names. Directories are watched, because a file that is replaced
/// by a rename takes the watch on itself with it.
pub struct Watch {
    changes: mpsc::Receiver<()>,
    watcher: notify::RecommendedWatcher,
    names: Arc<Mutex<HashSet<OsString>>>,
}

impl Watch {
    pub fn new(file: &Path) -> io::Result<Self> {
        // Kubernetes swaps the link `..data`.
        let names = Arc::new(Mutex::new(HashSet::from([OsString::from("..data")])));
        let (sender, changes) = mpsc::channel(1);
        let ours = names.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| ours.lock().contains(name));
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(is_ours)) {
                // A full channel already holds the news.
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher.map_err(io::Error::other)?;
        let mut watch = Self { changes, watcher, names };
        watch.add(file)?;
        Ok(watch)
    }

    /// Watches these files as well.
    pub fn follow<'p>(&mut self, files: impl Iterator<Item = &'p PathBuf>) {
        for file in files {
            if let Err(error) = self.add(file) {
                tracing::warn!(%error, "{} cannot be watched for changes; SIGHUP reads it anew", file.display());
            }
        }
    }

    fn add(&mut self, file: &Path) -> io::Result<()> {
        // A link's own directory and that of the file behind it.
        let target = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        for file in [file, &target] {
            // And the directory of the directory, which may itself be a link, or be replaced.
            let directory = directory_of(file);
            self.names
                .lock()
                .extend([file, &directory].into_iter().filter_map(|path| path.file_name()).map(OsString::from));
            let above = directory_of(&directory);
            // Each time anew: behind the same path may be another directory by now.
            self.watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
            if let Err(error) = self.watcher.watch(&above, RecursiveMode::NonRecursive) {
                tracing::debug!(%error, "{} cannot be watched", above.display());
            }
        }
        Ok(())
    }

    /// The file has changed, and has been quiet since, or has kept changing for a second.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let quiet = async { while tokio::time::timeout(DEBOUNCE, self.changes.recv()).await.is_ok() {} };
        let _ = tokio::time::timeout(5 * DEBOUNCE, quiet).await;
    }
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
