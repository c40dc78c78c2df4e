//! Who stands for election, and who would vote for whom.

use std::time::Duration;

use openraft::testing::log_id;
use tokio::time::Instant;

use super::rig::Rig;
use crate::{core::model::NodeId, raft::Role};

const LEASE: Duration = Duration::from_millis(600);

#[tokio::test]
async fn a_voter_that_hears_nobody_raises_no_term_and_deposes_nobody_when_it_hears_again() {
    let mut rig = Rig::new(3, LEASE);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let term = rig.raft(leader).status().term;
    let deaf = (1..=3).find(|node| *node != leader).unwrap();

    rig.deafen(deaf, true);
    let since = Instant::now();
    rig.until("it has missed the leader several times over", || {
        since.elapsed() > LEASE * 5
    })
    .await;
    let alone = rig.raft(deaf).status();
    let told = rig.raft(deaf).leader();
    rig.create(leader, "meanwhile").await;
    rig.deafen(deaf, false);
    rig.until("it has what it missed", || {
        rig.networks(deaf).contains("meanwhile")
    })
    .await;

    assert_eq!((alone.role, alone.term), (Role::Follower, term));
    assert_eq!((alone.leader, told), (None, None));
    rig.until("it knows the leader again", || {
        rig.raft(deaf).leader() == Some(NodeId(leader))
    })
    .await;
    assert_eq!(rig.leader(), Some(leader));
    assert_eq!(rig.raft(leader).status().term, term);
}

#[tokio::test]
async fn a_leader_that_says_nothing_more_is_followed_by_another() {
    let mut rig = Rig::new(3, LEASE);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let term = rig.raft(leader).status().term;

    rig.kill(leader).await;

    rig.until("another leads", || rig.leader().is_some()).await;
    let next = rig.leader().unwrap();
    assert!(rig.raft(next).status().term > term);
    rig.create(next, "after").await;
}

#[tokio::test]
async fn nobody_would_vote_while_it_hears_a_leader_or_for_one_that_knows_less() {
    let mut rig = Rig::new(3, LEASE);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let ahead = Some(log_id(1 << 20, 9, 1 << 20));
    let asked = |node: u64, last| {
        let raft = rig.raft(node);
        async move { raft.inner.would_vote(last).await }
    };

    let hearing = [asked(leader, ahead).await, asked(follower, ahead).await];
    let other = (1..=3).find(|node| ![leader, follower].contains(node));
    rig.kill(other.unwrap()).await;
    rig.kill(leader).await;
    let since = Instant::now();
    rig.until("the lease has run out", || since.elapsed() > LEASE * 2)
        .await;
    let silent = [asked(follower, ahead).await, asked(follower, None).await];

    assert_eq!(hearing, [false, false]);
    assert_eq!(silent, [true, false]);
}

#[tokio::test]
async fn a_lone_voter_that_starts_again_leads_at_once() {
    let mut rig = Rig::new(1, LEASE);
    rig.found(1).await;
    rig.create(1, "before").await;
    rig.kill(1).await;

    rig.start(1).await;

    rig.until("it leads", || rig.leader() == Some(1)).await;
    rig.create(1, "after").await;
    assert_eq!(rig.networks(1).len(), 2);
}
