//! Drivers: what a plugin that hangs costs the others, and how fast events reach drivers in this process and in another one.
//!
//! The joins go to one real daemon over its control API, in small batches: by turns, one while a join to a network of another
//! driver is under way whose plugin does not answer, and one while none is. What counts is the median of the pairs' ratios, so what
//! else the machine does falls on both of a pair, or on few pairs. Events are given to drivers as the event feed gives them: 256 at
//! once.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use benches::cluster::{Cluster, build};
use clap::Parser;
use serde::Serialize;
use tokio::time::Instant;
use weft::{
    api::{
        client::Client,
        http::types::{CreateEndpoint, CreateNetwork, Setup},
    },
    core::model::{Key, Mac, Name, NetworkId, NodeId, PeerRecord, TableName, Value, Vtep},
    core::{overlay::Underlay, wire::codec},
    dataplane::Memory,
    driver::{Driver, EventBatch, Overlay, Position, Remote, TableEvent},
    plugin::{Address, Client as PluginClient},
};

/// How many events a driver gets at once, as from the event feed.
const BATCH: usize = 256;
/// How many joins are in a batch: few, so that both of a pair meet the same machine.
const BATCH_JOINS: u32 = 10;
/// A plugin that hangs may cost the others this much.
const RATIO_MAX: f64 = 1.25;

/// Measures drivers
#[derive(Debug, Parser)]
struct Args {
    /// The program [default: build it in release mode]
    #[arg(long, value_name = "PATH")]
    weft: Option<PathBuf>,
    /// How many endpoints join with, and without, a plugin that hangs
    #[arg(long, default_value_t = 1_000)]
    joins: u32,
    /// How many events each driver gets
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// How many drivers in this process get them
    #[arg(long, default_value_t = 16)]
    drivers: usize,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Exit 1 if a plugin that hangs costs more than it may
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Report {
    joins: u32,
    join_alone_ms: f64,
    join_beside_a_hanging_plugin_ms: f64,
    ratio: f64,
    events_in_process_per_s: f64,
    events_to_a_plugin_per_s: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let program = match &args.weft {
        Some(program) => program.clone(),
        None => build()?,
    };
    let joins = measure_joins(&program, args.joins).await?;
    let events: Vec<TableEvent> = (0..args.events).map(event).collect();
    let report = Report {
        joins: args.joins,
        join_alone_ms: joins.alone * 1e3,
        join_beside_a_hanging_plugin_ms: joins.beside * 1e3,
        ratio: joins.ratio,
        events_in_process_per_s: in_process(&events, args.drivers).await?,
        events_to_a_plugin_per_s: to_a_plugin(&events).await?,
    };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!(
            "{} joins, median: {:.2} ms alone, {:.2} ms beside a plugin that hangs: ratio {:.3}",
            report.joins,
            report.join_alone_ms,
            report.join_beside_a_hanging_plugin_ms,
            report.ratio
        );
        println!(
            "{} events to {} drivers in this process: {:.0} events/s",
            args.events, args.drivers, report.events_in_process_per_s
        );
        println!(
            "{} events to a plugin, {BATCH} a call: {:.0} events/s",
            args.events, report.events_to_a_plugin_per_s
        );
    }
    ensure!(
        !args.check || report.ratio <= RATIO_MAX,
        "a plugin that hangs costs the others {:.3} times, more than {RATIO_MAX}",
        report.ratio
    );
    Ok(())
}

/// How long joins took, in seconds: the medians of the batches, and of the ratios of their pairs.
struct Joins {
    alone: f64,
    beside: f64,
    ratio: f64,
}

/// Has so many endpoints join beside a plugin that hangs, and as many without.
async fn measure_joins(program: &Path, joins: u32) -> anyhow::Result<Joins> {
    let cluster = Cluster::start(program, 1, "lan").await?;
    let gate = Arc::new(Gate::default());
    serve(&cluster.plugin_dir(0).join("stuck.sock"), gate.clone())?;
    let client = &cluster.members[0].client;
    let stuck = CreateNetwork {
        driver: Name::new("stuck")?,
        ..CreateNetwork::overlay(Name::new("stuck")?)
    };
    for wish in [CreateNetwork::overlay(Name::new("app")?), stuck] {
        client.network_create(&wish).await?;
        until_ready(client, wish.name.as_str()).await?;
    }
    client.endpoint_create("stuck", &endpoint("never")?).await?;
    let (mut alone, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..joins.div_ceil(BATCH_JOINS) {
        // Who is first alternates.
        let pair = match pair % 2 {
            0 => {
                let alone = batch(client).await?;
                (alone, batch_beside(client, &gate).await?)
            }
            _ => {
                let beside = batch_beside(client, &gate).await?;
                (batch(client).await?, beside)
            }
        };
        alone.push(pair.0);
        beside.push(pair.1);
        ratios.push(pair.1 / pair.0);
    }
    cluster.end().await?;
    Ok(Joins {
        alone: median(alone),
        beside: median(beside),
        ratio: median(ratios),
    })
}

/// As [`batch`], while another join waits for a plugin that does not answer.
async fn batch_beside(client: &Client, gate: &Arc<Gate>) -> anyhow::Result<f64> {
    gate.shut(true);
    let waiting = gate.clone();
    let measured = async {
        // The plugin has the call.
        tokio::task::spawn_blocking(move || waiting.until_waited_for()).await?;
        let measured = batch(client).await;
        gate.shut(false);
        measured
    };
    let (stuck, measured) = tokio::join!(client.endpoint_join("stuck", "never"), measured);
    ensure!(stuck.is_err(), "the plugin was to hang, and has joined");
    measured
}

/// Has a few endpoints join; returns how long one takes, in seconds.
async fn batch(client: &Client) -> anyhow::Result<f64> {
    let mut took = Vec::new();
    for number in 0..BATCH_JOINS {
        took.push(join(client, number).await?.as_secs_f64());
    }
    Ok(median(took))
}

/// One that was disturbed counts no more than any.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn join(client: &Client, number: u32) -> anyhow::Result<Duration> {
    let wish = endpoint(&format!("e{number}"))?;
    let began = Instant::now();
    client.endpoint_create("app", &wish).await?;
    client.endpoint_join("app", wish.name.as_str()).await?;
    let took = began.elapsed();
    // The next one finds the daemon as this one did.
    client.endpoint_remove("app", wish.name.as_str()).await?;
    Ok(took)
}

async fn until_ready(client: &Client, network: &str) -> anyhow::Result<()> {
    let detail = client
        .network_until_synced(network, Duration::from_secs(20))
        .await?;
    ensure!(
        detail.setup == Setup::Ready,
        "{network} is {:?}",
        detail.setup
    );
    Ok(())
}

fn endpoint(name: &str) -> anyhow::Result<CreateEndpoint> {
    Ok(CreateEndpoint {
        name: Name::new(name)?,
        address: None,
        second_address: None,
    })
}

/// Gives all events to each of so many overlay drivers; returns how many events a second all of them took.
async fn in_process(events: &[TableEvent], count: usize) -> anyhow::Result<f64> {
    let vtep = Vtep("192.0.2.1".parse()?);
    let drivers: Vec<Overlay> = (0..count)
        .map(|_| Overlay::new(Underlay::assumed(vtep), Arc::new(Memory::default())))
        .collect();
    let network = weft::core::model::NetworkRecord {
        id: NetworkId(1),
        name: Name::new("app")?,
        driver: Name::new("overlay")?,
        options: Default::default(),
        subnets: vec![weft::core::model::Subnet {
            prefix: weft::core::model::Prefix("10.0.0.0/8".parse()?),
            gateway: "10.0.0.1".parse()?,
            vni: weft::core::model::Vni::new(4096),
        }],
    };
    for driver in &drivers {
        driver.create_network(&network).await?;
    }
    let began = Instant::now();
    for batch in batches(events) {
        for driver in &drivers {
            driver.event_batch(batch).await?;
        }
    }
    Ok((events.len() * count) as f64 / began.elapsed().as_secs_f64())
}

/// Gives all events to a plugin that takes them at once; returns how many a second went over its socket.
async fn to_a_plugin(events: &[TableEvent]) -> anyhow::Result<f64> {
    let place = tempfile::tempdir()?;
    let socket = place.path().join("quick.sock");
    serve(&socket, Arc::default())?;
    let client = PluginClient::new(Address::Unix(socket), Duration::from_secs(30));
    let driver = Remote::connect(&Name::new("quick")?, client, true).await?;
    let began = Instant::now();
    for batch in batches(events) {
        let taken = driver.event_batch(batch).await?;
        ensure!(taken.through == batch.last(), "it took {}", taken.through);
    }
    Ok(events.len() as f64 / began.elapsed().as_secs_f64())
}

fn batches(events: &[TableEvent]) -> impl Iterator<Item = EventBatch<'_>> {
    events
        .chunks(BATCH)
        .enumerate()
        .map(|(number, events)| EventBatch {
            network: NetworkId(1),
            after: Position {
                stream: 1,
                revision: (number * BATCH) as u64,
            },
            events,
        })
}

/// Where an endpoint of another node is, as the overlay driver says it.
fn event(number: usize) -> TableEvent {
    let [_, high, middle, low] = u32::try_from(number + 2).unwrap_or(u32::MAX).to_be_bytes();
    let peer = PeerRecord {
        address: weft::core::model::Prefix(
            format!("10.{high}.{middle}.{low}/8")
                .parse()
                .expect("numbers are an address"),
        ),
        mac: Mac([2, 0, 0, high, middle, low]),
        vtep: Vtep([192, 0, 2, 2].into()),
        others: Vec::new(),
    };
    TableEvent {
        network: NetworkId(1),
        table: TableName::new("overlay_peers").expect("letters are a table name"),
        key: Key::new((number as u128).to_be_bytes().to_vec()).expect("16 bytes are a key"),
        previous: None,
        value: Some(Value::new(codec::encode(&peer)).expect("a peer's record is short")),
        owner: NodeId(2),
    }
}

/// Where a plugin's joins wait while it is shut; then they are refused.
#[derive(Default)]
struct Gate {
    /// Whether it is shut, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn shut(&self, is_shut: bool) {
        self.state.lock().expect("nobody panics with it").0 = is_shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().expect("nobody panics with it");
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).expect("nobody panics with it");
        }
        state.1 -= 1;
    }

    fn until_waited_for(&self) {
        let mut state = self.state.lock().expect("nobody panics with it");
        while state.1 == 0 {
            state = self.changed.wait(state).expect("nobody panics with it");
        }
    }
}

/// Serves a table driver from threads of this process.
fn serve(socket: &Path, gate: Arc<Gate>) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| socket.display().to_string())?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let gate = gate.clone();
            thread::spawn(move || answer(stream, &gate));
        }
    });
    Ok(())
}

fn answer(stream: UnixStream, gate: &Gate) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap_or_default();
        }
        head.push_str(&line);
    }
    stream.read_exact(&mut vec![0; length])?;
    let body = if head.contains(".Join ") {
        gate.pass();
        r#"{"Err":"it was let go"}"#
    } else if head.contains(".AllocateNetwork ") {
        "{}"
    } else {
        r#"{"Implements":["NetworkDriver","weft.TableDriver/1.0"],"Scope":"global","Tables":[{"Name":"t"}]}"#
    };
    let length = body.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.get_mut().write_all(answer.as_bytes())
}
