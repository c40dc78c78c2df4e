//! The demo's nodes: real `weft up` processes with data, sockets and logs of their own in a temporary directory.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::StepError;
use crate::api::client::Client;

/// How long a node may take to end when it is asked to.
const END_MAX: Duration = Duration::from_secs(3);
/// How many lines of each log are shown after a failure.
const TAIL: usize = 15;
/// How much of a log is read for them, in bytes.
const TAIL_BYTES: u64 = 16 * 1024;

/// How a node comes into its cluster.
pub(super) enum Entrance {
    /// It founds it.
    Found,
    /// It joins through another, with a token.
    Join(SocketAddr, String),
    /// It was in it before.
    Again,
}

/// One node.
pub(super) struct DemoNode {
    /// Its name: `n1`, `n2` …
    pub(super) name: String,
    /// A client of its control API.
    pub(super) client: Client,
    /// An address of its own: nodes that share one would take each other's endpoints for local ones.
    listen: String,
    directory: PathBuf,
    child: Option<Child>,
}

/// All nodes, and the directory that holds what is theirs.
pub(super) struct Nodes {
    nodes: Vec<DemoNode>,
    directory: Option<TempDir>,
    place: PathBuf,
    program: PathBuf,
    keep: bool,
}

impl Nodes {
    /// Makes the directory; nothing is started.
    pub(super) fn new(count: usize, keep: bool) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let directory = short_directory()?;
        let place = directory.path().to_owned();
        let node = |number: usize| {
            let name = format!("n{number}");
            let directory = place.join(&name);
            std::fs::create_dir(&directory)?;
            let client = Client::new(directory.join("sock")).with_deadline(Duration::from_secs(10));
            Ok(DemoNode {
                name,
                client,
                listen: format!("127.0.0.{number}:0"),
                directory,
                child: None,
            })
        };
        Ok(Self {
            nodes: (1..=count).map(node).collect::<io::Result<_>>()?,
            directory: Some(directory),
            place: place.clone(),
            program,
            keep,
        })
    }

    /// Returns the node of this place; the first is 0.
    pub(super) fn get(&self, place: usize) -> &DemoNode {
        &self.nodes[place]
    }

    /// Returns how many nodes there are, running or not.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the places of the nodes that run.
    pub(super) fn running(&self) -> Vec<usize> {
        let runs = |place: &usize| self.nodes[*place].child.is_some();
        (0..self.nodes.len()).filter(runs).collect()
    }

    /// Starts a node.
    pub(super) fn start(&mut self, place: usize, entrance: &Entrance) -> Result<(), StepError> {
        let node = &mut self.nodes[place];
        let failed = |source| StepError::Machine {
            what: format!("cannot start {}", node.name),
            source,
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(node.directory.join("log"))
            .map_err(failed)?;
        let mut command = Command::new(&self.program);
        command
            .args([
                "up",
                "--name",
                &node.name,
                "--listen",
                &node.listen,
                "--profile",
                "local",
                "--docker",
                "off",
                "--dataplane",
                "none",
            ])
            .arg("--data-dir")
            .arg(node.directory.join("data"))
            .arg("--socket")
            .arg(node.client.socket())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // The terminal's ctrl-C is for us; we end the nodes.
            .process_group(0)
            .kill_on_drop(!self.keep);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEFT_") && name != "WEFT_LOG" {
                command.env_remove(name);
            }
        }
        match entrance {
            Entrance::Found => drop(command.arg("--init")),
            Entrance::Join(seed, token) => {
                // A token on the command line would show in the list of processes.
                command
                    .args(["--join", &seed.to_string()])
                    .env("WEFT_TOKEN", token);
            }
            Entrance::Again => {}
        }
        node.child = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Ends a node at once, as a power failure would (SIGKILL), and waits until it is gone.
    pub(super) async fn kill(&mut self, place: usize) -> Result<(), StepError> {
        let node = &mut self.nodes[place];
        let Some(mut child) = node.child.take() else {
            return Ok(());
        };
        child.kill().await.map_err(|source| StepError::Machine {
            what: format!("cannot kill {}", node.name),
            source,
        })
    }

    /// Returns an error if a node that should run has ended.
    pub(super) fn check(&mut self) -> Result<(), StepError> {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child
                && let Ok(Some(status)) = child.try_wait()
            {
                node.child = None;
                return Err(StepError::Ended {
                    node: node.name.clone(),
                    status: status.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Ends every node that runs: first asks, then kills.
    pub(super) async fn end(&mut self) {
        let mut children: Vec<Child> = self
            .nodes
            .iter_mut()
            .filter_map(|node| node.child.take())
            .collect();
        for child in &children {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // One that has ended already needs no signal.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGTERM,
                );
            }
        }
        for child in &mut children {
            if timeout(END_MAX, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }

    /// Returns whether they shall go on running.
    pub(super) fn are_kept(&self) -> bool {
        self.keep
    }

    /// Lets everything be when this goes.
    pub(super) fn keep(&mut self) {
        if let Some(directory) = self.directory.take() {
            let _ = directory.keep();
        }
    }

    /// Returns how to talk to the nodes that run, and how to end them.
    pub(super) fn how_to_talk(&self) -> String {
        let running: Vec<&DemoNode> = self
            .running()
            .into_iter()
            .map(|place| &self.nodes[place])
            .collect();
        let talk: String = running
            .iter()
            .map(|node| {
                format!(
                    "  weft --socket {} status\n",
                    node.client.socket().display()
                )
            })
            .collect();
        let pids: Vec<String> = running
            .iter()
            .filter_map(|node| Some(node.child.as_ref()?.id()?.to_string()))
            .collect();
        format!(
            "\nThe nodes go on running. Talk to them:\n{talk}\nStop them and remove what they have written:\n  kill {} && rm -r {}",
            pids.join(" "),
            self.place.display()
        )
    }

    /// Returns the last lines of each log.
    pub(super) fn log_tails(&self) -> Vec<(String, String)> {
        let tail = |node: &DemoNode| {
            let lines = last_lines(&node.directory.join("log"))
                .unwrap_or_else(|error| format!("(no log: {error})"));
            (node.name.clone(), lines)
        };
        self.nodes.iter().map(tail).collect()
    }
}

fn last_lines(log: &Path) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL)..].join("\n"))
}

/// Makes a temporary directory whose sockets' paths are short enough (`sun_path` of unix(7) has 108 bytes).
fn short_directory() -> io::Result<TempDir> {
    let name = "weft-demo-";
    let usual = std::env::temp_dir();
    if usual.as_os_str().len() < 60 {
        tempfile::Builder::new().prefix(name).tempdir_in(usual)
    } else {
        tempfile::Builder::new().prefix(name).tempdir_in("/tmp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_shown_from_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let lines: Vec<String> = (0..5_000).map(|number| format!("line {number}")).collect();
        std::fs::write(&log, lines.join("\n")).unwrap();

        let tail = last_lines(&log).unwrap();

        assert_eq!(tail.lines().count(), TAIL);
        assert!(tail.ends_with("line 4999"));
    }

    #[test]
    fn what_is_not_kept_is_removed() {
        let nodes = Nodes::new(3, false).unwrap();
        let place = nodes.place.clone();
        assert!(place.join("n3").exists());

        drop(nodes);

        assert!(!place.exists());
    }
}
