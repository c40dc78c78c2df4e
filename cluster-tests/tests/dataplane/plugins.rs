//! Packets over the links of a plugin: they are moved into sandboxes and out again.

use anyhow::{Context, ensure};
use cluster_tests::cluster::{Cluster, Plugin, Seen, Underlay, python, until};
use serde_json::{Value, json};
use weft::api::http::types::{EndpointState, Setup};

use super::{WEFT, join};

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_link_enters_a_sandbox_comes_back_and_leaves_with_it() -> anyhow::Result<()> {
    let (Some(underlay), Some(python)) = (Underlay::make(2)?, python()?) else {
        return Ok(());
    };
    let mut cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    let lan = Plugin::start(&python, &cluster[0], "lan", &[]).await?;
    let _other = Plugin::start(&python, &cluster[1], "lan", &[]).await?;
    create(&cluster).await?;
    let here = join(&cluster, 0, "home", "here").await?;
    let beside = join(&cluster, 0, "home", "beside").await?;

    here.until_reaches(&beside).await?;
    ensure!(here.address.to_string() == "10.99.0.2", "{}", here.address);
    let link = here.sandbox.ip(&["link", "show", "eth0"])?;
    ensure!(link.contains(&here.mac.to_string()), "{link}");
    let routes = here.sandbox.ip(&["route"])?;
    for route in ["default via 10.99.0.1", "198.51.100.0/24 dev eth0"] {
        ensure!(routes.contains(route), "no {route} in {routes}");
    }

    // A daemon that starts again leaves the links where they are.
    cluster[0].kill().await?;
    cluster[0].start()?;
    cluster[0].until_ready().await?;
    until_set_up(&cluster).await?;
    here.until_reaches(&beside).await?;

    let client = cluster[0].client();
    client.endpoint_leave("home", "here").await?;
    let left = here.sandbox.ip(&["link"])?;
    ensure!(!left.contains("eth0"), "its link is left behind: {left}");
    ensure!(had_link(&lan.state()?)? == [true], "{}", lan.state()?);

    drop(beside);
    until("an endpoint leaves with its sandbox", async || {
        let listed = client.endpoints(Some("home")).await?;
        let joined = |state| state == EndpointState::Joined;
        let stays = listed.iter().any(|endpoint| joined(endpoint.state));
        Ok(Seen::when(!stays, || format!("{listed:?}")))
    })
    .await?;
    lan.until("the plugin is told", |state| {
        had_link(state).is_ok_and(|had| had == [true, false])
    })
    .await?;

    for name in ["here", "beside"] {
        client.endpoint_remove("home", name).await?;
    }
    client.network_remove("home").await?;
    lan.until("its bridge is gone", |state| state["networks"] == json!({}))
        .await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_hears_of_nodes_that_come_and_go() -> anyhow::Result<()> {
    let (Some(underlay), Some(python)) = (Underlay::make(2)?, python()?) else {
        return Ok(());
    };
    let mut cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    let lan = Plugin::start(&python, &cluster[0], "lan", &[]).await?;
    let _other = Plugin::start(&python, &cluster[1], "lan", &[]).await?;
    create(&cluster).await?;
    let [here, there] = [0, 1].map(|at| cluster[at].address().ip().to_string());
    let both = json!({ here.as_str(): true, there.as_str(): false });

    lan.until("it hears of both", |state| state["nodes"] == both)
        .await?;
    cluster[1].kill().await?;
    let alone = json!({ here.as_str(): true });
    lan.until("it hears that one is gone", |state| state["nodes"] == alone)
        .await?;
    cluster[1].start()?;
    cluster[1].until_ready().await?;
    lan.until("it hears that it is back", |state| state["nodes"] == both)
        .await?;
    cluster.end().await
}

async fn create(cluster: &Cluster) -> anyhow::Result<()> {
    let null = ["--ipam-driver", "null"];
    let create = ["network", "create", "home", "--driver", "lan"];
    cluster[0]
        .run(&[create.as_slice(), null.as_slice()].concat())
        .await?
        .done()?;
    cluster[0]
        .run(&["network", "create", "other", null[0], null[1]])
        .await?
        .refused(2, &["the network's driver needs subnets"])?;
    until_set_up(cluster).await
}

async fn until_set_up(cluster: &Cluster) -> anyhow::Result<()> {
    cluster
        .until_on(&[0, 1], "the network is set up", async |node| {
            let setup = node.client().network("home").await?.setup;
            Ok(Seen::when(setup == Setup::Ready, || format!("{setup:?}")))
        })
        .await
}

/// Whether each endpoint that has left had its link back when the plugin was told.
fn had_link(state: &Value) -> anyhow::Result<Vec<bool>> {
    let left = state["left"].as_array().context("none has left")?;
    Ok(left.iter().map(|one| one["has_link"] == true).collect())
}
