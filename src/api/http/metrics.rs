//! `GET /v1/metrics`: what the node has counted, as Prometheus reads it.
//!
//! Rooms count in plain structs, so nothing is registered anywhere: a scrape writes what `status` says into a recorder of its
//! own and renders that.

use metrics::{Label, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::{
    counters::Count,
    ipam::{self, Pool},
    types::Status,
};

/// Returns the text of a scrape.
pub(super) fn render(status: &Status, pools: &[Pool]) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        record(status);
        ipam::record(pools);
    });
    recorder.handle().render()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float, and counts beyond 2^53 are far away"
)]
fn record(status: &Status) {
    gauge!(
        "weft_node",
        "version" => status.version.clone(), "node" => status.node.to_string(),
        "name" => status.name.to_string(), "cluster" => status.cluster.to_string()
    )
    .set(1.0);
    gauge!("weft_ready").set(f64::from(u8::from(status.ready)));
    gauge!("weft_has_leader").set(f64::from(u8::from(status.leader.is_some())));
    gauge!("weft_leads").set(f64::from(u8::from(status.leader == Some(status.node))));
    gauge!("weft_uptime_seconds").set(status.uptime_ms as f64 / 1_000.0);
    gauge!("weft_raft_term").set(status.raft.term as f64);
    gauge!("weft_raft_applied").set(status.raft.applied as f64);
    gauge!("weft_raft_voters").set(status.raft.voters.len() as f64);
    gauge!("weft_members", "state" => "alive").set(status.members.alive as f64);
    gauge!("weft_members", "state" => "suspect").set(status.members.suspect as f64);
    gauge!("weft_members", "state" => "down").set(status.members.down as f64);
    gauge!("weft_networks", "setup" => "ready").set(status.networks.ready as f64);
    gauge!("weft_networks", "setup" => "pending").set(status.networks.pending as f64);
    gauge!("weft_networks", "setup" => "removing").set(status.networks.removing as f64);
    gauge!("weft_networks_sync", "state" => "syncing").set(status.sync.syncing as f64);
    gauge!("weft_networks_sync", "state" => "synced").set(status.sync.synced as f64);
    gauge!("weft_networks_sync", "state" => "degraded").set(status.sync.degraded as f64);
    gauge!("weft_endpoints").set(status.endpoints as f64);
    for (key, value) in &status.counters {
        let (name, reason) = Count::split(key);
        let labels: Vec<Label> = reason
            .map(|reason| Label::new(Count::label(name), reason.to_owned()))
            .into_iter()
            .collect();
        let metric = format!("weft_{name}");
        if name.ends_with("_total") {
            counter!(metric, labels).absolute(*value);
        } else {
            gauge!(metric, labels).set(*value as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        api::http::types::{MemberCounts, NetworkCounts, RaftStatus, SyncCounts, SyncState},
        core::model::{ClusterId, Name, NetworkId, NodeId, Prefix},
    };

    #[test]
    fn a_scrape_has_what_status_says() {
        let status = Status {
            version: "0.1.0".to_owned(),
            cluster: ClusterId(1),
            node: NodeId(2),
            name: Name::new("n2").unwrap(),
            address: "127.0.0.1:1".parse().unwrap(),
            ready: true,
            uptime_ms: 1_500,
            leader: None,
            raft: RaftStatus::default(),
            members: MemberCounts {
                alive: 3,
                ..MemberCounts::default()
            },
            networks: NetworkCounts::default(),
            sync: SyncCounts {
                degraded: 1,
                ..SyncCounts::default()
            },
            cluster_sync: Some(SyncState::Synced),
            endpoints: 0,
            docker: None,
            certificate: None,
            counters: BTreeMap::from([
                ("entries".to_owned(), 7),
                ("datagrams_rejected_total.forged".to_owned(), 4),
                ("netdb_faulty_messages_total.0000000000000007".to_owned(), 9),
            ]),
        };

        let pool = Pool {
            network: NetworkId(1),
            name: Name::new("app").unwrap(),
            subnet: Prefix("10.0.0.0/24".parse().unwrap()),
            capacity: 253,
            leased: 14,
            in_use: 203,
            percent: 81,
            low: true,
            blocks: Vec::new(),
        };

        let text = render(&status, &[pool]);

        for line in [
            "weft_ready 1",
            "weft_has_leader 0",
            "weft_uptime_seconds 1.5",
            "weft_members{state=\"alive\"} 3",
            "weft_networks_sync{state=\"degraded\"} 1",
            "weft_entries 7",
            "weft_ipam_addresses{network=\"app\",subnet=\"10.0.0.0/24\",state=\"leased\"} 14",
            "weft_ipam_low{network=\"app\",subnet=\"10.0.0.0/24\"} 1",
            "# TYPE weft_datagrams_rejected_total counter",
            "weft_datagrams_rejected_total{reason=\"forged\"} 4",
            "weft_netdb_faulty_messages_total{node=\"0000000000000007\"} 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
