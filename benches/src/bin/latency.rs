//! Real processes on loopback: how long from a put on one node to the watch event on another, and what an idle node uses.
//!
//! Everything goes over the control API, as a user's program would: the clock starts when the request is about to be sent
//! to node 1 and stops when the event has been read from the watch on node 3. So each figure has in it a new connection
//! to a unix socket, HTTP and JSON on both ends; `answer` and `own` say how much that is.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use benches::{
    cluster::{Cluster, Member, build},
    process::{Process, resident},
};
use clap::Parser;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use weft::{
    api::{
        client::Watch,
        http::types::{Blob, CreateNetwork, NetworkCounts, WatchEvent, WatchQuery},
    },
    core::model::{Name, TableName},
};

/// The network and the table that are written to.
const NETWORK: &str = "bench";
const TABLE: &str = "bench";
/// What must come true: the median, an idle node's memory, and what it sends.
const MEDIAN_MAX_MS: f64 = 2.0;
const RESIDENT_MAX: u64 = 25 * 1024 * 1024;
const SENT_MAX: f64 = 1_000.0;
/// How long the cluster is left alone before anything is measured: voters are being added, members introduced.
const SETTLE_FOR: Duration = Duration::from_secs(5);

/// Measures a cluster of real processes on this machine
#[derive(Debug, Parser)]
struct Args {
    /// The program [default: build it in release mode]
    #[arg(long, value_name = "PATH")]
    weft: Option<PathBuf>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=50))]
    nodes: u8,
    /// How patient they are with silent members
    #[arg(long, default_value = "lan")]
    profile: String,
    /// How many puts are measured
    #[arg(long, default_value_t = 1_000)]
    puts: u32,
    /// How long to wait after each, in milliseconds, so that the cluster is idle again
    #[arg(long, default_value_t = 10)]
    pause: u64,
    /// How long to look at the idle nodes, in seconds
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Exit 1 if a figure is over its limit
    #[arg(long)]
    check: bool,
}

/// A distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Times {
    median: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    nodes: usize,
    profile: String,
    puts: u32,
    /// From the request on the first node to the event on the last.
    event: Times,
    /// From the request to the event on the first node itself.
    own: Times,
    /// From the request to its answer.
    answer: Times,
    /// What each node uses while nothing is done.
    idle: Vec<Idle>,
    idle_seconds: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Idle {
    resident_bytes: u64,
    sent_bytes_per_second: f64,
    /// The datagrams' part of it; the rest is streams.
    datagram_bytes_per_second: f64,
    /// How much of a core it needs, in per cent.
    cpu_percent: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let program = match &args.weft {
        Some(program) => program.clone(),
        None => build()?,
    };
    let cluster = Cluster::start(&program, usize::from(args.nodes), &args.profile).await?;
    let report = measure(&args, &cluster).await;
    cluster.end().await?;
    let report = report?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    ensure!(!args.check || report.holds(), "a figure is over its limit");
    Ok(())
}

async fn measure(args: &Args, cluster: &Cluster) -> anyhow::Result<Report> {
    let members = &cluster.members;
    let (first, last) = (&members[0], &members[members.len() - 1]);
    let wish = CreateNetwork::overlay(Name::new(NETWORK)?);
    first.client.network_create(&wish).await?;
    for member in members {
        until_attached(member).await?;
    }
    sleep(SETTLE_FOR).await;
    let idle = idle(members, Duration::from_secs(args.idle)).await?;

    let mut here = synced_watch(first).await?;
    let mut there = synced_watch(last).await?;
    let mut times: [Histogram<u64>; 3] = [histogram()?, histogram()?, histogram()?];
    for number in 0..args.puts {
        let taken = put(first, number, [&mut here, &mut there]).await?;
        for (histogram, taken) in times.iter_mut().zip(taken) {
            histogram.record(u64::try_from(taken.as_nanos())?)?;
        }
        sleep(Duration::from_millis(args.pause)).await;
    }
    let [answer, own, event] = &times;
    Ok(Report {
        nodes: members.len(),
        profile: args.profile.clone(),
        puts: args.puts,
        event: Times::of(event),
        own: Times::of(own),
        answer: Times::of(answer),
        idle,
        idle_seconds: args.idle,
    })
}

/// Waits until the network is ready on a node, so that the first put does not meet the network's own set-up.
async fn until_attached(member: &Member) -> anyhow::Result<()> {
    let ready = NetworkCounts {
        ready: 1,
        ..NetworkCounts::default()
    };
    for _ in 0..1_000 {
        if member.client.status().await?.networks == ready {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!(
        "the network does not get ready: {:?}",
        member.client.status().await?
    );
}

async fn synced_watch(member: &Member) -> anyhow::Result<Watch> {
    let query = WatchQuery {
        network: NETWORK.to_owned(),
        table: Some(TableName::new(TABLE)?),
        ..WatchQuery::default()
    };
    let mut watch = member.client.watch(&query).await?;
    loop {
        match watch.next().await.context("the watch has ended")?? {
            WatchEvent::Synced { .. } => return Ok(watch),
            WatchEvent::Entry(_)
            | WatchEvent::Change(_)
            | WatchEvent::State { .. }
            | WatchEvent::Lagged => {}
        }
    }
}

/// Puts an entry, and returns how long its answer, the event here and the event there took.
async fn put(
    member: &Member,
    number: u32,
    [here, there]: [&mut Watch; 2],
) -> anyhow::Result<[Duration; 3]> {
    let key = Blob::from(format!("key-{number}").as_str());
    let value = Blob::from("a value of about as many bytes as a peer record has");
    let begun = Instant::now();
    let (answer, own, event) = tokio::join!(
        async {
            let put = member.client.put(NETWORK, TABLE, &key, value).await;
            put.map(|()| begun.elapsed())
        },
        until_seen(here, &key, begun),
        until_seen(there, &key, begun),
    );
    Ok([answer?, own?, event?])
}

async fn until_seen(watch: &mut Watch, key: &Blob, begun: Instant) -> anyhow::Result<Duration> {
    loop {
        match watch.next().await.context("the watch has ended")?? {
            WatchEvent::Change(change) if change.key == *key => return Ok(begun.elapsed()),
            WatchEvent::Change(_)
            | WatchEvent::Entry(_)
            | WatchEvent::Synced { .. }
            | WatchEvent::State { .. } => {}
            WatchEvent::Lagged => anyhow::bail!("the watch has lagged"),
        }
    }
}

/// What a node has used up to now: bytes of datagrams, bytes of streams, processor time.
struct Used {
    datagrams: u64,
    streams: u64,
    processor: Duration,
}

async fn used(member: &Member) -> anyhow::Result<Used> {
    let status = member.client.status().await?;
    let counter = |name: &str| {
        let counter = status.counters.get(name).copied();
        counter.with_context(|| format!("status has no counter {name}"))
    };
    Ok(Used {
        datagrams: counter("datagram_bytes_sent_total")?,
        streams: counter("stream_bytes_sent_total")?,
        processor: benches::process::processor_time(Process::Other(member.process))?,
    })
}

async fn idle(members: &[Member], time: Duration) -> anyhow::Result<Vec<Idle>> {
    let begun = Instant::now();
    let mut before = Vec::new();
    for member in members {
        before.push(used(member).await?);
    }
    sleep(time).await;
    let seconds = begun.elapsed().as_secs_f64();
    let mut idle = Vec::new();
    for (member, before) in members.iter().zip(before) {
        let after = used(member).await?;
        let datagrams = (after.datagrams - before.datagrams) as f64;
        let streams = (after.streams - before.streams) as f64;
        let processor = after.processor.saturating_sub(before.processor);
        idle.push(Idle {
            resident_bytes: resident(Process::Other(member.process))?,
            sent_bytes_per_second: (datagrams + streams) / seconds,
            datagram_bytes_per_second: datagrams / seconds,
            cpu_percent: 100.0 * processor.as_secs_f64() / seconds,
        });
    }
    Ok(idle)
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

impl Times {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Self {
            median: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: histogram.max() as f64 / 1e6,
        }
    }
}

impl Report {
    fn holds(&self) -> bool {
        self.event.median <= MEDIAN_MAX_MS
            && self.idle.iter().all(|idle| {
                idle.resident_bytes <= RESIDENT_MAX && idle.sent_bytes_per_second <= SENT_MAX
            })
    }
}

fn print(report: &Report) {
    let Report {
        nodes,
        profile,
        puts,
        idle_seconds,
        ..
    } = report;
    println!("{nodes} nodes on loopback, profile {profile}, {puts} puts on node 1; times in ms");
    println!(
        "{:<36}{:>8}{:>8}{:>8}{:>8}",
        "", "median", "p90", "p99", "max"
    );
    for (what, times) in [
        (format!("put to watch event on node {nodes}"), report.event),
        ("put to watch event on node 1".to_owned(), report.own),
        ("put to its answer".to_owned(), report.answer),
    ] {
        let Times {
            median,
            p90,
            p99,
            max,
        } = times;
        println!("{what:<36}{median:>8.3}{p90:>8.3}{p99:>8.3}{max:>8.3}");
    }
    println!("limit of the first median: {MEDIAN_MAX_MS} ms\n");
    println!(
        "idle for {idle_seconds} s: MiB resident, bytes sent a second (of them in datagrams), per cent of a core"
    );
    for (number, idle) in report.idle.iter().enumerate() {
        println!(
            "{:<36}{:>8.1}{:>8.0}{:>8.0}{:>8.2}",
            format!("node {}", number + 1),
            idle.resident_bytes as f64 / (1024.0 * 1024.0),
            idle.sent_bytes_per_second,
            idle.datagram_bytes_per_second,
            idle.cpu_percent,
        );
    }
    println!(
        "limits: {} MiB, {SENT_MAX} B/s",
        RESIDENT_MAX / (1024 * 1024)
    );
}
