//! Waiting: until every member has heard of a leave, and until a node that comes back has all entries.

use cluster_tests::cluster::{Cluster, Profile, Seen};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::WEFT;

#[tokio::test]
async fn an_awaited_leave_is_known_to_all_or_names_who_may_not_have_heard() -> anyhow::Result<()> {
    // Nobody shall notice for a while that a node stands still.
    let cluster = Cluster::start_with(WEFT, 3, Profile::Wan).await?;
    cluster.create_network(0, "app").await?;
    let web = cluster.create_endpoint(0, "app", "web").await?;
    cluster.create_endpoint(0, "app", "db").await?;
    cluster.until_peer(&[1, 2], "app", web.id, true).await?;
    until_synced(&cluster).await?;

    let left = cluster[0]
        .run(&["--json", "endpoint", "leave", "app", "web", "--wait"])
        .await?;

    let left: Value = left.json()?;
    assert_eq!(left["state"], "created");
    assert_eq!(left["applied"]["applied"], true);
    for at in [1, 2] {
        let there = cluster[at].client().endpoints(Some("app")).await?;
        let names: Vec<&str> = there.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["db"]);
    }

    cluster[2].signal(Signal::SIGSTOP)?;
    let told = cluster[0]
        .run(&[
            "endpoint",
            "leave",
            "app",
            "db",
            "--wait",
            "--timeout",
            "500ms",
        ])
        .await?;
    let put = cluster[0]
        .run(&[
            "table",
            "put",
            "app",
            "t",
            "k",
            "v",
            "--wait",
            "--timeout",
            "500ms",
        ])
        .await?;
    let applied = cluster[0]
        .run(&["network", "applied", "app", "--timeout", "500ms"])
        .await?;
    for told in [&told, &put, &applied] {
        assert_eq!(told.code, Some(6), "{told:?}");
        assert!(told.stderr.starts_with("weft: "), "{told:?}");
        assert!(
            told.stderr.contains("may not have heard of it: n3\n"),
            "{told:?}"
        );
    }
    assert!(told.stdout.contains("created"), "{told:?}");
    assert_eq!(put.stdout, "k put\n");
    assert_eq!(cluster[1].client().endpoints(Some("app")).await?, []);

    cluster[2].signal(Signal::SIGCONT)?;
    let applied = cluster[0]
        .run(&["network", "applied", "app", "--timeout", "60s"])
        .await?;
    applied.done()?;
    assert_eq!(cluster[2].client().endpoints(Some("app")).await?, []);
    let got = cluster[2].run(&["table", "get", "app", "t", "k"]).await?;
    assert_eq!(got.done()?, "v");
    cluster.end().await
}

#[tokio::test]
async fn a_node_that_comes_back_says_when_it_has_all_entries() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_with(WEFT, 3, Profile::Wan).await?;
    cluster.create_network(0, "app").await?;
    for n in 0..50 {
        let key = format!("k{n}");
        let put = cluster[0].client();
        put.put("app", "t", &key.as_str().into(), "v".into())
            .await?;
    }
    until_synced(&cluster).await?;
    let listed: Value = cluster[1].run(&["--json", "network", "ls"]).await?.json()?;
    assert_eq!(listed[0]["sync"], "synced");
    let status: Value = cluster[1].run(&["--json", "status"]).await?.json()?;
    assert_eq!(status["sync"]["synced"], 1);
    assert_eq!(status["cluster_sync"], "synced");

    // Those whom the third asks for the entries stand still.
    cluster[2].stop().await?;
    for at in [0, 1] {
        cluster[at].signal(Signal::SIGSTOP)?;
    }
    cluster[2].start()?;
    cluster[2].until_ready().await?;
    cluster
        .until_on(&[2], "it has attached", async |node| {
            let detail = node.client().network("app").await?;
            Ok(Seen::when(detail.sync.is_some(), || "not yet".to_owned()))
        })
        .await?;
    let early = cluster[2]
        .run(&["network", "inspect", "app", "--wait", "--timeout", "300ms"])
        .await?;
    let shown: Value = cluster[2]
        .run(&["--json", "network", "inspect", "app"])
        .await?
        .json()?;
    for at in [0, 1] {
        cluster[at].signal(Signal::SIGCONT)?;
    }
    let late = cluster[2]
        .run(&["network", "inspect", "app", "--wait", "--timeout", "60s"])
        .await?;

    assert_eq!(early.code, Some(6), "{early:?}");
    assert!(
        early.stderr.contains("syncing on this node after 300ms"),
        "{early:?}"
    );
    assert_eq!(shown["sync"], "syncing");
    late.done()?;
    let entries = cluster[2].client().entries("app", "t").await?;
    assert_eq!(entries.len(), 50);
    cluster.end().await
}

/// Waits until each node has set up `app` and has all its entries.
async fn until_synced(cluster: &Cluster) -> anyhow::Result<()> {
    for at in 0..3 {
        let wait = &["network", "inspect", "app", "--wait", "--timeout", "60s"];
        cluster[at].run(wait).await?.done()?;
    }
    Ok(())
}
