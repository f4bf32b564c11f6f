//! Connections held by processes of their own, where one process may not open enough files.

use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::net::Sources;
use crate::session::SessionArgs;

/// Fewer than a limit of 10,000 open files, which is a common one, lets through.
const CONNECTIONS_PER_PROCESS: usize = 9000;

/// Processes that hold connections until this is dropped.
#[derive(Default)]
pub struct Holders {
    all: Vec<Holder>,
    next_source: u32,
}

struct Holder {
    /// Kept for its end: it is killed when dropped.
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What became of the connections, over all processes.
#[derive(Clone, Copy, Default)]
pub struct Fate {
    pub opened: u64,
    pub failed: u64,
    pub dropped: u64,
    pub echoed: u64,
}

impl Holders {
    /// Opens so many more, at least two processes sharing them when `shared`.
    pub async fn open(&mut self, session: &SessionArgs, connections: usize, shared: bool) -> anyhow::Result<Fate> {
        let processes = connections.div_ceil(CONNECTIONS_PER_PROCESS).max(if shared { 2 } else { 1 });
        let mut fate = Fate::default();
        for k in 0..processes {
            let share = connections * (k + 1) / processes - connections * k / processes;
            let mut holder = self.start(session, share)?;
            fate.add(holder.answer().await?);
            self.all.push(holder);
        }
        Ok(fate)
    }

    fn start(&mut self, session: &SessionArgs, connections: usize) -> anyhow::Result<Holder> {
        let source = session.first_source + self.next_source;
        // Small shares may have one source address together: the ports of one are enough for all of them.
        self.next_source += Sources::new(0, connections).count() - 1;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("hold")
            .args(session.to_arguments())
            .args([format!("--conns={connections}"), format!("--first-source={source}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("no process could be started to hold connections")?;
        let orders = process.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        Ok(Holder { _process: process, orders, answers })
    }

    /// Has every connection echo a message of that size.
    pub async fn echo(&mut self, bytes: usize) -> anyhow::Result<Fate> {
        self.ask(&format!("echo {bytes}\n")).await
    }

    pub async fn fate(&mut self) -> anyhow::Result<Fate> {
        self.ask("fate\n").await
    }

    /// One process after the other, so that they do not compete for the generator's core.
    async fn ask(&mut self, order: &str) -> anyhow::Result<Fate> {
        let mut fate = Fate::default();
        for holder in &mut self.all {
            holder.orders.write_all(order.as_bytes()).await?;
            fate.add(holder.answer().await?);
        }
        Ok(fate)
    }
}

impl Holder {
    async fn answer(&mut self) -> anyhow::Result<Fate> {
        let Some(line) = self.answers.next_line().await? else { bail!("a process that held connections ended") };
        let fate: Value = serde_json::from_str(&line)?;
        let number = |key: &str| fate[key].as_u64().with_context(|| format!("no `{key}` in `{line}`"));
        Ok(Fate {
            opened: number("opened")?,
            failed: number("failed")?,
            dropped: number("dropped")?,
            echoed: number("echoed")?,
        })
    }
}

impl Fate {
    fn add(&mut self, other: Fate) {
        self.opened += other.opened;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.echoed += other.echoed;
    }
}
