//! The networks that are measured, and containers in them.

use std::{path::PathBuf, process::Stdio};

use anyhow::Context;
use cluster_tests::cluster::{EngineHost, IMAGE, Seen, until};
use tokio::process::Command;

/// Weft's network.
pub(crate) const WEFT: &str = "app";
/// Swarm's.
pub(crate) const SWARM: &str = "swarmed";
/// A bridge of the second host's engine alone.
pub(crate) const LOCAL: &str = "local";

/// Makes them all.
pub(crate) async fn make(hosts: &[EngineHost]) -> anyhow::Result<()> {
    let [first, others @ ..] = hosts else {
        anyhow::bail!("there are no hosts")
    };
    // A swarm's own networks have the first VNIs on the usual port.
    let create = ["network", "create", WEFT, "--option", "vxlan_port=4790"];
    first.weft(&create).await?.done()?;
    let init = ["swarm", "init", "--advertise-addr", first.address()];
    first.docker(&init).await?.done()?;
    let token = first.docker(&["swarm", "join-token", "--quiet", "worker"]);
    let token = token.await?.done()?.trim().to_owned();
    for host in others {
        let seed = format!("{}:2377", first.address());
        let join = ["swarm", "join", "--token", &token, &seed];
        host.docker(&join).await?.done()?;
    }
    let create = ["network", "create", "--driver", "overlay", "--attachable"];
    let overlay = [&create[..], &[SWARM]].concat();
    first.docker(&overlay).await?.done()?;
    hosts[1]
        .docker(&["network", "create", LOCAL])
        .await?
        .done()?;
    Ok(())
}

/// Starts a container that does nothing; the network may still be on its way.
pub(crate) async fn until_run(host: &EngineHost, network: &str, name: &str) -> anyhow::Result<()> {
    until("a container runs", async || {
        let ran = host.docker(&run(network, name)).await?;
        if ran.done().is_err() {
            remove(host, name).await?;
        }
        Ok(Seen::when(ran.code == Some(0), || ran.stderr.clone()))
    })
    .await
}

/// The words that start a container that does nothing.
pub(crate) fn run<'a>(network: &'a str, name: &'a str) -> Vec<&'a str> {
    let options = ["run", "--detach", "--network", network, "--name", name];
    let command = ["--stop-signal", "KILL", IMAGE, "sleep", "3600"];
    [&options[..], &command].concat()
}

/// Removes a container, whatever it does, if it is there.
pub(crate) async fn remove(host: &EngineHost, name: &str) -> anyhow::Result<()> {
    host.docker(&["rm", "--force", name]).await.map(drop)
}

/// Asks the engine for one thing about a container.
pub(crate) async fn about(host: &EngineHost, name: &str, what: &str) -> anyhow::Result<String> {
    let asked = host.docker(&["inspect", "--format", what, name]).await?;
    Ok(asked.done()?.trim().to_owned())
}

/// Returns where the network namespace of a container is.
pub(crate) async fn namespace(host: &EngineHost, name: &str) -> anyhow::Result<PathBuf> {
    let pid = about(host, name, "{{.State.Pid}}").await?;
    Ok(format!("/proc/{pid}/ns/net").into())
}

/// Returns this program as a command that runs in a network namespace.
pub(crate) fn ourselves(namespace: &std::path::Path, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", namespace.display()))
        .arg(std::env::current_exe().context("where is this program?")?)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}
