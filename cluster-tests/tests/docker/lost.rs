//! A host that others cannot reach, or that is no more: its names and routes go, and come back with it.

use std::path::PathBuf;

use cluster_tests::cluster::{EngineHost, Engines, IMAGE, Seen, inside, until};

use super::until_joined;

/// What asks, on the second host, and what is asked for, on the third.
const ASKS: &str = "asks";
const FAR: &str = "far";

pub(super) async fn a_host_that_is_cut_off_is_forgotten_and_heard_of_again(
    engines: &Engines,
) -> anyhow::Result<()> {
    let [_, second, third] = engines.hosts() else {
        anyhow::bail!("there are not three hosts")
    };
    for (host, name) in [(second, ASKS), (third, FAR)] {
        let options = ["run", "--detach", "--restart", "always", "--network", "app"];
        let named = ["--name", name, "--stop-signal", "KILL"];
        let command = [IMAGE, "sleep", "600"];
        let run = [&options[..], &named, &command].concat();
        host.docker(&run).await?.done()?;
    }
    until_reached(second, third).await?;

    engines.cut(2).await?;
    until_forgotten(second, third).await?;
    engines.heal(2).await?;

    until_reached(second, third).await
}

pub(super) async fn a_host_that_is_lost_is_forgotten_and_comes_back(
    engines: &mut Engines,
) -> anyhow::Result<()> {
    engines.host(2).kill_engine()?;
    engines.host(2).kill_weft()?;
    let [_, second, third] = engines.hosts() else {
        anyhow::bail!("there are not three hosts")
    };
    until_forgotten(second, third).await?;

    let third = engines.host(2);
    third.start_weft(&[])?;
    third.until_up().await?;
    third.start_engine()?;
    third.until_engine().await?;

    let [_, second, third] = engines.hosts() else {
        anyhow::bail!("there are not three hosts")
    };
    until_reached(second, third).await?;
    for (host, name) in [(second, ASKS), (third, FAR)] {
        host.docker(&["rm", "--force", name]).await?.done()?;
    }
    until_joined(second, &[]).await
}

/// Waits until a container of the second host finds that of the third by name, and has an answer from it.
async fn until_reached(second: &EngineHost, third: &EngineHost) -> anyhow::Result<()> {
    until("the container is reached by its name", async || {
        let asked = ["exec", ASKS, "ping", "-c", "1", "-W", "1", FAR];
        let asked = second.docker(&asked).await?;
        let fdb = routes(second).await?;
        let is_so = asked.done().is_ok() && fdb.contains(third.address());
        Ok(Seen::when(is_so, || format!("{asked:?} {fdb}")))
    })
    .await
}

/// Waits until the second host knows neither the name nor the way to the third.
async fn until_forgotten(second: &EngineHost, third: &EngineHost) -> anyhow::Result<()> {
    until("the container is found no longer", async || {
        let fdb = routes(second).await?;
        if fdb.contains(third.address()) {
            return Ok(Seen::NotYet(fdb));
        }
        // With its network's name it is ours, and nobody else is asked.
        let name = format!("{FAR}.app");
        let asked = ["exec", ASKS, "nslookup", &name];
        let asked = second.docker(&asked).await?;
        Ok(Seen::when(asked.done().is_err(), || asked.stdout.clone()))
    })
    .await
}

/// The forwarding entries of the network on a host.
async fn routes(host: &EngineHost) -> anyhow::Result<String> {
    let network = host.client().network("app").await?.network.id;
    let place: PathBuf = host.directory().join("netns").join(network.to_string());
    inside(&place, &["bridge", "fdb", "show"])
}
