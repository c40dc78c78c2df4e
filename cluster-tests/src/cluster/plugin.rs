//! The sample plugins in Python, each a process beside a node.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Node, Seen, until};

/// Finds Python; nothing where it is missing, unless it must be there.
#[expect(
    clippy::print_stderr,
    reason = "who reads the tests must see what was skipped"
)]
pub fn python() -> anyhow::Result<Option<PathBuf>> {
    let python = PathBuf::from("python3");
    let ran = Command::new(&python)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if ran.as_ref().is_ok_and(|status| status.success()) {
        return Ok(Some(python));
    }
    let must = std::env::var_os("WEFT_REQUIRE_DOCKER").is_some_and(|value| value == "1");
    ensure!(!must, "WEFT_REQUIRE_DOCKER=1, but no python3: {ran:?}");
    eprintln!("skipped: there is no python3 here");
    Ok(None)
}

/// A sample plugin beside a node. It is killed when this is dropped.
#[derive(Debug)]
pub struct Plugin {
    child: Child,
    socket: PathBuf,
}

impl Plugin {
    /// Starts one by the name of its script, on the node's host.
    pub async fn start(
        python: &Path,
        node: &Node,
        name: &str,
        more: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let socket = node.plugin_dir().join(format!("{name}.sock"));
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
        let mut command = node.on_host(python);
        command.arg(scripts.join(format!("{name}.py"))).arg(&socket);
        let child = command.args(more).stdin(Stdio::null()).spawn()?;
        let plugin = Self { child, socket };
        let pid = plugin.child.id();
        plugin
            .until("it serves", |state| state["pid"] == pid)
            .await?;
        Ok(plugin)
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks it for what it knows.
    pub fn state(&self) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(b"GET /state HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Waits until it knows something.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        until(what, async || {
            let state = self.state()?;
            Ok(Seen::when(wanted(&state), || state.to_string()))
        })
        .await
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
