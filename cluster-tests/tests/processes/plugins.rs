//! Drivers in processes of their own: real nodes, each with a plugin in Python beside it, over unix sockets.

use std::{
    cell::Cell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use cluster_tests::cluster::{Cluster, Node, Plugin, Profile, Seen, python, until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use weft::{
    api::http::types::{CreateEndpoint, CreateNetwork, EndpointState, Setup},
    core::model::{EndpointId, Name},
};

use crate::WEFT;

/// The seed of the kills at any moment, and how many there are.
const SEED: u64 = 11;
const KILLS: usize = 8;

/// Entries of one plugin are heard by the other, and go with the endpoint that brought them and with the node.
#[tokio::test]
async fn a_plugins_entries_are_heard_by_the_others_and_go_with_endpoint_and_node()
-> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::start(WEFT, 2).await?;
    let wires = [
        Wire::start(&python, &cluster[0], false).await?,
        Wire::start(&python, &cluster[1], false).await?,
    ];
    create_network(&cluster).await?;

    let web = cluster.create_endpoint(0, "app", "web").await?;
    let db = cluster.create_endpoint(1, "app", "db").await?;
    wires[1].until_heard(&[web.id]).await?;
    wires[0].until_heard(&[db.id]).await?;

    cluster[0].client().endpoint_leave("app", "web").await?;
    wires[1].until_heard(&[]).await?;
    cluster[0].client().endpoint_join("app", "web").await?;
    wires[1].until_heard(&[web.id]).await?;

    cluster[1].kill().await?;
    wires[0].until_heard(&[]).await?;
    cluster[1].start()?;
    cluster[1].until_ready().await?;
    wires[0].until_heard(&[db.id]).await?;
    // The plugin is the same; the daemon that came back begins a new stream of events.
    wires[1].until_heard(&[web.id]).await?;

    cluster[0].client().endpoint_remove("app", "web").await?;
    wires[1].until_heard(&[]).await?;
    cluster[1].client().endpoint_remove("app", "db").await?;
    cluster[0].client().network_remove("app").await?;
    for wire in &wires {
        wire.until("it has no network", |state| {
            state["networks"]
                .as_object()
                .is_some_and(|of| of.is_empty())
        })
        .await?;
    }
    cluster.end().await
}

/// A plugin that is killed is told of everything again; one that has kept its place hears only what it has missed.
#[tokio::test]
async fn a_plugin_that_is_killed_comes_back_and_goes_on_where_it_was() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let cluster = Cluster::start(WEFT, 2).await?;
    let near = Wire::start(&python, &cluster[0], false).await?;
    let far = Wire::start(&python, &cluster[1], true).await?;
    create_network(&cluster).await?;
    let web = cluster.create_endpoint(0, "app", "web").await?;
    let db = cluster.create_endpoint(1, "app", "db").await?;
    far.until_heard(&[web.id]).await?;
    near.until_heard(&[db.id]).await?;
    let before = far.network()?;

    drop(far);
    let shop = cluster.create_endpoint(0, "app", "shop").await?;
    let far = Wire::start(&python, &cluster[1], true).await?;
    far.until_heard(&[web.id, shop.id]).await?;

    let after = far.network()?;
    assert_eq!(after["stream"], before["stream"], "{before} then {after}");
    assert!(after["revision"].as_u64() > before["revision"].as_u64());

    // This one keeps nothing: it hears all anew, and what it says of its endpoint has changed.
    let said = far.network()?["heard"].clone();
    drop(near);
    let near = Wire::start(&python, &cluster[0], false).await?;
    near.until_heard(&[db.id]).await?;
    far.until("the entry has another value", |state| {
        let heard = &network_of(state)["heard"];
        heard.as_object().is_some_and(|heard| heard.len() == 2) && *heard != said
    })
    .await?;
    until_ready(&cluster).await?;
    cluster.end().await
}

/// A plugin that is gone for good keeps nobody from hearing that its endpoints are, and they and the network can be removed.
#[tokio::test]
async fn a_plugin_that_is_gone_keeps_no_entry_no_endpoint_and_no_network() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let cluster = Cluster::start(WEFT, 2).await?;
    let near = Wire::start(&python, &cluster[0], false).await?;
    let far = Wire::start(&python, &cluster[1], false).await?;
    create_network(&cluster).await?;
    for name in ["web", "db"] {
        cluster.create_endpoint(0, "app", name).await?;
    }
    far.until("it has heard of both", |state| {
        let heard = network_of(state)["heard"].as_object();
        heard.is_some_and(|heard| heard.len() == 2)
    })
    .await?;

    let socket = near.socket().to_owned();
    drop(near);
    std::fs::remove_file(socket)?;
    cluster
        .until_on(&[0], "it is noticed", async |node| {
            let setup = node.client().network("app").await?.setup;
            let is_pending = matches!(setup, Setup::Pending { .. });
            Ok(Seen::when(is_pending, || format!("{setup:?}")))
        })
        .await?;
    let client = cluster[0].client();
    client.endpoint_leave("app", "web").await?;
    client.endpoint_remove("app", "db").await?;

    far.until_heard(&[]).await?;
    client.endpoint_remove("app", "web").await?;
    client.network_remove("app").await?;
    far.until("it has no network", |state| {
        state["networks"]
            .as_object()
            .is_some_and(|of| of.is_empty())
    })
    .await?;
    cluster.end().await
}

/// Whenever a plugin dies, in the middle of a call or between two, it and the others end up with what its node has.
#[tokio::test]
#[expect(
    clippy::print_stderr,
    reason = "the counts show that it was killed under way"
)]
async fn a_plugin_that_is_killed_at_any_moment_ends_up_with_what_its_node_has() -> anyhow::Result<()>
{
    let Some(python) = python()? else {
        return Ok(());
    };
    let cluster = Cluster::start(WEFT, 2).await?;
    let mut near = Wire::start(&python, &cluster[0], false).await?;
    let far = Wire::start(&python, &cluster[1], false).await?;
    create_network(&cluster).await?;
    let mut rng = StdRng::seed_from_u64(SEED);
    let (done, failed) = (Cell::new(0), Cell::new(0));
    for _ in 0..KILLS {
        let life = Duration::from_millis(rng.random_range(0..150));
        let work = async {
            let client = cluster[0].client();
            loop {
                for name in ["a", "b"] {
                    let wish = CreateEndpoint {
                        name: Name::new(name)?,
                        address: None,
                        second_address: None,
                    };
                    let steps = [
                        client.endpoint_create("app", &wish).await.is_ok(),
                        client.endpoint_join("app", name).await.is_ok(),
                    ];
                    let steps = steps.into_iter().filter(|went| *went).count();
                    done.set(done.get() + steps);
                    failed.set(failed.get() + 2 - steps);
                }
                let _ = client.endpoint_leave("app", "a").await;
                let _ = client.endpoint_remove("app", "b").await;
            }
        };
        // Not to wait for something: the kill comes at any moment, in the middle of a call.
        let _: Result<anyhow::Result<()>, _> = tokio::time::timeout(life, work).await;
        drop(near);
        near = Wire::start(&python, &cluster[0], false).await?;
        until_ready(&cluster).await?;
        until_agreed(&cluster, &near, &far).await?;
    }
    eprintln!(
        "{KILLS} kills (seed {SEED}), with {} steps done and {} refused",
        done.get(),
        failed.get()
    );
    ensure!(done.get() > 0, "nothing was done before a kill");
    cluster.end().await
}

/// Waits until the plugin has joined exactly what its node has joined, and the other has heard of exactly that.
async fn until_agreed(cluster: &Cluster, near: &Wire, far: &Wire) -> anyhow::Result<()> {
    until("plugins and node agree", async || {
        let endpoints = cluster[0].client().endpoints(Some("app")).await?;
        let joined = endpoints
            .iter()
            .filter(|endpoint| endpoint.state == EndpointState::Joined);
        let joined: BTreeSet<String> = joined
            .map(|endpoint| endpoint.id.to_string().repeat(2))
            .collect();
        let near = network_of(&near.state()?).clone();
        let at_near = near["endpoints"].as_object().into_iter().flatten();
        let at_near: BTreeSet<String> = at_near
            .filter(|(_, endpoint)| endpoint["joined"] == true)
            .map(|(id, _)| id.clone())
            .collect();
        let far = network_of(&far.state()?).clone();
        let at_far = far["heard"].as_object().into_iter().flatten();
        let at_far: BTreeSet<String> = at_far.map(|(id, _)| id.clone()).collect();
        Ok(Seen::when(joined == at_near && joined == at_far, || {
            format!("node: {joined:?}, its plugin: {near}, the other: {far}")
        }))
    })
    .await
}

/// What drivers of all kinds and plugins look like.
#[tokio::test]
async fn drivers_and_plugins_are_shown() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let cluster = Cluster::start(WEFT, 2).await?;
    let near = Wire::start(&python, &cluster[0], false).await?;
    let _far = Wire::start(&python, &cluster[1], false).await?;
    create_network(&cluster).await?;
    let node = &cluster[0];

    let drivers: Value = node.run(&["--json", "driver", "ls"]).await?.json()?;
    let rows: Vec<String> = drivers
        .as_array()
        .context("a list")?
        .iter()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or("-").to_owned();
            let built_in = one["built_in"] == true;
            format!(
                "{} {} {built_in} {}",
                text("name"),
                text("kind"),
                one["networks"]
            )
        })
        .collect();
    let expected = [
        "null network true []",
        "overlay network true []",
        r#"wire network false ["app"]"#,
        r#"default ipam true ["app"]"#,
        "null ipam true []",
        "null allocator true []",
        "overlay allocator true []",
        r#"wire allocator false ["app"]"#,
    ];
    assert_eq!(rows, expected);
    let wire: Value = node
        .run(&["--json", "driver", "inspect", "wire"])
        .await?
        .json()?;
    let socket = format!("unix://{}", near.socket().display());
    for (at, kind) in ["network", "allocator"].into_iter().enumerate() {
        let shown = &wire[at];
        assert_eq!(
            (&shown["kind"], &shown["alive"]),
            (&kind.into(), &true.into())
        );
        assert_eq!(shown["address"], socket.as_str());
        assert_eq!(shown["networks"], serde_json::json!(["app"]));
    }
    assert_eq!(wire[0]["state"]["tables"], true);
    assert_eq!(wire[1]["needs"], serde_json::json!(["subnets", "asked"]));
    let plugins: Value = node.run(&["--json", "plugin", "ls"]).await?.json()?;
    assert_eq!(
        plugins[0]["implements"],
        serde_json::json!(["NetworkDriver", "weft.TableDriver/1.0"])
    );
    assert_eq!(plugins[0]["state"], "enabled");
    node.run(&["plugin", "inspect", "nope"])
        .await?
        .refused(4, &["no plugin nope"])?;
    node.run(&["driver", "inspect", "nope"])
        .await?
        .refused(4, &["no driver nope"])?;

    cluster.end().await
}

/// What an endpoint looks like closely: its entries, whose they are, and who may lack them.
#[tokio::test]
async fn an_endpoint_is_shown_with_its_entries() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let cluster = Cluster::start(WEFT, 2).await?;
    let near = Wire::start(&python, &cluster[0], false).await?;
    let _far = Wire::start(&python, &cluster[1], false).await?;
    create_network(&cluster).await?;
    let web = cluster.create_endpoint(0, "app", "web").await?;
    let node = &cluster[0];

    for at in [0, 1] {
        let shown: Value = cluster[at]
            .run(&["--json", "endpoint", "inspect", "app", "web"])
            .await?
            .json()?;
        let entries = shown["entries"].as_array().context("entries")?;
        let own = entries
            .iter()
            .find(|entry| entry["table"] == "wire_ports")
            .context("its entry")?;
        assert_eq!(own["endpoint"], web.id.to_string(), "{shown}");
        assert!(
            own["says"]["port"]
                .as_str()
                .is_some_and(|port| port.ends_with(&near.pid().to_string()))
        );
        assert_eq!(own["owner"], web.node.to_string());
        assert_eq!(entries.len(), 2, "its own, and its record: {shown}");
        assert_eq!(shown["applied"].is_null(), at == 1, "{shown}");
    }
    let for_people = node.run(&["endpoint", "inspect", "app", "web"]).await?;
    assert!(
        for_people.done()?.contains("port: "),
        "{}",
        for_people.stdout
    );
    cluster.end().await
}

/// Without its plugin a network cannot be made, and what is said names the driver.
#[tokio::test]
async fn a_network_of_a_driver_that_is_not_there_is_refused_with_its_name() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;

    let refused = cluster[0].run(&["network", "create", "app", "--driver", "wire"]);

    refused.await?.refused(4, &["no driver wire"])?;
    cluster.end().await
}

/// Creates network `app` of driver `wire`, and waits until both nodes have it set up.
async fn create_network(cluster: &Cluster) -> anyhow::Result<()> {
    let wish = CreateNetwork {
        driver: Name::new("wire")?,
        ..CreateNetwork::overlay(Name::new("app")?)
    };
    cluster[0].client().network_create(&wish).await?;
    until_ready(cluster).await
}

async fn until_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let running = cluster.running();
    cluster
        .until_on(&running, "the network is set up", async |node| {
            let setup = node.client().network("app").await?.setup;
            Ok(Seen::when(setup == Setup::Ready, || format!("{setup:?}")))
        })
        .await
}

/// The sample network driver beside a node.
pub(crate) struct Wire(Plugin);

impl std::ops::Deref for Wire {
    type Target = Plugin;

    fn deref(&self) -> &Plugin {
        &self.0
    }
}

impl Wire {
    pub(crate) async fn start(python: &Path, node: &Node, keeps: bool) -> anyhow::Result<Self> {
        let kept = keeps.then(|| node.plugin_dir().join("wire.state"));
        let more: Vec<PathBuf> = kept.into_iter().collect();
        Ok(Self(Plugin::start(python, node, "wire", &more).await?))
    }

    /// Returns what it knows of its one network.
    fn network(&self) -> anyhow::Result<Value> {
        Ok(network_of(&self.state()?).clone())
    }

    /// Waits until it has heard of exactly these endpoints of others.
    async fn until_heard(&self, endpoints: &[EndpointId]) -> anyhow::Result<()> {
        let mut wanted: Vec<String> = endpoints
            .iter()
            .map(|id| id.to_string().repeat(2))
            .collect();
        wanted.sort();
        let what = format!("it has heard of {wanted:?}");
        self.until(&what, |state| {
            let heard = network_of(state)["heard"].as_object();
            let keys = heard.map(|heard| heard.keys().cloned().collect::<Vec<_>>());
            keys.is_some_and(|mut keys| {
                keys.sort();
                keys == wanted
            })
        })
        .await
    }
}

fn network_of(state: &Value) -> &Value {
    let networks = state["networks"].as_object();
    let first = networks.and_then(|networks| networks.values().next());
    first.unwrap_or(&Value::Null)
}
