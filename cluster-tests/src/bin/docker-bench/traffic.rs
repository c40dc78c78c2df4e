//! Throughput and round trips between containers on two hosts, beside a VXLAN made by hand: short measurements of each in turn,
//! since whatever else the machine does slows them all.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};
use cluster_tests::cluster::EngineHost;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    time::{Instant, timeout},
};

use crate::{
    hand,
    net::{self, SWARM, WEFT},
    report::{Goal, Line, Of, Report, Spread},
};

const PORT: u16 = 7077;
/// How long bytes are sent.
const STREAM: Duration = Duration::from_millis(250);
/// How many bytes at once.
const CHUNK: usize = 128 * 1024;
/// How many round trips make one measurement, and how many come before it.
const TRIPS: usize = 400;
const WARM: usize = 50;
/// How long one measurement may take.
const LIMIT: Duration = Duration::from_secs(20);
/// What may be lost to a VXLAN made by hand.
const THROUGHPUT_MIN: f64 = 0.97;
const ROUND_TRIP_MAX: f64 = 1.05;

/// Two ends, the first of which sends.
struct Path {
    from: PathBuf,
    to: SocketAddr,
    _answers: Child,
    gigabits: Vec<f64>,
    trips: Vec<f64>,
}

pub(crate) async fn measure(
    hosts: &[EngineHost],
    flows: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let ends = hand::make(hosts).await?;
    let by_hand = (ends[0].namespace(), ends[1].namespace(), ends[1].address());
    let mut paths = [
        Path::open(by_hand).await?,
        Path::open(between(hosts, WEFT).await?).await?,
        Path::open(between(hosts, SWARM).await?).await?,
    ];
    for flow in 0..flows {
        for at in 0..paths.len() {
            // Nobody is always the one after the same.
            let path = &mut paths[(at + flow) % 3];
            let gigabits = path.ask("--stream").await?;
            path.gigabits.push(gigabits);
            let trip = path.ask("--ping").await?;
            path.trips.push(trip);
        }
    }
    for network in [WEFT, SWARM] {
        for host in &hosts[..2] {
            net::remove(host, &named(network)).await?;
        }
    }
    hand::remove(hosts).await?;
    let [hand, weft, swarm] = &paths;
    add(
        report,
        ("TCP between containers", "Gbit/s"),
        [&hand.gigabits, &weft.gigabits, &swarm.gigabits],
        Goal::at_least(Of::Median, THROUGHPUT_MIN),
    );
    add(
        report,
        ("round trip between containers", "µs"),
        [&hand.trips, &weft.trips, &swarm.trips],
        Goal::at_most(Of::Median, ROUND_TRIP_MAX),
    );
    Ok(())
}

/// Adds what was measured, and what it is of what was measured by hand right before or after.
fn add(
    report: &mut Report,
    (what, unit): (&str, &'static str),
    [hand, weft, swarm]: [&Vec<f64>; 3],
    goal: Option<Goal>,
) {
    report.add(Line {
        what: what.to_owned(),
        unit,
        weft: Spread::of(weft.clone()),
        swarm: Spread::of(swarm.clone()),
        beside: Spread::of(hand.clone()),
        goal: None,
    });
    let share = |of: &[f64]| {
        let pairs = of.iter().zip(hand);
        Spread::of(pairs.map(|(one, hand)| one / hand).collect())
    };
    report.add(Line {
        what: format!("{what} ÷ VXLAN by hand"),
        unit: "",
        weft: share(weft),
        swarm: share(swarm),
        beside: None,
        goal,
    });
}

fn named(network: &str) -> String {
    format!("flow-{network}")
}

/// Starts a container on each of two hosts, and returns where the first is, where the second, and its address.
async fn between(
    hosts: &[EngineHost],
    network: &str,
) -> anyhow::Result<(PathBuf, PathBuf, Ipv4Addr)> {
    let name = named(network);
    for host in &hosts[..2] {
        net::until_run(host, network, &name).await?;
    }
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = net::about(&hosts[1], &name, address).await?;
    let from = net::namespace(&hosts[0], &name).await?;
    let to = net::namespace(&hosts[1], &name).await?;
    Ok((from, to, address.parse()?))
}

impl Path {
    async fn open((from, to, address): (PathBuf, PathBuf, Ipv4Addr)) -> anyhow::Result<Self> {
        let mut answers = net::ourselves(&to, &["--answer"])?.spawn()?;
        let stdout = answers.stdout.take().context("no standard output")?;
        let ready = BufReader::new(stdout).lines().next_line().await?;
        ensure!(ready.is_some(), "nobody answers");
        let mut path = Self {
            from,
            to: (address, PORT).into(),
            _answers: answers,
            gigabits: Vec::new(),
            trips: Vec::new(),
        };
        // The first packets find their way.
        path.ask("--ping").await?;
        Ok(path)
    }

    async fn ask(&mut self, what: &str) -> anyhow::Result<f64> {
        let mut command = net::ourselves(&self.from, &[what, &self.to.to_string()])?;
        let output = timeout(LIMIT, command.output()).await;
        let output = output.with_context(|| format!("{what} did not end"))??;
        ensure!(output.status.success(), "{what}: {}", output.status);
        let said = String::from_utf8(output.stdout)?;
        said.trim()
            .parse()
            .with_context(|| format!("{what} said {said:?}"))
    }
}

/// Counts what is sent by TCP, and sends back what is sent by UDP.
pub(crate) fn answer() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    println!("ready");
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // It is for the one who asks to notice.
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut buffer = vec![0; CHUNK];
        let mut count = 0_u64;
        while let Ok(length) = stream.read(&mut buffer) {
            if length == 0 {
                break;
            }
            count += length as u64;
        }
        stream.write_all(&count.to_be_bytes())?;
    }
    Ok(())
}

/// Sends for a while, and prints how many gigabits of it a second have arrived.
pub(crate) fn stream(to: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    let chunk = vec![0; CHUNK];
    let begun = Instant::now();
    while begun.elapsed() < STREAM {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}", u64::from_be_bytes(count) as f64 * 8.0 / seconds / 1e9);
    Ok(())
}

/// Sends packets one after the other, and prints the median of how many microseconds the answers take.
pub(crate) fn ping(to: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut times = Vec::new();
    let mut buffer = [0; 64];
    let begun = Instant::now();
    while times.len() < TRIPS + WARM {
        ensure!(begun.elapsed() < LIMIT, "no answers");
        let sent = Instant::now();
        socket.send(&[0; 64])?;
        if socket.recv(&mut buffer).is_ok() {
            times.push(sent.elapsed().as_secs_f64() * 1e6);
        }
    }
    let spread = Spread::of(times.split_off(WARM)).context("no answers")?;
    println!("{}", spread.median);
    Ok(())
}
