//! What trust costs: datagrams sealed and opened, handshakes, a join, a cluster that starts again all at once; and how datagrams are
//! sent best.
//!
//! Processor time is what the threads that do the work were on a processor, so that a machine that others use too does not falsify
//! it. A join is measured as the newcomer sees it, over loopback, with the writes to disk of a leader that is alone.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::{
    io::IoSlice,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use benches::{
    cluster::{Cluster, build},
    corpus,
};
use bytes::Bytes;
use clap::Parser;
use nix::{
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg},
    time::{ClockId, clock_gettime},
};
use rand::{SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio::{net::TcpListener, sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;
use weft::{
    core::{
        model::{Boot, ClusterId, Name, NodeId},
        wire::envelope::{Opener, Sealer},
    },
    runtime::{
        clock,
        join::{self, Newcomer},
        streams::{Caller, Dialer, Handler, Limits, Refusal, Service, Tls, serve},
        trust::{Ca, CertifiedName, Credentials, NodeKey, Token, VALID_FOR},
    },
};

/// What must come true.
const SEALED_MIN: f64 = 1_500_000.0;
const JOIN_MAX_MS: f64 = 20.0;
const RESTART_MAX_S: f64 = 10.0;
/// The size of a small datagram's payload, and of the cluster that starts again.
const SMALL: usize = 100;
/// The size of a long one.
const LONG: usize = 1_400;
const NODES: f64 = 1_000.0;
const DEADLINE: Duration = Duration::from_secs(20);

/// Measures what trust costs on this machine
#[derive(Debug, Parser)]
struct Args {
    /// The program [default: build it in release mode]
    #[arg(long, value_name = "PATH")]
    weft: Option<PathBuf>,
    /// How many datagrams are sealed, opened and sent
    #[arg(long, default_value_t = 500_000)]
    datagrams: usize,
    /// How many handshakes are made of each kind
    #[arg(long, default_value_t = 300)]
    handshakes: usize,
    /// How many newcomers join: at most what the door lets in at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=60))]
    joins: u8,
    /// How many nodes start again, to see how often each calls others then
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(3..=30))]
    nodes: u8,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Exit 1 if a figure is over its limit
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Report {
    /// A core, a second.
    seals: f64,
    opens: f64,
    /// Sending to one receiver each, and to eight in turn: microseconds of processor time a datagram.
    send_to_us: f64,
    sendmmsg_8_us: f64,
    sendmmsg_64_us: f64,
    /// Eight long ones to one receiver: one by one, with one call, and as one that the kernel cuts up (GSO).
    long_send_to_us: f64,
    long_sendmmsg_us: f64,
    long_gso_us: f64,
    /// Microseconds of processor time, of the caller and of the called node.
    full_us: (f64, f64),
    resumed_us: (f64, f64),
    join_median_ms: f64,
    join_p90_ms: f64,
    /// Connections of a node after all have started again, and of the one that is called most.
    restart_nodes: u8,
    restart_s: f64,
    restart_dialed: f64,
    restart_accepted_most: f64,
    /// What the busiest of a thousand nodes spends on handshakes then, on one core.
    modelled_s: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::default();
    (report.seals, report.opens) = datagrams(args.datagrams)?;
    send(args.datagrams / 8, &mut report)?;
    send_long(args.datagrams / 8, &mut report)?;
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    runtime()?.block_on(handshakes(args.handshakes, &mut report))?;
    let program = args.weft.clone().map_or_else(build, Ok)?;
    runtime()?.block_on(joins(&program, args.joins, &mut report))?;
    runtime()?.block_on(restart(&program, args.nodes, &mut report))?;
    show(&report, args.json)?;
    let holds = report.seals.min(report.opens) >= SEALED_MIN
        && report.join_median_ms <= JOIN_MAX_MS
        && report.modelled_s <= RESTART_MAX_S;
    ensure!(holds || !args.check, "a figure is over its limit");
    Ok(())
}

fn on_processor() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    now.expect("Linux has this clock").into()
}

fn micros(time: Duration, of: usize) -> f64 {
    time.as_secs_f64() * 1e6 / of as f64
}

/// Seals and opens small datagrams on one core.
fn datagrams(count: usize) -> anyhow::Result<(f64, f64)> {
    let (cluster, from, to) = (ClusterId(1), NodeId(1), NodeId(2));
    let mut sealer = Sealer::new(cluster, from, Boot(1), &corpus::keyring());
    let mut opener = Opener::new(cluster, to, corpus::keyring());
    let payload = vec![7; SMALL];
    let (mut sealing, mut opening) = (Duration::ZERO, Duration::ZERO);
    // By the thousand, so that what is measured is in the cache, as it is in a node.
    for _ in 0..count / 1_000 {
        let begun = on_processor();
        let sealed: Result<Vec<Bytes>, _> = (0..1_000).map(|_| sealer.seal(to, &payload)).collect();
        let sealed = sealed?;
        let between = on_processor();
        for datagram in &sealed {
            opener.open(datagram)?;
        }
        sealing += between - begun;
        opening += on_processor() - between;
    }
    let a_second = |time: Duration| (count / 1_000 * 1_000) as f64 / time.as_secs_f64();
    Ok((a_second(sealing), a_second(opening)))
}

/// Sends small datagrams to eight receivers in turn: each with a call of its own, and several with one.
fn send(count: usize, report: &mut Report) -> anyhow::Result<()> {
    let bind = || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let socket = bind()?;
    let receivers: Vec<_> = (0..8).map(|_| bind()).collect::<Result<_, _>>()?;
    let to: Vec<SocketAddr> = receivers
        .iter()
        .map(std::net::UdpSocket::local_addr)
        .collect::<Result<_, _>>()?;
    let datagram = vec![7; SMALL];
    // Nobody reads: once a receiver's buffer is full the kernel drops what comes, after all the work but the last step.
    let begun = on_processor();
    for at in 0..count {
        socket.send_to(&datagram, to[at % to.len()])?;
    }
    report.send_to_us = micros(on_processor() - begun, count);
    for (at_once, figure) in [
        (8, &mut report.sendmmsg_8_us),
        (64, &mut report.sendmmsg_64_us),
    ] {
        let addresses: Vec<Option<SockaddrStorage>> = (0..at_once)
            .map(|at| Some(to[at % to.len()].into()))
            .collect();
        let slices: Vec<[IoSlice<'_>; 1]> =
            (0..at_once).map(|_| [IoSlice::new(&datagram)]).collect();
        let mut headers = MultiHeaders::preallocate(at_once, None);
        let begun = on_processor();
        for _ in 0..count / at_once {
            let sent = sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &slices,
                &addresses,
                [],
                MsgFlags::empty(),
            )?;
            ensure!(sent.count() == at_once, "not all were sent");
        }
        *figure = micros(on_processor() - begun, count / at_once * at_once);
    }
    Ok(())
}

/// Sends long datagrams to one receiver, as who repairs another does, eight at once.
fn send_long(count: usize, report: &mut Report) -> anyhow::Result<()> {
    const AT_ONCE: usize = 8;
    let bind = || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let (socket, receiver) = (bind()?, bind()?);
    let to = receiver.local_addr()?;
    let datagrams = vec![7; AT_ONCE * LONG];
    let turns = count / AT_ONCE;
    let timed = |turn: &mut dyn FnMut() -> anyhow::Result<()>| {
        let begun = on_processor();
        for _ in 0..turns {
            turn()?;
        }
        anyhow::Ok(micros(on_processor() - begun, turns * AT_ONCE))
    };
    report.long_send_to_us = timed(&mut || {
        for datagram in datagrams.chunks(LONG) {
            socket.send_to(datagram, to)?;
        }
        Ok(())
    })?;
    let address = SockaddrStorage::from(to);
    let addresses = [Some(address); AT_ONCE];
    let slices: Vec<[IoSlice<'_>; 1]> = datagrams
        .chunks(LONG)
        .map(|datagram| [IoSlice::new(datagram)])
        .collect();
    let mut headers = MultiHeaders::preallocate(AT_ONCE, None);
    let (fd, none) = (socket.as_raw_fd(), MsgFlags::empty());
    report.long_sendmmsg_us = timed(&mut || {
        let sent = sendmmsg(fd, &mut headers, &slices, addresses, [], none)?;
        ensure!(sent.count() == AT_ONCE, "not all were sent");
        Ok(())
    })?;
    let segment = u16::try_from(LONG)?;
    let cut_up = [ControlMessage::UdpGsoSegments(&segment)];
    let all = [IoSlice::new(&datagrams)];
    report.long_gso_us = timed(&mut || {
        sendmsg(fd, &all, &cut_up, none, Some(&address))?;
        Ok(())
    })?;
    Ok(())
}

/// Answers with how long its thread was on a processor so far.
struct Spent;

impl Handler for Spent {
    fn call(
        &self,
        _: Caller,
        _: Service,
        _: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, Refusal>> + Send + '_>> {
        let spent = u64::try_from(on_processor().as_nanos()).unwrap_or(u64::MAX);
        Box::pin(async move { Ok(Bytes::copy_from_slice(&spent.to_be_bytes())) })
    }
}

struct Authority {
    ca: Ca,
    cluster: ClusterId,
}

impl Authority {
    fn certify(&self, node: NodeId) -> anyhow::Result<Credentials> {
        let key = NodeKey::generate()?;
        let csr = key.csr(node)?;
        let cluster = self.cluster;
        let name = CertifiedName { node, cluster };
        let cert = self.ca.sign(&csr, name, (clock::wall(), VALID_FOR))?;
        Ok(key.certified(self.ca.cert_der.clone(), cert)?)
    }
}

/// Makes connections to a node on a thread of its own: each with a full handshake, then each with a session that is resumed.
async fn handshakes(count: usize, report: &mut Report) -> anyhow::Result<()> {
    let cluster = ClusterId(1);
    let authority = Authority {
        ca: Ca::create(cluster)?,
        cluster,
    };
    let (called, caller) = (NodeId(2), NodeId(1));
    let tls = Tls::new(&authority.certify(called)?)?;
    let (tell, told) = oneshot::channel();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let serving = thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        { runtime }.enable_all().build()?.block_on(async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let _who_asked_has_gone = tell.send(listener.local_addr()?);
            serve(listener, tls, Arc::new(Spent), stopped).await;
            Ok(())
        })
    });
    let addr = told.await.context("the called node has not begun")?;
    // Each connection is used once.
    let limits = Limits {
        idle_per_node: 0,
        ..Limits::default()
    };
    let credentials = authority.certify(caller)?;
    let fresh = || anyhow::Ok(Dialer::new(Tls::new(&credentials)?, &limits));
    let full: Vec<Dialer> = (0..=count).map(|_| fresh()).collect::<Result<_, _>>()?;
    let again = fresh()?;
    let resumed: Vec<Dialer> = (0..=count).map(|_| again.clone()).collect();
    for (dialers, figure) in [
        (full, &mut report.full_us),
        (resumed, &mut report.resumed_us),
    ] {
        let spent = async |dialer: &Dialer| {
            let call = dialer.call(called, addr, Service::Keys, Bytes::new(), DEADLINE);
            let answer: [u8; 8] = call.await?[..].try_into()?;
            anyhow::Ok(Duration::from_nanos(u64::from_be_bytes(answer)))
        };
        // The first of all is not measured: it shows where both stand.
        let (theirs, ours) = (spent(&dialers[0]).await?, on_processor());
        let mut last = theirs;
        for dialer in &dialers[1..] {
            last = spent(dialer).await?;
        }
        *figure = (
            micros(on_processor() - ours, count),
            micros(last - theirs, count),
        );
    }
    stop.cancel();
    serving
        .join()
        .map_err(|_panic| anyhow::anyhow!("it panicked"))?
}

/// Has newcomers join a node, one after the other, as fast as its door lets them in.
async fn joins(program: &Path, count: u8, report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::start(program, 1, "lan").await?;
    let founder = &cluster.members[0].client;
    let seed = founder.status().await?.address;
    let token: Token = founder.token().await?.token.parse()?;
    let mut rng = StdRng::seed_from_u64(1);
    let mut took = Vec::new();
    for at in 0..count {
        let newcomer = Newcomer {
            node: NodeId::random(&mut rng),
            name: Name::new(&format!("newcomer{at}"))?,
            listen: seed,
            member_of: None,
            key: NodeKey::generate()?,
        };
        let begun = Instant::now();
        join::join(&[seed], &token, &newcomer, DEADLINE, &mut rng).await?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1e3;
    (report.join_median_ms, report.join_p90_ms) = (at(50), at(90));
    cluster.end().await
}

/// Starts a cluster again, all of it at once, and reckons what that would take of a thousand nodes.
///
/// How often a node calls does not grow with the cluster, but how often the leader is called does: it is asked by everybody.
async fn restart(program: &Path, nodes: u8, report: &mut Report) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(program, nodes.into(), "lan").await?;
    let begun = Instant::now();
    cluster.restart_all().await?;
    report.restart_s = begun.elapsed().as_secs_f64();
    for member in &cluster.members {
        let counters = member.client.status().await?.counters;
        let of = |name: &str| counters.get(name).copied().unwrap_or_default() as f64;
        let dialed = of("stream_connections_dialed_total");
        let accepted = of("stream_connections_accepted_total");
        report.restart_dialed = report.restart_dialed.max(dialed);
        report.restart_accepted_most = report.restart_accepted_most.max(accepted);
    }
    report.restart_nodes = nodes;
    let a_caller = report.restart_accepted_most / f64::from(nodes - 1);
    let busiest =
        report.restart_dialed * report.full_us.0 + a_caller * (NODES - 1.0) * report.full_us.1;
    report.modelled_s = busiest / 1e6;
    cluster.end().await
}

fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let Report {
        full_us,
        resumed_us,
        ..
    } = report;
    println!("datagrams of {SMALL} B, a core, a second (at least {SEALED_MIN}):");
    println!("  sealed {:9.0}", report.seals);
    println!("  opened {:9.0}", report.opens);
    println!("sending one to each of eight receivers in turn, processor time a datagram:");
    println!("  send_to               {:6.2} µs", report.send_to_us);
    println!("  sendmmsg, 8 at once   {:6.2} µs", report.sendmmsg_8_us);
    println!("  sendmmsg, 64 at once  {:6.2} µs", report.sendmmsg_64_us);
    println!("sending eight of {LONG} B to one receiver, processor time a datagram:");
    println!("  send_to               {:6.2} µs", report.long_send_to_us);
    println!("  sendmmsg              {:6.2} µs", report.long_sendmmsg_us);
    println!("  cut up by the kernel  {:6.2} µs", report.long_gso_us);
    println!(
        "handshakes with both certificates and one call, processor time of caller and called:"
    );
    println!("  full    {:6.0} µs {:6.0} µs", full_us.0, full_us.1);
    println!("  resumed {:6.0} µs {:6.0} µs", resumed_us.0, resumed_us.1);
    println!(
        "a join over loopback: median {:.1} ms, p90 {:.1} ms (median at most {JOIN_MAX_MS} ms)",
        report.join_median_ms, report.join_p90_ms
    );
    println!(
        "{} nodes that start again at once: whole after {:.1} s; a node makes {} connections at most, the most called one takes {}",
        report.restart_nodes, report.restart_s, report.restart_dialed, report.restart_accepted_most
    );
    println!(
        "  reckoned for {NODES} nodes: the busiest spends {:.2} s of a core on handshakes (at most {RESTART_MAX_S} s)",
        report.modelled_s
    );
    Ok(())
}
