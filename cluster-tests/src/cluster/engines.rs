//! Hosts on this machine, each with a real Docker engine and a `weft` daemon: a network namespace and a mount namespace for
//! each, all on one bridge.
//!
//! Nothing of the machine's own engine is touched: every path is inside a directory that goes with the hosts, and where the
//! engine has none to give (`/run/docker`, where it looks for plugins) the mount namespace has its own.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use weft::{api::client::Client, plugin};

use super::{
    command::{Ran, run},
    image::{IMAGE, busybox, image},
    namespace::Namespace,
    refusing::Refusing,
    until::{DEADLINE, Seen, until},
};

/// How many lines of a log are shown when a test fails.
const TAIL: usize = 40;
/// How long an engine may take to stop its containers and itself, before it is killed.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How often it is looked whether it has stopped.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Hosts with engines. Who is content with them calls [`Self::end`]; otherwise the logs are shown.
#[derive(Debug)]
pub struct Engines {
    hosts: Vec<EngineHost>,
    /// The network namespace of the bridge that connects them.
    underlay: Namespace,
    place: TempDir,
    content: bool,
}

/// One host.
#[derive(Debug)]
pub struct EngineHost {
    name: String,
    address: String,
    namespace: Namespace,
    program: PathBuf,
    directory: PathBuf,
    /// Keeps the host's mount namespace, which outlives its engine as a host's does.
    mounts: Child,
    engine: Option<Child>,
    weft: Option<Child>,
    client: Client,
}

impl Engines {
    /// Returns whether engines can be started here; if not, it says why on standard error.
    ///
    /// With `WEFT_REQUIRE_DOCKER=1` that they cannot is an error.
    #[expect(clippy::print_stderr, reason = "who skips a test has to say so")]
    pub fn can_be() -> anyhow::Result<bool> {
        let Err(missing) = look() else {
            return Ok(true);
        };
        if std::env::var_os("WEFT_REQUIRE_DOCKER").is_some_and(|value| value == "1") {
            return Err(missing.context("WEFT_REQUIRE_DOCKER=1, but no engine can be started"));
        }
        eprintln!("skipped, for want of a Docker engine to start: {missing:#}");
        Ok(false)
    }

    /// Starts so many hosts, each with an engine that has the image; their daemons are not started yet.
    pub async fn start(program: &str, count: u8) -> anyhow::Result<Self> {
        // A path of a socket may be 107 bytes long: the names are kept short.
        let place = tempfile::Builder::new().prefix("wd").tempdir()?;
        let underlay = Namespace::make("u").await?;
        underlay.ip("link add name shared type bridge").await?;
        underlay.ip("link set shared up").await?;
        let mut engines = Self {
            hosts: Vec::new(),
            underlay,
            place,
            content: false,
        };
        let image = image(engines.place.path()).await?;
        for number in 1..=count {
            let host = EngineHost::make(program, number, &engines).await?;
            engines.hosts.push(host);
        }
        for host in &mut engines.hosts {
            host.start_engine()?;
        }
        for host in &engines.hosts {
            host.until_engine().await?;
            let image = image.to_string_lossy();
            host.docker(&["import", &image, IMAGE]).await?.done()?;
        }
        Ok(engines)
    }

    /// Starts the daemons: the first founds the cluster, the others join it; all are up.
    pub async fn start_weft(&mut self) -> anyhow::Result<()> {
        for at in 0..self.hosts.len() {
            self.enter(at).await?;
        }
        Ok(())
    }

    /// Starts the daemon of a host that is no member: it founds the cluster on the first host and joins it on the others, and is up.
    pub async fn enter(&mut self, at: usize) -> anyhow::Result<()> {
        let token = self.place.path().join("token");
        let token = token.to_string_lossy();
        let seed = format!("{}:9338", self.hosts[0].address);
        let entrance: &[&str] = match at {
            0 => &["--init"],
            _ => &["--join", &seed],
        };
        let host = &mut self.hosts[at];
        host.start_weft(&[entrance, &["--token-file", &token]].concat())?;
        host.until_up().await
    }

    /// Cuts a host off from the others, as if it had lost its power.
    pub async fn cut(&self, at: usize) -> anyhow::Result<()> {
        let port = format!("link set v{} down", at + 1);
        self.underlay.ip(&port).await
    }

    /// Connects a host again.
    pub async fn heal(&self, at: usize) -> anyhow::Result<()> {
        let port = format!("link set v{} up", at + 1);
        self.underlay.ip(&port).await
    }

    /// Returns the hosts.
    pub fn hosts(&self) -> &[EngineHost] {
        &self.hosts
    }

    /// Returns a host, to do something to it.
    pub fn host(&mut self, at: usize) -> &mut EngineHost {
        &mut self.hosts[at]
    }

    /// Stops everything, and checks that no daemon has logged what none ever may.
    pub fn end(mut self) -> anyhow::Result<()> {
        for host in &mut self.hosts {
            host.stop_engine()?;
            host.stop_weft()?;
            let logged = host.logged();
            let never = |line: &&str| ["panicked at", "ERROR"].iter().any(|it| line.contains(it));
            if let Some(line) = logged.lines().find(never) {
                bail!("{} has logged: {line}", host.name);
            }
        }
        self.content = true;
        Ok(())
    }
}

impl Drop for Engines {
    #[expect(
        clippy::print_stderr,
        reason = "the harness shows it when a test fails"
    )]
    fn drop(&mut self) {
        if !self.content {
            for host in &self.hosts {
                eprintln!("{}", tail(&host.name, &host.logged()));
                let engine = fs::read_to_string(host.directory.join("engine.log"));
                let engine = engine.unwrap_or_default();
                eprintln!("{}", tail(&format!("{}'s engine", host.name), &engine));
            }
        }
    }
}

impl EngineHost {
    async fn make(program: &str, number: u8, engines: &Engines) -> anyhow::Result<Self> {
        let name = format!("h{number}");
        let directory = engines.place.path().join(&name);
        for inside in ["plugins", "run", "containerd"] {
            fs::create_dir_all(directory.join(inside))?;
        }
        let address = format!("10.77.0.{number}");
        let namespace = Namespace::make(&number.to_string()).await?;
        let (inside, outside) = (&namespace.name, &engines.underlay.name);
        let wire = format!("link add v{number} type veth peer name eth0 netns {inside}");
        engines.underlay.ip(&wire).await?;
        let up = format!("link set v{number} master shared up");
        engines.underlay.ip(&up).await.context(outside.clone())?;
        for words in [
            "link set lo up".to_owned(),
            format!("addr add {address}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            // A way out that leads nowhere: containers get a default route.
            "route add default via 10.77.0.254".to_owned(),
        ] {
            namespace.ip(&words).await?;
        }
        let host = Self {
            name,
            address,
            mounts: keep_mounts(&namespace, &directory)?,
            namespace,
            program: program.into(),
            client: Client::new(directory.join("weft.sock")).with_deadline(STOP_MAX),
            directory,
            engine: None,
            weft: None,
        };
        host.configure_engine(false)?;
        Ok(host)
    }

    /// Writes what the engine is told. Names without --dns: it asks who is told here, and the daemon listens there.
    fn configure_engine(&self, live_restore: bool) -> anyhow::Result<()> {
        let told = format!(
            "{{\"dns\": [\"{}\"], \"live-restore\": {live_restore}}}",
            self.address
        );
        Ok(fs::write(self.directory.join("daemon.json"), told)?)
    }

    /// Has the engine leave its containers running when it stops, or stop them. It must run.
    pub async fn live_restore(&self, on: bool) -> anyhow::Result<()> {
        self.configure_engine(on)?;
        let engine = self.engine.as_ref().context("no engine runs")?;
        kill(Pid::from_raw(engine.id().try_into()?), Signal::SIGHUP)?;
        let wanted = on.to_string();
        until("the engine has read what it is told", async || {
            let told = ["info", "--format", "{{.LiveRestoreEnabled}}"];
            let told = self.docker(&told).await?;
            Ok(Seen::when(told.done()?.trim() == wanted, || {
                told.stdout.clone()
            }))
        })
        .await
    }

    /// Returns its name, which is its daemon's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its address on the bridge.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns where all is that is its own.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns its daemon's process, if it runs.
    pub fn weft_pid(&self) -> Option<u32> {
        self.weft.as_ref().map(Child::id)
    }

    /// Returns its engine's process, if it runs.
    pub fn engine_pid(&self) -> Option<u32> {
        self.engine.as_ref().map(Child::id)
    }

    /// Returns a client of its daemon.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns a client of the socket that its daemon serves for its engine.
    pub fn plugin(&self) -> plugin::Client {
        let socket = self.directory.join("plugins/weft.sock");
        plugin::Client::new(plugin::Address::Unix(socket), STOP_MAX)
    }

    /// Returns a client of its engine's API: of what is done by the hundred, `docker` takes a fifth for itself.
    pub fn engine_api(&self) -> plugin::Client {
        let socket = self.directory.join("run/docker.sock");
        plugin::Client::new(plugin::Address::Unix(socket), DEADLINE)
    }

    /// Serves the socket of its plugin in place of its daemon, which must not run, and refuses whatever the engine asks. It ends when
    /// what is returned is dropped.
    pub fn refuse_engine(&self) -> anyhow::Result<Refusing> {
        Refusing::at(self.directory.join("plugins/weft.sock"))
    }

    /// Runs `docker` against its engine.
    pub async fn docker(&self, args: &[&str]) -> anyhow::Result<Ran> {
        let mut command = Command::new("docker");
        command.args(["-H", &self.engine_socket()]).args(args);
        run(command.into(), b"").await
    }

    /// Runs a command of `weft` against its daemon.
    pub async fn weft(&self, args: &[&str]) -> anyhow::Result<Ran> {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(self.client.socket()).args(args);
        run(command.into(), b"").await
    }

    /// Runs a command on the host itself.
    pub async fn command(&self, words: &[&str]) -> anyhow::Result<Ran> {
        let mut command = self.namespace.enter();
        command.args(words);
        run(command.into(), b"").await
    }

    /// Starts the daemon: as told here the first time, later without a word more.
    pub fn start_weft(&mut self, more: &[&str]) -> anyhow::Result<()> {
        ensure!(self.weft.is_none(), "{} runs already", self.name);
        let mut command = clean(self.namespace.enter());
        command.arg(&self.program);
        command.args(["up", "--dataplane", "kernel", "--name", &self.name]);
        command.arg("--listen");
        command.arg(format!("{}:9338", self.address));
        let dns = format!("{}:53", self.address);
        command.args(["--dns", &dns]);
        // Nobody else is reachable from here. That the daemon itself is the next one to ask is that there is none, which is told at
        // once; the machine's own resolvers would be waited for in vain, as they are on no host that works.
        command.args(["--dns-upstream", &dns]);
        for (option, path) in [
            ("--data-dir", "weft"),
            ("--socket", "weft.sock"),
            ("--docker-plugin", "plugins/weft.sock"),
            ("--docker-engine", "run/docker.sock"),
        ] {
            command.arg(option).arg(self.directory.join(path));
        }
        command.args(more);
        self.weft = Some(logged_to(command, &self.directory.join("weft.log"))?);
        Ok(())
    }

    /// Waits until the daemon is up.
    pub async fn until_up(&mut self) -> anyhow::Result<()> {
        until("the daemon is up", async || {
            if let Some(status) = ended(&mut self.weft)? {
                return Ok(Seen::Good(Err(status)));
            }
            let ready = self.client.status().await?.ready;
            Ok(match ready {
                true => Seen::Good(Ok(())),
                false => Seen::NotYet("it is not ready".to_owned()),
            })
        })
        .await?
        .map_err(|status| anyhow::anyhow!("{} ended by itself: {status}", self.name))
    }

    /// Waits until the daemon has ended by itself, and returns whether it had nothing to complain of.
    pub async fn until_weft_ended(&mut self) -> anyhow::Result<bool> {
        until("the daemon has ended", async || {
            Ok(match ended(&mut self.weft)? {
                Some(status) => Seen::Good(status.success()),
                None => Seen::NotYet("it runs".to_owned()),
            })
        })
        .await
    }

    /// Ends the daemon as a power failure would.
    pub fn kill_weft(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.weft.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops the daemon as an operator would.
    pub fn stop_weft(&mut self) -> anyhow::Result<()> {
        stop(&mut self.weft, &self.name)
    }

    /// Starts the engine.
    pub fn start_engine(&mut self) -> anyhow::Result<()> {
        ensure!(self.engine.is_none(), "{}'s engine runs", self.name);
        let mut command = self.namespace.enter();
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.mounts.id()));
        command.arg("dockerd");
        for (option, path) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "run/docker.pid"),
        ] {
            command.arg(option).arg(self.directory.join(path));
        }
        command.arg("--host").arg(self.engine_socket());
        self.engine = Some(logged_to(command, &self.directory.join("engine.log"))?);
        Ok(())
    }

    /// Waits until the engine answers.
    pub async fn until_engine(&self) -> anyhow::Result<()> {
        until("the engine answers", async || {
            let version = self.docker(&["version"]).await?;
            Ok(Seen::when(version.done().is_ok(), || version.stderr))
        })
        .await
    }

    /// Ends the engine as a power failure would; its containers run on until it is started again.
    pub fn kill_engine(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.engine.take() {
            child.kill()?;
            child.wait()?;
            // Its containerd ends with it. Where nobody reaps it, the next engine would wait for it in vain.
            fs::remove_file(self.directory.join("exec/containerd/containerd.pid"))?;
        }
        Ok(())
    }

    /// Returns the networks that have a namespace here.
    pub fn namespaces(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.directory.join("netns"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// Stops the engine, which stops its containers.
    pub fn stop_engine(&mut self) -> anyhow::Result<()> {
        stop(&mut self.engine, &format!("{}'s engine", self.name))
    }

    /// Removes all containers, if the engine runs: it may leave them running when it stops.
    fn remove_containers(&self) -> anyhow::Result<()> {
        if self.engine.is_some() {
            let docker = format!("docker -H {}", self.engine_socket());
            let script = format!("{docker} ps -aq | xargs -r {docker} rm --force");
            Command::new("sh").args(["-c", &script]).output()?;
        }
        Ok(())
    }

    /// Returns what its daemon has logged.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.directory.join("weft.log")).unwrap_or_default()
    }

    /// Returns where the engine listens, as `docker -H` takes it.
    pub fn engine_socket(&self) -> String {
        format!("unix://{}/run/docker.sock", self.directory.display())
    }
}

/// Makes a mount namespace in which an engine has its own place for plugins, and no containerd but one that it starts itself.
fn keep_mounts(namespace: &Namespace, directory: &Path) -> anyhow::Result<Child> {
    let at = directory.display();
    let script = format!(
        "mkdir -p {at}/rundocker/plugins /run/docker /run/containerd &&
         mount --bind {at}/rundocker /run/docker &&
         mount --bind {at}/plugins /run/docker/plugins &&
         mount --bind {at}/containerd /run/containerd &&
         echo done && exec sleep infinity"
    );
    let mut command = namespace.enter();
    command.args(["unshare", "--mount", "--propagation", "private"]);
    command.args(["sh", "-c", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut told = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut told)?;
    }
    ensure!(told == "done\n", "the mount namespace was not made");
    Ok(child)
}

/// The command, with nothing of ours in its environment.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEFT_") {
            command.env_remove(name);
        }
    }
    command
}

impl Drop for EngineHost {
    fn drop(&mut self) {
        // What was going on matters more than that it does not end in peace.
        let _ = self.remove_containers();
        let _ = self.stop_engine();
        let _ = self.stop_weft();
        let _ = self.mounts.kill();
        let _ = self.mounts.wait();
        // Networks that are not removed have a namespace each, which a daemon that stops leaves as it is.
        let places = fs::read_dir(self.directory.join("netns"));
        for place in places.into_iter().flatten().flatten() {
            let unmounted = Command::new("umount").arg(place.path()).output();
            drop(unmounted);
        }
    }
}

fn look() -> anyhow::Result<()> {
    let is_root = fs::metadata("/proc/self")?.uid() == 0;
    ensure!(is_root, "only root can make namespaces");
    for program in ["dockerd", "docker", "nsenter", "unshare", "ip", "tar"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path);
        ensure!(
            places.any(|place| place.join(program).exists()),
            "there is no {program}"
        );
    }
    busybox().map(drop)
}

fn logged_to(mut command: Command, path: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(path)?;
    let started = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    started.with_context(|| format!("cannot run {command:?}"))
}

fn ended(child: &mut Option<Child>) -> anyhow::Result<Option<ExitStatus>> {
    let status = match child {
        Some(running) => running.try_wait()?,
        None => bail!("it was not started"),
    };
    if status.is_some() {
        *child = None;
    }
    Ok(status)
}

/// Asks a process to end, and kills it if it does not.
fn stop(child: &mut Option<Child>, name: &str) -> anyhow::Result<()> {
    let Some(mut running) = child.take() else {
        return Ok(());
    };
    kill(Pid::from_raw(running.id().try_into()?), Signal::SIGTERM)?;
    for _ in 0..STOP_MAX.as_millis() / LOOK_EVERY.as_millis() {
        if let Some(status) = running.try_wait()? {
            ensure!(status.success(), "{name} stopped with {status}");
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    running.kill()?;
    running.wait()?;
    bail!("{name} had to be killed")
}

fn tail(name: &str, logged: &str) -> String {
    let lines: Vec<&str> = logged.lines().collect();
    let last = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    format!("--- {name} ---\n{last}\n")
}
