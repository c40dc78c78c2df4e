//! IPv6, inside and as the underlay, and networks of several subnets.

use anyhow::{Context, ensure};
use cluster_tests::cluster::{Cluster, Underlay, inside};
use weft::core::model::Prefix;

use super::{WEFT, create, join, join_at, leave_all};

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_both_families_and_all_subnets_flow_over_ipv6() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make_v6(2)? else {
        return Ok(());
    };
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    create(&cluster, "many", &["10.61.0.0/24", "10.62.0.0/24"]).await?;
    create(&cluster, "six", &["fd00:77::/64"]).await?;
    let address = |text: &str| Some(Prefix(text.parse().expect("a prefix")));

    let first = join_at(&cluster, 0, ("many", "first"), address("10.61.0.50/24")).await?;
    let beside = join_at(&cluster, 1, ("many", "beside"), address("10.61.0.60/24")).await?;
    let second = join_at(&cluster, 1, ("many", "second"), address("10.62.0.50/24")).await?;
    let six_here = join(&cluster, 0, "six", "here").await?;
    let six_there = join(&cluster, 1, "six", "there").await?;

    for (one, other) in [
        (&first, &beside),
        (&first, &second),
        (&second, &first),
        (&six_here, &six_there),
        (&six_there, &six_here),
    ] {
        one.until_reaches(other).await?;
    }
    let interface = first.sandbox.ip(&["link", "show", "eth0"])?;
    ensure!(interface.contains("mtu 1430 "), "not 70 less: {interface}");
    let many = cluster[0].client().network("many").await?.network;
    let place = cluster[0].namespaces().join(many.id.to_string());
    let links = inside(&place, &["ip", "-details", "link"])?;
    for subnet in &many.subnets {
        let vni = subnet.vni.context("no VNI")?;
        let tunnel = format!("vxlan id {vni} ");
        ensure!(links.contains(&tunnel), "no tunnel {vni}: {links}");
    }
    leave_all(&cluster).await?;
    cluster.end().await
}
