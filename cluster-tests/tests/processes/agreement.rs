//! The leader: found again when it dies, missed when too many voters die, and not needed to read.

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Seen, run};
use serde_json::Value;
use tokio::time::Instant;

use crate::WEFT;

#[tokio::test]
async fn another_leader_answers_when_the_leader_is_killed() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    let before = cluster.create_network(0, "before").await?;
    let leader = cluster.until_led().await?;
    let others = cluster.others(leader);

    cluster[leader].kill().await?;
    let after = cluster.create_network(others[0], "after").await?;

    assert_ne!(after.id, before.id);
    assert_ne!(after.subnets, before.subnets);
    cluster[leader].start()?;
    cluster[leader].until_ready().await?;
    cluster.until_members(3).await?;
    let next = cluster.until_led().await?;
    assert_eq!(cluster.create_network(leader, "after").await?, after);
    assert!(cluster.running().contains(&next));
    cluster.end().await
}

#[tokio::test]
async fn a_node_that_does_not_vote_lists_networks_without_a_leader() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 4).await?;
    cluster.create_network(3, "app").await?;
    let leader = cluster.until_led().await?;
    let voters = cluster[leader].client().status().await?.raft.voters;
    let mut silent = None;
    for at in 0..4 {
        if !voters.contains(&cluster[at].id().await?) {
            silent = Some(at);
        }
    }
    let silent = silent.expect("three of four vote");
    let mut killed = cluster.others(silent);
    let survivor = killed.pop().expect("three others");

    for at in &killed {
        cluster[*at].kill().await?;
    }

    cluster.until_members(2).await?;
    let listed: Value = cluster[silent]
        .run(&["network", "ls", "--json"])
        .await?
        .json()?;
    assert_eq!(listed[0]["name"], "app");
    for asked in [silent, survivor] {
        let refused = cluster[asked].run(&["network", "create", "more"]).await?;
        refused.refused(6, &["no leader"])?;
    }
    let unled = cluster[silent].run(&["status", "--check"]).await?;
    assert_eq!(unled.code, Some(6), "{}", unled.stdout);
    let token = "weft-1-".to_owned() + &"0".repeat(64) + "-" + &"0".repeat(32);
    let at = cluster.add()?;
    let mut up = cluster[at].up();
    up.args([
        "--join",
        &cluster[silent].address().to_string(),
        "--token",
        &token,
    ]);
    run(up.into(), b"")
        .await?
        .refused(1, &["is not of the token's cluster"])?;

    for at in &killed {
        cluster[*at].start()?;
        cluster[*at].until_ready().await?;
    }
    cluster.until_members(4).await?;
    cluster.create_network(silent, "more").await?;
    cluster.end().await
}

/// A proposal is waited for much longer where somebody may be elected meanwhile.
#[tokio::test]
async fn nodes_without_votes_say_at_once_that_nobody_can_lead_once_the_voters_are_gone()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 5).await?;
    cluster.until_led().await?;
    let voters = cluster[0].client().status().await?.raft.voters;
    for at in 0..5 {
        if voters.contains(&cluster[at].id().await?) {
            cluster[at].kill().await?;
        }
    }
    let left = cluster.running();
    assert_eq!((voters.len(), left.len()), (3, 2));

    cluster
        .until_on(&left, "it refuses at once", async |node| {
            let begun = Instant::now();
            let refused = node.run(&["network", "create", "app"]).await?;
            let took = begun.elapsed();
            refused.refused(6, &["no leader"])?;
            Ok(Seen::when(took < Duration::from_secs(5), || {
                format!("after {took:?}")
            }))
        })
        .await?;
    cluster.end().await
}

#[tokio::test]
async fn a_leader_that_lost_its_majority_no_longer_says_that_it_leads() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    let leader = cluster.until_led().await?;
    let others = cluster.others(leader);

    for at in &others {
        cluster[*at].kill().await?;
    }

    until_unled(&cluster, leader).await?;
    // It has led by what its disk says; that alone makes nobody a leader.
    cluster[leader].kill().await?;
    cluster[leader].start()?;
    cluster[leader].until_ready().await?;
    cluster[leader]
        .run(&["network", "create", "app"])
        .await?
        .refused(6, &["no leader"])?;
    until_unled(&cluster, leader).await?;
    for at in &others {
        cluster[*at].start()?;
        cluster[*at].until_ready().await?;
    }
    cluster.until_members(3).await?;
    cluster.until_led().await?;
    cluster.create_network(leader, "app").await?;
    cluster.end().await
}

async fn until_unled(cluster: &Cluster, at: usize) -> anyhow::Result<()> {
    cluster
        .until_on(&[at], "it knows no leader", async |node| {
            let checked = node.run(&["status", "--check"]).await?;
            let leader = node.client().status().await?.leader;
            let good = leader.is_none() && checked.code == Some(6);
            Ok(Seen::when(good, || {
                format!("{leader:?}, exit {:?}", checked.code)
            }))
        })
        .await
}
