//! One survivor of five voters, and the others' coming back.

use std::{collections::BTreeSet, time::Duration};

use super::rig::Rig;
use crate::{
    core::{
        allocator::Action,
        model::{Hlc, NodeId},
    },
    raft::{RecoverError, Recovery, Role},
    store::Store,
};

const LEASE: Duration = Duration::from_millis(600);
const NOW: (Hlc, u128) = (Hlc(9), 99);

#[tokio::test]
async fn one_survivor_of_five_goes_on_with_all_that_was_agreed_and_the_lost_ones_count_no_more() {
    let mut rig = Rig::new(5, LEASE);
    rig.found(5).await;
    let app = rig.create(1, "app").await;
    let lease = Action::GrowBlocks {
        network: app,
        node: NodeId(2),
    };
    rig.raft(1).propose(lease).await.unwrap();
    rig.until_voting(5).await;
    let (before, had) = rig
        .raft(2)
        .read(|state| (state.clone(), state.blocks().count()));
    for node in 1..=5 {
        rig.kill(node).await;
    }

    let found = Recovery::look(rig.store(2), NodeId(2)).unwrap();
    assert_eq!(found.others().len(), 4);
    assert_eq!(found.state(), &before);
    let keep = BTreeSet::from([NodeId(3)]);
    let lost = found.perform(rig.store(2), &keep, NOW).unwrap();

    assert_eq!(lost, [NodeId(1), NodeId(4), NodeId(5)]);
    let survivor = rig.start(2).await;
    rig.until("the survivor leads", || rig.leader() == Some(2))
        .await;
    let term = survivor.status().term;
    assert_eq!(term >> 32, 1);
    assert_eq!(survivor.read(|state| state.blocks().count()), had);
    let (ring, was) = (survivor.read(|state| state.ring()), before.ring());
    let (ring, was) = (ring.unwrap(), was.unwrap());
    assert_eq!(ring.keys, was.keys);
    assert!(
        ring.version > was.version,
        "the lost ones may have made newer ones"
    );
    let more = rig.create(2, "more").await;
    assert!(
        more.0 > app.0 + 500,
        "{more}: the lost ones may have given out the next ones"
    );

    // The one that is kept takes all of it in place of what it had.
    rig.start(3).await;
    let same = |rig: &Rig| {
        let ours = survivor.read(Clone::clone);
        rig.raft(3).read(|state| *state == ours)
    };
    rig.until("the kept one follows", || {
        rig.tell();
        rig.raft(3).status().leader == Some(NodeId(2)) && same(&rig)
    })
    .await;

    // Three of five are a majority of before. Whatever they do among themselves, the survivor goes on.
    for node in [1, 4, 5] {
        rig.start(node).await;
    }
    rig.until("the lost ones have found each other", || {
        [1, 4, 5].iter().any(|node| {
            let status = rig.raft(*node).status();
            status.role == Role::Leader && status.term >> 32 == 0
        })
    })
    .await;
    assert_eq!(survivor.status().role, Role::Leader);
    assert_eq!(survivor.status().term >> 32, 1);
    rig.create(3, "still").await;
    assert!(rig.networks(2).contains("still"));
}

#[tokio::test]
async fn a_recovery_is_done_once_and_only_where_the_log_is() {
    let mut rig = Rig::new(3, LEASE);
    rig.found(3).await;
    for node in 1..=3 {
        rig.kill(node).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let empty = Store::open(directory.path()).unwrap();

    let nowhere = Recovery::look(&empty, NodeId(9));
    let stranger = Recovery::look(rig.store(1), NodeId(9));
    let keep = BTreeSet::from([NodeId(9)]);
    let found = Recovery::look(rig.store(1), NodeId(1)).unwrap();
    let kept = found.perform(rig.store(1), &keep, NOW);

    assert!(matches!(nowhere, Err(RecoverError::NoLog)), "{nowhere:?}");
    assert!(
        matches!(stranger, Err(RecoverError::NoVoter(_))),
        "{stranger:?}"
    );
    assert!(
        matches!(kept, Err(RecoverError::NotVoting(NodeId(9)))),
        "{kept:?}"
    );
    let found = Recovery::look(rig.store(1), NodeId(1)).unwrap();
    assert!(!found.is_done());
    found.perform(rig.store(1), &BTreeSet::new(), NOW).unwrap();
    let again = Recovery::look(rig.store(1), NodeId(1)).unwrap();
    assert!(again.is_done());
    assert_eq!(again.state().members().len(), 1);
}
