//! Somebody in a container who looks for another by its name, seen from outside and from inside.

use std::{
    io::{BufRead, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, ensure};
use cluster_tests::cluster::EngineHost;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::{Instant, timeout},
};

use crate::net;

/// Docker's own resolver, in every container.
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// How long the probe rests between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The probe, seen from outside. It looks until the name is there and answers, then until it is gone, then again.
pub(crate) struct Probe {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Probe {
    /// Starts one in a container, for a name that is not there yet.
    pub(crate) async fn start(
        host: &EngineHost,
        container: &str,
        name: &str,
    ) -> anyhow::Result<Self> {
        let namespace = net::namespace(host, container).await?;
        let mut child = net::ourselves(&namespace, &["--probe", name])?.spawn()?;
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

    /// Waits until it has seen this next, and returns how long after `begun`.
    pub(crate) async fn until(&mut self, what: &str, begun: Instant) -> anyhow::Result<Duration> {
        let line = timeout(LIMIT, self.lines.next_line()).await;
        let line = line.with_context(|| format!("never {what}"))??;
        ensure!(line.as_deref() == Some(what), "{line:?}, not {what}");
        Ok(begun.elapsed())
    }

    /// Has it look for what comes next.
    pub(crate) async fn go_on(&mut self) -> anyhow::Result<()> {
        Ok(self.stdin.write_all(b"on\n").await?)
    }
}

/// Looks for a name until it is there and until who has it answers; once told, until the name is gone; once told, again.
pub(crate) fn look_for(name: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(RESOLVER)?;
    socket.set_read_timeout(Some(LOOK_MAX))?;
    let say = |what: &str| {
        println!("{what}");
        std::io::stdout().flush()
    };
    let is_told = || std::io::stdin().lock().lines().next().transpose();
    ensure!(resolve(&socket, name).is_none(), "{name} is there already");
    say("looking")?;
    loop {
        let address = loop {
            match resolve(&socket, name) {
                Some(address) => break address,
                None => std::thread::sleep(LOOK_EVERY),
            }
        };
        say("resolved")?;
        while !answers(address) {
            std::thread::sleep(LOOK_EVERY);
        }
        say("reached")?;
        if is_told()?.is_none() {
            return Ok(());
        }
        while resolve(&socket, name).is_some() {
            std::thread::sleep(LOOK_EVERY);
        }
        say("gone")?;
        if is_told()?.is_none() {
            return Ok(());
        }
    }
}

/// Nobody listens there: that it is refused says that the packet was answered.
fn answers(address: IpAddr) -> bool {
    let refused = TcpStream::connect_timeout(&SocketAddr::new(address, 9), LOOK_MAX);
    matches!(refused, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Asks for the address of a name; a look that is not answered has not found it.
fn resolve(socket: &UdpSocket, name: &str) -> Option<IpAddr> {
    // An answer that came after its look had ended is none to this one.
    let id = rand::random::<[u8; 2]>();
    let mut query = id.to_vec();
    query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.push(u8::try_from(name.len()).ok()?);
    query.extend_from_slice(name.as_bytes());
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&query).ok()?;
    let mut answer = [0; 512];
    let length = loop {
        let length = socket.recv(&mut answer).ok()?;
        if answer.get(..2)? == id {
            break length;
        }
    };
    let answer = answer.get(..length)?;
    // No error, and a record: its address is the end of the answer (RFC 1035 §4.1).
    if answer.get(3)? & 0xf != 0 || answer.get(6..8)? == [0, 0] {
        return None;
    }
    let end: [u8; 4] = *answer.last_chunk()?;
    Some(IpAddr::from(end))
}
