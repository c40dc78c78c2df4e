//! Addresses without a leader, and of a node that is lost for ever.

use cluster_tests::cluster::{Cluster, Profile, Seen};
use nix::sys::signal::Signal;
use weft::core::model::NodeId;

use crate::WEFT;

/// How many addresses a block of the smallest usual size has beside the network's and the gateway's.
const FIRST_BLOCK: usize = 14;

#[tokio::test]
async fn who_is_alone_hands_out_what_was_leased_and_says_what_it_may_not() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_with(WEFT, 3, Profile::Wan).await?;
    cluster.create_network(0, "app").await?;
    let leader = cluster.until_led().await?;
    let alone = cluster.others(leader)[0];
    let others = cluster.others(alone);
    cluster[alone]
        .run(&["endpoint", "create", "app", "e0"])
        .await?
        .done()?;

    for at in &others {
        cluster[*at].signal(Signal::SIGSTOP)?;
    }
    cluster
        .until_on(&[alone], "it knows that it is alone", async |node| {
            let status = node.client().status().await?;
            let is_alone =
                status.leader.is_none() && status.members.alive == 1 && status.members.suspect == 0;
            Ok(Seen::when(is_alone, || format!("{status:?}")))
        })
        .await?;
    for number in 1..FIRST_BLOCK {
        let name = format!("e{number}");
        let create = ["endpoint", "create", "app", &name, "--join"];
        cluster[alone].run(&create).await?.done()?;
    }

    let create = ["endpoint", "create", "app", "more"];
    cluster[alone].run(&create).await?.refused(
        6,
        &["no leader can lease this node more addresses of network app, and every address that was leased to this node is in use"],
    )?;
    let fixed = [
        "endpoint",
        "create",
        "app",
        "fixed",
        "--address",
        "10.0.0.200",
    ];
    let unled = "the cluster has no leader at the moment: nothing new can be agreed";
    cluster[alone].run(&fixed).await?.refused(6, &[unled])?;
    let network = ["network", "create", "b"];
    cluster[alone].run(&network).await?.refused(6, &[unled])?;
    cluster[alone].kill().await?;
    cluster[alone].start()?;
    cluster[alone].until_ready().await?;
    cluster[alone].run(&create).await?.refused(
        6,
        &["no leader can say which addresses of network app this node still has since it was started: its endpoints keep theirs"],
    )?;

    for at in &others {
        cluster[*at].signal(Signal::SIGCONT)?;
    }
    cluster.until_led().await?;
    cluster[alone].run(&create).await?.done()?;
    cluster[alone].run(&fixed).await?.done()?;
    cluster.end().await
}

#[tokio::test]
async fn the_blocks_of_a_node_that_is_lost_for_ever_are_free_again_after_a_rest()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 4).await?;
    cluster.create_network(0, "app").await?;
    cluster.until_led().await?;
    let lost = cluster.create_endpoint(3, "app", "web").await?;
    let id = cluster[3].id().await?;
    let address = lost.address.expect("the network has a subnet").0.addr();
    until_blocks(&cluster, id, true).await?;

    cluster[3].kill().await?;
    cluster[0]
        .run(&["node", "rm", &id.to_string()])
        .await?
        .done()?;

    until_blocks(&cluster, id, false).await?;
    let (asked, address) = (
        address.to_string(),
        format!("address {address} was a removed node's"),
    );
    cluster[1]
        .run(&["endpoint", "create", "app", "web", "--address", &asked])
        .await?
        .refused(5, &[&address, "try again in"])?;
    cluster[1]
        .run(&["endpoint", "create", "app", "web"])
        .await?
        .done()?;
    cluster.end().await
}

/// Waits until the first three nodes say that a node has blocks, or that it has none.
async fn until_blocks(cluster: &Cluster, of: NodeId, there: bool) -> anyhow::Result<()> {
    let what = format!("{of} has blocks: {there}");
    cluster
        .until_on(&[0, 1, 2], &what, async |node| {
            let pools = node.client().ipam().await?;
            let mut blocks = pools.iter().flat_map(|pool| &pool.blocks);
            let has = blocks.any(|block| block.node == Some(of));
            Ok(Seen::when(has == there, || format!("{pools:?}")))
        })
        .await
}
