//! Two versions of the wire side by side, and the way from one to the other and back, a node at a time.

use cluster_tests::cluster::{Cluster, Node, Seen};

use crate::WEFT;

const ALL: [usize; 4] = [0, 1, 2, 3];
const OLD: &str = "1";
const NEW: &str = "2";

#[tokio::test]
async fn old_and_new_nodes_are_one_cluster_and_each_two_speak_what_both_can() -> anyhow::Result<()>
{
    let mut cluster = Cluster::start_set(WEFT, 4, &[("WEFT_WIRE_VERSION", OLD)]).await?;
    until_spoken(&cluster, &ALL, [(OLD, 3), (NEW, 0)]).await?;
    for at in [0, 1] {
        restart(&mut cluster, at, NEW).await?;
    }
    until_spoken(&cluster, &[0, 1], [(OLD, 2), (NEW, 1)]).await?;
    until_spoken(&cluster, &[2, 3], [(OLD, 3), (NEW, 0)]).await?;

    // All that a cluster does goes on in the mix.
    cluster.create_network(2, "app").await?;
    let endpoint = cluster.create_endpoint(0, "app", "web").await?;
    cluster
        .until_peer(&[1, 2, 3], "app", endpoint.id, true)
        .await?;
    let rotated = cluster[3].client().keys_rotate(true).await?;
    assert_eq!(rotated.behind, []);
    let authority = cluster[1].client().authority_rotate(false).await?;
    assert!(authority.former.is_none() && authority.next.is_none());
    write(&cluster, "mixed").await?;
    nobody_is_refused(&cluster).await?;
    cluster.end().await
}

#[tokio::test]
async fn a_cluster_is_upgraded_and_goes_back_a_node_at_a_time_under_load() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_set(WEFT, 4, &[("WEFT_WIRE_VERSION", OLD)]).await?;
    cluster.create_network(0, "app").await?;

    for (version, table) in [(NEW, "up"), (OLD, "down")] {
        for at in ALL {
            restart(&mut cluster, at, version).await?;
            write(&cluster, &format!("{table}{at}")).await?;
        }
        let other = if version == NEW { OLD } else { NEW };
        until_spoken(&cluster, &ALL, [(version, 3), (other, 0)]).await?;
    }

    cluster.until_led().await?;
    cluster.end().await
}

async fn restart(cluster: &mut Cluster, at: usize, version: &str) -> anyhow::Result<()> {
    cluster[at].stop().await?;
    let mut up = cluster[at].up();
    up.env("WEFT_WIRE_VERSION", version);
    cluster[at].start_as(up)?;
    cluster[at].until_ready().await?;
    cluster.until_members(4).await
}

/// Waits until nodes speak each version with so many others.
async fn until_spoken(
    cluster: &Cluster,
    nodes: &[usize],
    wanted: [(&str, u64); 2],
) -> anyhow::Result<()> {
    cluster
        .until_on(nodes, "the versions are agreed", async |node| {
            for (version, peers) in wanted {
                let spoken = spoken(node, version).await?;
                if spoken != peers {
                    let seen = format!("version {version} with {spoken}, not {peers}");
                    return Ok(Seen::NotYet(seen));
                }
            }
            Ok(Seen::Good(()))
        })
        .await?;
    Ok(())
}

async fn spoken(node: &Node, version: &str) -> anyhow::Result<u64> {
    let counters = node.client().status().await?.counters;
    let name = format!("wire_peers.{version}");
    Ok(counters.get(&name).copied().unwrap_or_default())
}

/// Writes an entry on each node, and waits until all have all of them.
async fn write(cluster: &Cluster, table: &str) -> anyhow::Result<()> {
    for at in ALL {
        let put = ["table", "put", "app", table, &format!("k{at}"), "x"];
        cluster[at].run(&put).await?.done()?;
    }
    cluster
        .until_on(&ALL, "all entries are there", async |node| {
            let entries = node.client().entries("app", table).await?.len();
            Ok(Seen::when(entries == 4, || format!("{entries} entries")))
        })
        .await?;
    Ok(())
}

/// Looks that nodes understood all that was said to them since they were started.
async fn nobody_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    for at in ALL {
        let counters = cluster[at].client().status().await?.counters;
        let about_versions = |(name, count): &(&String, &u64)| {
            let refused =
                name.starts_with("datagrams_rejected") || name.starts_with("streams_refused");
            refused && name.ends_with("version") && **count > 0
        };
        let refused: Vec<_> = counters.iter().filter(about_versions).collect();
        assert!(refused.is_empty(), "of node {at}: {refused:?}");
    }
    Ok(())
}
