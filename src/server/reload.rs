//! Serving another routes.toml without losing a socket.
//!
//! Everything changes at once, or nothing does: the new file is read, checked and its new addresses are
//! bound before anything of the old one is touched.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{BindError, Server};
use crate::api::gateway::Gateway;
use crate::connections::When;
use crate::model::close::Close;

/// Editors and Kubernetes replace a file in several steps; one reload is enough for all of them.
const DEBOUNCE: Duration = Duration::from_millis(200);

impl Server {
    /// Serves this gateway from now on. Sockets stay, their next message takes the new routes; those
    /// of a stage that is gone are closed, after what they have in flight, and their `$disconnect`
    /// goes where it would have gone.
    pub fn reload(&self, mut gateway: Gateway) -> Result<(), BindError> {
        let bound = self.bind(&gateway.settings)?;
        let settings = gateway.settings.clone();
        let old = self.engine().gateway();
        for (key, stage) in old.stages.iter().chain(&old.retired) {
            if !gateway.stages.contains_key(key) {
                gateway.retired.insert(key.clone(), stage.clone());
            }
        }
        self.engine().replace_gateway(gateway);
        self.switch_listeners(&settings, bound);
        let current = self.engine().gateway();
        self.engine().connections.visit(|connection| {
            if current.retired.contains_key(&connection.client.stage) {
                connection.outbox.close(Close::GOING_AWAY, When::AfterReplies);
            }
        });
        Ok(())
    }
}

/// Tells of changes to one file. The directory is watched, because a file that is replaced by a rename
/// takes the watch on itself with it.
pub struct Watch {
    changes: mpsc::Receiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl Watch {
    pub fn new(file: &Path) -> io::Result<Self> {
        // A link's own directory and that of the file behind it: Kubernetes swaps the link `..data`.
        let target = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let mut names: Vec<OsString> =
            [file, &target].into_iter().filter_map(Path::file_name).map(OsString::from).collect();
        names.push("..data".into());
        let mut directories = vec![directory_of(file), directory_of(&target)];
        directories.dedup();
        let (sender, changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| names.iter().any(|ours| ours == name));
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(is_ours)) {
                // A full channel already holds the news.
                let _ = sender.try_send(());
            }
        })
        .map_err(io::Error::other)?;
        for directory in directories {
            watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
        }
        Ok(Self { changes, _watcher: watcher })
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
