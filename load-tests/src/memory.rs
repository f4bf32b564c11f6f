//! `memory`: what a connection costs the server, as the slope of its resident memory over several counts.
//!
//! A slope leaves out what the server needs anyway, and what it took once for all of them.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use serde_json::{Map, json};
use tokio::time::sleep;

use crate::holders::{Fate, Holders};
use crate::session::SessionArgs;
use crate::stats::{self, Processes, ReportArgs};

#[derive(Args, Debug)]
pub struct MemoryArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    /// The counts of connections at which memory is read
    #[arg(long, value_delimiter = ',', default_value = "5000,10000,18000")]
    pub steps: Vec<usize>,
    /// Have every connection echo a message of this size before memory is read (0: none)
    #[arg(long, default_value_t = 0)]
    pub echo: usize,
    /// Seconds without traffic before memory is read
    #[arg(long, default_value_t = 2)]
    pub settle: u64,
}

pub async fn run(args: MemoryArgs) -> anyhow::Result<()> {
    ensure!(!args.report.pid.is_empty(), "--pid says whose memory to read");
    ensure!(args.steps.len() > 1 && args.steps.is_sorted(), "--steps wants at least two counts, the smallest first");
    let server = Processes::new(&args.report.pid);
    let base = server.usage().rss_kib;
    let available = stats::available_kib();
    let mut holders = Holders::default();
    let (mut opened, mut failed, mut points) = (0, 0, Vec::new());
    let mut fate = Fate::default();
    for step in &args.steps {
        let more = holders.open(&args.session, step - opened as usize, false).await?;
        opened += more.opened;
        failed += more.failed;
        ensure!(more.failed == 0, "only {opened} of {step} connections opened");
        // Those of earlier steps echo once more: what counts is that none has not.
        fate = if args.echo > 0 { holders.echo(args.echo).await? } else { fate };
        sleep(Duration::from_secs(args.settle)).await;
        points.push((*step as f64, server.usage().rss_kib as f64 * 1024.0));
    }
    let machine = available as f64 - stats::available_kib() as f64;
    let mut out = Map::new();
    if args.session.url.is_http() {
        // Whoever rests must wake up again, or memory that was given back was not given back but lost.
        out.insert("held".into(), json!(opened));
        out.insert("held_echoed".into(), json!(holders.echo(0).await?.echoed));
    }
    let dropped = holders.fate().await?.dropped;
    out.insert("steps".into(), json!(args.steps));
    out.insert("server_rss_base_mib".into(), stats::round(base as f64 / 1024.0));
    let mib = points.iter().map(|(_, bytes)| json!((bytes / 1024.0 / 1024.0 * 10.0).round() / 10.0));
    out.insert("server_rss_mib".into(), mib.collect());
    out.insert("server_kib_per_conn".into(), stats::round(slope(&points) / 1024.0));
    // Both ends of each connection, the kernel's part and the holders' own memory: an upper bound.
    out.insert("machine_kib_per_conn".into(), stats::round(machine / opened as f64));
    out.insert("echoes".into(), json!(fate.echoed));
    out.insert("failed".into(), json!(failed));
    out.insert("dropped".into(), json!(dropped));
    args.report.write("memory", out)
}

/// Least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_leaves_out_the_base() {
        assert_eq!(slope(&[(5.0, 110.0), (10.0, 120.0), (18.0, 136.0)]), 2.0);
    }
}
