//! `http`: HTTP/1.1 requests on kept connections, in a closed loop or at a fixed rate.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::http1::{HttpConnection, Response};
use crate::net::Target;
use crate::pace::Pace;
use crate::session::{complain, fill};
use crate::stats::{Count, Latencies, ReportArgs, Window};

#[derive(Args, Debug)]
pub struct HttpArgs {
    /// `{i}` in its path counts from 0 to below --spread
    #[arg(long)]
    pub url: Target,
    /// Further paths, which take turns with the URL's own; may be repeated
    #[arg(long)]
    pub path: Vec<String>,
    #[arg(long, default_value_t = 1)]
    pub spread: usize,
    #[arg(long, default_value_t = 64)]
    pub conns: usize,
    #[arg(long, default_value_t = 8)]
    pub duration: u64,
    #[arg(long, default_value_t = 2)]
    pub warmup: u64,
    /// POST this many bytes (0: GET)
    #[arg(long, default_value_t = 0)]
    pub bytes: usize,
    /// Bytes that every answer must have
    #[arg(long)]
    pub expect: Option<usize>,
    /// Requests a second over all connections (0: each as soon as the answer before it is there)
    #[arg(long, default_value_t = 0)]
    pub rate: usize,
    #[command(flatten)]
    pub report: ReportArgs,
}

pub async fn run(args: HttpArgs) -> anyhow::Result<()> {
    let (latencies, count, errors) = (Latencies::new(), Count::default(), Count::default());
    let measuring = Rc::new(Cell::new(false));
    let method = if args.bytes > 0 { "POST" } else { "GET" };
    let paths: Rc<[String]> = paths(&args).into();
    let asked = Count::default();
    let pace = if args.rate > 0 { Some(Pace::start(args.rate)?) } else { None };
    for _ in 0..args.conns {
        let (url, latencies, count, errors) = (args.url.clone(), latencies.clone(), count.clone(), errors.clone());
        let (measuring, body, expected) = (measuring.clone(), vec![b'x'; args.bytes], args.expect);
        let (paths, asked, pace) = (paths.clone(), asked.clone(), pace.clone());
        spawn_local(async move {
            let mut connection = HttpConnection::new(url.address);
            loop {
                let start = match &pace {
                    None => Instant::now(),
                    Some(pace) => pace.turn().await,
                };
                let path = &paths[asked.next() as usize % paths.len()];
                let answer = connection.request(method, &url.authority, path, "", &body).await;
                if let Err(e) = answer.and_then(|response| check(&response, expected)) {
                    complain(&errors, format_args!("{path}: {e}"));
                    sleep(Duration::from_millis(10)).await;
                } else if measuring.get() {
                    count.next();
                    latencies.record(start.elapsed());
                }
            }
        });
    }
    sleep(Duration::from_secs(args.warmup)).await;
    measuring.set(true);
    let window = Window::open(&args.report);
    sleep(Duration::from_secs(args.duration)).await;
    measuring.set(false);
    let mut out = window.close("requests", count.get());
    out.insert("conns".into(), json!(args.conns));
    if let Some(pace) = pace {
        out.insert("rate_asked".into(), json!(args.rate));
        out.insert("late_us".into(), pace.late_micros());
    }
    out.insert("errors".into(), json!(errors.get()));
    out.insert("latency_us".into(), latencies.micros());
    args.report.write("http", out)
}

/// What is asked for, in the order in which it is.
fn paths(args: &HttpArgs) -> Vec<String> {
    let templates = || std::iter::once(&args.url.path).chain(&args.path);
    (0..args.spread.max(1)).flat_map(|i| templates().map(move |path| fill(path, i, ""))).collect()
}

fn check(response: &Response, expected: Option<usize>) -> io::Result<()> {
    response.succeeded()?;
    match expected {
        Some(expected) if response.body.len() != expected => {
            Err(io::Error::other(format!("{} bytes came of {expected}", response.body.len())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: HttpArgs,
    }

    #[test]
    fn paths_take_turns() {
        let line = ["http", "--url=http://127.0.0.1:1/a{i}", "--path=/b", "--path=/c/{i}", "--spread=2"];
        assert_eq!(paths(&Line::parse_from(line).args), ["/a0", "/b", "/c/0", "/a1", "/b", "/c/1"]);
        assert_eq!(paths(&Line::parse_from(["http", "--url=http://127.0.0.1:1/"]).args), ["/"]);
    }

    #[test]
    fn an_answer_of_another_length_is_an_error() {
        let response = Response { status: 200, body: vec![b'x'; 3] };
        assert!(check(&response, None).is_ok() && check(&response, Some(3)).is_ok());
        assert!(check(&response, Some(2)).is_err());
        assert!(check(&Response { status: 404, ..response }, None).is_err());
    }
}
