//! One node: a real `weft up` process with data, socket and log of its own.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weft::{
    api::{client::Client, http::types::Status},
    core::model::NodeId,
};

use super::{
    command::{Ran, run},
    until::{Seen, until},
};

/// How long the control API may take to answer: longer than a cluster without a leader takes to say so.
const CALL_MAX: Duration = Duration::from_secs(30);
/// The name of the directory of its driver plugins.
const PLUGINS: &str = "plugins";
/// How many lines of a log are shown when a test fails.
const TAIL: usize = 40;

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    name: String,
    program: PathBuf,
    directory: PathBuf,
    listen: SocketAddr,
    profile: &'static str,
    client: Client,
    /// The network namespace that it runs in, if not this process's.
    host: Option<PathBuf>,
    /// What carries its packets.
    dataplane: &'static str,
    child: Option<Child>,
    /// Settings of its own, as variables.
    settings: Vec<(&'static str, String)>,
}

impl Node {
    /// Makes the place for a node; nothing is started.
    pub(super) fn new(
        program: &Path,
        place: &Path,
        (name, address): (String, IpAddr),
        profile: &'static str,
    ) -> anyhow::Result<Self> {
        let directory = place.join(&name);
        fs::create_dir(&directory)?;
        fs::create_dir(directory.join(PLUGINS))?;
        Ok(Self {
            name,
            program: program.to_owned(),
            listen: (address, 0).into(),
            profile,
            client: Client::new(directory.join("sock")).with_deadline(CALL_MAX),
            directory,
            host: None,
            // The nodes of one namespace would make the same tunnels.
            dataplane: "none",
            child: None,
            settings: Vec::new(),
        })
    }

    /// Has it run on a host from now on, and carry packets there or not.
    pub(super) fn run_on(&mut self, host: PathBuf, carries: bool) {
        self.host = Some(host);
        self.dataplane = if carries { "kernel" } else { "none" };
    }

    /// Has it carry no packets from its next start on.
    pub fn carry_nothing(&mut self) {
        self.dataplane = "none";
    }

    /// Starts it with this variable of its environment from now on.
    pub fn set(&mut self, variable: &'static str, value: &str) {
        self.settings.push((variable, value.to_owned()));
    }

    /// Returns where its networks' namespaces are.
    pub fn namespaces(&self) -> PathBuf {
        self.directory.join("netns")
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a client of its control API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns where it keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Returns where it looks for driver plugins: the host's own are none of its business.
    pub fn plugin_dir(&self) -> PathBuf {
        self.directory.join(PLUGINS)
    }

    /// Returns where it listens; the port is 0 until it was up once, and stays the same from then on.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Makes it listen elsewhere the next time.
    pub fn listen_at(&mut self, address: SocketAddr) {
        self.listen = address;
    }

    /// Returns the process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Returns `weft` with this node's socket and nothing else of ours in its environment.
    pub fn weft(&self) -> Command {
        self.clean(Command::new(&self.program))
    }

    fn clean(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEFT_") {
                command.env_remove(name);
            }
        }
        command.env("WEFT_SOCKET", self.client.socket());
        command.env("NO_COLOR", "1");
        // Several nodes on one machine cannot all serve its engine.
        command.env("WEFT_DOCKER", "off");
        command
    }

    /// Returns the command that would start it.
    pub fn up(&self) -> Command {
        self.up_as(&self.name)
    }

    /// Returns the command that would start it under another name.
    pub fn up_as(&self, name: &str) -> Command {
        let mut command = self.clean(self.on_host(&self.program));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
            .args(["up", "--name", name, "--profile", self.profile])
            .args(["--dataplane", self.dataplane])
            .args(["--listen", &self.listen.to_string()])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--plugin-dir")
            .arg(self.plugin_dir());
        command
    }

    /// Returns a command that runs a program on its host.
    pub fn on_host(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.host {
            Some(host) => {
                // Unlike `ip netns exec`, it leaves the mounts alone, which the daemon's next run shall find again.
                let mut inside = Command::new("nsenter");
                inside.arg(format!("--net={}", host.display()));
                inside.arg(program.as_ref());
                inside
            }
            None => Command::new(program.as_ref()),
        }
    }

    /// Runs one command of `weft` against it.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<Ran> {
        self.run_with(args, b"").await
    }

    /// Runs one command of `weft` against it, with these bytes on its standard input.
    pub async fn run_with(&self, args: &[&str], input: &[u8]) -> anyhow::Result<Ran> {
        let mut command = self.weft();
        command.args(args);
        run(command.into(), input).await
    }

    /// Starts it as it was before.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_as(self.up())
    }

    /// Starts it with a command made of [`Self::up`].
    pub fn start_as(&mut self, mut command: Command) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log())?;
        let started = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        self.child = Some(started.with_context(|| format!("cannot start {}", self.name))?);
        Ok(())
    }

    /// Waits until it is up and ready, and returns how it is.
    pub async fn until_ready(&mut self) -> anyhow::Result<Status> {
        let what = format!("{} is ready", self.name);
        let status = until(&what, async || {
            if let Some(status) = self.ended()? {
                // No look will see it again.
                return Ok(Seen::Good(Err(status)));
            }
            let status = self.client.status().await?;
            Ok(match status.ready {
                true => Seen::Good(Ok(status)),
                false => Seen::NotYet("it is not ready".to_owned()),
            })
        });
        match status.await? {
            Ok(status) => {
                self.listen.set_port(status.address.port());
                Ok(status)
            }
            Err(status) => bail!("{} ended by itself: {status}", self.name),
        }
    }

    /// Asks for its id.
    pub async fn id(&self) -> anyhow::Result<NodeId> {
        Ok(self.client.status().await?.node)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
    }

    /// Ends it as a power failure would (SIGKILL), and waits until it is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.until_ended().await?;
        Ok(())
    }

    /// Stops it as an operator would (SIGTERM), and checks that it ends well.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.until_ended().await?;
        ensure!(status.success(), "{} stopped with {status}", self.name);
        Ok(())
    }

    /// Waits until it has ended.
    pub async fn until_ended(&mut self) -> anyhow::Result<ExitStatus> {
        let what = format!("{} has ended", self.name);
        until(&what, async || {
            Ok(match self.ended()? {
                Some(status) => Seen::Good(status),
                None => Seen::NotYet("it runs".to_owned()),
            })
        })
        .await
    }

    fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            bail!("{} was not started", self.name);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Returns all that it has logged.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Returns the end of what it has logged, under its name.
    pub fn log_tail(&self) -> String {
        let logged = self.logged();
        let lines: Vec<&str> = logged.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        format!("--- {} ---\n{tail}\n", self.name)
    }

    /// Returns how much memory it holds, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kilobytes.context("no VmRSS")?.trim().parse::<u64>()? * 1024)
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        // The namespaces of its networks outlive it, which is what they are for.
        for namespace in fs::read_dir(self.namespaces())
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = umount2(&namespace.path(), MntFlags::MNT_DETACH);
        }
    }
}
