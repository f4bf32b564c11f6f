//! Draining: what was completely read is answered, every socket is told, every `$disconnect` delivered.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Server;
use crate::connections::When;
use crate::model::close::Close;

/// What is left after `drain_timeout` gets this long to end by force.
const FORCED: Duration = Duration::from_secs(2);

impl Server {
    /// Stops the gateway in order; returns when nothing is left, at the latest some seconds after
    /// `drain_timeout`.
    pub async fn drain(&self) {
        let engine = self.engine();
        let settings = engine.gateway().settings.clone();
        engine.announce_leaving();
        tracing::info!(connections = engine.connections.count(), "draining");
        tokio::time::sleep(settings.drain_delay).await;
        self.watch.release();
        self.listeners.lock().clients.clear();
        engine.begin_drain();
        let end = Instant::now() + settings.drain_timeout;
        self.close_sockets(settings.drain_timeout / 2).await;
        engine.carried.cancel();
        engine.tasks.close();
        if timeout_at(end, engine.tasks.wait()).await.is_err() {
            engine.deadline.cancel();
            for connection in engine.connections.all() {
                connection.outbox.close(Close::GOING_AWAY, When::Now);
            }
            if timeout_at(Instant::now() + FORCED, engine.tasks.wait()).await.is_err() {
                tracing::warn!(tasks = engine.tasks.len(), "the drain ended before everything was answered");
            }
        }
        // What is being answered still is, and then each connection ends.
        engine.closing.cancel();
        engine.exchanges.close();
        if timeout_at(end.max(Instant::now() + FORCED), engine.exchanges.wait()).await.is_err() {
            tracing::warn!(connections = engine.exchanges.len(), "the drain ended before every answer was taken");
            engine.cut.cancel();
            let _ = timeout_at(Instant::now() + FORCED, engine.exchanges.wait()).await;
        }
        self.usage.close(FORCED).await;
        self.watch.close(engine, FORCED).await;
        engine.closed.cancel();
        engine.lookers_on.close();
        let _ = timeout_at(Instant::now() + FORCED, engine.lookers_on.wait()).await;
        tracing::info!("drained");
    }

    /// Clients that are told to go away come back at once, to another node: spread out, they do not
    /// come as one wave.
    async fn close_sockets(&self, over: Duration) {
        let connections = self.engine().connections.all();
        let begun = Instant::now();
        let step = over / u32::try_from(connections.len().max(1)).unwrap_or(u32::MAX);
        for (count, connection) in (0..).zip(connections) {
            let due = begun + step * count;
            if Instant::now() < due {
                sleep_until(due).await;
            }
            connection.outbox.close(Close::GOING_AWAY, When::AfterReplies);
        }
    }
}
