//! `push`: publish to one connection at a time. `broadcast`: publish once to all.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::echo::{PATIENCE, on_schedule};
use crate::holders::Holders;
use crate::publish::{PublishArgs, Publisher, read_stamp, stamp};
use crate::session::{Opener, SessionArgs, complain};
use crate::stats::{Count, Latencies, ReportArgs, Window};
use crate::ws::{Connection, TEXT};

/// After a publish that failed, so that a server that is down is not also flooded.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(5);

#[derive(Args, Debug)]
pub struct CommonArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub publish: PublishArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    /// Receiving connections
    #[arg(long, default_value_t = 1000)]
    pub conns: usize,
    #[arg(long, default_value_t = 8)]
    pub duration: u64,
    #[arg(long, default_value_t = 2)]
    pub warmup: u64,
    #[arg(long, default_value_t = 128)]
    pub bytes: usize,
}

#[derive(Args, Debug)]
pub struct PushArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Publishers; each waits for the answer and for the delivery before its next
    #[arg(long, default_value_t = 32)]
    pub publishers: usize,
    /// Pushes a second over all publishers (0: each as soon as its last one is delivered)
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Further connections, held by processes of their own, that echo one message each when the run is over
    #[arg(long, default_value_t = 0)]
    pub held: usize,
    /// Send this on each connection; the reply, or its `connectionId`, is the id
    #[arg(long)]
    pub ask: Option<String>,
}

#[derive(Args, Debug)]
pub struct BroadcastArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Publishers; each waits for all deliveries before its next
    #[arg(long, default_value_t = 1)]
    pub publishers: usize,
}

/// What one publisher waits for.
#[derive(Default)]
struct Slot {
    sent_at: Cell<u64>,
    missing: Cell<usize>,
    done: Notify,
}

/// What the tasks of a run share.
struct Run {
    epoch: Instant,
    slots: Vec<Slot>,
    bytes: usize,
    delivery: Latencies,
    whole: Latencies,
    delivered: Count,
    rounds: Count,
    lost: Count,
    errors: Count,
    measuring: Cell<bool>,
}

pub async fn push(args: PushArgs) -> anyhow::Result<()> {
    let common = &args.common;
    let mut holders = Holders::default();
    let held = if args.held > 0 { Some(holders.open(&common.session, args.held, true).await?) } else { None };
    let opener = Opener::new(&common.session, common.conns)?;
    let (mut connections, failed) = opener.open_all(common.conns).await;
    let mut ids = vec![String::new(); connections.len()];
    if let Some(question) = &args.ask {
        for (connection, id) in connections.iter_mut().zip(&mut ids) {
            *id = ask(connection, question).await.context("no id for --ask")?;
        }
    }
    ensure!(!ids.is_empty(), "no connection opened that could be pushed to");
    let run = Run::new(args.publishers, common.bytes);
    run.read_all(&opener, connections);
    let ids = Rc::new(ids);
    let ticket = Count::default();
    for w in 0..args.publishers {
        let mut publisher = run.publisher(&common.session, &common.publish, w).await?;
        let (run, ids, ticket, rate) = (run.clone(), ids.clone(), ticket.clone(), args.rate);
        spawn_local(async move {
            loop {
                let number = ticket.next();
                let i = number as usize % ids.len();
                let sent = match rate {
                    0 => Instant::now(),
                    rate => on_schedule(run.epoch + Duration::from_nanos(1_000_000_000 / rate * number)).await,
                };
                run.round(&mut publisher, w, sent, (i, &ids[i]), 1).await;
            }
        });
    }
    let mut out = run.measure(common).await;
    out.insert("conns".into(), json!(ids.len()));
    out.insert("failed".into(), json!(failed + held.map_or(0, |fate| fate.failed)));
    out.insert("rate_asked".into(), json!(args.rate));
    if let Some(held) = held {
        let fate = holders.echo(common.bytes).await?;
        out.insert("held".into(), json!(held.opened));
        out.insert("held_echoed".into(), json!(fate.echoed));
        out.insert("dropped".into(), json!(fate.dropped));
    }
    common.report.write("push", out)
}

pub async fn broadcast(args: BroadcastArgs) -> anyhow::Result<()> {
    let common = &args.common;
    let opener = Opener::new(&common.session, common.conns)?;
    let (connections, failed) = opener.open_all(common.conns).await;
    let n = connections.len();
    let run = Run::new(args.publishers, common.bytes);
    run.read_all(&opener, connections);
    for w in 0..args.publishers {
        let mut publisher = run.publisher(&common.session, &common.publish, w).await?;
        let run = run.clone();
        spawn_local(async move {
            loop {
                run.round(&mut publisher, w, Instant::now(), (0, ""), n).await;
            }
        });
    }
    let mut out = run.measure(common).await;
    out.insert("conns".into(), json!(n));
    out.insert("failed".into(), json!(failed));
    common.report.write("broadcast", out)
}

pub async fn ask(connection: &mut Connection, question: &str) -> io::Result<String> {
    connection.send(TEXT, question.as_bytes()).await?;
    let reply = timeout(PATIENCE, connection.next()).await??;
    let reply = String::from_utf8_lossy(&reply);
    let json: Value = serde_json::from_str(&reply).unwrap_or_default();
    let id = json["connectionId"].as_str().or(json.as_str());
    Ok(id.unwrap_or(reply.trim()).to_string())
}

impl Run {
    fn new(publishers: usize, bytes: usize) -> Rc<Self> {
        Rc::new(Run {
            epoch: Instant::now(),
            slots: (0..publishers).map(|_| Slot::default()).collect(),
            bytes,
            delivery: Latencies::new(),
            whole: Latencies::new(),
            delivered: Count::default(),
            rounds: Count::default(),
            lost: Count::default(),
            errors: Count::default(),
            measuring: Cell::new(false),
        })
    }

    async fn publisher(&self, session: &SessionArgs, publish: &PublishArgs, w: usize) -> anyhow::Result<Publisher> {
        let publisher = Publisher::connect(session.adapter, &session.channel, publish, w).await;
        publisher.with_context(|| format!("publisher {w} could not connect"))
    }

    fn read_all(self: &Rc<Self>, opener: &Rc<Opener>, connections: Vec<Connection>) {
        for (i, mut connection) in connections.into_iter().enumerate() {
            let (run, adapter) = (self.clone(), opener.args.adapter);
            spawn_local(async move {
                loop {
                    let mut owed = None;
                    let received = connection.receive(|frame| {
                        run.arrived(frame);
                        owed = owed.or(adapter.pong(frame));
                    });
                    if let Err(e) = received.await {
                        return complain(&run.errors, format_args!("receiving connection {i}: {e}"));
                    }
                    if let Some((opcode, body)) = owed
                        && let Err(e) = connection.send(opcode, body).await
                    {
                        return complain(&run.errors, format_args!("receiving connection {i}: {e}"));
                    }
                }
            });
        }
    }

    fn arrived(&self, frame: &[u8]) {
        let Some((stamp, w)) = read_stamp(frame) else { return };
        let Some(slot) = self.slots.get(w) else { return };
        if slot.sent_at.get() != stamp || slot.missing.get() == 0 {
            // Its round was given up, and counted as lost.
            return;
        }
        if self.measuring.get() {
            self.delivered.next();
            self.delivery.record(self.epoch.elapsed().saturating_sub(Duration::from_nanos(stamp)));
        }
        slot.missing.set(slot.missing.get() - 1);
        if slot.missing.get() == 0 {
            slot.done.notify_one();
        }
    }

    /// Publishes, and waits for that many deliveries.
    async fn round(&self, publisher: &mut Publisher, w: usize, sent: Instant, to: (usize, &str), expected: usize) {
        let slot = &self.slots[w];
        let nanos = sent.duration_since(self.epoch).as_nanos() as u64;
        slot.sent_at.set(nanos);
        slot.missing.set(expected);
        let mut payload = Vec::new();
        stamp(&mut payload, nanos, w, self.bytes);
        if let Err(e) = publisher.publish(to.0, to.1, &payload).await {
            complain(&self.errors, format_args!("publish: {e}"));
            slot.missing.set(0);
            sleep(PAUSE_AFTER_ERROR).await;
            return;
        }
        while slot.missing.get() > 0 {
            if timeout(PATIENCE, slot.done.notified()).await.is_err() {
                for _ in 0..slot.missing.replace(0) {
                    complain(&self.lost, format_args!("a publish was answered and not delivered in {PATIENCE:?}"));
                }
                return;
            }
        }
        if self.measuring.get() {
            self.rounds.next();
            self.whole.record(sent.elapsed());
        }
    }

    async fn measure(&self, common: &CommonArgs) -> Map<String, Value> {
        sleep(Duration::from_secs(common.warmup)).await;
        self.measuring.set(true);
        let window = Window::open(&common.report);
        sleep(Duration::from_secs(common.duration)).await;
        self.measuring.set(false);
        let mut out = window.close("deliveries", self.delivered.get());
        out.insert("rounds".into(), json!(self.rounds.get()));
        out.insert("lost".into(), json!(self.lost.get()));
        out.insert("errors".into(), json!(self.errors.get()));
        out.insert("delivery_us".into(), self.delivery.micros());
        out.insert("whole_us".into(), self.whole.micros());
        out
    }
}
