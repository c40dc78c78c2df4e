//! How long a container takes to be found from another host: Weft beside Swarm, on the same engines, in turn.
//!
//! ```console
//! # cargo run --release -p cluster-tests --bin docker-bench
//! ```
//!
//! Three hosts as in the tests. A probe in the network namespace of a container on the second asks Docker's resolver for the name and
//! then connects, again and again, while `docker run` and `docker rm` are issued on the first. Then the plugin socket alone is
//! called, without containers. Root is needed.

#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::{
    io::{BufRead, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Parser;
use cluster_tests::cluster::{EngineHost, Engines, IMAGE};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout},
};

/// Docker's own resolver, in every container.
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// How long the probe rests between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures how long a container takes to be found from another host.
#[derive(Debug, Parser)]
struct Args {
    /// How many containers of each system
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// How many endpoints are made and joined by the plugin socket alone
    #[arg(long, default_value_t = 200)]
    joins: usize,
    /// The program to measure; without it, it is built
    #[arg(long)]
    program: Option<PathBuf>,
    /// Be the probe for this name
    #[arg(long, hide = true)]
    probe: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(name) = &args.probe {
        return probe(name);
    }
    ensure!(Engines::can_be()?, "no engines can be started here");
    let program = match args.program {
        Some(program) => program,
        None => build().await?,
    };
    let mut engines = Engines::start(&program.to_string_lossy(), 3).await?;
    engines.start_weft().await?;
    let hosts = engines.hosts();
    // A swarm's own networks have the first VNIs on the usual port.
    let create = ["network", "create", "app", "--option", "vxlan_port=4790"];
    hosts[0].weft(&create).await?.done()?;
    make_swarm(hosts).await?;
    let mut measured = [Measured::default(), Measured::default()];
    let networks = [("weft", "app"), ("swarm", "swarmed")];
    for (_, network) in networks {
        until_run(&hosts[1], network).await?;
    }
    for round in 0..args.rounds {
        for (measured, (_, network)) in measured.iter_mut().zip(networks) {
            measured.round(hosts, network, round).await?;
        }
    }
    println!("{} containers each: median [least–most] ms\n", args.rounds);
    println!("| after | weft | swarm |\n|---|---:|---:|");
    for (at, what) in WHAT.iter().enumerate() {
        let [weft, swarm] = measured
            .each_mut()
            .map(|system| spread(&mut system.times[at]));
        println!("| {what} | {weft} | {swarm} |");
    }
    // Another container keeps the network's namespace there: the first and the last of a host make and remove it.
    until_run(&hosts[0], "app").await?;
    joins(&hosts[0], args.joins).await?;
    engines.end()
}

/// Builds the program as users get it, but for its static libraries.
async fn build() -> anyhow::Result<PathBuf> {
    let built = Command::new("cargo")
        .args(["build", "--release", "--package", "weft", "--bin", "weft"])
        .status();
    ensure!(built.await?.success(), "the program cannot be built");
    let ours = std::env::current_exe()?;
    Ok(ours.with_file_name("weft"))
}

async fn make_swarm(hosts: &[EngineHost]) -> anyhow::Result<()> {
    let [first, others @ ..] = hosts else {
        anyhow::bail!("there are no hosts")
    };
    let init = ["swarm", "init", "--advertise-addr", first.address()];
    first.docker(&init).await?.done()?;
    let token = first.docker(&["swarm", "join-token", "--quiet", "worker"]);
    let token = token.await?.done()?.trim().to_owned();
    for host in others {
        let seed = format!("{}:2377", first.address());
        let join = ["swarm", "join", "--token", &token, &seed];
        host.docker(&join).await?.done()?;
    }
    let create = [
        "network",
        "create",
        "--driver",
        "overlay",
        "--attachable",
        "swarmed",
    ];
    first.docker(&create).await?.done()?;
    Ok(())
}

/// Starts the container in which the probe looks around; the network may still be on its way.
async fn until_run(host: &EngineHost, network: &str) -> anyhow::Result<()> {
    cluster_tests::cluster::until("the probe's container runs", async || {
        let name = format!("probe-{network}");
        let options = ["run", "--detach", "--network", network, "--name", &name];
        let command = ["--stop-signal", "KILL", IMAGE, "sleep", "3600"];
        let ran = host.docker(&[&options[..], &command].concat()).await?;
        if ran.done().is_err() {
            host.docker(&["rm", "--force", &name]).await?;
        }
        Ok(cluster_tests::cluster::Seen::when(
            ran.code == Some(0),
            || ran.stderr.clone(),
        ))
    })
    .await
}

/// What is measured of each container.
const WHAT: [&str; 4] = [
    "`docker run`: its name resolves on another host",
    "`docker run`: it answers a packet from there",
    "`docker run` has returned",
    "`docker rm -f`: its name is gone there",
];

#[derive(Default)]
struct Measured {
    times: [Vec<Duration>; 4],
}

impl Measured {
    async fn round(
        &mut self,
        hosts: &[EngineHost],
        network: &str,
        round: usize,
    ) -> anyhow::Result<()> {
        let name = format!("c{round}-{network}");
        let mut probe = Probe::start(&hosts[1], network, &name).await?;
        let options = ["run", "--detach", "--network", network, "--name", &name];
        let command = ["--stop-signal", "KILL", IMAGE, "sleep", "3600"];
        let begun = Instant::now();
        let run = [&options[..], &command].concat();
        let ran = async {
            hosts[0].docker(&run).await?.done()?;
            anyhow::Ok(begun.elapsed())
        };
        let seen = async {
            let resolved = probe.until("resolved", begun).await?;
            anyhow::Ok((resolved, probe.until("reached", begun).await?))
        };
        let (ran, (resolved, reached)) = tokio::try_join!(ran, seen)?;
        probe.stdin.write_all(b"watch\n").await?;
        let begun = Instant::now();
        let remove = ["rm", "--force", &name];
        let removed = async { anyhow::Ok(hosts[0].docker(&remove).await?.done()?.len()) };
        let (_, gone) = tokio::try_join!(removed, probe.until("gone", begun))?;
        for (times, time) in self.times.iter_mut().zip([resolved, reached, ran, gone]) {
            times.push(time);
        }
        Ok(())
    }
}

/// The probe, seen from outside.
struct Probe {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Probe {
    async fn start(host: &EngineHost, network: &str, name: &str) -> anyhow::Result<Self> {
        let container = format!("probe-{network}");
        let inspect = ["inspect", "--format", "{{.State.Pid}}", &container];
        let pid = host.docker(&inspect).await?.done()?.trim().to_owned();
        let mut command = Command::new("nsenter");
        command
            .args([&format!("--net=/proc/{pid}/ns/net")])
            .arg(std::env::current_exe()?)
            .args(["--probe", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut probe = Self {
            _child: child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        };
        probe.until("looking", Instant::now()).await?;
        Ok(probe)
    }

    async fn until(&mut self, what: &str, begun: Instant) -> anyhow::Result<Duration> {
        let line = timeout(LIMIT, self.lines.next_line()).await;
        let line = line.with_context(|| format!("never {what}"))??;
        ensure!(line.as_deref() == Some(what), "{line:?}, not {what}");
        Ok(begun.elapsed())
    }
}

/// Looks for a name until it is there, then for who has it, then, once told, until the name is gone.
fn probe(name: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(RESOLVER)?;
    socket.set_read_timeout(Some(LOOK_MAX))?;
    let say = |what: &str| {
        println!("{what}");
        std::io::stdout().flush()
    };
    ensure!(resolve(&socket, name).is_none(), "{name} is there already");
    say("looking")?;
    let address = loop {
        match resolve(&socket, name) {
            Some(address) => break address,
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    say("resolved")?;
    // Nobody listens there: that it is refused says that the packet was answered.
    let at = SocketAddr::new(address, 9);
    while !matches!(TcpStream::connect_timeout(&at, LOOK_MAX), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
    {
        std::thread::sleep(LOOK_EVERY);
    }
    say("reached")?;
    std::io::stdin().lock().lines().next().transpose()?;
    while resolve(&socket, name).is_some() {
        std::thread::sleep(LOOK_EVERY);
    }
    say("gone")?;
    Ok(())
}

/// Asks for the address of a name; a look that is not answered has not found it.
fn resolve(socket: &UdpSocket, name: &str) -> Option<IpAddr> {
    let mut query = vec![
        0,
        7,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        u8::try_from(name.len()).ok()?,
    ];
    query.extend_from_slice(name.as_bytes());
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&query).ok()?;
    let mut answer = [0; 512];
    let len = socket.recv(&mut answer).ok()?;
    let answer = answer.get(..len)?;
    // No error, and a record: its address is the end of the answer (RFC 1035 §4.1).
    if answer.get(3)? & 0xf != 0 || answer.get(6..8)? == [0, 0] {
        return None;
    }
    let end: [u8; 4] = *answer.last_chunk()?;
    Some(IpAddr::from(end))
}

/// Calls the plugin socket as an engine does for a container, one after the other.
async fn joins(host: &EngineHost, count: usize) -> anyhow::Result<()> {
    let plugin = host.plugin();
    let network = host.docker(&["network", "inspect", "--format", "{{.Id}}", "app"]);
    let network = network.await?.done()?.trim().to_owned();
    let option = json!({"Options": {"weft.network": "app"}});
    let pool: Value = plugin.call("IpamDriver.RequestPool", &option).await?;
    let steps = [
        "IpamDriver.RequestAddress",
        "NetworkDriver.CreateEndpoint",
        "NetworkDriver.Join",
        "NetworkDriver.Leave",
        "NetworkDriver.DeleteEndpoint",
        "IpamDriver.ReleaseAddress",
    ];
    let mut times = steps.map(|_| Vec::new());
    for number in 0..count {
        let mut request = json!({
            "PoolID": pool["PoolID"],
            "Address": "",
            "NetworkID": network,
            "EndpointID": format!("{:064x}", (number as u128 + 1) << 64),
        });
        for (step, times) in steps.iter().zip(&mut times) {
            let begun = Instant::now();
            let answer: Value = plugin.call(step, &request).await?;
            times.push(begun.elapsed());
            if let Some(address) = answer["Address"].as_str() {
                request["Interface"] = json!({ "Address": address });
                request["Address"] = address.split('/').next().unwrap_or_default().into();
            }
        }
    }
    println!("\n{count} endpoints by the plugin socket alone: ms\n");
    println!("| call | median | p99 |\n|---|---:|---:|");
    for (step, mut times) in steps.into_iter().zip(times) {
        times.sort();
        let at = |share: usize| {
            let place = (times.len() * share / 100).min(times.len().saturating_sub(1));
            times.get(place).copied().unwrap_or_default()
        };
        println!("| {step} | {} | {} |", ms(at(50)), ms(at(99)));
    }
    Ok(())
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let times = &*times;
    match (times.first(), times.get(times.len() / 2), times.last()) {
        (Some(least), Some(median), Some(most)) => {
            format!("{} [{}–{}]", ms(*median), ms(*least), ms(*most))
        }
        _ => "–".to_owned(),
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1_000.0)
}
