//! The life of an entry, from the join of its endpoint to every way it can end, and of the nodes that carry it.

use std::net::SocketAddr;

use cluster_tests::cluster::{Cluster, Eavesdrop, Profile, Seen, run, until};
use weft::{
    api::http::types::{Change, ChangeKind, MemberState},
    core::model::Name,
};

use crate::WEFT;

#[tokio::test]
async fn an_entry_lives_exactly_as_long_as_its_endpoint() -> anyhow::Result<()> {
    let cluster = Cluster::start(WEFT, 3).await?;
    cluster.create_network(1, "app").await?;

    let web = cluster.create_endpoint(0, "app", "web").await?;
    cluster.until_peer(&[1, 2], "app", web.id, true).await?;
    let mut watch = Eavesdrop::begin(cluster[2].client(), "app").await?;
    cluster[0]
        .run(&["endpoint", "leave", "app", "web"])
        .await?
        .done()?;

    cluster.until_peer(&[1, 2], "app", web.id, false).await?;
    let gone = watch.change().await?;
    assert_eq!(gone.kind, ChangeKind::Removed);
    cluster[0]
        .run(&["endpoint", "join", "app", "web"])
        .await?
        .done()?;
    cluster.until_peer(&[1, 2], "app", web.id, true).await?;
    cluster[0]
        .run(&["endpoint", "rm", "app", "web"])
        .await?
        .done()?;
    cluster.until_peer(&[1, 2], "app", web.id, false).await?;
    cluster[1].run(&["network", "rm", "app"]).await?.done()?;
    cluster
        .until_on(&[0, 1, 2], "the network is gone", async |node| {
            let listed = node.client().networks().await?;
            Ok(Seen::when(listed.is_empty(), || format!("{listed:?}")))
        })
        .await?;
    cluster.end().await
}

#[tokio::test]
async fn entries_go_with_a_killed_node_and_come_back_with_it() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    cluster.create_network(0, "app").await?;
    let db = cluster.create_endpoint(2, "app", "db").await?;
    let cache = cluster.create_endpoint(2, "app", "cache").await?;
    cluster[2]
        .run(&["table", "put", "app", "services", "db", "5432"])
        .await?
        .done()?;
    for endpoint in [db.id, cache.id] {
        cluster.until_peer(&[0, 1], "app", endpoint, true).await?;
    }

    let mut watch = Eavesdrop::begin(cluster[0].client(), "app").await?;
    cluster[2].kill().await?;

    for endpoint in [db.id, cache.id] {
        cluster.until_peer(&[0, 1], "app", endpoint, false).await?;
    }
    let (before, gone) = watch.until_key("db").await?;
    assert!(gone.kind == ChangeKind::OwnerDown && only_owner_down(&before));

    cluster[2].start()?;
    cluster[2].until_ready().await?;

    for endpoint in [db.id, cache.id] {
        cluster.until_peer(&[0, 1], "app", endpoint, true).await?;
    }
    let again = cluster[2].client().endpoints(Some("app")).await?;
    let address = |called: &str| {
        let mut named = again.iter().filter(|found| found.name.as_str() == called);
        named.next().and_then(|found| found.address)
    };
    assert_eq!(address("db"), db.address);
    assert_eq!(address("cache"), cache.address);
    let kept = cluster[0]
        .run(&["table", "get", "app", "services", "db"])
        .await?;
    assert_eq!(kept.done()?, "5432");
    cluster.end().await
}

#[tokio::test]
async fn a_quick_restart_makes_no_event_anywhere() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_with(WEFT, 2, Profile::Wan).await?;
    cluster.create_network(0, "app").await?;
    let web = cluster.create_endpoint(1, "app", "web").await?;
    cluster[1]
        .run(&["table", "put", "app", "services", "web", "80"])
        .await?
        .done()?;
    cluster.until_peer(&[0], "app", web.id, true).await?;
    let mut watch = Eavesdrop::begin(cluster[0].client(), "app").await?;
    until("both tables are there", async || {
        let tables = cluster[0].client().tables("app").await?;
        Ok(Seen::when(tables.len() >= 2, || format!("{tables:?}")))
    })
    .await?;

    cluster[1].stop().await?;
    cluster[1].start()?;
    cluster[1].until_ready().await?;
    cluster[1]
        .run(&["table", "put", "app", "services", "marker", "1"])
        .await?
        .done()?;

    let (before, marker) = watch.until_key("marker").await?;
    assert_eq!(marker.kind, ChangeKind::Created);
    let flaps: Vec<&Change> = before
        .iter()
        .filter(|change| change.key != "web".into())
        .collect();
    assert!(flaps.is_empty(), "{flaps:?}");
    cluster.end().await
}

#[tokio::test]
async fn a_node_that_leaves_is_forgotten_and_may_come_again() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    cluster.create_network(0, "app").await?;
    let web = cluster.create_endpoint(2, "app", "web").await?;
    cluster.until_peer(&[0, 1], "app", web.id, true).await?;
    let left = cluster[2].id().await?;

    cluster[2].run(&["leave"]).await?.done()?;
    let ended = cluster[2].until_ended().await?;

    assert!(ended.success());
    cluster.until_peer(&[0, 1], "app", web.id, false).await?;
    cluster
        .until_on(&[0, 1], "it is no member", async |node| {
            let members = node.client().members().await?;
            let gone = |state| matches!(state, MemberState::Left);
            let stays = members
                .iter()
                .find(|member| member.node == left && !gone(member.state));
            Ok(Seen::when(stays.is_none(), || format!("{stays:?}")))
        })
        .await?;
    let unjoined = run(cluster[2].up().into(), b"").await?;
    unjoined.refused(2, &["is not part of a cluster yet", "--init", "--join"])?;
    let token = cluster[0].client().token().await?.token;
    let mut up = cluster[2].up();
    up.args([
        "--join",
        &cluster[0].address().to_string(),
        "--token",
        &token,
    ]);
    cluster[2].start_as(up)?;
    let status = cluster[2].until_ready().await?;
    assert_ne!(status.node, left);
    assert_eq!(status.name, Name::new("n3")?);
    cluster.until_members(3).await?;
    cluster.end().await
}

#[tokio::test]
async fn a_node_that_stood_still_is_hidden_and_returns() -> anyhow::Result<()> {
    use nix::sys::signal::Signal;
    let cluster = Cluster::start(WEFT, 3).await?;
    cluster.create_network(0, "app").await?;
    let web = cluster.create_endpoint(2, "app", "web").await?;
    cluster.until_peer(&[0, 1], "app", web.id, true).await?;

    cluster[2].signal(Signal::SIGSTOP)?;
    cluster.until_peer(&[0, 1], "app", web.id, false).await?;
    let added = cluster.create_endpoint(0, "app", "added").await?;
    cluster[2].signal(Signal::SIGCONT)?;

    cluster.until_peer(&[0, 1], "app", web.id, true).await?;
    cluster.until_peer(&[2], "app", added.id, true).await?;
    cluster.until_members(3).await?;
    cluster.end().await
}

#[tokio::test]
async fn all_nodes_killed_at_once_find_each_other_again_with_all_they_had() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    let network = cluster.create_network(0, "app").await?;
    let web = cluster.create_endpoint(1, "app", "web").await?;
    cluster.until_peer(&[0, 2], "app", web.id, true).await?;

    for at in 0..3 {
        cluster[at].kill().await?;
    }
    for at in 0..3 {
        cluster[at].start()?;
    }
    for at in 0..3 {
        cluster[at].until_ready().await?;
    }

    cluster.until_members(3).await?;
    cluster.until_led().await?;
    cluster.until_peer(&[0, 2], "app", web.id, true).await?;
    assert_eq!(cluster.create_network(2, "app").await?, network);
    let next = cluster.create_network(2, "next").await?;
    assert_ne!(next.id, network.id);
    cluster.end().await
}

#[tokio::test]
async fn nodes_that_have_all_moved_find_each_other_through_a_seed() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    cluster.create_network(0, "app").await?;
    let web = cluster.create_endpoint(1, "app", "web").await?;
    cluster.until_peer(&[0, 2], "app", web.id, true).await?;

    for at in 0..3 {
        cluster[at].stop().await?;
    }
    for at in 0..3 {
        // Containers that are made anew have other addresses.
        let moved = SocketAddr::new(cluster.spare_address(at), 0);
        cluster[at].listen_at(moved);
        let mut up = cluster[at].up();
        if at > 0 {
            up.args(["--join", &cluster[0].address().to_string()]);
        }
        cluster[at].start_as(up)?;
        cluster[at].until_ready().await?;
    }

    cluster.until_members(3).await?;
    cluster.until_led().await?;
    cluster.until_peer(&[0, 2], "app", web.id, true).await?;
    cluster.create_network(2, "next").await?;
    cluster.end().await
}

fn only_owner_down(changes: &[Change]) -> bool {
    changes
        .iter()
        .all(|change| change.kind == ChangeKind::OwnerDown)
}
