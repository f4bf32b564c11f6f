//! `hold`: opens connections, keeps them, and says what became of them.
//!
//! A line of JSON comes when all are open, and one as the answer to each line read: `echo BYTES` has every connection
//! send a message and wait for the reply (with HTTP, send its request once more), anything else only asks. The end of the input ends the process. So another
//! process can hold more connections than the limit of open files allows to one; `holders.rs` is that other side.

use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::echo::{PATIENCE, fill_up};
use crate::session::{Opener, SessionArgs, complain};
use crate::stats::Count;
use crate::ws::{Connection, TEXT};

/// Echoes in flight: enough to keep a server busy, few enough that none waits long in a queue.
const ECHOES_AT_A_TIME: usize = 16;

#[derive(Args, Debug)]
pub struct HoldArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    #[arg(long, default_value_t = 1000)]
    pub conns: usize,
    /// Hold for so many seconds, and read no lines
    #[arg(long)]
    pub seconds: Option<u64>,
    /// What `echo` sends, filled up before its last quote
    #[arg(long, default_value = r#"{"action":"echo","data":""}"#)]
    pub text: String,
}

/// What the connections' tasks share.
struct Held {
    opener: Rc<Opener>,
    text: String,
    turn: tokio::sync::Semaphore,
    /// Every connection tells when it has done what the last line asked for.
    told: Notify,
    answered: Count,
    echoed: Count,
    dropped: Count,
}

pub async fn run(args: HoldArgs) -> anyhow::Result<()> {
    let opener = Opener::new(&args.session, args.conns)?;
    let (connections, failed) = opener.open_all(args.conns).await;
    let opened = connections.len() as u64;
    let held = Rc::new(Held {
        opener,
        text: args.text,
        turn: tokio::sync::Semaphore::new(ECHOES_AT_A_TIME),
        told: Notify::new(),
        answered: Count::default(),
        echoed: Count::default(),
        dropped: Count::default(),
    });
    let (order, orders) = watch::channel(0);
    for (i, connection) in connections.into_iter().enumerate() {
        spawn_local(hold(held.clone(), i, connection, orders.clone()));
    }
    let say = || {
        let dropped = held.dropped.get();
        println!("{}", json!({"opened": opened, "failed": failed, "dropped": dropped, "echoed": held.echoed.get()}));
    };
    say();
    if let Some(seconds) = args.seconds {
        sleep(Duration::from_secs(seconds)).await;
        say();
        return Ok(());
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(bytes) = line.strip_prefix("echo ") {
            let goal = held.answered.get() + opened - held.dropped.get();
            order.send_replace(bytes.trim().parse::<usize>()?);
            while held.answered.get() < goal {
                held.told.notified().await;
            }
        }
        say();
    }
    Ok(())
}

/// Reads, answers pings, and echoes when ordered, until the server closes.
async fn hold(held: Rc<Held>, i: usize, mut connection: Connection, mut orders: watch::Receiver<usize>) {
    loop {
        let mut owed = None;
        let pong = |frame: &[u8]| owed = owed.or(held.opener.args.adapter.pong(frame));
        let lived = tokio::select! {
            received = connection.receive(pong) => match (received, owed) {
                (Ok(_), Some((opcode, body))) => connection.send(opcode, body).await,
                (received, _) => received.map(drop),
            },
            Ok(()) = orders.changed() => {
                let bytes = *orders.borrow_and_update();
                let _turn = held.turn.acquire().await.expect("the semaphore is never closed");
                let lived = held.echo(i, &mut connection, bytes).await;
                if lived.is_ok() {
                    held.echoed.next();
                }
                held.answered.next();
                held.told.notify_one();
                lived
            }
        };
        if let Err(e) = lived {
            complain(&held.dropped, format_args!("held connection {i}: {e}"));
            return;
        }
    }
}

impl Held {
    async fn echo(&self, i: usize, connection: &mut Connection, bytes: usize) -> std::io::Result<()> {
        if !self.opener.args.url.is_http() {
            return echo(connection, &fill_up(&self.text, bytes)).await;
        }
        let asked = timeout(PATIENCE, self.opener.ask(connection, i)).await;
        asked.unwrap_or_else(|_| Err(std::io::Error::other("no answer")))
    }
}

async fn echo(connection: &mut Connection, message: &[u8]) -> std::io::Result<()> {
    let exchange = async {
        connection.send(TEXT, message).await?;
        connection.next_len().await
    };
    let len = timeout(PATIENCE, exchange).await.map_err(|_| std::io::Error::other("no reply to an echo"))??;
    if len == message.len() {
        return Ok(());
    }
    Err(std::io::Error::other(format!("{len} bytes came back of {}", message.len())))
}
