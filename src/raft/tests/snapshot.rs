//! Snapshots from other nodes.

use std::{collections::BTreeMap, time::Duration};

use super::rig::{Rig, network};
use crate::{
    core::{
        allocator::{Action, NetworkWish},
        model::NodeId,
    },
    raft::{
        SNAPSHOT_MAX,
        types::SnapshotMeta,
        wire::{self, Message, Reply, WireMeta, WireVote},
    },
};

/// How much each network of the test comes to, in bytes: with all of them a snapshot has several pages.
const HEAVY: usize = 60_000;
const NETWORKS: usize = 60;

#[tokio::test]
async fn a_voter_far_behind_gets_a_snapshot_in_pages_from_one_leader_after_another() {
    let mut rig = Rig::new(3, Duration::from_millis(600));
    rig.snapshot_every(16);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let mut others = (1..=3).filter(|node| *node != leader);
    let (late, other) = (others.next().unwrap(), others.next().unwrap());
    let had = rig.raft(late).status().last_log;
    rig.kill(late).await;
    for n in 0..NETWORKS {
        create_heavy(&rig, leader, n).await;
    }
    rig.until("the logs are cut off behind what it has", || {
        [leader, other]
            .iter()
            .all(|node| rig.raft(*node).status().purged > had)
    })
    .await;

    rig.limit_pages(2);
    rig.start(late).await;
    rig.until("the first pages have passed", || rig.pages() == 2)
        .await;
    let amid = rig.networks(late);
    rig.kill(leader).await;
    rig.limit_pages(usize::MAX);

    assert!(amid.len() < NETWORKS, "{amid:?}");
    rig.until("it has all, from the next leader", || {
        rig.leader() == Some(other) && rig.networks(late).len() == NETWORKS
    })
    .await;
    assert!(rig.pages() > 4, "{}", rig.pages());
    rig.create(late, "after").await;
    rig.until("both have come to the same state", || {
        let theirs = rig.raft(other).read(Clone::clone);
        rig.raft(late).read(|state| *state == theirs)
    })
    .await;
}

async fn create_heavy(rig: &Rig, through: u64, n: usize) {
    let Action::AllocateNetwork(wish) = network(&format!("heavy{n}")) else {
        unreachable!("a network was asked for")
    };
    let options = BTreeMap::from([("weight".to_owned(), "x".repeat(HEAVY))]);
    let heavy = Action::AllocateNetwork(NetworkWish { options, ..wish });
    rig.raft(through).propose(heavy).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_would_never_end_is_refused() {
    let mut rig = Rig::new(1, Duration::from_millis(600));
    rig.found(1).await;
    let page = Message::Snapshot {
        vote: WireVote {
            term: 9,
            node: 2,
            committed: true,
        },
        meta: WireMeta::from(&SnapshotMeta::default()),
        offset: SNAPSHOT_MAX,
        data: vec![1],
        done: false,
    };

    let answer = rig.raft(1).handle_raft(NodeId(2), wire::seal(&page)).await;

    let reply: Reply = wire::open(&answer).unwrap();
    assert!(
        matches!(&reply, Reply::Refused(why) if why.contains("too long")),
        "{reply:?}"
    );
}
