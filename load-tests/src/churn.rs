//! `churn`: open, upgrade, reset, repeat; what a handshake costs.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use crate::session::{Opener, SessionArgs, complain};
use crate::stats::{Count, Latencies, ReportArgs, Window};

#[derive(Args, Debug)]
pub struct ChurnArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    #[arg(long, default_value_t = 8)]
    pub duration: u64,
    #[arg(long, default_value_t = 2)]
    pub warmup: u64,
}

pub async fn run(args: ChurnArgs) -> anyhow::Result<()> {
    let opener = Opener::new(&args.session, args.session.open_concurrency)?;
    let (latencies, done, failed) = (Latencies::new(), Count::default(), Count::default());
    let tried = Count::default();
    for _ in 0..args.session.open_concurrency {
        let (opener, latencies, done, failed) = (opener.clone(), latencies.clone(), done.clone(), failed.clone());
        let tried = tried.clone();
        spawn_local(async move {
            loop {
                let start = Instant::now();
                match opener.handshake(tried.next() as usize).await {
                    Ok(_) => {
                        latencies.record(start.elapsed());
                        done.next();
                    }
                    Err(e) => {
                        complain(&failed, format_args!("handshake: {e}"));
                        yield_now().await;
                    }
                }
            }
        });
    }
    sleep(Duration::from_secs(args.warmup)).await;
    let before = done.get();
    let window = Window::open(&args.report);
    sleep(Duration::from_secs(args.duration)).await;
    let mut out = window.close("handshakes", done.get() - before);
    out.insert("failed".into(), json!(failed.get()));
    out.insert("handshake_us".into(), latencies.micros());
    args.report.write("churn", out)
}
