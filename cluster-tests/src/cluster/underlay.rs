//! Hosts and sandboxes on this machine: network namespaces, the hosts' joined by a bridge.
//!
//! Needs root, `ip` and `nsenter`. No process is ever inside for long: a socket that was opened in a namespace stays there.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, ensure};
use nix::{
    sched::{CloneFlags, setns},
    unistd::geteuid,
};
use tokio::net::UdpSocket;

/// How many islands the hosts can be on; at first all are on the first.
const ISLANDS: usize = 3;

/// Namespaces that are this process's.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A network namespace. It goes when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one with its loopback up.
    pub fn make() -> anyhow::Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-{}-{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let made = Self { name };
        made.ip(&["link", "set", "lo", "up"])?;
        Ok(made)
    }

    /// Returns where it is.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        ip(&all)
    }

    /// Opens a UDP socket in it.
    pub fn udp(&self, address: IpAddr) -> anyhow::Result<UdpSocket> {
        udp_in(self.path(), address)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whoever looks at what is left finds its name.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Hosts that reach each other over IPv4, or over IPv6.
#[derive(Debug)]
pub struct Underlay {
    hosts: Vec<Namespace>,
    bridge: Namespace,
    is_v6: bool,
}

impl Underlay {
    /// Makes so many hosts; `None`, and a reason on standard error, if that cannot be done here and need not be.
    ///
    /// With `WEFT_REQUIRE_DOCKER=1` it need be.
    pub fn make(count: u8) -> anyhow::Result<Option<Self>> {
        Self::make_if_possible(count, false)
    }

    /// As [`Self::make`], over IPv6.
    pub fn make_v6(count: u8) -> anyhow::Result<Option<Self>> {
        Self::make_if_possible(count, true)
    }

    #[expect(clippy::print_stderr, reason = "who skips a test has to say so")]
    fn make_if_possible(count: u8, is_v6: bool) -> anyhow::Result<Option<Self>> {
        let must = std::env::var_os("WEFT_REQUIRE_DOCKER").is_some_and(|value| value == "1");
        let missing = match Self::missing() {
            Ok(()) => return Self::join(count, is_v6).map(Some),
            Err(missing) => missing,
        };
        ensure!(!must, "WEFT_REQUIRE_DOCKER=1, but {missing:#}");
        eprintln!("skipped: {missing:#}");
        Ok(None)
    }

    fn missing() -> anyhow::Result<()> {
        ensure!(geteuid().is_root(), "this needs root");
        ip(&["-V"]).context("this needs iproute2")?;
        program("nsenter", &["--version"]).context("this needs nsenter")?;
        Ok(())
    }

    fn join(count: u8, is_v6: bool) -> anyhow::Result<Self> {
        let bridge = Namespace::make()?;
        for island in 0..ISLANDS {
            let name = format!("br{island}");
            bridge.ip(&["link", "add", &name, "type", "bridge"])?;
            bridge.ip(&["link", "set", &name, "up"])?;
        }
        let mut hosts = Vec::new();
        for number in 0..count {
            let host = Namespace::make()?;
            let port = format!("p{number}");
            let pair = ["link", "add", &port, "type", "veth", "peer", "name", "u0"];
            bridge.ip(&[&pair[..], &["netns", &host.name]].concat())?;
            bridge.ip(&["link", "set", &port, "master", "br0", "up"])?;
            let own = address(number, is_v6);
            let length = if is_v6 { 64 } else { 24 };
            let own = format!("{own}/{length}");
            let add = ["address", "add", &own, "dev", "u0"];
            // Nobody else has it, so nobody need be asked before it can be used.
            let at_once: &[&str] = if is_v6 { &["nodad"] } else { &[] };
            host.ip(&[&add[..], at_once].concat())?;
            host.ip(&["link", "set", "u0", "up"])?;
            hosts.push(host);
        }
        Ok(Self {
            hosts,
            bridge,
            is_v6,
        })
    }

    /// Puts a host on an island: it reaches those on the same one, and they it.
    pub fn place(&self, host: usize, island: usize) -> anyhow::Result<()> {
        let (port, bridge) = (format!("p{host}"), format!("br{island}"));
        self.bridge.ip(&["link", "set", &port, "master", &bridge])?;
        Ok(())
    }

    /// Returns a host.
    pub fn host(&self, at: usize) -> &Namespace {
        &self.hosts[at]
    }

    /// Returns a host's address.
    pub fn address(&self, at: usize) -> IpAddr {
        address(u8::try_from(at).expect("there are few"), self.is_v6)
    }
}

fn address(number: u8, is_v6: bool) -> IpAddr {
    match is_v6 {
        true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number) + 1).into(),
        false => Ipv4Addr::new(192, 0, 2, number + 1).into(),
    }
}

/// Opens a UDP socket in a namespace.
fn udp_in(namespace: PathBuf, address: IpAddr) -> anyhow::Result<UdpSocket> {
    let opened = std::thread::spawn(move || {
        setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
        let socket = std::net::UdpSocket::bind(SocketAddr::new(address, 0))?;
        socket.set_nonblocking(true)?;
        anyhow::Ok(socket)
    });
    let socket = opened.join().ok().context("a thread panicked")??;
    Ok(UdpSocket::from_std(socket)?)
}

/// Runs a command in a namespace that is at a path.
pub fn inside(namespace: &std::path::Path, line: &[&str]) -> anyhow::Result<String> {
    let at = format!("--net={}", namespace.display());
    program("nsenter", &[&[at.as_str()], line].concat())
}

fn ip(arguments: &[&str]) -> anyhow::Result<String> {
    program("ip", arguments)
}

fn program(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{name} {arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
