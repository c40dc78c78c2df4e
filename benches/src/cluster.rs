//! A cluster of real `weft` processes on loopback, with data, sockets and logs of their own in a temporary directory.
//!
//! **Invariant:** nothing that was started outlives the value, and nothing is ended that it did not start.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use weft::{
    api::{client::Client, http::types::Status},
    core::model::Name,
};

/// How long the cluster may take to be whole.
const START_MAX: Duration = Duration::from_secs(30);
/// How often a node is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long a node may take to end when it is asked to.
const END_MAX: Duration = Duration::from_secs(3);

/// The variable that says where a node listens.
const LISTEN: &str = "WEFT_LISTEN";

/// The name of the directory of a node's driver plugins.
const PLUGINS: &str = "plugins";

/// One process.
#[derive(Debug)]
pub struct Member {
    /// A client of its control API.
    pub client: Client,
    /// Its process id.
    pub process: u32,
    child: Child,
    command: Command,
}

/// The processes, the first of which has founded the cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub members: Vec<Member>,
    directory: TempDir,
}

impl Cluster {
    /// Starts `count` nodes of `program` and waits until each sees all others alive, and a leader.
    pub async fn start(program: &Path, count: usize, profile: &str) -> anyhow::Result<Self> {
        // The path of a socket may have 107 bytes only (unix(7)), so not just any directory will do.
        let directory = tempfile::Builder::new()
            .prefix("weft-bench-")
            .tempdir_in("/tmp")?;
        let mut cluster = Self {
            members: Vec::new(),
            directory,
        };
        cluster.add(program, profile, None)?;
        let founder = &cluster.members[0].client;
        let seed = cluster.until(0, |status| status.ready).await?.address;
        let token = founder.token().await?.token;
        for _ in 1..count {
            cluster.add(program, profile, Some((seed, &token)))?;
        }
        for place in 0..count {
            let whole = |status: &Status| {
                status.ready && status.leader.is_some() && status.members.alive == count as u64
            };
            let address = cluster.until(place, whole).await?.address;
            // One that comes back has the port it had, as anywhere else: the others look for it there.
            let command = &mut cluster.members[place].command;
            command.env(LISTEN, address.to_string());
        }
        Ok(cluster)
    }

    fn add(
        &mut self,
        program: &Path,
        profile: &str,
        join: Option<(SocketAddr, &str)>,
    ) -> anyhow::Result<()> {
        let name = Name::new(&format!("n{}", self.members.len() + 1))?;
        let place = self.directory.path().join(name.as_str());
        std::fs::create_dir_all(place.join(PLUGINS))?;
        let log = File::create(place.join("log"))?;
        let client = Client::new(place.join("sock")).with_deadline(Duration::from_secs(10));
        let mut command = Command::new(program);
        command
            .args(["up", "--profile", profile])
            .env(LISTEN, "127.0.0.1:0")
            .args(["--name", name.as_str(), "--docker", "off"])
            .arg("--data-dir")
            .arg(place.join("data"))
            .arg("--plugin-dir")
            .arg(place.join(PLUGINS))
            .arg("--socket")
            .arg(client.socket())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        match join {
            None => command.arg("--init"),
            Some((seed, token)) => command
                .args(["--join", &seed.to_string()])
                .env("WEFT_TOKEN", token),
        };
        let (child, process) = spawn(&mut command)?;
        self.members.push(Member {
            client,
            process,
            child,
            command,
        });
        Ok(())
    }

    /// Waits until so many nodes vote and all name one leader; returns its place.
    pub async fn until_led(&self, voters: usize) -> anyhow::Result<usize> {
        let deadline = Instant::now() + START_MAX;
        let whole = |status: &Status| {
            let raft = &status.raft;
            raft.voters.len() == voters && raft.applied == raft.last_log
        };
        loop {
            let mut all = Vec::new();
            for place in 0..self.members.len() {
                let led = |status: &Status| whole(status) && status.leader.is_some();
                all.push(self.until(place, led).await?);
            }
            // Another may have been elected while they were asked.
            let leader = all[0].leader;
            let found = all.iter().position(|status| Some(status.node) == leader);
            match found.filter(|_| all.iter().all(|status| status.leader == leader)) {
                Some(place) => return Ok(place),
                None if Instant::now() >= deadline => bail!("no leader that all name: {all:?}"),
                None => sleep(ASK_EVERY).await,
            }
        }
    }

    /// Sends a node a signal.
    pub fn signal(&self, place: usize, signal: Signal) -> anyhow::Result<()> {
        let process = Pid::from_raw(i32::try_from(self.members[place].process)?);
        Ok(kill(process, signal)?)
    }

    /// Starts a node again that was told to end, once it has, and waits until it sees all others.
    pub async fn start_again(&mut self, place: usize) -> anyhow::Result<()> {
        let count = self.members.len() as u64;
        let member = &mut self.members[place];
        timeout(START_MAX, member.child.wait()).await??;
        (member.child, member.process) = spawn(&mut member.command)?;
        for place in 0..self.members.len() {
            let whole = |status: &Status| status.ready && status.members.alive == count;
            self.until(place, whole).await?;
        }
        Ok(())
    }

    /// Ends all nodes and starts them again at once, each where it listened, and waits until each sees all others, and a leader.
    pub async fn restart_all(&mut self) -> anyhow::Result<()> {
        let count = self.members.len() as u64;
        for member in &mut self.members {
            let address = member.client.status().await?.address;
            member.command.env("WEFT_LISTEN", address.to_string());
        }
        for place in 0..self.members.len() {
            self.signal(place, Signal::SIGTERM)?;
        }
        for member in &mut self.members {
            timeout(START_MAX, member.child.wait()).await??;
        }
        for member in &mut self.members {
            (member.child, member.process) = spawn(&mut member.command)?;
        }
        let whole = |status: &Status| {
            status.ready && status.leader.is_some() && status.members.alive == count
        };
        for place in 0..self.members.len() {
            self.until(place, whole).await?;
        }
        Ok(())
    }

    /// Returns the directory that all the nodes' directories are in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    async fn until(&self, place: usize, done: impl Fn(&Status) -> bool) -> anyhow::Result<Status> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let seen = self.members[place].client.status().await;
            match seen {
                Ok(status) if done(&status) => return Ok(status),
                seen if Instant::now() >= deadline => {
                    let log = std::fs::read_to_string(self.log(place)).unwrap_or_default();
                    bail!("node {place} is not as it should be: {seen:?}\n{log}");
                }
                Ok(_) | Err(_) => sleep(ASK_EVERY).await,
            }
        }
    }

    /// Returns where a node looks for driver plugins.
    pub fn plugin_dir(&self, place: usize) -> PathBuf {
        self.directory
            .path()
            .join(format!("n{}/{PLUGINS}", place + 1))
    }

    fn log(&self, place: usize) -> PathBuf {
        self.directory.path().join(format!("n{}/log", place + 1))
    }

    /// Ends all nodes: asks first, then kills.
    pub async fn end(mut self) -> anyhow::Result<()> {
        for member in &self.members {
            let process = Pid::from_raw(i32::try_from(member.process)?);
            kill(process, Signal::SIGTERM).context("a node has ended by itself")?;
        }
        for member in &mut self.members {
            if timeout(END_MAX, member.child.wait()).await.is_err() {
                member.child.kill().await?;
            }
        }
        Ok(())
    }
}

fn spawn(command: &mut Command) -> anyhow::Result<(Child, u32)> {
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
    let process = child.id().context("the node has ended at once")?;
    Ok((child, process))
}

/// Builds the program in release mode and returns where it is.
pub fn build() -> anyhow::Result<PathBuf> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "weft", "--bin", "weft"])
        // Built with it already: what both need then has the same features, and is not built again.
        .args(["--package", "benches"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the program does not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back();
    executable.context("cargo names no executable")
}
