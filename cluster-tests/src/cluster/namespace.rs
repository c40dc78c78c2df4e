//! The network namespace of a host with an engine.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::command::run;

/// A network namespace, removed when this goes.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) name: String,
}

impl Namespace {
    pub(super) async fn make(what: &str) -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-test-{}-{number}-{what}", std::process::id());
        ip(&["netns", "add", &name]).await?;
        Ok(Self { name })
    }

    /// Runs `ip` inside.
    pub(super) async fn ip(&self, words: &str) -> anyhow::Result<()> {
        let inside = ["-n", &self.name].into_iter();
        let words: Vec<&str> = inside.chain(words.split(' ')).collect();
        ip(&words).await
    }

    /// Returns a command that runs the words added to it inside. `ip netns exec` would hide the cgroups.
    pub(super) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name));
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

async fn ip(words: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(words);
    run(command.into(), b"").await?.done()?;
    Ok(())
}
