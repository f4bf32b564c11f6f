//! `echo`: every connection sends a message and waits for the reply.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::session::{Opener, SessionArgs, complain};
use crate::stats::{Count, Latencies, ReportArgs, Window};
use crate::ws::TEXT;

/// A reply that takes longer is lost.
pub const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub struct EchoArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    #[arg(long, default_value_t = 64)]
    pub conns: usize,
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
    /// Messages a second over all connections (0: each as soon as its reply is there)
    #[arg(long, default_value_t = 0)]
    pub rate: usize,
}

pub async fn run(args: EchoArgs) -> anyhow::Result<()> {
    let opener = Opener::new(&args.session, args.conns)?;
    let (connections, failed) = opener.open_all(args.conns).await;
    let message: Rc<[u8]> = fill_up(&args.text, args.bytes).into();
    let (latencies, count, lost) = (Latencies::new(), Count::default(), Count::default());
    let measuring = Rc::new(Cell::new(false));
    let start = Instant::now();
    let n = connections.len();
    for (i, mut connection) in connections.into_iter().enumerate() {
        let (message, latencies, count, lost) = (message.clone(), latencies.clone(), count.clone(), lost.clone());
        let measuring = measuring.clone();
        let every = (args.rate > 0).then(|| Duration::from_secs_f64(n as f64 / args.rate as f64));
        let mut due = start + every.unwrap_or_default().mul_f64(i as f64 / n as f64);
        spawn_local(async move {
            loop {
                let sent = match every {
                    None => Instant::now(),
                    Some(every) => {
                        let sent = on_schedule(due).await;
                        due += every;
                        sent
                    }
                };
                let exchange = async {
                    connection.send(TEXT, &message).await?;
                    check_length(connection.next_len().await?, args.expect)
                };
                match timeout(PATIENCE, exchange).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => return complain(&lost, format_args!("connection {i}: {e}")),
                    Err(_) => return complain(&lost, format_args!("connection {i}: no reply in {PATIENCE:?}")),
                }
                if measuring.get() {
                    count.next();
                    latencies.record(sent.elapsed());
                }
            }
        });
    }
    sleep(Duration::from_secs(args.warmup)).await;
    measuring.set(true);
    let window = Window::open(&args.report);
    sleep(Duration::from_secs(args.duration)).await;
    measuring.set(false);
    let mut out = window.close("msgs", count.get());
    out.insert("conns".into(), json!(n));
    out.insert("failed".into(), json!(failed));
    out.insert("lost".into(), json!(lost.get()));
    out.insert("latency_us".into(), latencies.micros());
    args.report.write("echo", out)
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
}
