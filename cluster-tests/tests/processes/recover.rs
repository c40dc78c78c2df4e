//! One voter is left of three: it goes on with everything, and those that come back are told that they are out.

use cluster_tests::cluster::{Cluster, Seen, run};
use serde_json::Value;
use weft::api::http::{
    cluster::{VoterRole, WaitsFor, Why},
    types::Endpoint,
};

use crate::WEFT;

#[tokio::test]
async fn one_survivor_of_three_voters_goes_on_with_everything_and_grows_again() -> anyhow::Result<()>
{
    let mut cluster = Cluster::start(WEFT, 4).await?;
    let app = cluster.create_network(0, "app").await?;
    let silent = voterless(&cluster).await?;
    let mut voters = cluster.others(silent);
    let survivor = voters.pop().expect("three vote");
    let kept = cluster.create_endpoint(survivor, "app", "kept").await?;
    let far = cluster.create_endpoint(silent, "app", "far").await?;
    let keys = cluster[survivor].client().keys().await?;
    let token = cluster[survivor].client().token().await?;
    let term = cluster[survivor].client().status().await?.raft.term;
    let running = recover(&cluster, survivor, &["--yes"]).await?;
    running.refused(5, &["is in use"])?;

    // In order, so that they write down whom they know, and whom they will meet.
    for at in &voters {
        cluster[*at].stop().await?;
    }
    cluster[survivor].kill().await?;
    let asked = recover(&cluster, survivor, &[]).await?;
    let done = recover(&cluster, survivor, &["--yes", "--json"]).await?;
    let again = recover(&cluster, survivor, &["--yes"]).await?;

    assert_eq!(asked.code, Some(2), "{asked:?}");
    assert!(
        asked.stdout.contains("would be the only voter"),
        "{asked:?}"
    );
    let done: Value = done.json()?;
    assert_eq!(done["removed"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&done["networks"], &done["done"]),
        (&1.into(), &true.into())
    );
    assert!(again.done()?.contains("nothing to recover"));
    cluster[survivor].start()?;
    cluster[survivor].until_ready().await?;
    cluster.until_members(2).await?;
    let more = cluster.create_network(silent, "more").await?;
    assert!(more.id > app.id && more.subnets != app.subnets);
    let status = cluster[survivor].client().status().await?;
    assert!(status.raft.term >> 32 > term >> 32, "{status:?}");
    assert_eq!(status.raft.voters, [status.node]);
    cluster
        .until_on(
            &[survivor, silent],
            "its ring is newer than any of the lost ones",
            async |node| {
                let ours = node.client().keys().await?;
                let good = ours.version > keys.version && ours.keys == keys.keys;
                Ok(Seen::when(good, || format!("{ours:?}")))
            },
        )
        .await?;
    assert!(cluster[silent].client().token().await? == token);
    until_both_are_there(&cluster, (survivor, silent), (&far, &kept)).await?;

    // They are a majority of the voters of before, and start on their old data.
    for at in &voters {
        cluster[*at].start()?;
    }
    for at in &voters {
        assert!(!cluster[*at].until_ended().await?.success());
        let logged = cluster[*at].logged();
        assert!(
            logged.contains("this node was removed from the cluster"),
            "{logged}"
        );
    }
    let after = cluster[survivor].client().status().await?;
    assert_eq!(after.raft.term, status.raft.term);

    cluster.join_through(survivor).await?;
    cluster.until_members(3).await?;
    cluster.until_led().await?;
    cluster.create_network(silent, "grown").await?;
    cluster.end().await
}

async fn until_both_are_there(
    cluster: &Cluster,
    (survivor, silent): (usize, usize),
    (far, kept): (&Endpoint, &Endpoint),
) -> anyhow::Result<()> {
    cluster
        .until_on(
            &[survivor, silent],
            "both endpoints are there",
            async |node| {
                let mut there = node.client().endpoints(Some("app")).await?;
                there.sort_by_key(|endpoint| endpoint.name.clone());
                let found: Vec<_> = there
                    .iter()
                    .map(|endpoint| (endpoint.id, endpoint.address))
                    .collect();
                let good = found == [(far.id, far.address), (kept.id, kept.address)];
                Ok(Seen::when(good, || format!("{there:?}")))
            },
        )
        .await
}

#[tokio::test]
async fn the_voters_are_listed_with_the_reason_for_each() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 4).await?;
    let silent = voterless(&cluster).await?;
    let leader = cluster.until_led().await?;
    let down = (0..4)
        .find(|at| ![silent, leader].contains(at))
        .expect("four nodes");

    // Whoever is asked, the leader answers.
    cluster
        .until_on(&[silent], "nothing is waited for", async |node| {
            let voters = node.client().voters().await?;
            let good = (voters.wanted, voters.waits.what) == (3, WaitsFor::Nothing);
            Ok(Seen::when(good, || format!("{voters:?}")))
        })
        .await?;
    let voters = cluster[silent].client().voters().await?;
    let roles = |role| {
        voters
            .nodes
            .iter()
            .filter(|voter| voter.role == role)
            .count()
    };
    assert_eq!(
        [VoterRole::Leader, VoterRole::Voter, VoterRole::None].map(roles),
        [1, 2, 1]
    );
    let spare = voters.nodes.iter().find(|voter| voter.why == Why::Spare);
    assert_eq!(
        spare.map(|voter| voter.node),
        Some(cluster[silent].id().await?)
    );
    let shown = cluster[silent].run(&["cluster", "voters"]).await?;
    assert!(shown.done()?.contains("3 of 3 vote in term"), "{shown:?}");
    let json: Value = cluster[silent]
        .run(&["cluster", "voters", "--json"])
        .await?
        .json()?;
    assert_eq!(json["waits"]["for"], "nothing");

    cluster[down].kill().await?;
    let name = cluster[down].name().to_owned();
    cluster
        .until_on(&[silent], "it is said that a voter is down", async |node| {
            let voters = node.client().voters().await?;
            let waits = &voters.waits;
            let says = waits.what == WaitsFor::Return
                && waits
                    .name
                    .as_ref()
                    .is_some_and(|known| known.as_str() == name)
                && voters
                    .nodes
                    .iter()
                    .any(|voter| voter.why == Why::Down && !voter.up);
            Ok(Seen::when(says, || format!("{voters:?}")))
        })
        .await?;
    let status = cluster[silent].run(&["status"]).await?;
    let says = format!("{name} is down: waiting whether it comes back");
    assert!(status.done()?.contains(&says), "{status:?}");
    cluster.end().await
}

async fn recover(
    cluster: &Cluster,
    at: usize,
    more: &[&str],
) -> anyhow::Result<cluster_tests::cluster::Ran> {
    let mut command = cluster[at].weft();
    command
        .args(["cluster", "recover", "--data-dir"])
        .arg(cluster[at].data_dir())
        .args(more);
    run(command.into(), b"").await
}

/// Returns a node that does not vote.
async fn voterless(cluster: &Cluster) -> anyhow::Result<usize> {
    let status = cluster[0].client().status().await?;
    for at in 0..4 {
        if !status.raft.voters.contains(&cluster[at].id().await?) {
            return Ok(at);
        }
    }
    anyhow::bail!("all nodes vote")
}
