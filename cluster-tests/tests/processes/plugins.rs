//! Drivers in processes of their own: real nodes, each with a plugin in Python beside it, over unix sockets.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use cluster_tests::cluster::{Cluster, Node, Profile, Seen, until};
use serde_json::Value;
use weft::{
    api::http::types::{CreateNetwork, Setup},
    core::model::{EndpointId, Name},
};

use crate::WEFT;

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
    let before = far.network().await?;

    drop(far);
    let shop = cluster.create_endpoint(0, "app", "shop").await?;
    let far = Wire::start(&python, &cluster[1], true).await?;
    far.until_heard(&[web.id, shop.id]).await?;

    let after = far.network().await?;
    assert_eq!(after["stream"], before["stream"], "{before} then {after}");
    assert!(after["revision"].as_u64() > before["revision"].as_u64());

    // This one keeps nothing: it hears all anew, and what it says of its endpoint has changed.
    let said = far.network().await?["heard"].clone();
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

/// Without its plugin a network cannot be made, and what is said names the driver.
#[tokio::test]
async fn a_network_of_a_driver_that_is_not_there_is_refused_with_its_name() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;

    let refused = cluster[0].run(&["network", "create", "app", "--driver", "wire"]);

    refused.await?.refused(4, &["no driver wire"])?;
    cluster.end().await
}

/// Finds Python; nothing where it is missing, unless it must be there.
#[expect(
    clippy::print_stderr,
    reason = "who reads the tests must see what was skipped"
)]
fn python() -> anyhow::Result<Option<PathBuf>> {
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

/// The sample plugin beside a node. It is killed when this is dropped.
struct Wire {
    child: Child,
    socket: PathBuf,
}

impl Wire {
    async fn start(python: &Path, node: &Node, keeps: bool) -> anyhow::Result<Self> {
        let socket = node.plugin_dir().join("wire.sock");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/wire.py");
        let mut command = Command::new(python);
        command.arg(script).arg(&socket);
        if keeps {
            command.arg(node.plugin_dir().join("wire.state"));
        }
        let child = command.stdin(Stdio::null()).spawn()?;
        let wire = Self { child, socket };
        let pid = wire.child.id();
        wire.until("it serves", |state| state["pid"] == pid).await?;
        Ok(wire)
    }

    /// Asks it for what it knows.
    fn state(&self) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(b"GET /state HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Returns what it knows of its one network.
    async fn network(&self) -> anyhow::Result<Value> {
        Ok(network_of(&self.state()?).clone())
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        until(what, async || {
            let state = self.state()?;
            Ok(Seen::when(wanted(&state), || state.to_string()))
        })
        .await
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

impl Drop for Wire {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn network_of(state: &Value) -> &Value {
    let networks = state["networks"].as_object();
    let first = networks.and_then(|networks| networks.values().next());
    first.unwrap_or(&Value::Null)
}
