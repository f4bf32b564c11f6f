//! The one place that knows the order of things.
//!
//! `connect`, `message`, `disconnect` and `request` are lists to be read downwards; each step below them takes
//! the call and its own piece of the route. Steps do not know each other: whether one runs, and what
//! comes before it, is decided here and nowhere else.

mod admission;
mod disconnects;
mod execution;
pub mod gateway_responses;
mod live;
mod ongoing;
pub mod reached;
pub mod readings;
mod record;
mod requests;
mod spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::gateway::Gateway;
use crate::api::routes::Route;
use crate::api::stage::Stage;
use crate::connections::{Connection, Connections, Outgoing};
use crate::expressions::scope::Scope;
use crate::model::call::{Call, ConnectionEvent, Event, Handshake, Happening, Incoming, Reply};
use crate::model::client::Client;
use crate::model::clock::Timestamp;
use crate::model::id::Id;
use crate::model::limits;
use crate::model::record::{Record, Trail, What};
use crate::model::refusal::{Kind, Refusal};
use crate::outbound::backends::Keep;
use crate::steps::throttles::Place;
use crate::telemetry::history::History;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::sink::Counts;
use crate::telemetry::tail::{Direction, Tail};
use crate::telemetry::tracer::Tracer;
use disconnects::Disconnects;
use readings::Readings;
pub use requests::{Asked, Carried};

pub struct Engine {
    /// Everything routes.toml says, swapped as one when it is read again.
    gateway: ArcSwap<Gateway>,
    /// Counts reloads, so that sockets notice one without a look at the gateway.
    generation: AtomicU64,
    pub connections: Connections,
    pub metrics: Metrics,
    /// The last day of those, for the dashboard.
    pub history: History,
    /// Who watches live.
    pub tail: Tail,
    /// Where traces go, if anywhere.
    pub tracer: ArcSwapOption<Tracer>,
    /// How the file was read of late.
    pub readings: Readings,
    /// Where clients reach us, as URLs.
    listeners: ArcSwap<Vec<String>>,
    /// What became of the lines of access logs, by destination.
    logs: ArcSwap<Vec<(String, Arc<Counts>)>>,
    /// Hundredths of a percent of one processor, of late.
    cpu: AtomicU64,
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
    /// What is still being answered is cut off: the drain has waited long enough.
    pub cut: CancellationToken,
    /// Operators' connections, and when they shall end: after everything else.
    pub lookers_on: TaskTracker,
    pub closed: CancellationToken,
    /// The drain's time is over: `$disconnect`s still undelivered are lost.
    pub deadline: CancellationToken,
    /// Ends when what operators must show has changed: whoever watches has to show it again.
    watching: ArcSwap<CancellationToken>,
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
            history: History::default(),
            tail: Tail::default(),
            tracer: ArcSwapOption::empty(),
            readings: Readings::default(),
            listeners: ArcSwap::default(),
            logs: ArcSwap::default(),
            cpu: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            carried: CancellationToken::new(),
            exchanges: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            watching: ArcSwap::default(),
            lookers_on: TaskTracker::new(),
            closed: CancellationToken::new(),
            deadline: CancellationToken::new(),
            disconnects: Disconnects::default(),
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

    /// For as long as whoever was let in may watch.
    pub fn watching(&self) -> CancellationToken {
        (**self.watching.load()).clone()
    }

    /// Other operators are let in from now on.
    pub fn end_watching(&self) {
        self.watching.swap(Arc::default()).cancel();
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    pub fn callback(&self) -> Arc<CallbackBase> {
        self.callback.load_full()
    }

    /// Whether that is still the one.
    pub fn has_callback(&self, callback: &Arc<CallbackBase>) -> bool {
        Arc::ptr_eq(&self.callback.load(), callback)
    }

    pub fn set_callback(&self, callback: CallbackBase) {
        self.callback.store(Arc::new(callback));
    }

    pub fn listeners(&self) -> Arc<Vec<String>> {
        self.listeners.load_full()
    }

    pub fn set_listeners(&self, listeners: Vec<String>) {
        self.listeners.store(Arc::new(listeners));
    }

    pub fn logs(&self) -> Arc<Vec<(String, Arc<Counts>)>> {
        self.logs.load_full()
    }

    pub fn set_logs(&self, logs: Vec<(String, Arc<Counts>)>) {
        self.logs.store(Arc::new(logs));
    }

    /// How much of one processor the process takes, over the last seconds.
    pub fn cpu_percent(&self) -> f64 {
        self.cpu.load(Relaxed) as f64 / 100.0
    }

    pub fn note_cpu_percent(&self, percent: f64) {
        self.cpu.store((percent * 100.0) as u64, Relaxed);
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
        let mut trail = self.set_out(Some(&handshake.headers));
        let outcome = self.open(stage, happening, handshake, &mut call, &mut trail).await;
        let (status, refusal) = match &outcome {
            Ok(Opening::Accepted(_)) => (StatusCode::OK.as_u16(), None),
            Ok(Opening::Declined(reply)) => (reply.status.as_u16(), None),
            Err(refusal) => (refusal.kind.status(), Some(refusal)),
        };
        let route = stage.routes.connect.as_ref().map_or(&stage.watch.nowhere, |route| &route.watch);
        let bodies = Bodies { received: b"", sent: b"" };
        record::ended(self, &stage.watch, route, &of_call(&call, happening, &trail, (status, refusal), bodies));
        outcome
    }

    async fn open(
        &self,
        stage: &Stage,
        happening: Happening<'_>,
        handshake: &Handshake,
        call: &mut Call<'_>,
        trail: &mut Trail,
    ) -> Result<Opening, Refusal> {
        let place = self.let_in(stage, call, happening.client, handshake, trail).await.inspect_err(|refusal| {
            stage.metrics.connects_refused.increment(1);
            record::refused(&stage.metrics, call.subject(), refusal);
        })?;
        let of_token = admission::subprotocol(stage, handshake);
        let Some(route) = &stage.routes.connect else {
            return Ok(Opening::Accepted(Accepted { subprotocol: of_token, place }));
        };
        let is_signed = call.identity.as_ref().is_some_and(|identity| identity.signer.is_some());
        let cleaned = is_signed.then(|| handshake.without_signature());
        let event = ConnectionEvent::Connect(cleaned.as_ref().unwrap_or(handshake));
        let happening = Happening { event, ..happening };
        let mut call = call.about(Event::Connection(happening));
        let keep = Keep::Beginning(limits::REFUSAL_BODY);
        // Boxed, because a handshake that no backend is asked about should not keep room for it.
        let outcome = Box::pin(self.integrate(stage, route, happening, (&mut call, trail), keep)).await;
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
    pub async fn message(&self, stage: &Stage, connection: &Connection, message: &Incoming) -> Option<Outgoing> {
        let client = &connection.client;
        count_message(stage, message);
        let mut trail = self.set_out(None);
        let Some(route) = stage.routes.select(message) else {
            let refusal = Kind::Forbidden.because("no route for the message, and no $default");
            return Some(self.turned_away(stage, connection, message, &trail, &refusal));
        };
        connection.note_route(route.watch.metrics.number);
        let happening = Happening { client, event: ConnectionEvent::Message(message) };
        let mut call = call(happening, &route.key);
        let outcome = self.answer_message(stage, route, happening, &mut call, &mut trail).await;
        let (status, refusal, reply) = match outcome {
            Ok((status, reply)) => (status.as_u16(), None, reply),
            Err(refusal) => {
                let frame = gateway_responses::frame(&refusal, client.id, call.request_id, message.id);
                (refusal.kind.status(), Some(refusal), Some(frame))
            }
        };
        let bodies = Bodies { received: &message.body, sent: reply.as_ref().map_or(b"", |reply| &reply.body) };
        let record = of_call(&call, happening, &trail, (status, refusal.as_ref()), bodies);
        record::ended(self, &stage.watch, &route.watch, &record);
        record::note_error(connection, &record);
        reply
    }

    async fn answer_message(
        &self,
        stage: &Stage,
        route: &Route,
        happening: Happening<'_>,
        call: &mut Call<'_>,
        trail: &mut Trail,
    ) -> Result<(StatusCode, Option<Outgoing>), Refusal> {
        if let Err(refusal) = self.let_pass(stage, route, happening.client, call).await {
            record::refused(&stage.metrics, call.subject(), &refusal);
            return Err(refusal);
        }
        let keep = if route.two_way { Keep::Whole(stage.limits.max_message) } else { Keep::Nothing };
        let reply = self.integrate(stage, route, happening, (call, trail), keep).await?;
        let status = reply.status;
        if !route.two_way {
            return Ok((status, None));
        }
        let outgoing = outgoing(reply, stage).inspect_err(|refusal| {
            record::refused(&stage.metrics, call.subject(), refusal);
        })?;
        Ok((status, outgoing))
    }

    /// A message beyond what its connection may send: it is told so, and goes no further.
    pub fn message_throttled(
        &self,
        stage: &Stage,
        connection: &Connection,
        message: &Incoming,
        refusal: &Refusal,
    ) -> Outgoing {
        count_message(stage, message);
        self.turned_away(stage, connection, message, &self.set_out(None), refusal)
    }

    /// A step panicked on a message: its own call fails and no other.
    pub fn message_panicked(&self, stage: &Stage, connection: &Connection, message: &Incoming) -> Outgoing {
        let refusal = Kind::Internal.because("a step panicked");
        self.turned_away(stage, connection, message, &self.set_out(None), &refusal)
    }

    /// A message that never came to a route.
    fn turned_away(
        &self,
        stage: &Stage,
        connection: &Connection,
        message: &Incoming,
        trail: &Trail,
        refusal: &Refusal,
    ) -> Outgoing {
        let client = &connection.client;
        let happening = Happening { client, event: ConnectionEvent::Message(message) };
        let call = call(happening, "-");
        record::refused(&stage.metrics, call.subject(), refusal);
        let frame = gateway_responses::frame(refusal, client.id, call.request_id, message.id);
        let bodies = Bodies { received: &message.body, sent: &frame.body };
        let record = of_call(&call, happening, trail, (refusal.kind.status(), Some(refusal)), bodies);
        record::ended(self, &stage.watch, &stage.watch.nowhere, &record);
        record::note_error(connection, &record);
        frame
    }

    /// A call sets out: its trace begins, or goes on, where there are traces.
    fn set_out(&self, headers: Option<&HeaderMap>) -> Trail {
        let trace = self.tracer.load().as_ref().and_then(|tracer| spans::begin(tracer, headers, false));
        Trail { trace, ..Trail::default() }
    }

    /// A backend's call sets out, which has its own word about its trace.
    pub fn set_out_for_backend(&self, headers: &HeaderMap) -> Trail {
        let trace = self.tracer.load().as_ref().and_then(|tracer| spans::begin(tracer, Some(headers), true));
        Trail { trace, ..Trail::default() }
    }

    /// A frame came, or goes out, for whoever watches.
    pub fn note_frame(&self, stage: &Stage, connection: &Connection, direction: Direction, payload: &[u8]) {
        if self.tail.is_watched() {
            live::tell_frame(&self.tail, connection, direction, payload, stage.watch.data_trace);
        }
    }

    /// The tail that all calls share: ask the backend, write down how it went.
    async fn integrate(
        &self,
        stage: &Stage,
        route: &Route,
        happening: Happening<'_>,
        (call, trail): (&mut Call<'_>, &mut Trail),
        keep: Keep,
    ) -> Result<Reply, Refusal> {
        call.trace = trail.next_span();
        let began = route.integration.has_backend().then(Instant::now);
        let mapped = route.parameters.apply(&Scope { call, stage_variables: &stage.variables });
        let outcome = route.integration.send(call, happening, &stage.variables, mapped, keep).await;
        record::integration(&stage.metrics, call, trail, began, &outcome);
        outcome
    }
}

fn call<'a>(happening: Happening<'a>, route_key: &'a str) -> Call<'a> {
    let identity = happening.client.identity.read().clone();
    let event = Event::Connection(happening);
    Call { event, route_key, request_id: Id::random(), at: Timestamp::now(), identity, trace: None }
}

fn count_message(stage: &Stage, message: &Incoming) {
    stage.metrics.messages_in.increment(1);
    stage.metrics.bytes_in.increment(message.body.len() as u64);
}

/// What a call brought, and what it was answered.
struct Bodies<'a> {
    received: &'a [u8],
    sent: &'a [u8],
}

fn of_call<'a>(
    call: &'a Call<'a>,
    happening: Happening<'a>,
    trail: &'a Trail,
    (status, refusal): (u16, Option<&'a Refusal>),
    bodies: Bodies<'a>,
) -> Record<'a> {
    Record {
        what: What::Connection(happening),
        stage: &happening.client.stage,
        route_key: call.route_key,
        request_id: call.request_id,
        at: call.at,
        identity: call.identity.as_deref(),
        trail,
        status,
        refusal,
        took: trail.began.elapsed(),
        received: bodies.received.len() as u64,
        sent: bodies.sent.len() as u64,
        body: bodies.received,
        answer: bodies.sent,
    }
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
