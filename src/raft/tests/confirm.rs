//! What a leader confirms, and one that leads no more does not.

use std::time::Duration;

use super::rig::{Rig, Way};

#[tokio::test]
async fn whoever_asks_hears_how_far_the_log_goes_and_not_from_a_leader_that_is_cut_off() {
    let mut rig = Rig::new(3, Duration::from_millis(600));
    rig.found(3).await;
    let leader = rig.leader().unwrap();
    let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    rig.create(others[0], "before").await;

    let before = rig.raft(leader).read(|state| state.last_dot());
    let asked = [
        rig.raft(leader).confirmed().await,
        rig.raft(others[0]).confirmed().await,
        rig.raft(others[1]).confirmed().await,
    ];
    for other in &others {
        rig.set_way(leader, *other, Some(Way::Shut));
        rig.set_way(*other, leader, Some(Way::Shut));
    }
    rig.until("another leads", || {
        let leads = |node: &u64| {
            rig.raft(*node)
                .status()
                .leader
                .is_some_and(|of| of.0 != leader)
        };
        others.iter().all(leads)
    })
    .await;
    rig.create(others[0], "after").await;
    let (old, new) = (
        rig.raft(leader).confirmed().await,
        rig.raft(others[1]).confirmed().await,
    );

    assert_eq!(asked, [Some(before); 3]);
    assert_eq!(old, None);
    assert!(new > Some(before), "{new:?}");
}
