//! A leader that stops, and the one that follows it.

use std::time::Duration;

use super::rig::Rig;
use crate::core::{allocator::Action, model::NodeId};

/// So long that no test would live to see it run out: what leads after it was told to.
const NEVER: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_leader_that_stops_is_followed_by_another_in_the_next_term_with_no_lease_to_wait_for() {
    let mut rig = Rig::new(3, NEVER);
    rig.found(3).await;
    rig.create(1, "before").await;
    let leader = rig.leader().unwrap();
    let term = rig.raft(leader).status().term;

    rig.stop(leader).await;

    let next = rig.leader().expect("one leads before the other has ended");
    assert_ne!(next, leader);
    assert_eq!(rig.raft(next).status().term, term + 1);
    let other = (1..=3).find(|node| ![leader, next].contains(node)).unwrap();
    rig.create(other, "after").await;
    assert_eq!(rig.raft(next).status().leader, Some(NodeId(next)));
    assert_eq!(
        rig.networks(next),
        ["after".to_owned(), "before".to_owned()].into()
    );
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_with_one_voter_dead() {
    let mut rig = Rig::new(3, NEVER);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let dead = (1..=3).find(|node| *node != leader).unwrap();
    rig.kill(dead).await;
    // It is the one voter with all of the log then.
    rig.create(leader, "app").await;
    let heir = (1..=3).find(|node| ![leader, dead].contains(node)).unwrap();

    rig.stop(leader).await;

    assert_eq!(rig.leader(), Some(heir));
}

#[tokio::test]
async fn a_proposal_that_comes_while_the_leader_hands_over_is_done_once() {
    let mut rig = Rig::new(3, NEVER);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let other = (1..=3).find(|node| *node != leader).unwrap();

    let names: Vec<String> = (0..20).map(|number| format!("net{number}")).collect();
    let proposals = async {
        for called in &names {
            rig.create(other, called).await;
        }
    };
    tokio::join!(proposals, rig.stop(leader));

    assert_eq!(rig.networks(rig.leader().unwrap()).len(), names.len());
}

#[tokio::test]
async fn a_leader_that_is_relieved_follows_another_and_leads_again_when_that_one_is_relieved() {
    let mut rig = Rig::new(3, NEVER);
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let other = (1..=3).find(|node| *node != leader).unwrap();
    let term = rig.raft(leader).status().term;

    let relieved = rig.raft(other).relieve(NodeId(leader)).await;
    let next = rig.leader().unwrap();
    rig.create(leader, "between").await;
    let again = rig.raft(next).relieve(NodeId(next)).await;
    let nobody = rig.raft(other).relieve(NodeId(99)).await;

    assert!(relieved && again && nobody);
    assert_ne!(next, leader);
    rig.until("a third term has begun", || {
        let third = |node: u64| rig.raft(node).status().term == term + 2;
        (1..=3).all(third) && rig.leader().is_some_and(|now| now != next)
    })
    .await;
    rig.create(next, "after").await;
    assert_eq!(rig.networks(rig.leader().unwrap()).len(), 2);
}

/// The engine takes no change of voters from a leader that has given its own vote away.
#[tokio::test]
async fn a_leader_that_was_removed_steps_aside_and_the_next_one_takes_its_vote() {
    let mut rig = Rig::new(3, Duration::from_millis(600));
    rig.found(3).await;
    rig.add(4).await;
    for _ in 0..2 {
        let leader = rig.leader().unwrap();
        let node = NodeId(leader);
        let other = (1..=4).find(|node| *node != leader && rig.runs(*node));

        let asked = rig.raft(other.unwrap());
        let removal = asked.propose(Action::RemoveMember { node });
        removal.await.unwrap();

        rig.until("another leads, and it votes no more", || {
            rig.tell();
            rig.leader()
                .is_some_and(|now| now != leader && !rig.raft(now).status().voters.contains(&node))
        })
        .await;
        rig.kill(leader).await;
        let now = rig.leader();
        rig.until("a leader is there", || rig.leader().is_some())
            .await;
        rig.create(now.unwrap(), &format!("without{leader}")).await;
    }
    let leader = rig.leader().unwrap();
    assert_eq!(rig.networks(leader).len(), 2);
}
