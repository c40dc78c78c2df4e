//! Addresses without a leader, and of a node that is lost for ever.

use cluster_tests::cluster::{Cluster, Node, Profile, Seen, until};
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
        cluster[*at].kill().await?;
    }
    cluster
        .until_on(&[alone], "it knows no leader", async |node| {
            let leader = node.client().status().await?.leader;
            Ok(Seen::when(leader.is_none(), || format!("{leader:?}")))
        })
        .await?;
    for number in 1..FIRST_BLOCK {
        let name = format!("e{number}");
        let create = ["endpoint", "create", "app", &name, "--join"];
        cluster[alone].run(&create).await?.done()?;
    }

    let (create, unled) = (
        ["endpoint", "create", "app", "more"],
        "the cluster has no leader at the moment: nothing new can be agreed",
    );
    let used_up = "no leader can lease this node more addresses of network app, and every address that was leased to this node is in use";
    until_refused(&cluster[alone], &create, used_up).await?;
    let fixed = [
        "endpoint",
        "create",
        "app",
        "fixed",
        "--address",
        "10.0.0.200",
    ];
    until_refused(&cluster[alone], &fixed, unled).await?;
    until_refused(&cluster[alone], &["network", "create", "b"], unled).await?;
    cluster[alone].kill().await?;
    cluster[alone].start()?;
    cluster[alone].until_ready().await?;
    let unknown = "no leader can say which addresses of network app this node still has since it was started: its endpoints keep theirs";
    until_refused(&cluster[alone], &create, unknown).await?;

    for at in &others {
        cluster[*at].start()?;
    }
    cluster.until_led().await?;
    cluster[alone].run(&create).await?.done()?;
    cluster[alone].run(&fixed).await?.done()?;
    cluster.end().await
}

/// Asks until it is refused with that reason: whoever was asked while a leader seemed to be there hears that it did not answer.
async fn until_refused(node: &Node, args: &[&str], reason: &str) -> anyhow::Result<()> {
    until(reason, async || {
        let refused = node.run(args).await?.refused(6, &[reason]);
        Ok(match refused {
            Ok(()) => Seen::Good(()),
            Err(other) => Seen::NotYet(other.to_string()),
        })
    })
    .await
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
