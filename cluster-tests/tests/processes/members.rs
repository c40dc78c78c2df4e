//! What `weft members` and its kin tell of nodes, and that it is true.

use cluster_tests::cluster::{Cluster, Node, Seen};
use weft::{api::http::types::Member, core::model::Labels};

use crate::WEFT;

#[tokio::test]
async fn labels_are_seen_everywhere_and_go_with_their_node() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    let mut up = cluster[2].up();
    up.args(["--label", "zone=c,rack=7"]);
    cluster[2].stop().await?;
    cluster[2].start_as(up)?;
    cluster.until_members(3).await?;
    until_labels(&cluster, "rack=7,zone=c").await?;

    let set = cluster[2]
        .run(&["node", "label", "zone=d", "rack-"])
        .await?;

    assert_eq!(set.done()?.trim(), "zone=d");
    until_labels(&cluster, "zone=d").await?;
    let listed = cluster[0].run(&["members"]).await?;
    let listed = listed.done()?;
    let line = listed.lines().find(|line| line.starts_with("n3 "));
    assert!(line.is_some_and(|line| line.contains("zone=d")), "{listed}");

    // What was set is there after a restart; what only the command line gave is not.
    cluster[2].stop().await?;
    cluster[2].start()?;
    cluster.until_members(3).await?;
    let json = cluster[2].run(&["node", "label", "--json"]).await?;
    let labels: Labels = serde_json::from_str(json.done()?)?;
    assert_eq!(labels.to_string(), "zone=d");
    let json = cluster[2]
        .run(&["node", "label", "disk=ssd", "--json"])
        .await?;
    json.done()?;
    cluster[2].stop().await?;
    cluster[2].start()?;
    cluster.until_members(3).await?;
    until_labels(&cluster, "disk=ssd,zone=d").await?;

    cluster[0].client().member_remove("n3", true).await?;
    cluster
        .until_on(&[0, 1], "the labels are gone", async |node| {
            let left = of_n3(node).await?.map(|member| member.labels);
            let gone = left.as_ref().is_none_or(Labels::is_empty);
            Ok(Seen::when(gone, || format!("{left:?}")))
        })
        .await?;
    let ended = cluster[2].until_ended().await?;
    assert_eq!(ended.code(), Some(5));
    cluster.end().await
}

async fn until_labels(cluster: &Cluster, wanted: &str) -> anyhow::Result<()> {
    let what = format!("n3 has {wanted}");
    cluster
        .until_on(&[0, 1, 2], &what, async |node| {
            let labels = of_n3(node).await?.map(|member| member.labels.to_string());
            Ok(Seen::when(labels.as_deref() == Some(wanted), || {
                format!("{labels:?}")
            }))
        })
        .await
}

async fn of_n3(node: &Node) -> anyhow::Result<Option<Member>> {
    let members = node.client().members().await?;
    let named = |member: &Member| {
        member
            .name
            .as_ref()
            .is_some_and(|name| name.as_str() == "n3")
    };
    Ok(members.into_iter().find(named))
}
