//! `http`: closed-loop HTTP/1.1 requests on kept connections.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::http1::HttpConnection;
use crate::net::Target;
use crate::session::complain;
use crate::stats::{Count, Latencies, ReportArgs, Window};

#[derive(Args, Debug)]
pub struct HttpArgs {
    #[arg(long)]
    pub url: Target,
    #[arg(long, default_value_t = 64)]
    pub conns: usize,
    #[arg(long, default_value_t = 8)]
    pub duration: u64,
    #[arg(long, default_value_t = 2)]
    pub warmup: u64,
    /// POST this many bytes (0: GET)
    #[arg(long, default_value_t = 0)]
    pub bytes: usize,
    #[command(flatten)]
    pub report: ReportArgs,
}

pub async fn run(args: HttpArgs) -> anyhow::Result<()> {
    let (latencies, count, errors) = (Latencies::new(), Count::default(), Count::default());
    let measuring = Rc::new(Cell::new(false));
    let method = if args.bytes > 0 { "POST" } else { "GET" };
    for _ in 0..args.conns {
        let (url, latencies, count, errors) = (args.url.clone(), latencies.clone(), count.clone(), errors.clone());
        let (measuring, body) = (measuring.clone(), vec![b'x'; args.bytes]);
        spawn_local(async move {
            let mut connection = HttpConnection::new(url.address);
            loop {
                let start = Instant::now();
                let answer = connection.request(method, &url.authority, &url.path, "", &body).await;
                if let Err(e) = answer.and_then(|response| response.succeeded()) {
                    complain(&errors, format_args!("request: {e}"));
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
    out.insert("errors".into(), json!(errors.get()));
    out.insert("latency_us".into(), latencies.micros());
    args.report.write("http", out)
}
