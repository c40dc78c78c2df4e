//! A cluster of containers: the compose file at the root, with an image made from this machine's binary.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};
use weft::api::http::types::{Change, WatchEvent};

use super::{
    command::{Ran, run, run_within},
    image::image,
    until::{DEADLINE, Seen, until},
};

/// The nodes of the compose file.
const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// Where the compose file's image takes the binary from.
const STATIC: &str = "target/x86_64-unknown-linux-gnu/release/weft";
/// How long a release build may take.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);
/// How the image's stage that needs no other image begins.
const STAGE: &str = "FROM scratch AS local\n";

/// Docker on this machine.
#[derive(Debug, Clone)]
pub struct Docker {
    compose: Vec<String>,
    must: bool,
}

impl Docker {
    /// Looks for Docker and its compose; `None`, and a reason on standard error, if it is not here and need not be.
    ///
    /// With `WEFT_REQUIRE_DOCKER=1` it need be.
    #[expect(clippy::print_stderr, reason = "who skips a test has to say so")]
    pub async fn find() -> anyhow::Result<Option<Self>> {
        let must = std::env::var_os("WEFT_REQUIRE_DOCKER").is_some_and(|value| value == "1");
        match Self::look(must).await {
            Ok(found) => Ok(Some(found)),
            Err(missing) if must => Err(missing.context("WEFT_REQUIRE_DOCKER=1, but no Docker")),
            Err(missing) => {
                eprintln!("skipped, for want of Docker: {missing:#}");
                Ok(None)
            }
        }
    }

    async fn look(must: bool) -> anyhow::Result<Self> {
        docker(&["info", "--format", "{{.ServerVersion}}"]).await?;
        for compose in [&["docker-compose"][..], &["docker", "compose"]] {
            let mut version = Command::new(compose[0]);
            version.args(&compose[1..]).arg("version");
            if let Ok(ran) = run(version.into(), b"").await
                && ran.done().is_ok()
            {
                let compose = compose.iter().map(ToString::to_string).collect();
                return Ok(Self { compose, must });
            }
        }
        anyhow::bail!("neither `docker-compose` nor `docker compose` works")
    }

    /// Builds an image under this name: of the static binary that users get if Docker is required, else, to save the minutes
    /// that it takes, of `program` and the libraries that it needs.
    async fn build(&self, program: &Path, tag: &str) -> anyhow::Result<()> {
        let root = root();
        let made;
        let context = if self.must {
            let mut build = Command::new(env!("CARGO"));
            build.args(["static", "--locked"]).current_dir(&root);
            run_within(BUILD_MAX, build.into(), b"").await?.done()?;
            root.as_path()
        } else {
            made = dynamic_context(program).await?;
            made.path()
        };
        let context = context.to_str().context("a path that is no text")?;
        docker(&["build", "--quiet", "--target=local", "--tag", tag, context]).await?;
        Ok(())
    }
}

/// A service of the compose file: one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service(pub usize);

impl Service {
    /// Returns its name, which is its node's too.
    pub fn name(self) -> &'static str {
        NODES[self.0]
    }
}

/// The compose file's cluster, under a project name of its own. It goes when this is dropped, with its volumes.
#[derive(Debug)]
pub struct Compose {
    docker: Docker,
    project: String,
    image: String,
    place: TempDir,
    containers: BTreeMap<&'static str, String>,
    /// Containers that share a node's network.
    beside: Vec<String>,
    content: bool,
}

impl Compose {
    /// Makes the image, starts the containers and waits until all are healthy.
    pub async fn up(docker: Docker, program: &str) -> anyhow::Result<Self> {
        let project = format!("weft-test-{}", std::process::id());
        let image = format!("{project}:latest");
        docker.build(Path::new(program), &image).await?;
        let place = tempfile::tempdir()?;
        let services: Vec<String> = NODES
            .iter()
            .map(|node| format!("  {node}: {{ image: {image} }}\n"))
            .collect();
        let text = format!("services:\n{}", services.concat());
        fs::write(place.path().join("image.yml"), text)?;
        let mut cluster = Self {
            docker,
            project,
            image,
            place,
            containers: BTreeMap::new(),
            beside: Vec::new(),
            content: false,
        };
        cluster.start().await?;
        Ok(cluster)
    }

    /// Waits until every container is healthy.
    pub async fn until_healthy(&self) -> anyhow::Result<()> {
        until("all containers are healthy", async || {
            for node in NODES {
                let format = "{{.State.Status}} {{.State.Health.Status}}";
                let state = docker(&["inspect", "--format", format, self.id(node)?]).await?;
                if state.trim() != "running healthy" {
                    return Ok(Seen::NotYet(format!("{node} is {}", state.trim())));
                }
            }
            Ok(Seen::Good(()))
        })
        .await
    }

    /// Runs one command of `weft` in a container.
    pub async fn weft(&self, on: Service, args: &[&str]) -> anyhow::Result<Ran> {
        let mut command = Command::new("docker");
        command
            .args(["exec", self.id(on.name())?, "weft"])
            .args(args);
        run(command.into(), b"").await
    }

    /// Runs one command of `weft --json` in a container, and reads what it answers.
    pub async fn ask<T: DeserializeOwned>(&self, on: Service, args: &[&str]) -> anyhow::Result<T> {
        self.weft(on, &[&["--json"], args].concat()).await?.json()
    }

    /// Waits until, on each of these nodes, a command answers what is waited for.
    pub async fn until_on<T: DeserializeOwned>(
        &self,
        nodes: &[Service],
        args: &[&str],
        look: impl Fn(&T) -> Seen<()>,
    ) -> anyhow::Result<()> {
        let names: Vec<&str> = nodes.iter().map(|node| node.name()).collect();
        let what = format!("`weft {}` on {}", args.join(" "), names.join(", "));
        until(&what, async || {
            for node in nodes {
                if let Seen::NotYet(other) = look(&self.ask(*node, args).await?) {
                    return Ok(Seen::NotYet(format!("on {}, {other}", node.name())));
                }
            }
            Ok(Seen::Good(()))
        })
        .await
    }

    /// Begins `weft table watch` in a container, past its beginning.
    pub async fn watch(&self, on: Service, network: &str) -> anyhow::Result<TableWatch> {
        let mut command = tokio::process::Command::new("docker");
        command
            .args(["exec", self.id(on.name())?, "weft", "--json"])
            .args(["table", "watch", network])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut watch = TableWatch {
            lines: BufReader::new(stdout).lines(),
            _child: child,
        };
        while !matches!(watch.event().await?, WatchEvent::Synced { .. }) {}
        Ok(watch)
    }

    /// Does something to a container: `kill`, `start`, `pause` or `unpause`.
    pub async fn act(&self, what: &str, on: Service) -> anyhow::Result<()> {
        docker(&[what, self.id(on.name())?]).await?;
        Ok(())
    }

    /// Runs a command of busybox in a container that shares a node's network.
    pub async fn run_beside(&self, on: Service, command: &[&str]) -> anyhow::Result<Ran> {
        let network = format!("--network=container:{}", self.id(on.name())?);
        let image = self.busybox();
        let mut run_it = Command::new("docker");
        run_it.args(["run", "--rm", &network, &image]).args(command);
        run(run_it.into(), b"").await
    }

    /// Starts such a container; it is stopped by [`Self::stop_beside`].
    pub async fn start_beside(&mut self, on: Service, command: &[&str]) -> anyhow::Result<()> {
        let network = format!("--network=container:{}", self.id(on.name())?);
        let image = self.busybox();
        let started = ["run", "--detach", &network, &image];
        let id = docker(&[&started[..], command].concat()).await?;
        self.beside.push(id.trim().to_owned());
        Ok(())
    }

    /// Stops what was started beside nodes.
    pub async fn stop_beside(&mut self) -> anyhow::Result<()> {
        while let Some(id) = self.beside.pop() {
            docker(&["rm", "--force", &id]).await?;
        }
        Ok(())
    }

    /// Makes the image of what runs beside nodes.
    pub async fn make_busybox(&self) -> anyhow::Result<()> {
        let archive = image(self.place.path()).await?;
        docker(&["import", &archive.to_string_lossy(), &self.busybox()]).await?;
        Ok(())
    }

    fn busybox(&self) -> String {
        format!("{}-box", self.project)
    }

    /// Takes a container off the network.
    pub async fn disconnect(&self, on: Service) -> anyhow::Result<()> {
        let network = self.network();
        docker(&["network", "disconnect", &network, self.id(on.name())?]).await?;
        Ok(())
    }

    /// Puts a container on the network again, under its name.
    pub async fn connect(&self, on: Service) -> anyhow::Result<()> {
        let (network, alias) = (self.network(), format!("--alias={}", on.name()));
        let id = self.id(on.name())?;
        docker(&["network", "connect", &alias, &network, id]).await?;
        Ok(())
    }

    /// Makes all containers anew, as after an upgrade of the image; the volumes stay.
    pub async fn recreate(&mut self) -> anyhow::Result<()> {
        self.compose(&["down", "--timeout=10"]).await?;
        self.start().await
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        self.compose(&["up", "--detach", "--no-build"]).await?;
        for node in NODES {
            let id = self.compose(&["ps", "--quiet", node]).await?;
            self.containers.insert(node, id.trim().to_owned());
        }
        self.until_healthy().await
    }

    /// Takes everything down.
    pub fn down(mut self) {
        self.content = true;
    }

    fn network(&self) -> String {
        format!("{}_underlay", self.project)
    }

    fn id(&self, node: &str) -> anyhow::Result<&str> {
        let id = self.containers.get(node);
        Ok(id.with_context(|| format!("no container of {node}"))?)
    }

    async fn compose(&self, args: &[&str]) -> anyhow::Result<String> {
        let ran = run(self.compose_command(args).into(), b"").await?;
        Ok(ran.done()?.to_owned())
    }

    fn compose_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.docker.compose[0]);
        command
            .args(&self.docker.compose[1..])
            .args(["--project-name", &self.project, "--file"])
            .arg(root().join("docker-compose.yml"))
            .arg("--file")
            .arg(self.place.path().join("image.yml"))
            .args(args);
        command
    }

    fn show_logs(&self) {
        let mut logs = self.compose_command(&["logs", "--no-color", "--tail=60"]);
        // It writes to this test's own output; if it fails there is nothing to show.
        let _ = logs.status();
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if !self.content {
            self.show_logs();
        }
        for id in &self.beside {
            let _ = Command::new("docker").args(["rm", "--force", id]).output();
        }
        let down = ["down", "--volumes", "--timeout=1", "--remove-orphans"];
        // There is nobody to tell if it fails; the names say whose the rest is.
        let _ = self.compose_command(&down).output();
        let images = ["rmi", &self.image, &self.busybox()];
        let _ = Command::new("docker").args(images).output();
    }
}

/// A running `weft table watch --json`.
#[derive(Debug)]
pub struct TableWatch {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl TableWatch {
    /// Waits for the next change.
    pub async fn change(&mut self) -> anyhow::Result<Change> {
        loop {
            match self.event().await? {
                WatchEvent::Change(change) => return Ok(change),
                WatchEvent::State { .. } => {}
                other @ (WatchEvent::Entry(_) | WatchEvent::Synced { .. } | WatchEvent::Lagged) => {
                    anyhow::bail!("not a change: {other:?}")
                }
            }
        }
    }

    async fn event(&mut self) -> anyhow::Result<WatchEvent> {
        let line = timeout(DEADLINE, self.lines.next_line()).await;
        let line = line.context("a watch has nothing to tell")??;
        Ok(serde_json::from_str(&line.context("a watch has ended")?)?)
    }
}

async fn docker(args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("docker");
    command.args(args);
    Ok(run(command.into(), b"").await?.done()?.to_owned())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Makes what the image's first stage is built from, with the libraries of a program that is not static.
async fn dynamic_context(program: &Path) -> anyhow::Result<TempDir> {
    let context = tempfile::tempdir()?;
    let place = |path: &str| {
        let to = context.path().join(path);
        fs::create_dir_all(to.parent().context("no directory")?)?;
        anyhow::Ok(to)
    };
    fs::copy(program, place(STATIC)?)?;
    let mut ldd = Command::new("ldd");
    ldd.arg(program);
    let needed = run(ldd.into(), b"").await?;
    // `libm.so.6 => /lib/libm.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`; what has no path is the kernel's.
    let words = needed.done()?.split_whitespace();
    for library in words.filter(|word| word.starts_with('/')) {
        let to = place(&format!("libraries/{library}"))?;
        fs::copy(library, to).with_context(|| format!("cannot copy {library}"))?;
    }
    let recipe = fs::read_to_string(root().join("Dockerfile"))?;
    ensure!(
        recipe.contains(STAGE),
        "the Dockerfile has no stage `local`"
    );
    let recipe = recipe.replace(STAGE, &format!("{STAGE}COPY libraries/ /\n"));
    fs::write(context.path().join("Dockerfile"), recipe)?;
    Ok(context)
}
