//! What a proposal comes to when the leader cannot be asked, or does not answer: what is said is true.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::rig::{Rig, Way, network};
use crate::{
    core::model::NodeId,
    raft::{Hint, ProposeError},
};

const LEASE: Duration = Duration::from_millis(600);
const PROPOSE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn who_is_cut_off_says_so_long_before_the_deadline_and_then_at_once() {
    let mut rig = Rig::new(3, LEASE);
    rig.propose_within(PROPOSE);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let alone = (1..=3).find(|node| *node != leader).unwrap();
    for other in (1..=3).filter(|other| *other != alone) {
        rig.set_way(alone, other, Some(Way::Shut));
        rig.set_way(other, alone, Some(Way::Shut));
    }
    let raft = rig.raft(alone);
    raft.set_members(
        &[NodeId(alone)],
        &[NodeId(1), NodeId(2), NodeId(3)],
        &BTreeMap::new(),
    );
    let begun = Instant::now();

    let first = raft.propose(network("first")).await;
    let took = begun.elapsed();
    let begun = Instant::now();
    let second = raft.propose(network("second")).await;

    assert_eq!(first, Err(ProposeError::NoLeader));
    assert!(took < PROPOSE / 2, "{took:?}");
    assert_eq!(second, Err(ProposeError::NoLeader));
    assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
    assert!(rig.networks(leader).is_empty());
}

#[tokio::test]
async fn a_proposal_whose_answer_is_lost_may_have_been_done_and_is_done_once() {
    let mut rig = Rig::new(3, LEASE);
    rig.propose_within(Duration::from_secs(2));
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let asks = (1..=3).find(|node| *node != leader).unwrap();
    for other in (1..=3).filter(|other| *other != asks) {
        rig.set_way(asks, other, Some(Way::Mute));
    }

    let answer = rig.raft(asks).propose(network("app")).await;

    assert_eq!(answer, Err(ProposeError::Timeout));
    assert_eq!(rig.networks(leader), ["app".to_owned()].into());
}

#[tokio::test]
async fn a_proposal_that_nobody_could_be_asked_was_not_done() {
    let mut rig = Rig::new(3, LEASE);
    rig.propose_within(Duration::from_secs(2));
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let asks = (1..=3).find(|node| *node != leader).unwrap();
    for other in (1..=3).filter(|other| *other != asks) {
        rig.set_way(asks, other, Some(Way::Shut));
    }

    let answer = rig.raft(asks).propose(network("app")).await;

    assert_eq!(answer, Err(ProposeError::NoLeader));
    assert!(rig.networks(leader).is_empty());
}

/// It is in the leader's log, and the others might get it from there.
#[tokio::test]
async fn what_a_leader_wrote_before_it_stopped_may_yet_be_done() {
    let mut rig = Rig::new(3, LEASE);
    rig.propose_within(PROPOSE);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    for other in (1..=3).filter(|other| *other != leader) {
        rig.set_way(leader, other, Some(Way::Shut));
    }
    let raft = rig.raft(leader);
    let before = raft.status().last_log;

    let (answer, ()) = tokio::join!(raft.propose(network("app")), async {
        rig.until("it is in the log", || raft.status().last_log > before)
            .await;
        rig.stop(leader).await;
    });
    let stopped = raft.propose(network("late")).await;

    assert_eq!(answer, Err(ProposeError::Timeout));
    assert_eq!(stopped, Err(ProposeError::Stopped));
}

#[tokio::test]
async fn who_does_not_vote_says_at_once_that_nobody_can_lead_where_most_voters_are_down() {
    let mut rig = Rig::new(3, LEASE);
    rig.propose_within(PROPOSE);
    rig.found(3).await;
    for spare in [4, 5] {
        rig.add(spare).await;
    }
    let all = [1, 2, 3, 4, 5].map(NodeId);
    let voters: Vec<NodeId> = rig.raft(1).status().voters;
    for node in 1..=3 {
        rig.kill(node).await;
    }
    let raft = rig.raft(4);
    raft.hint(Hint {
        leader: None,
        voters: voters.clone(),
    });
    let up = [voters[0], NodeId(4), NodeId(5)];
    raft.set_members(&up, &all, &BTreeMap::new());
    let begun = Instant::now();

    let first = raft.propose(network("first")).await;
    let took = begun.elapsed();
    let begun = Instant::now();
    let second = raft.propose(network("second")).await;
    let at_once = begun.elapsed();
    // With two of them there may be a leader, so it is looked for.
    raft.set_members(&all[..], &all, &BTreeMap::new());
    let begun = Instant::now();
    let waits = tokio::time::timeout(LEASE * 4, raft.propose(network("third"))).await;

    assert_eq!(
        (first, second),
        (Err(ProposeError::NoLeader), Err(ProposeError::NoLeader))
    );
    assert!(took < PROPOSE / 2, "{took:?}");
    assert!(at_once < LEASE, "{at_once:?}");
    assert!(waits.is_err(), "{:?}", begun.elapsed());
}
