//! The one place that knows the order of things.
//!
//! `connect`, `message`, `disconnect` and `request` are lists to be read downwards; each step below them takes
//! the call and its own piece of the route. Steps do not know each other: whether one runs, and what
//! comes before it, is decided here and nowhere else.

mod admission;
pub mod gateway_responses;
pub mod reached;
mod record;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use rand::RngExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::gateway::Gateway;
use crate::api::routes::Route;
use crate::api::stage::Stage;
use crate::connections::{Connection, Connections, Outgoing};
use crate::expressions::scope::Scope;
use crate::model::call::{Call, ConnectionEvent, Event, Handshake, Happening, Incoming, Reply, Subject};
use crate::model::client::Client;
use crate::model::clock::{Tick, Timestamp};
use crate::model::close::Close;
use crate::model::id::Id;
use crate::model::limits;
use crate::model::refusal::{Kind, Refusal};
use crate::outbound::backends::Keep;
use crate::steps::throttles::Place;
use crate::telemetry::metrics::Metrics;
pub use requests::{Asked, Carried};

pub struct Engine {
    /// Everything routes.toml says, swapped as one when it is read again.
    gateway: ArcSwap<Gateway>,
    /// Counts reloads, so that sockets notice one without a look at the gateway.
    generation: AtomicU64,
    pub connections: Connections,
    pub metrics: Metrics,
    /// Sockets, messages and `$disconnect`s at work; the drain waits for them.
    pub tasks: TaskTracker,
    /// The gateway will stop: load balancers are told.
    leaving: AtomicBool,
    /// The gateway stops: nothing more is read from clients.
    draining: AtomicBool,
    /// Connections that speak another protocol than HTTP or our WebSocket shall end.
    pub carried: CancellationToken,
    /// Clients' HTTP connections; the drain waits for what they still answer.
    pub exchanges: TaskTracker,
    /// Kept-alive HTTP connections shall end.
    pub closing: CancellationToken,
    /// Operators' connections, and when they shall end: after everything else.
    pub lookers_on: TaskTracker,
    pub closed: CancellationToken,
    /// The drain's time is over: `$disconnect`s still undelivered are lost.
    pub deadline: CancellationToken,
    disconnects: Disconnects,
    callback: ArcSwap<CallbackBase>,
}

/// Where backends push to a client whose own Host header is not trusted.
#[derive(Debug, Default, PartialEq)]
pub struct CallbackBase {
    /// The host, with its port unless it is the scheme's own.
    pub host: String,
    /// The URL in front of the stage's path.
    pub url: String,
}

struct Disconnects {
    /// Places in the queue; see `limits::DISCONNECTS`.
    waiting: Arc<Semaphore>,
}

/// What becomes of a handshake.
pub enum Opening {
    /// The backend said 2xx, or there is no `$connect` route.
    Accepted(Accepted),
    /// The backend said something else, which the client gets to see.
    Declined(Reply),
}

/// A handshake that may become a connection.
pub struct Accepted {
    /// The one that the backend chose, or one that goes with a token among the offered.
    pub subprotocol: Option<HeaderValue>,
    /// Its place among the connections of its address, to be kept for as long as it lives.
    pub place: Place,
}

impl Engine {
    pub fn new(gateway: Gateway, metrics: Metrics) -> Self {
        Self {
            gateway: ArcSwap::from_pointee(gateway),
            generation: AtomicU64::new(0),
            connections: Connections::default(),
            metrics,
            tasks: TaskTracker::new(),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            carried: CancellationToken::new(),
            exchanges: TaskTracker::new(),
            closing: CancellationToken::new(),
            lookers_on: TaskTracker::new(),
            closed: CancellationToken::new(),
            deadline: CancellationToken::new(),
            disconnects: Disconnects { waiting: Arc::new(Semaphore::new(limits::DISCONNECTS)) },
            callback: ArcSwap::default(),
        }
    }

    /// What is being served now. Load it once for a call and keep it: a reload swaps it.
    pub fn gateway(&self) -> Arc<Gateway> {
        self.gateway.load_full()
    }

    /// Serves another file from now on; every socket takes its new limits at once.
    pub fn replace_gateway(&self, gateway: Gateway) {
        self.gateway.store(Arc::new(gateway));
        self.generation.fetch_add(1, Relaxed);
        self.connections.visit(|connection| connection.outbox.wake());
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    pub fn callback(&self) -> Arc<CallbackBase> {
        self.callback.load_full()
    }

    pub fn set_callback(&self, callback: CallbackBase) {
        self.callback.store(Arc::new(callback));
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    pub fn announce_leaving(&self) {
        self.leaving.store(true, Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub fn begin_drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// The stage of a live connection; one that a reload removed is known until its sockets are gone.
    pub fn stage_of(&self, client: &Client) -> Option<Arc<Stage>> {
        self.gateway.load().stage_of(&client.stage)
    }

    /// `$connect`: nothing goes to the client before this has ended.
    pub async fn connect(&self, stage: &Stage, client: &Client, handshake: &Handshake) -> Result<Opening, Refusal> {
        let happening = Happening { client, event: ConnectionEvent::Connect(handshake) };
        let mut call = call(happening, "$connect");
        let place = self.let_in(stage, &mut call, client, handshake).await.inspect_err(|refusal| {
            stage.metrics.connects_refused.increment(1);
            record::refused(&stage.metrics, call.subject(), refusal);
        })?;
        let of_token = admission::subprotocol(stage, handshake);
        let Some(route) = &stage.routes.connect else {
            return Ok(Opening::Accepted(Accepted { subprotocol: of_token, place }));
        };
        let is_signed = call.identity.as_ref().is_some_and(|identity| identity.signer.is_some());
        let cleaned = is_signed.then(|| handshake.without_signature());
        let happening = Happening { client, event: ConnectionEvent::Connect(cleaned.as_ref().unwrap_or(handshake)) };
        let call = Call { event: Event::Connection(happening), ..call };
        let outcome = self.integrate(stage, route, happening, &call, Keep::Beginning(limits::REFUSAL_BODY)).await;
        match &outcome {
            Ok(reply) if reply.status.is_success() => {}
            Ok(_) => stage.metrics.connects_refused.increment(1),
            Err(_) => stage.metrics.connects_failed.increment(1),
        }
        opening(outcome?, of_token, place)
    }

    /// The handshake is settled: from here on the connection can be pushed to, and one
    /// `$disconnect` is owed for it.
    pub fn opened(&self, stage: &Stage, connection: &Arc<Connection>) {
        self.connections.open(connection.clone());
        record::opened(&stage.metrics, &connection.client);
    }

    /// A message: the frame to send back, if there is one.
    pub async fn message(&self, stage: &Stage, client: &Client, message: &Incoming) -> Option<Outgoing> {
        stage.metrics.messages_in.increment(1);
        let Some(route) = stage.routes.select(message) else {
            let refusal = Kind::Forbidden.because("no route for the message, and no $default");
            let request_id = Id::random();
            record::refused(&stage.metrics, of_no_route(client, request_id), &refusal);
            return Some(gateway_responses::frame(&refusal, client.id, request_id, message.id));
        };
        let happening = Happening { client, event: ConnectionEvent::Message(message) };
        let mut call = call(happening, &route.key);
        if let Err(refusal) = self.let_pass(stage, route, client, &mut call).await {
            record::refused(&stage.metrics, call.subject(), &refusal);
            return Some(gateway_responses::frame(&refusal, client.id, call.request_id, message.id));
        }
        let keep = if route.two_way { Keep::Whole(stage.limits.max_message) } else { Keep::Nothing };
        let outcome = self.integrate(stage, route, happening, &call, keep).await;
        let outcome = match outcome {
            Ok(reply) if route.two_way => outgoing(reply, stage).inspect_err(|refusal| {
                record::refused(&stage.metrics, call.subject(), refusal);
            }),
            Ok(_) => Ok(None),
            Err(refusal) => Err(refusal),
        };
        outcome
            .unwrap_or_else(|refusal| Some(gateway_responses::frame(&refusal, client.id, call.request_id, message.id)))
    }

    /// A message beyond what its connection may send: it is told so, and goes no further.
    pub fn message_throttled(&self, stage: &Stage, client: &Client, message: &Incoming, refusal: &Refusal) -> Outgoing {
        stage.metrics.messages_in.increment(1);
        let request_id = Id::random();
        record::refused(&stage.metrics, of_no_route(client, request_id), refusal);
        gateway_responses::frame(refusal, client.id, request_id, message.id)
    }

    /// A step panicked on a message: its own call fails and no other.
    pub fn message_panicked(&self, stage: &Stage, client: &Client, message: Id) -> Outgoing {
        let refusal = Kind::Internal.because("a step panicked");
        let request_id = Id::random();
        record::refused(&stage.metrics, of_no_route(client, request_id), &refusal);
        gateway_responses::frame(&refusal, client.id, request_id, message)
    }

    /// `$disconnect`, exactly one for each connection that was opened: at once, then again with
    /// backoff and the same request id until the backend has it or the stage's patience ends.
    pub fn disconnected(self: &Arc<Self>, connection: Arc<Connection>, close: Close) {
        self.connections.remove(&connection.client.id);
        let Some(stage) = self.stage_of(&connection.client) else { return };
        record::closed(&stage.metrics, &connection.client, &close);
        stage.metrics.outbox_bytes.decrement(connection.outbox.shut() as f64);
        if stage.routes.disconnect.is_none() {
            return;
        }
        let Ok(place) = self.disconnects.waiting.clone().try_acquire_owned() else {
            record::disconnect_lost(&stage.metrics, &connection.client, "too many are waiting for their backend");
            return;
        };
        let engine = self.clone();
        self.tasks.spawn(async move {
            engine.disconnect(stage, &connection.client, &close).await;
            drop(place);
        });
    }

    async fn disconnect(&self, mut stage: Arc<Stage>, client: &Client, close: &Close) {
        let happening = Happening { client, event: ConnectionEvent::Disconnect(close) };
        let call = call(happening, "$disconnect");
        let mut began = None;
        let mut pause = Duration::from_millis(100);
        loop {
            // As it is now: a reload may have corrected what made the last attempt fail.
            stage = self.stage_of(client).unwrap_or(stage);
            let Some(route) = &stage.routes.disconnect else {
                record::disconnect_lost(&stage.metrics, client, "a reload removed the route");
                return;
            };
            let attempt = async {
                let _turn = stage.disconnect_turns.acquire().await.expect("the semaphore is never closed");
                began.get_or_insert_with(Tick::now);
                self.integrate(&stage, route, happening, &call, Keep::Nothing).await
            };
            let error = tokio::select! {
                outcome = attempt => match outcome {
                    Ok(reply) if !reply.status.is_server_error() => return,
                    Ok(reply) => format!("the backend answered {}", reply.status),
                    Err(refusal) => refusal.to_string(),
                },
                () = self.deadline.cancelled() => "the gateway stopped before its backend answered".to_owned(),
            };
            // Spread out, so that a thousand that failed together do not return together.
            let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            let tried_for = began.map_or(Duration::ZERO, |began| Tick::now().since(began));
            if self.deadline.is_cancelled() || tried_for + wait > stage.limits.disconnect_retry {
                record::disconnect_lost(&stage.metrics, client, &error);
                return;
            }
            record::disconnect_retried(&stage.metrics, client, &error);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.deadline.cancelled() => {}
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// The tail that all calls share: ask the backend, write down how it went.
    async fn integrate(
        &self,
        stage: &Stage,
        route: &Route,
        happening: Happening<'_>,
        call: &Call<'_>,
        keep: Keep,
    ) -> Result<Reply, Refusal> {
        let began = route.integration.has_backend().then(Instant::now);
        let mapped = route.parameters.apply(&Scope { call, stage_variables: &stage.variables });
        let outcome = route.integration.send(call, happening, &stage.variables, mapped, keep).await;
        record::integration(&stage.metrics, call, began, &outcome);
        outcome
    }
}

fn call<'a>(happening: Happening<'a>, route_key: &'a str) -> Call<'a> {
    let identity = happening.client.identity.load_full();
    Call { event: Event::Connection(happening), route_key, request_id: Id::random(), at: Timestamp::now(), identity }
}

fn of_no_route(client: &Client, request_id: Id) -> Subject<'_> {
    Subject { stage: &client.stage, connection: Some(client.id), route_key: "-", request_id }
}

fn opening(reply: Reply, of_token: Option<HeaderValue>, place: Place) -> Result<Opening, Refusal> {
    if reply.status.is_success() {
        let mut headers = reply.headers;
        let subprotocol = headers.remove(http::header::SEC_WEBSOCKET_PROTOCOL).or(of_token);
        return Ok(Opening::Accepted(Accepted { subprotocol, place }));
    }
    if reply.status.is_informational() || reply.status.is_redirection() {
        let detail = format_args!("the backend answered {} to $connect", reply.status);
        return Err(Kind::IntegrationFailure.because(detail));
    }
    Ok(Opening::Declined(reply))
}

/// A two-way route's reply as a message: an empty body sends none, and what the client
/// could not read is the gateway's error, not the client's.
fn outgoing(reply: Reply, stage: &Stage) -> Result<Option<Outgoing>, Refusal> {
    let is_bytes = reply.content_type().is_some_and(|value| value.as_bytes().starts_with(b"application/octet-stream"));
    let body = reply.body;
    if body.is_empty() {
        return Ok(None);
    }
    if body.len() > stage.limits.max_message {
        let detail = format_args!("the reply of {} bytes is longer than max_message", body.len());
        return Err(Kind::IntegrationFailure.because(detail));
    }
    let is_text = std::str::from_utf8(&body).is_ok();
    if !is_text && !stage.limits.binary {
        return Err(Kind::IntegrationFailure.because("the reply is not UTF-8, and the stage is not `binary`"));
    }
    Ok(Some(Outgoing { body, binary: stage.limits.binary && (is_bytes || !is_text) }))
}
