//! Where datagrams are lost, and segments of streams with them.

use std::time::Duration;

use super::net::{APP, Net};
use crate::core::{model::NodeId, netdb::SyncState};

const SOON: Duration = Duration::from_millis(60);

/// A few nodes in one network with that many entries, that know or do not know that datagrams are lost.
fn net(nodes: u64, entries: usize, is_lossy: bool) -> Net {
    let mut net = Net::new(nodes + 1);
    for node in 1..=nodes {
        net.attach([node], APP);
    }
    for entry in 0..entries {
        net.put(1, &entry.to_string(), "v");
    }
    net.run(Duration::from_secs(3));
    net.dbs.values_mut().for_each(|db| db.set_lossy(is_lossy));
    net
}

#[test]
fn news_whose_every_datagram_was_lost_is_told_again() {
    for is_lossy in [true, false] {
        let mut net = net(3, 0, is_lossy);
        net.mute.extend([1, 2, 3]);
        net.cut.push(2);
        net.put(1, "web", "v");
        net.run(Duration::from_millis(30));
        net.cut.clear();

        net.run(SOON / 3);

        assert_eq!(net.seen(2, "web").is_some(), is_lossy);
    }
}

#[test]
fn what_is_told_again_is_told_for_a_moment() {
    let mut net = net(3, 0, true);
    net.put(1, "web", "v");
    assert!(net.dbs[&1].news.is_some());

    net.run(SOON * 2);

    assert!(net.dbs.values().all(|db| db.news.is_none()));
}

#[test]
fn a_small_network_comes_without_streams() {
    for (entries, is_lossy, at_once, comes) in [
        (20, true, true, true),
        (20, false, true, true),
        (200, true, false, false),
    ] {
        let mut net = net(3, entries, is_lossy);
        net.mute.extend([1, 2, 3]);
        net.attach([4], APP);

        net.run(SOON / 2);
        assert_eq!(net.seen(4, "7").is_some(), at_once, "{entries} {is_lossy}");
        net.run(SOON);
        assert_eq!(net.seen(4, "7").is_some(), comes, "{entries} {is_lossy}");
        assert_ne!(net.state(4), SyncState::Synced);
    }
}

#[test]
fn who_joins_asks_more_members_where_the_first_do_not_answer() {
    for is_lossy in [true, false] {
        let mut net = net(8, 200, is_lossy);
        net.attach([9], APP);
        let neighbours: Vec<NodeId> = {
            let db = net.dbs.get_mut(&9).unwrap();
            db.ring(APP).at_distance(1).collect()
        };
        let now = net.now;
        net.dbs.get_mut(&9).unwrap().detach(now, APP).unwrap();
        net.run(Duration::from_secs(1));
        net.mute.extend(neighbours.iter().map(|node| node.0));

        net.attach([9], APP);
        net.run(SOON / 2);
        assert_eq!(net.state(9) == SyncState::Synced, is_lossy);
        net.run(SOON);
        assert_eq!(net.state(9), SyncState::Synced);
    }
}
