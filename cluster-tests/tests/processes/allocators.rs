//! What a network needs in the whole cluster, from a plugin in Python beside each node: the one beside the leader is asked.

use std::path::Path;

use anyhow::Context;
use cluster_tests::cluster::{Cluster, Node, Plugin, Profile, Seen, python};
use serde_json::{Value, json};
use weft::core::model::NodeId;

use crate::WEFT;

/// D10: the leader's node asks, every node's driver is told, and the lane is free again when the network is gone. Plugins that keep
/// lanes in memory are told of them before the next leader asks for another.
#[tokio::test]
async fn lanes_are_handed_out_by_the_leader_told_to_all_and_outlive_it() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::start(WEFT, 3).await?;
    let mut lanes = Vec::new();
    for at in 0..3 {
        lanes.push(start(&python, &cluster[at], &json!({})).await?);
    }
    // Whoever leads, another one is asked for the network.
    create(&cluster[1], "a", &["-o", "colour=red"])
        .await?
        .done()?;
    create(&cluster[2], "b", &[]).await?.done()?;

    let leader = leader(&cluster).await?;
    for (at, plugin) in lanes.iter().enumerate() {
        plugin
            .until("it has both networks with their lanes", |state| {
                let set_up = [
                    &json!({"colour": "red", "lane": "100"}),
                    &json!({"lane": "101"}),
                ];
                options(state) == set_up
            })
            .await?;
        let calls = count(&plugin.state()?, "AllocateNetwork");
        assert_eq!(calls, if at == leader { 2 } else { 0 }, "node {at}");
    }
    cluster[1].client().network_remove("a").await?;
    lanes[leader]
        .until("the lane is free", |state| handed_out(state) == [101])
        .await?;

    let former = cluster[leader].id().await?;
    cluster[leader].kill().await?;
    let other = (leader + 1) % 3;
    until_led_anew(&cluster, former).await?;
    create(&cluster[other], "c", &[]).await?.done()?;
    let third = options_of(&cluster[other], "c").await?;
    assert_eq!(third["lane"], "100");
    create(&cluster[other], "d", &[]).await?.done()?;
    let fourth = options_of(&cluster[other], "d").await?;
    assert_eq!(fourth["lane"], "102", "101 is b's");
    cluster.end().await
}

/// A refusal is told in the plugin's words, and leaves no network, no lane and no subnet behind.
#[tokio::test]
async fn a_network_that_is_not_allocated_is_not_there() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    let node = &cluster[0];
    let lanes = start(&python, node, &json!({})).await?;
    create(node, "a", &["-o", "lane=7"]).await?.done()?;

    create(node, "b", &["-o", "lane=7"]).await?.refused(
        1,
        &[
            "network b was not created",
            "driver lanes",
            "AllocateNetwork: lane 7 is in use",
        ],
    )?;

    assert_eq!(names(node).await?, ["a"]);
    create(node, "b", &["-o", "lane=8"]).await?.done()?;
    assert_eq!(handed_out(&lanes.state()?), [7, 8]);
    create(node, "c", &["-o", "weft.allocation=made"])
        .await?
        .refused(2, &["weft.allocation", "Weft's own"])?;

    drop(lanes);
    let bad = [
        ("<html>", "is malformed"),
        (r#"{"Options": {"lane": 7}}"#, "is malformed"),
        (r#"{"Options": {"weft.x": "7"}}"#, "is Weft's own"),
        (r#"{"Err": "no lane is left"}"#, "no lane is left"),
    ];
    for (answer, wrong) in bad {
        let lanes = start(&python, node, &json!({"answer": answer})).await?;
        create(node, "bad", &[])
            .await?
            .refused(1, &["driver lanes", "NetworkDriver.AllocateNetwork", wrong])?;
        assert_eq!(names(node).await?, ["a", "b"], "{answer}");
        drop(lanes);
    }
    let silent = start(&python, node, &json!({"silent": true})).await?;
    create(node, "plain", &[]).await?.done()?;
    node.client().network_remove("plain").await?;
    silent
        .until("it was told of the two that are there again", |state| {
            count(state, "CreateNetwork") == 3
        })
        .await?;
    cluster.end().await
}

/// The leader dies while its plugin thinks: the next one asks its own, and the network comes to be once.
#[tokio::test]
async fn a_leader_that_dies_while_it_asks_is_followed_by_one_that_asks() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::start(WEFT, 3).await?;
    let leader = leader(&cluster).await?;
    let mut lanes = Vec::new();
    for at in 0..3 {
        let hangs = json!({"hang": at == leader});
        lanes.push(start(&python, &cluster[at], &hangs).await?);
    }
    let other = (leader + 1) % 3;

    let (created, killed) = {
        let asked = lanes[leader].until("it is asked", |state| count(state, "AllocateNetwork") > 0);
        let node = &cluster[other];
        let created = create(node, "a", &[]);
        tokio::pin!(created);
        tokio::select! {
            ran = &mut created => anyhow::bail!("it was to wait: {ran:?}"),
            asked = asked => asked?,
        }
        let pid = cluster[leader].pid().context("it runs")?;
        let killed = tokio::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .await?;
        (created.await?, killed)
    };

    assert!(killed.success());
    created.done()?;
    assert_eq!(options_of(&cluster[other], "a").await?["lane"], "100");
    // It has died already; its process is put away.
    cluster[leader].kill().await?;
    let asked = lanes.iter().enumerate().filter(|(at, _)| *at != leader);
    let mut calls = 0;
    for (_, plugin) in asked {
        calls += count(&plugin.state()?, "AllocateNetwork");
    }
    assert!(calls > 0, "nobody else was asked");
    cluster.end().await
}

async fn start(python: &Path, node: &Node, options: &Value) -> anyhow::Result<Plugin> {
    Plugin::start(python, node, "lanes", &[options.to_string().into()]).await
}

async fn create(
    node: &Node,
    name: &str,
    more: &[&str],
) -> anyhow::Result<cluster_tests::cluster::Ran> {
    let line = [&["network", "create", name, "-d", "lanes"], more].concat();
    node.run(&line).await
}

async fn names(node: &Node) -> anyhow::Result<Vec<String>> {
    let networks: Value = node.run(&["--json", "network", "ls"]).await?.json()?;
    let networks = networks.as_array().context("a list")?.iter();
    let names = networks.filter_map(|network| network["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

async fn options_of(
    node: &Node,
    network: &str,
) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    Ok(node.client().network(network).await?.network.options)
}

/// Returns which node leads, as the first one that runs says.
async fn leader(cluster: &Cluster) -> anyhow::Result<usize> {
    let running = cluster.running();
    let first = *running.first().context("a node")?;
    let leader = cluster[first].client().status().await?.leader;
    for at in running {
        if Some(cluster[at].id().await?) == leader {
            return Ok(at);
        }
    }
    anyhow::bail!("nobody leads")
}

/// Waits until all that run follow another leader than the one that was.
async fn until_led_anew(cluster: &Cluster, former: NodeId) -> anyhow::Result<()> {
    let running = cluster.running();
    cluster
        .until_on(&running, "another node leads", async |node| {
            let leader = node.client().status().await?.leader;
            let another = leader.is_some_and(|leader| leader != former);
            Ok(Seen::when(another, || format!("{leader:?}")))
        })
        .await
}

/// The options of the networks that a plugin's node has set up, in order.
fn options(state: &Value) -> Vec<&Value> {
    let networks = state["networks"].as_object().into_iter().flatten();
    let mut options: Vec<&Value> = networks.map(|(_, options)| options).collect();
    options.sort_by_key(|options| options["lane"].to_string());
    options
}

fn handed_out(state: &Value) -> Vec<u64> {
    let lanes = state["lanes"].as_object().into_iter().flatten();
    let mut lanes: Vec<u64> = lanes.filter_map(|(_, lane)| lane.as_u64()).collect();
    lanes.sort_unstable();
    lanes
}

fn count(state: &Value, call: &str) -> usize {
    let calls = state["calls"].as_array().into_iter().flatten();
    calls.filter(|made| *made == call).count()
}
