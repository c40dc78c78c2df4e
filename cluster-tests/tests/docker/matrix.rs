//! What containers can be told and what can befall their hosts; at the end the engine, the kernel and Weft agree.

use std::collections::BTreeSet;

use cluster_tests::cluster::{EngineHost, Engines, IMAGE, Seen, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{run_once, until_joined};

/// How many containers are started at once on each host, unless `WEFT_AT_ONCE` says.
const AT_ONCE: usize = 10;
/// A container that ends as soon as it is told to.
const SLEEPER: [&str; 5] = ["--stop-signal", "KILL", IMAGE, "sleep", "600"];

pub(super) async fn containers_of_every_kind_come_and_go(engines: &Engines) -> anyhow::Result<()> {
    let [first, second, ..] = engines.hosts() else {
        anyhow::bail!("there are too few hosts")
    };
    first.docker(&["rm", "--force", "web"]).await?.done()?;
    make_by_hand(first).await?;
    let quiet = ["run", "--detach", "--name", "quiet", "--network", "inside"];
    let run = [&quiet[..], &SLEEPER].concat();
    first.docker(&run).await?.done()?;

    let asked = run_once(second, "ping -c 1 -W 2 quiet").await?;
    anyhow::ensure!(asked.contains("1 packets received"), "{asked}");
    let options = ["run", "--rm", "--network", "app", "--ip", "10.0.0.9"];
    let taken = [&options[..], &[IMAGE, "echo"]].concat();
    let taken = first.docker(&taken).await?;
    anyhow::ensure!(taken.stderr.contains("is in use"), "{taken:?}");

    let bridged = [&["run", "--detach", "--name", "mover"][..], &SLEEPER].concat();
    first.docker(&bridged).await?.done()?;
    let connect = ["network", "connect", "--alias", "late", "app", "mover"];
    first.docker(&connect).await?.done()?;
    until_joined(second, &["mover", "quiet"]).await?;
    let asked = run_once(second, "ping -c 1 -W 2 mover").await?;
    anyhow::ensure!(asked.contains("1 packets received"), "{asked}");
    let disconnect = ["network", "disconnect", "app", "mover"];
    first.docker(&disconnect).await?.done()?;
    until_joined(second, &["quiet"]).await?;
    let gone = ["rm", "--force", "quiet", "mover"];
    first.docker(&gone).await?.done()?;
    let by_hand = ["network", "rm", "inside"];
    first.docker(&by_hand).await?.done()?;
    until_nothing_is_left(engines).await
}

/// A network of the engine beside the one that Weft has made for the same network.
async fn make_by_hand(host: &EngineHost) -> anyhow::Result<()> {
    let create = ["network", "create", "--driver", "weft", "--internal"];
    let ipam = ["--ipam-driver", "weft", "--ipam-opt", "weft.network=app"];
    let subnet = ["--subnet", "10.0.0.0/24", "--aux-address", "box=10.0.0.9"];
    let named = ["--opt", "weft.network=app", "inside"];
    let create = [&create[..], &ipam, &subnet, &named].concat();
    host.docker(&create).await?.done()?;
    Ok(())
}

pub(super) async fn containers_that_restart_come_back_whoever_was_killed(
    engines: &mut Engines,
) -> anyhow::Result<()> {
    let first = engines.host(0);
    let options = ["run", "--detach", "--name", "always", "--network", "app"];
    let run = [&options[..], &["--restart", "always"], &SLEEPER].concat();
    first.docker(&run).await?.done()?;

    for (engine, weft) in [(true, false), (true, true)] {
        let first = engines.host(0);
        if engine {
            first.kill_engine()?;
        }
        if weft {
            first.kill_weft()?;
            first.start_weft(&[])?;
            first.until_up().await?;
        }
        first.start_engine()?;
        first.until_engine().await?;

        let second = &engines.hosts()[1];
        until_joined(second, &["always"]).await?;
        let script = "ping -c 1 -W 2 always";
        until("the container is reached again", async || {
            let asked = run_once(second, script).await;
            Ok(Seen::when(asked.is_ok(), || format!("{asked:?}")))
        })
        .await?;
    }
    let first = engines.host(0);
    first.docker(&["rm", "--force", "always"]).await?.done()?;
    until_nothing_is_left(engines).await
}

/// An engine that leaves its containers running tells a plugin nothing when it stops, and nothing when it starts again.
pub(super) async fn containers_outlive_their_engine_and_keep_their_places(
    engines: &mut Engines,
) -> anyhow::Result<()> {
    let first = engines.host(0);
    first.live_restore(true).await?;
    let run = ["run", "--detach", "--name", "steady", "--network", "app"];
    let run = [&run[..], &SLEEPER].concat();
    first.docker(&run).await?.done()?;
    let before = first.client().endpoints(Some("app")).await?;
    let script = "ping -c 1 -W 2 steady";

    for (kills, weft) in [(false, false), (true, true)] {
        let first = engines.host(0);
        match kills {
            true => first.kill_engine()?,
            false => first.stop_engine()?,
        }
        if weft {
            first.kill_weft()?;
            first.start_weft(&[])?;
            first.until_up().await?;
            until_joined(first, &["steady"]).await?;
        }
        // Nobody but the kernel and Weft is there.
        let second = &engines.hosts()[1];
        until("the container is reached without its engine", async || {
            let asked = run_once(second, script).await;
            Ok(Seen::when(asked.is_ok(), || format!("{asked:?}")))
        })
        .await?;
        let first = engines.host(0);
        first.start_engine()?;
        first.until_engine().await?;
        let asked = run_once(&engines.hosts()[1], script).await?;
        anyhow::ensure!(asked.contains("1 packets received"), "{asked}");
    }

    let first = engines.host(0);
    let after = first.client().endpoints(Some("app")).await?;
    anyhow::ensure!(before == after, "{before:?} {after:?}");
    let started = ["inspect", "--format", "{{.State.Running}}", "steady"];
    let started = first.docker(&started).await?;
    anyhow::ensure!(started.done()?.trim() == "true", "{started:?}");
    first.live_restore(false).await?;
    first.docker(&["rm", "--force", "steady"]).await?.done()?;
    until_nothing_is_left(engines).await
}

pub(super) async fn many_started_at_once_leave_nothing(engines: &Engines) -> anyhow::Result<()> {
    let told = std::env::var("WEFT_AT_ONCE").ok();
    let count = told.map_or(Ok(AT_ONCE), |told| told.parse())?;
    let hosts = engines.hosts();
    let [first, second, third] = hosts else {
        anyhow::bail!("there are not three hosts")
    };

    tokio::try_join!(
        start_many(first, count),
        start_many(second, count),
        start_many(third, count),
    )?;

    let what = "every host shows every container, each with an address of its own";
    until(what, async || {
        let mut seen = Vec::new();
        for host in hosts {
            let endpoints = host.client().endpoints(Some("app")).await?;
            let addresses = endpoints.iter().filter_map(|endpoint| endpoint.address);
            let addresses: BTreeSet<String> = addresses.map(|ip| ip.to_string()).collect();
            seen.push((endpoints.len(), addresses.len()));
        }
        let wanted = (count * hosts.len(), count * hosts.len());
        let is_so = seen.iter().all(|seen| *seen == wanted);
        Ok(Seen::when(is_so, || format!("{seen:?}")))
    })
    .await?;
    tokio::try_join!(
        remove_many(first, count),
        remove_many(second, count),
        remove_many(third, count),
    )?;
    until_nothing_is_left(engines).await
}

/// Makes so many containers, and starts all at once.
async fn start_many(host: &EngineHost, count: usize) -> anyhow::Result<()> {
    let engine = host.engine_api();
    let container = json!({
        "Image": IMAGE,
        "Cmd": ["sleep", "600"],
        "HostConfig": { "NetworkMode": "app" },
    });
    let mut started = JoinSet::new();
    for number in 0..count {
        let (engine, container) = (engine.clone(), container.clone());
        started.spawn(async move {
            let create = format!("/containers/create?name=many{number}");
            let _: Value = engine.post(&create, &container).await?;
            let start = format!("/containers/many{number}/start");
            engine.post::<()>(&start, &()).await
        });
    }
    while let Some(one) = started.join_next().await {
        one??;
    }
    Ok(())
}

/// Removes what was started at once, one after the other: engine 20.10 was seen to miscount the endpoints of many that go at once,
/// and then says of their network that it is in use, though it lists none.
async fn remove_many(host: &EngineHost, count: usize) -> anyhow::Result<()> {
    let engine = host.engine_api();
    for number in 0..count {
        let remove = format!("/containers/many{number}?force=1");
        engine.delete(&remove).await?;
    }
    Ok(())
}

/// Waits until no container is in the network: for Weft, for the engines, and for the kernel.
async fn until_nothing_is_left(engines: &Engines) -> anyhow::Result<()> {
    for host in engines.hosts() {
        let what = format!("{} has nothing left", host.name());
        until(&what, async || {
            let endpoints = host.client().endpoints(Some("app")).await?;
            let containers = ["network", "inspect", "--format", "{{len .Containers}}"];
            let listed = host.docker(&[&containers[..], &["app"]].concat()).await?;
            let links = host.command(&["ip", "-o", "link"]).await?;
            let namespaces = host.namespaces()?;
            let is_clear = endpoints.is_empty()
                && listed.done()?.trim() == "0"
                && !links.done()?.contains(": weft")
                && namespaces.is_empty();
            Ok(Seen::when(is_clear, || {
                format!("{endpoints:?} {listed:?} {links:?} {namespaces:?}")
            }))
        })
        .await?;
    }
    Ok(())
}
