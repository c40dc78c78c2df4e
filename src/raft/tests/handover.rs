//! A leader that stops, and the one that follows it.

use std::time::Duration;

use super::rig::Rig;
use crate::core::model::NodeId;

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
