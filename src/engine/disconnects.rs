//! `$disconnect`: told once for each connection that was opened, and again until the backend has it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rand::RngExt as _;
use tokio::sync::Semaphore;

use super::{Bodies, Engine, call, of_call, record};
use crate::api::stage::Stage;
use crate::connections::Connection;
use crate::model::call::{Call, ConnectionEvent, Happening};
use crate::model::client::Client;
use crate::model::clock::Tick;
use crate::model::close::Close;
use crate::model::limits;
use crate::model::record::Trail;
use crate::model::refusal::{Kind, Refusal};
use crate::outbound::backends::Keep;

pub(super) struct Disconnects {
    /// Places in the queue; see `limits::DISCONNECTS`.
    waiting: Arc<Semaphore>,
}

impl Default for Disconnects {
    fn default() -> Self {
        Self { waiting: Arc::new(Semaphore::new(limits::DISCONNECTS)) }
    }
}

impl Engine {
    /// `$disconnect`, exactly one for each connection that was opened: at once, then again with
    /// backoff and the same request id until the backend has it or the stage's patience ends.
    pub fn disconnected(self: &Arc<Self>, connection: Arc<Connection>, close: Close) {
        self.connections.remove(&connection.client.id);
        let Some(stage) = self.stage_of(&connection.client) else { return };
        record::closed(&stage.metrics, &connection.client, &close);
        let (bytes, messages) = connection.outbox.shut();
        stage.metrics.unqueued(bytes, messages);
        if stage.routes.disconnect.is_none() {
            if record::is_told(self, &stage.watch, &stage.watch.nowhere) {
                self.departed(&stage, &connection.client, &close, &self.set_out(None), Ok(StatusCode::OK));
            }
            return;
        }
        let Ok(place) = self.disconnects.waiting.clone().try_acquire_owned() else {
            let why = "too many are waiting for their backend";
            record::disconnect_lost(&stage.metrics, &connection.client, why);
            let refusal = Kind::Busy.because(why);
            return self.departed(&stage, &connection.client, &close, &self.set_out(None), Err(refusal));
        };
        let engine = self.clone();
        self.tasks.spawn(async move {
            engine.disconnect(stage, &connection.client, &close).await;
            drop(place);
        });
    }

    async fn disconnect(&self, mut stage: Arc<Stage>, client: &Client, close: &Close) {
        let happening = Happening { client, event: ConnectionEvent::Disconnect(close) };
        let mut call = call(happening, "$disconnect");
        let mut trail = self.set_out(None);
        let mut began = None;
        let mut pause = Duration::from_millis(100);
        loop {
            // As it is now: a reload may have corrected what made the last attempt fail.
            stage = self.stage_of(client).unwrap_or(stage);
            let Some(route) = &stage.routes.disconnect else {
                let why = "a reload removed the route";
                record::disconnect_lost(&stage.metrics, client, why);
                return self.departed_with(&stage, &call, happening, &trail, Err(Kind::NotFound.because(why)));
            };
            let attempt = async {
                let _turn = stage.disconnect_turns.acquire().await.expect("the semaphore is never closed");
                began.get_or_insert_with(Tick::now);
                self.integrate(&stage, route, happening, (&mut call, &mut trail), Keep::Nothing).await
            };
            let failed = tokio::select! {
                outcome = attempt => match outcome {
                    Ok(reply) if !reply.status.is_server_error() => {
                        return self.departed_with(&stage, &call, happening, &trail, Ok(reply.status));
                    }
                    Ok(reply) => Kind::IntegrationFailure.because(format_args!("the backend answered {}", reply.status)),
                    Err(refusal) => refusal,
                },
                () = self.deadline.cancelled() => {
                    Kind::IntegrationTimeout.because("the gateway stopped before its backend answered")
                }
            };
            // Spread out, so that a thousand that failed together do not return together.
            let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            let tried_for = began.map_or(Duration::ZERO, |began| Tick::now().since(began));
            if self.deadline.is_cancelled() || tried_for + wait > stage.limits.disconnect_retry {
                record::disconnect_lost(&stage.metrics, client, &failed.detail);
                return self.departed_with(&stage, &call, happening, &trail, Err(failed));
            }
            record::disconnect_retried(&stage.metrics, client, &failed.detail);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.deadline.cancelled() => {}
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// A disconnect that no backend was asked about.
    fn departed(
        &self,
        stage: &Stage,
        client: &Client,
        close: &Close,
        trail: &Trail,
        outcome: Result<StatusCode, Refusal>,
    ) {
        let happening = Happening { client, event: ConnectionEvent::Disconnect(close) };
        self.departed_with(stage, &call(happening, "$disconnect"), happening, trail, outcome);
    }

    fn departed_with(
        &self,
        stage: &Stage,
        call: &Call<'_>,
        happening: Happening<'_>,
        trail: &Trail,
        outcome: Result<StatusCode, Refusal>,
    ) {
        let outcome = outcome.as_ref().map_err(|refusal| (refusal.kind.status(), Some(refusal)));
        let ended = outcome.map_or_else(|refused| refused, |status| (status.as_u16(), None));
        let route = stage.routes.disconnect.as_ref().map_or(&stage.watch.nowhere, |route| &route.watch);
        let bodies = Bodies { received: b"", sent: b"" };
        record::ended(self, &stage.watch, route, &of_call(call, happening, trail, ended, bodies));
    }
}
