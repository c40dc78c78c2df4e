//! What others do to the host while a network is there: entries deleted, another MTU underneath, sandboxes that vanish while
//! nobody looks, tunnels in the way; and what is left in the kernel when a node is done with it.

use std::process::Command;

use anyhow::{Context, ensure};
use cluster_tests::cluster::{
    Cluster, Namespace, Ran, Seen, Underlay, inside, run, until, until_within,
};
use serde_json::Value;
use weft::api::http::dataplane::{Dataplane, ItemKind};

use super::{SOON, WEFT, join, leave_all};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_by_hand_is_shown_until_it_is_mended() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    let network = cluster.create_network(0, "app").await?;
    let vni = network.subnets[0].vni.context("no VNI")?;
    let here = join(&cluster, 0, "app", "here").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    here.until_reaches(&there).await?;
    let place = cluster[0].namespaces().join(network.id.to_string());
    let (tunnel, mac) = (format!("vx-{vni}"), there.mac.to_string());
    let vtep = cluster.underlay()?.address(1).to_string();
    let delete = ["bridge", "fdb", "del", &mac, "dev", &tunnel, "dst", &vtep];
    let show = ["debug", "dataplane", "app", "--json"];
    until_as_desired(&cluster, 0).await?;

    // It is mended so soon that it may be over before it is looked at.
    let shown = until("the deleted entry is shown", async || {
        inside(&place, &delete)?;
        let ran = cluster[0].run(&show).await?;
        Ok(match ran.code {
            Some(1) => Seen::Good(ran),
            other => Seen::NotYet(format!("{other:?}: {}", ran.stdout)),
        })
    })
    .await?;

    let all: Vec<Dataplane> = serde_json::from_str(&shown.stdout)?;
    let differing = all[0].items.iter().filter(|item| item.differs);
    let [entry] = differing.collect::<Vec<_>>()[..] else {
        anyhow::bail!("one entry: {}", shown.stdout)
    };
    assert_eq!(entry.kind, ItemKind::Fdb);
    assert!(entry.name.contains(&mac), "{entry:?}");
    assert_eq!((&entry.desired, &entry.actual), (&Some(vtep), &None));
    until_as_desired(&cluster, 0).await?;
    let short = cluster[0].client().network("app").await?.driver_state;
    assert_eq!(short["dataplane"]["as_desired"], true);
    cluster[0]
        .run(&["debug", "dataplane", "nope"])
        .await?
        .refused(4, &["nope"])?;
    leave_all(&cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mtu_follows_the_underlay_into_the_sandboxes() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    let network = cluster.create_network(0, "app").await?;
    let vni = network.subnets[0].vni.context("no VNI")?;
    let here = join(&cluster, 0, "app", "here").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    here.until_reaches(&there).await?;
    let place = cluster[0].namespaces().join(network.id.to_string());
    let tunnel = format!("vx-{vni}");

    for (under, within) in [("1400", "mtu 1350 "), ("1500", "mtu 1450 ")] {
        let host = cluster.underlay()?.host(0);
        host.ip(&["link", "set", "u0", "mtu", under])?;

        until_within(SOON, "the MTU is the underlay's less 50", async || {
            let tunnel = inside(&place, &["ip", "link", "show", &tunnel])?;
            let sandbox = here.sandbox.ip(&["link", "show", "eth0"])?;
            let all = tunnel.contains(within) && sandbox.contains(within);
            Ok(Seen::when(all, || format!("{tunnel}\n{sandbox}")))
        })
        .await?;
        here.until_reaches(&there).await?;
        until_as_desired(&cluster, 0).await?;
    }
    leave_all(&cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_vanishes_around_a_restart_takes_its_endpoint_along() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let mut cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    cluster.create_network(0, "app").await?;
    let stays = join(&cluster, 0, "app", "stays").await?;
    let during = join(&cluster, 0, "app", "during").await?;
    let after = join(&cluster, 0, "app", "after").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    stays.until_reaches(&there).await?;

    cluster[0].kill().await?;
    drop(during);
    cluster[0].start()?;
    cluster[0].until_ready().await?;

    until_gone(&cluster, "during").await?;
    drop(after);
    until_gone(&cluster, "after").await?;
    stays.until_reaches(&there).await?;
    leave_all(&cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_tunnel_in_the_way_is_named() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    let network = cluster.create_network(0, "app").await?;
    let vni = network.subnets[0].vni.context("no VNI")?.to_string();
    let host = cluster.underlay()?.host(0);
    let elsewhere = Namespace::make()?;
    let path = elsewhere.path();
    let name = path.file_name().context("no name")?.to_string_lossy();
    let tunnel = ["type", "vxlan", "id", &vni, "dstport", "4789"];
    host.ip(&[&["link", "add", "foreign0"][..], &tunnel].concat())?;
    host.ip(&["link", "set", "foreign0", "netns", &name])?;

    let refused = join(&cluster, 0, "app", "here").await;

    let refused = format!("{:#}", refused.err().context("it has joined")?);
    for part in ["foreign0", &*name, &vni, "4789", "vxlan_port"] {
        ensure!(refused.contains(part), "{part:?} is not said: {refused}");
    }
    drop(elsewhere);
    let query = weft::api::http::types::JoinQuery {
        netns: None,
        interface: None,
    };
    until_within(SOON, "it joins once that is gone", async || {
        let joined = cluster[0].client().endpoint_enter("app", "here", &query);
        Ok(Seen::when(joined.await.is_ok(), String::new))
    })
    .await?;
    leave_all(&cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_leaves_in_the_kernel_is_named_and_cleaned_up() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let mut cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    cluster.create_network(0, "app").await?;
    let _here = join(&cluster, 0, "app", "here").await?;
    let _there = join(&cluster, 1, "app", "there").await?;
    let refused = clean(&cluster, 0, &[]).await?;
    refused.refused(5, &["carries packets", "weft leave"])?;

    // A node that leaves takes all of its own with it.
    cluster[1].client().leave(false).await?;
    cluster[1].until_ended().await?;
    ensure_clean(&cluster, 1)?;

    // One that is stopped leaves it, and another kind of run does not touch it.
    cluster[0].kill().await?;
    cluster[0].carry_nothing();
    cluster[0].start()?;
    cluster[0].until_ready().await?;
    let logged = cluster[0].logged();
    ensure!(
        logged.contains("weft debug dataplane --clean"),
        "nobody says what is left: {logged}"
    );
    let shown: Value = clean(&cluster, 0, &["--json"]).await?.json()?;
    assert_eq!(shown["removed"].as_array().map(Vec::len), Some(1));
    ensure_clean(&cluster, 0)?;
    let again: Value = clean(&cluster, 0, &["--json"]).await?.json()?;
    assert_eq!(again["removed"].as_array().map(Vec::len), Some(0));
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_removed_takes_its_own_out_of_the_kernel() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(3)? else {
        return Ok(());
    };
    let mut cluster = Cluster::start_on(WEFT, underlay, 3).await?;
    cluster.create_network(0, "app").await?;
    let here = join(&cluster, 0, "app", "here").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    let late = join(&cluster, 2, "app", "late").await?;
    here.until_reaches(&there).await?;
    here.until_reaches(&late).await?;

    // One hears of it at once, the other when it starts again.
    cluster[2].kill().await?;
    for name in ["n2", "n3"] {
        cluster[0].client().member_remove(name, false).await?;
    }
    ensure!(!cluster[1].until_ended().await?.success());
    cluster[2].start()?;
    ensure!(!cluster[2].until_ended().await?.success());

    for at in [1, 2] {
        ensure_clean(&cluster, at)?;
        let logged = cluster[at].logged();
        ensure!(
            logged.contains("this node was removed from the cluster"),
            "it does not say why it ends: {logged}"
        );
    }
    for (one, host) in [(&there, 1), (&late, 2)] {
        let links = one.sandbox.ip(&["link"])?;
        ensure!(!links.contains("eth0"), "left in {host}'s sandbox: {links}");
    }
    cluster[0].client().endpoint_leave("app", "here").await?;
    cluster.end().await
}

/// Runs `weft debug dataplane --clean` on a node's host.
async fn clean(cluster: &Cluster, at: usize, format: &[&str]) -> anyhow::Result<Ran> {
    let host = cluster.underlay()?.host(at).path();
    let weft = cluster[at].weft();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", host.display()));
    command.arg(weft.get_program());
    for (name, value) in weft.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(["debug", "dataplane", "--clean"]);
    command.args(format);
    run(command.into(), b"").await
}

fn ensure_clean(cluster: &Cluster, at: usize) -> anyhow::Result<()> {
    let left: Vec<_> = std::fs::read_dir(cluster[at].namespaces())?.collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    let host = cluster.underlay()?.host(at);
    let links = host.ip(&["-oneline", "link"])?;
    ensure!(links.lines().count() == 2, "left behind: {links}");
    let tables = inside(&host.path(), &["nft", "list", "tables"])?;
    ensure!(!tables.contains("weft"), "left behind: {tables}");
    Ok(())
}

async fn until_as_desired(cluster: &Cluster, at: usize) -> anyhow::Result<()> {
    until_within(SOON, "the kernel is as desired", async || {
        let ran = cluster[at].run(&["debug", "dataplane"]).await?;
        Ok(Seen::when(ran.code == Some(0), || ran.stdout.clone()))
    })
    .await
}

/// Waits until another node has heard that an endpoint has left.
async fn until_gone(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    // Before it is told of others, a node that starts again has to be heard of itself.
    until("the endpoint has left", async || {
        let all = cluster[1].client().endpoints(Some("app")).await?;
        let there = all.iter().any(|endpoint| endpoint.name.as_str() == name);
        Ok(Seen::when(!there, || format!("{all:?}")))
    })
    .await
}
