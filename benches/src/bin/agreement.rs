//! The agreement of three real daemons on loopback: what a new network costs beside the disk's own fsync, and how long nothing can
//! be agreed when the leader is killed, or stops in order.
//!
//! Every figure is a median with its 99th percentile, beside the machine's load: on a busy machine all of them are longer.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};
use benches::cluster::{Cluster, build};
use clap::Parser;
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use weft::{api::http::types::CreateNetwork, core::model::Name};

/// What each may take at the median.
const CREATE_MAX_MS: f64 = 15.0;
const FAILOVER_MAX_MS: f64 = 1_500.0;

/// How many voters there are.
const VOTERS: usize = 3;
/// How much one fsync writes: about what an entry of the log comes to on the disk.
const WRITE_BYTES: usize = 4_096;
/// How long to wait before asking again.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Measures the agreement
#[derive(Debug, Parser)]
struct Args {
    /// The program [default: build it in release mode]
    #[arg(long, value_name = "PATH")]
    weft: Option<PathBuf>,
    /// How many networks are created
    #[arg(long, default_value_t = 200)]
    networks: u32,
    /// How often the leader is killed, and how often it is stopped
    #[arg(long, default_value_t = 5)]
    turns: u32,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Exit 1 if anything takes more than it may at the median
    #[arg(long)]
    check: bool,
}

/// Milliseconds at the median and at the 99th percentile.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    median: f64,
    p99: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    load: String,
    fsync_ms: Spread,
    create_ms: Spread,
    killed_ms: Spread,
    stopped_ms: Spread,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let program = match &args.weft {
        Some(program) => program.clone(),
        None => build()?,
    };
    let mut cluster = Cluster::start(&program, VOTERS, "lan").await?;
    cluster.until_led(VOTERS).await?;
    let mut named = 0;
    let create_ms = create(&cluster, args.networks, &mut named).await?;
    let killed_ms = without(&mut cluster, Signal::SIGKILL, args.turns, &mut named).await?;
    let stopped_ms = without(&mut cluster, Signal::SIGTERM, args.turns, &mut named).await?;
    let report = Report {
        load: fs::read_to_string("/proc/loadavg")?.trim().to_owned(),
        fsync_ms: fsync(&cluster, args.networks)?,
        create_ms,
        killed_ms,
        stopped_ms,
    };
    cluster.end().await?;
    show(&report, args.json)?;
    if args.check {
        let (create, killed) = (report.create_ms.median, report.killed_ms.median);
        ensure!(
            create <= CREATE_MAX_MS,
            "a new network takes {create:.1} ms"
        );
        ensure!(
            killed <= FAILOVER_MAX_MS,
            "another leader takes {killed:.0} ms"
        );
    }
    Ok(())
}

fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let rows = [
        ("an fsync of the disk", report.fsync_ms, None),
        (
            "a network on three voters",
            report.create_ms,
            Some(CREATE_MAX_MS),
        ),
        (
            "the leader is killed",
            report.killed_ms,
            Some(FAILOVER_MAX_MS),
        ),
        ("the leader stops in order", report.stopped_ms, None),
    ];
    for (what, spread, most) in rows {
        let most = most.map_or(String::new(), |most| format!(" (at most {most} ms)"));
        let Spread { median, p99 } = spread;
        println!("{what:<28} median {median:>8.1} ms, p99 {p99:>8.1} ms{most}");
    }
    println!("load: {}", report.load);
    Ok(())
}

/// Creates networks one after another, through each node by turns.
async fn create(cluster: &Cluster, count: u32, named: &mut u32) -> anyhow::Result<Spread> {
    let mut took = Vec::new();
    for turn in 0..count {
        let client = &cluster.members[turn as usize % VOTERS].client;
        let wish = next_wish(named)?;
        let begun = Instant::now();
        client.network_create(&wish).await?;
        took.push(begun.elapsed());
    }
    spread(took)
}

/// Sends the leader a signal, and measures how long it takes until a network can be created again, through another node.
async fn without(
    cluster: &mut Cluster,
    signal: Signal,
    turns: u32,
    named: &mut u32,
) -> anyhow::Result<Spread> {
    let mut took = Vec::new();
    for _ in 0..turns {
        let leader = cluster.until_led(VOTERS).await?;
        let asked = (leader + 1) % VOTERS;
        let client = cluster.members[asked].client.clone();
        let wish = next_wish(named)?;
        cluster.signal(leader, signal)?;
        let begun = Instant::now();
        while client.network_create(&wish).await.is_err() {
            let there = client.networks().await?;
            if there.iter().any(|network| network.name == wish.name) {
                break;
            }
            sleep(ASK_EVERY).await;
        }
        took.push(begun.elapsed());
        cluster.start_again(leader).await?;
    }
    spread(took)
}

fn next_wish(named: &mut u32) -> anyhow::Result<CreateNetwork> {
    *named += 1;
    Ok(CreateNetwork::overlay(Name::new(&format!("net{named}"))?))
}

/// Measures the disk that the daemons write to.
fn fsync(cluster: &Cluster, count: u32) -> anyhow::Result<Spread> {
    let mut file = File::create(cluster.directory().join("fsync"))?;
    let mut took = Vec::new();
    for _ in 0..count {
        file.write_all(&[7; WRITE_BYTES])?;
        let begun = Instant::now();
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    spread(took)
}

fn spread(mut took: Vec<Duration>) -> anyhow::Result<Spread> {
    took.sort();
    let at = |part: usize| took.get((took.len() * part / 100).min(took.len().saturating_sub(1)));
    let millis = |part| -> anyhow::Result<f64> {
        Ok(at(part).context("nothing was measured")?.as_secs_f64() * 1e3)
    };
    Ok(Spread {
        median: millis(50)?,
        p99: millis(99)?,
    })
}
