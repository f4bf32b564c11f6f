//! `hold`: opens connections, keeps them, and says what became of them.
//!
//! A line of JSON comes when all are open, and one as the answer to each line read: `echo BYTES` has every connection
//! send a message and wait for the reply (with HTTP, send its request once more), `push N URL` has every Nth ask its backend
//! for its id, POST to the URL with that `{id}`, and wait for what it sent itself; anything else only asks. The end of
//! the input ends the process. So another process can hold more connections than the limit of open files allows to
//! one; `holders.rs` and `load-tests/run million` are that other side.

use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::echo::{PATIENCE, fill_up};
use crate::publish::{PublishArgs, Publisher};
use crate::push::ask;
use crate::session::{Opener, SessionArgs, complain};
use crate::stats::Count;
use crate::ws::{Connection, TEXT};

/// Echoes in flight: enough to keep a server busy, few enough that none waits long in a queue.
const ECHOES_AT_A_TIME: usize = 16;

/// What the backend answers with the connection's id.
const WHOAMI: &str = r#"{"action":"whoami"}"#;

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

/// What a line asks every connection for.
#[derive(Clone)]
enum Order {
    Nothing,
    Echo(usize),
    /// Of every so many connections one.
    Push(usize, Rc<PublishArgs>),
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
    let (order, orders) = watch::channel(Order::Nothing);
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
        if let Some(next) = Order::read(&line)? {
            let goal = held.answered.get() + opened - held.dropped.get();
            order.send_replace(next);
            while held.answered.get() < goal {
                held.told.notified().await;
            }
        }
        say();
    }
    Ok(())
}

/// Reads, answers pings, and echoes when ordered, until the server closes.
async fn hold(held: Rc<Held>, i: usize, mut connection: Connection, mut orders: watch::Receiver<Order>) {
    loop {
        let mut owed = None;
        let pong = |frame: &[u8]| owed = owed.or(held.opener.args.adapter.pong(frame));
        let lived = tokio::select! {
            received = connection.receive(pong) => match (received, owed) {
                (Ok(_), Some((opcode, body))) => connection.send(opcode, body).await,
                (received, _) => received.map(drop),
            },
            Ok(()) = orders.changed() => {
                let order = orders.borrow_and_update().clone();
                let lived = held.obey(i, &mut connection, &order).await;
                held.answered.next();
                held.told.notify_one();
                lived
            }
        };
        if let Err(e) = lived {
            if orders.has_changed().unwrap_or(false) {
                // Nobody waits for an answer that will not come.
                held.answered.next();
                held.told.notify_one();
            }
            complain(&held.dropped, format_args!("held connection {i}: {e}"));
            return;
        }
    }
}

impl Order {
    fn read(line: &str) -> anyhow::Result<Option<Order>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["echo", bytes] => Some(Order::Echo(bytes.parse()?)),
            ["push", every, url] => {
                Some(Order::Push(every.parse::<usize>()?.max(1), Rc::new(PublishArgs::to(url.parse()?))))
            }
            _ => None,
        })
    }
}

impl Held {
    async fn obey(&self, i: usize, connection: &mut Connection, order: &Order) -> std::io::Result<()> {
        if matches!(order, Order::Push(every, _) if !i.is_multiple_of(*every)) {
            return Ok(());
        }
        let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
        // What few need at a time has its room only then: there may be a million of these tasks.
        match order {
            Order::Nothing => return Ok(()),
            Order::Echo(bytes) => Box::pin(self.echo(i, connection, *bytes)).await?,
            Order::Push(_, to) => timeout(PATIENCE, Box::pin(self.push(connection, to)))
                .await
                .unwrap_or_else(|_| Err(std::io::Error::other("a push did not come")))?,
        }
        self.echoed.next();
        Ok(())
    }

    /// Learns the connection's id, pushes to it, and waits for the push.
    async fn push(&self, connection: &mut Connection, to: &PublishArgs) -> std::io::Result<()> {
        let id = ask(connection, WHOAMI).await?;
        let adapter = self.opener.args.adapter;
        Publisher::connect(adapter, "", to, 0).await?.publish(0, &id, id.as_bytes()).await?;
        connection.wait_for(|frame| frame == id.as_bytes()).await
    }

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
