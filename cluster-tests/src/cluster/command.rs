//! Commands that are run to their end, and what they said.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command, for failures.
    pub line: String,
    /// What it exited with; nothing if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs a command to its end, with these bytes on its standard input.
pub async fn run(command: Command, input: &[u8]) -> anyhow::Result<Ran> {
    run_within(COMMAND_MAX, command, input).await
}

/// Runs a command that may take this long.
pub(super) async fn run_within(
    within: Duration,
    mut command: Command,
    input: &[u8],
) -> anyhow::Result<Ran> {
    let line = format!("{:?}", command.as_std());
    let started = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = started.with_context(|| format!("cannot run {line}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let feed = async move {
        // A command that refuses early does not read on; what it says is what counts.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let ended = timeout(within, async {
        tokio::join!(feed, child.wait_with_output()).1
    });
    let output = ended
        .await
        .with_context(|| format!("not ended within {within:?}: {line}"))??;
    Ok(Ran {
        line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Ran {
    /// Returns what it answered, if it has done what it was told.
    pub fn done(&self) -> anyhow::Result<&str> {
        ensure!(
            self.code == Some(0),
            "{} exited with {:?}: {}{}",
            self.line,
            self.code,
            self.stderr,
            self.stdout
        );
        Ok(&self.stdout)
    }

    /// Reads what it answered as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(self.done()?)
            .with_context(|| format!("{} answered {}", self.line, self.stdout))
    }

    /// Checks that it refused with this code and one clear line that says all of `parts`, and answered nothing.
    pub fn refused(&self, code: i32, parts: &[&str]) -> anyhow::Result<()> {
        let shown = || format!("{} exited with {:?}: {}", self.line, self.code, self.stderr);
        ensure!(self.code == Some(code), "not {code}: {}", shown());
        ensure!(
            self.stdout.is_empty(),
            "{} answered {}",
            self.line,
            self.stdout
        );
        ensure!(
            self.stderr.lines().count() == 1,
            "not one line: {}",
            shown()
        );
        ensure!(
            self.stderr.starts_with("weft: "),
            "not from weft: {}",
            shown()
        );
        for part in parts {
            ensure!(
                self.stderr.contains(part),
                "{part:?} is not said: {}",
                shown()
            );
        }
        Ok(())
    }
}
