//! A container that is killed: its name goes with the signal, before the engine has cleared up after it, and comes back with it.

use std::process::Stdio;

use cluster_tests::cluster::{EngineHost, Engines, IMAGE, Seen, until};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::until_joined;

/// What asks, on the second host; what is killed, and what hears a signal and lives on, on the first.
const LOOKS: &str = "looks";
const KILLED: &str = "killed";
const HEARS: &str = "hears";

pub(super) async fn a_name_goes_with_the_signal_that_nothing_survives(
    engines: &Engines,
) -> anyhow::Result<()> {
    let [first, second, ..] = engines.hosts() else {
        anyhow::bail!("there are too few hosts")
    };
    for (host, name) in [(second, LOOKS), (first, KILLED), (first, HEARS)] {
        let options = ["run", "--detach", "--network", "app", "--name", name];
        let command = ["--stop-signal", "KILL", IMAGE, "sleep", "600"];
        let run = [&options[..], &command].concat();
        host.docker(&run).await?.done()?;
    }
    until_named(second, KILLED, true).await?;
    until_named(second, HEARS, true).await?;

    let mut held = hold(first, KILLED).await?;
    // Process 1 of a container does not hear a signal for which it is not prepared.
    let hup = ["kill", "--signal", "HUP", HEARS];
    first.docker(&hup).await?.done()?;
    let kill = ["kill", "--signal", "KILL", KILLED];
    let killed = async { first.docker(&kill).await?.done().map(drop) };
    let seen = async {
        until_named(second, KILLED, false).await?;
        // The engine has not seen it end, so it has told nobody that it leaves.
        let running = ["inspect", "--format", "{{.State.Running}}", KILLED];
        let running = first.docker(&running).await?;
        anyhow::ensure!(running.done()?.trim() == "true", "{running:?}");
        // What came before the last signal has been heard too.
        anyhow::ensure!(is_named(second, HEARS).await?, "{HEARS} lives on");
        Ok(held.kill().await?)
    };
    tokio::try_join!(killed, seen)?;

    first.docker(&["start", KILLED]).await?.done()?;
    until_named(second, KILLED, true).await?;
    first.docker(&["restart", HEARS]).await?.done()?;
    until_named(second, HEARS, true).await?;
    let remove = ["rm", "--force", KILLED, HEARS];
    first.docker(&remove).await?.done()?;
    second.docker(&["rm", "--force", LOOKS]).await?.done()?;
    until_joined(second, &["web"]).await
}

/// Keeps a container that is killed from ending: in its PID namespace is a process whose parent, outside, does not ask how it ended.
/// The container's first process ends after all others have.
async fn hold(host: &EngineHost, container: &str) -> anyhow::Result<Child> {
    let pid = ["inspect", "--format", "{{.State.Pid}}", container];
    let pid = host.docker(&pid).await?.done()?.trim().to_owned();
    let mut holder = Command::new("nsenter")
        .args(["--target", &pid, "--pid", "--no-fork", "sh", "-c"])
        .arg("sleep 600 >/dev/null & echo inside && exec sleep 601")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = String::new();
    if let Some(output) = holder.stdout.take() {
        BufReader::new(output).read_line(&mut said).await?;
    }
    anyhow::ensure!(said == "inside\n", "nobody is inside {container}");
    Ok(holder)
}

async fn until_named(host: &EngineHost, name: &str, is_named_then: bool) -> anyhow::Result<()> {
    until(&format!("{name} is a name: {is_named_then}"), async || {
        let named = is_named(host, name).await?;
        Ok(Seen::when(named == is_named_then, || named.to_string()))
    })
    .await
}

/// With its network's name it is ours, and nobody else is asked.
async fn is_named(host: &EngineHost, name: &str) -> anyhow::Result<bool> {
    let name = format!("{name}.app");
    let asked = host.docker(&["exec", LOOKS, "nslookup", &name]).await?;
    Ok(asked.code == Some(0))
}
