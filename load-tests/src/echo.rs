//! `echo`: connections send messages and receive the replies.
//!
//! In a closed loop each message waits for the reply before it. With `--rate` the loop is open: a message is sent when it
//! is due, whatever became of those before it, and counts from then. So a server that stalls is charged for all that
//! it kept waiting, and not only for the one message that a closed loop would have had in flight (coordinated omission).

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::pace::Pace;
use crate::publish::{SERVICE_ROOM, read_service_time, read_stamp, stamp};
use crate::session::{Opener, SessionArgs, complain};
use crate::stats::{Count, Latencies, ReportArgs, Window};
use crate::ws::{Connection, TEXT};

/// A reply that takes longer is lost.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The bytes of a stamp, and of the room that a backend needs for its own time.
const STAMP: usize = 31;

#[derive(Args, Debug)]
pub struct EchoArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    #[arg(long, default_value_t = 64)]
    pub conns: usize,
    /// Connections that have a message in flight, in turn (0: all of them)
    #[arg(long, default_value_t = 0)]
    pub active: usize,
    /// Messages in flight on each connection
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Measured seconds, behind --warmup
    #[arg(long, default_value_t = 8)]
    pub duration: u64,
    #[arg(long, default_value_t = 2)]
    pub warmup: u64,
    /// The message: this text, filled up before its last quote to --bytes
    #[arg(long, default_value = r#"{"action":"echo","data":""}"#)]
    pub text: String,
    #[arg(long, default_value_t = 128)]
    pub bytes: usize,
    /// Bytes that every reply must have: what a gateway says itself, such as a refusal, is then no reply
    #[arg(long)]
    pub expect: Option<usize>,
    /// Messages a second over all connections (0: each as soon as a reply is there)
    #[arg(long, default_value_t = 0)]
    pub rate: usize,
    /// Report as `own_us` what is left of each latency without the time that `backend --service-time` wrote into the reply
    #[arg(long)]
    pub own: bool,
}

pub async fn run(args: EchoArgs) -> anyhow::Result<()> {
    let opener = Opener::new(&args.session, args.conns)?;
    let (connections, failed) = opener.open_all(args.conns).await;
    let n = connections.len();
    ensure!(n > 0, "no connection opened");
    let run = Run::new(&args)?;
    let mut pace = None;
    if args.rate > 0 {
        let senders: Vec<_> = connections.into_iter().map(|connection| run.pass_on(connection, 0)).collect();
        pace = Some(run.hand_out(Pace::start(args.rate)?, senders));
    } else if args.depth > 1 {
        for connection in connections {
            // Kept by the connection itself, which gives itself the next turn.
            drop(run.pass_on(connection, args.depth));
        }
    } else {
        let active = if args.active == 0 { n } else { args.active.min(n) };
        let mut shares: Vec<Vec<Connection>> = (0..active).map(|_| Vec::new()).collect();
        for (i, connection) in connections.into_iter().enumerate() {
            shares[i % active].push(connection);
        }
        for share in shares {
            spawn_local(run.clone().take_turns(share));
        }
    }
    sleep(Duration::from_secs(args.warmup)).await;
    run.from.set(Some(Instant::now()));
    let window = Window::open(&args.report);
    sleep(Duration::from_secs(args.duration)).await;
    run.to.set(Some(Instant::now()));
    let mut out = window.close("msgs", run.count.get());
    // What was due in time is waited for: a reply that is late is the very thing to be measured.
    let end = Instant::now() + PATIENCE;
    while run.sent.get() > run.answered.get() && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    out.insert("conns".into(), json!(n));
    out.insert("failed".into(), json!(failed));
    out.insert("lost".into(), json!(run.lost.get() + run.sent.get() - run.answered.get()));
    out.insert("latency_us".into(), run.latencies.micros());
    if args.own {
        out.insert("own_us".into(), run.own.micros());
    }
    if let Some(pace) = pace {
        out.insert("rate_asked".into(), json!(args.rate));
        out.insert("late_us".into(), pace.late_micros());
    }
    args.report.write("echo", out)
}

/// What the tasks of a run share.
struct Run {
    epoch: Instant,
    message: Vec<u8>,
    /// Where in the message the stamp stands, in a run that has one.
    stamp_at: usize,
    service_time: bool,
    expected: Option<usize>,
    from: Cell<Option<Instant>>,
    to: Cell<Option<Instant>>,
    /// Of stamped messages, all of them.
    sent: Count,
    answered: Count,
    /// Within the measured window.
    count: Count,
    lost: Count,
    latencies: Latencies,
    own: Latencies,
}

impl Run {
    fn new(args: &EchoArgs) -> anyhow::Result<Rc<Self>> {
        let stamped = args.rate > 0 || args.depth > 1 || args.own;
        ensure!(!(args.own && args.rate == 0 && args.depth == 1), "--own wants --rate or --depth");
        let stamp_at = args.text.rfind('"').unwrap_or(args.text.len());
        let wanted = STAMP + if args.own { SERVICE_ROOM.len() } else { 0 };
        let room = args.bytes.saturating_sub(args.text.len());
        ensure!(!stamped || room >= wanted, "--bytes leaves no room for the {wanted} bytes of a stamp");
        let mut message = fill_up(&args.text, args.bytes);
        if args.own {
            message[stamp_at + STAMP..stamp_at + wanted].copy_from_slice(SERVICE_ROOM);
        }
        Ok(Rc::new(Run {
            epoch: Instant::now(),
            message,
            stamp_at,
            service_time: args.own,
            expected: args.expect,
            from: Cell::new(None),
            to: Cell::new(None),
            sent: Count::default(),
            answered: Count::default(),
            count: Count::default(),
            lost: Count::default(),
            latencies: Latencies::new(),
            own: Latencies::new(),
        }))
    }

    /// Whether `now` is in the measured window.
    fn measures(&self, now: Instant) -> bool {
        self.from.get().is_some_and(|from| now >= from) && self.to.get().is_none_or(|to| now < to)
    }

    /// One message at a time, on one connection after the other.
    async fn take_turns(self: Rc<Self>, mut connections: Vec<Connection>) {
        loop {
            for connection in &mut connections {
                let sent = Instant::now();
                let exchange = async {
                    connection.send(TEXT, &self.message).await?;
                    check_length(connection.next_len().await?, self.expected)
                };
                match timeout(PATIENCE, exchange).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => return complain(&self.lost, format_args!("{e}")),
                    Err(_) => return complain(&self.lost, format_args!("no reply in {PATIENCE:?}")),
                }
                if self.measures(Instant::now()) {
                    self.count.next();
                    self.latencies.record(sent.elapsed());
                }
            }
        }
    }

    /// Gives each connection its turns when they are due.
    fn hand_out(self: &Rc<Self>, pace: Rc<Pace>, senders: Vec<UnboundedSender<Instant>>) -> Rc<Pace> {
        let (run, giver) = (self.clone(), pace.clone());
        spawn_local(async move {
            for sender in senders.iter().cycle() {
                let due = Instant::from_std(giver.turn().await);
                if run.to.get().is_some() {
                    return;
                }
                // To a connection that was lost nothing is sent any more, and its messages are counted as lost.
                run.sent.next();
                let _ = sender.send(due);
            }
        });
        pace
    }

    /// A task that sends a message for each turn that it is given, `first` of them at once, and reads the replies.
    fn pass_on(self: &Rc<Self>, connection: Connection, first: usize) -> UnboundedSender<Instant> {
        let (sender, turns) = unbounded_channel();
        for _ in 0..first {
            self.sent.next();
            let _ = sender.send(Instant::now());
        }
        let (run, own) = (self.clone(), (first > 0).then(|| sender.clone()));
        spawn_local(async move {
            if let Err(e) = run.exchange(connection, turns, own).await {
                complain(&run.lost, format_args!("{e}"));
            }
        });
        sender
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        mut turns: UnboundedReceiver<Instant>,
        own: Option<UnboundedSender<Instant>>,
    ) -> io::Result<()> {
        let (mut message, mut stamped) = (self.message.clone(), Vec::with_capacity(STAMP));
        loop {
            let mut bad = None;
            let replies = tokio::select! {
                replies = connection.receive(|frame| bad = self.arrived(frame).err().or(bad.take())) => replies?,
                Some(due) = turns.recv() => {
                    stamp(&mut stamped, (due - self.epoch).as_nanos() as u64, 0, 0);
                    message[self.stamp_at..self.stamp_at + STAMP].copy_from_slice(&stamped);
                    connection.send(TEXT, &message).await?;
                    0
                }
            };
            bad.map_or(Ok(()), Err)?;
            let more = own.as_ref().filter(|_| self.to.get().is_none());
            for sender in more.iter().flat_map(|sender| std::iter::repeat_n(sender, replies)) {
                self.sent.next();
                let _ = sender.send(Instant::now());
            }
        }
    }

    fn arrived(&self, frame: &[u8]) -> io::Result<()> {
        check_length(frame.len(), self.expected)?;
        let (nanos, _) = read_stamp(frame).ok_or_else(|| io::Error::other("a reply without its stamp"))?;
        self.answered.next();
        let (now, due) = (Instant::now(), self.epoch + Duration::from_nanos(nanos));
        if self.measures(now) {
            self.count.next();
        }
        if self.measures(due) {
            self.latencies.record(now - due);
            if self.service_time {
                let service =
                    read_service_time(frame).ok_or_else(|| io::Error::other("a reply without a service time"))?;
                self.own.record((now - due).saturating_sub(service));
            }
        }
        Ok(())
    }
}

fn check_length(len: usize, expected: Option<usize>) -> io::Result<()> {
    match expected {
        Some(expected) if len != expected => Err(io::Error::other(format!("{len} bytes came of {expected}"))),
        _ => Ok(()),
    }
}

/// Waits until `due`, and gives the instant from which the latency counts: a message that could not be sent when it was
/// due counts from then, but a timer that fires late is not the server's fault.
pub async fn on_schedule(due: Instant) -> Instant {
    if Instant::now() >= due {
        return due;
    }
    sleep_until(due).await;
    Instant::now()
}

pub fn fill_up(text: &str, bytes: usize) -> Vec<u8> {
    let filling = "x".repeat(bytes.saturating_sub(text.len()));
    let (head, tail) = text.split_at(text.rfind('"').unwrap_or(text.len()));
    format!("{head}{filling}{tail}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, bytes: usize, expected: &str) {
        assert_eq!(fill_up(text, bytes), expected.as_bytes());
    }

    #[test]
    fn a_message_is_filled_up_inside_its_last_string() {
        check(r#"{"data":""}"#, 14, r#"{"data":"xxx"}"#);
        check(r#"{"data":""}"#, 5, r#"{"data":""}"#);
        check("ab", 4, "abxx");
    }

    #[test]
    fn a_reply_of_another_length_is_none() {
        assert!(check_length(3, None).is_ok() && check_length(3, Some(3)).is_ok());
        assert!(check_length(3, Some(2)).is_err());
    }

    #[test]
    fn a_stamp_fills_its_room() {
        let mut stamped = Vec::new();
        stamp(&mut stamped, u64::from(u32::MAX), 0, 0);
        assert_eq!(stamped.len(), STAMP);
    }
}
