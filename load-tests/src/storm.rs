//! `storm`: connections are opened and kept; when the server goes away, all of them come back at once.
//!
//! A line of JSON says when all are open, from when on the server may be ended and started again. Every client then tries
//! until it is back, as a client without any manners does, and at the end has one message echoed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::{Map, json};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::echo::{PATIENCE, fill_up};
use crate::session::{Opener, SessionArgs, complain};
use crate::stats::{Count, Latencies, ReportArgs};
use crate::ws::{Connection, TEXT};

/// Between two attempts of one client.
const PAUSE: Duration = Duration::from_millis(100);
/// After it an attempt is given up, and counted as an error.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Echoes in flight when all are back.
const ECHOES_AT_A_TIME: usize = 16;

#[derive(Args, Debug)]
pub struct StormArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    #[arg(long, default_value_t = 5000)]
    pub conns: usize,
    /// Seconds after which who is not back counts as lost
    #[arg(long, default_value_t = 60)]
    pub patience: u64,
}

struct Storm {
    opener: Rc<Opener>,
    turn: Semaphore,
    /// The first connection that was lost, and the first that was back.
    gone: Cell<Option<Instant>>,
    first_back: Cell<Option<Instant>>,
    last_back: Cell<Option<Instant>>,
    back: Count,
    echoed: Count,
    /// Attempts while nobody was there, and those that failed afterwards.
    refused: Count,
    errors: Count,
    handshakes: Latencies,
}

pub async fn run(args: StormArgs) -> anyhow::Result<()> {
    let opener = Opener::new(&args.session, args.conns)?;
    let (connections, failed) = opener.open_all(args.conns).await;
    ensure!(failed == 0, "{failed} of {} connections did not open", args.conns);
    let storm = Rc::new(Storm {
        opener,
        turn: Semaphore::new(ECHOES_AT_A_TIME),
        gone: Cell::new(None),
        first_back: Cell::new(None),
        last_back: Cell::new(None),
        back: Count::default(),
        echoed: Count::default(),
        refused: Count::default(),
        errors: Count::default(),
        handshakes: Latencies::new(),
    });
    for (i, connection) in connections.into_iter().enumerate() {
        spawn_local(storm.clone().live(i, connection));
    }
    println!("{}", json!({"opened": args.conns}));
    let all = args.conns as u64;
    let mut waited = Duration::ZERO;
    while storm.echoed.get() < all && waited < Duration::from_secs(args.patience) {
        sleep(PAUSE).await;
        waited += PAUSE;
    }
    let between = |from: Option<Instant>, to: Option<Instant>| match from.zip(to) {
        Some((from, to)) => json!(to.saturating_duration_since(from).as_millis() as u64),
        None => json!(null),
    };
    let mut out = Map::new();
    out.insert("conns".into(), json!(args.conns));
    out.insert("gone_ms".into(), between(storm.gone.get(), storm.first_back.get()));
    out.insert("back_ms".into(), between(storm.first_back.get(), storm.last_back.get()));
    out.insert("handshake_us".into(), storm.handshakes.micros());
    out.insert("refused".into(), json!(storm.refused.get()));
    out.insert("errors".into(), json!(storm.errors.get()));
    out.insert("lost".into(), json!(all - storm.back.get()));
    out.insert("failed".into(), json!(storm.back.get() - storm.echoed.get().min(storm.back.get())));
    args.report.write("storm", out)
}

impl Storm {
    async fn live(self: Rc<Self>, i: usize, mut connection: Connection) {
        while connection.receive(|_| ()).await.is_ok() {}
        drop(connection);
        if self.gone.get().is_none() {
            self.gone.set(Some(Instant::now()));
        }
        let mut connection = self.come_back(i).await;
        let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
        let exchange = async {
            connection.send(TEXT, &fill_up(r#"{"data":""}"#, 128)).await?;
            connection.next_len().await
        };
        match timeout(PATIENCE, exchange).await {
            Ok(Ok(_)) => drop(self.echoed.next()),
            Ok(Err(e)) => complain(&self.errors, format_args!("connection {i} was back and lost again: {e}")),
            Err(_) => complain(&self.errors, format_args!("connection {i} was back and got no reply")),
        }
        drop(_turn);
        // It stays open until all are back.
        while connection.receive(|_| ()).await.is_ok() {}
    }

    async fn come_back(&self, i: usize) -> Connection {
        loop {
            let start = Instant::now();
            let failure = match timeout(ATTEMPT, self.opener.open(i)).await {
                Ok(Ok(connection)) => {
                    let now = Instant::now();
                    self.first_back.set(self.first_back.get().or(Some(now)));
                    self.last_back.set(Some(now));
                    self.back.next();
                    self.handshakes.record(now - start);
                    return connection;
                }
                Ok(Err(e)) => e.to_string(),
                Err(_) => format!("no handshake in {ATTEMPT:?}"),
            };
            // Before anybody was back there was nobody to come back to.
            if self.first_back.get().is_none_or(|first| start < first) {
                self.refused.next();
            } else {
                complain(&self.errors, format_args!("connection {i} on its way back: {failure}"));
            }
            sleep(PAUSE).await;
        }
    }
}
