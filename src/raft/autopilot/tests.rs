//! What is decided about who votes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::decide::{Members, Standing, Step, View, Wait, decide, standing};
use crate::core::model::NodeId;

fn step(view: &View) -> Option<Step> {
    decide(view).step
}

fn set(ids: &[u64]) -> BTreeSet<u64> {
    ids.iter().copied().collect()
}

/// Node 1 leads; everybody who has the log has caught up.
fn view(voters: &[u64], learners: &[u64], alive: &[u64], all: &[u64]) -> View {
    View {
        us: 1,
        voters: set(voters),
        learners: set(learners),
        caught_up: set(voters).union(&set(learners)).copied().collect(),
        settled: set(alive),
        members: Members {
            alive: set(alive),
            all: set(all),
            zones: BTreeMap::new(),
        },
        target: 3,
        ..View::default()
    }
}

#[test]
fn a_second_node_gets_the_log_but_no_vote() {
    let lone = view(&[1], &[], &[1, 2], &[1, 2]);
    let settled = view(&[1], &[2], &[1, 2], &[1, 2]);

    assert_eq!(step(&lone), Some(Step::AddLearner(2)));
    assert_eq!(step(&settled), None);
}

#[test]
fn three_nodes_become_three_voters_once_both_have_the_log() {
    let first = view(&[1], &[2], &[1, 2, 3], &[1, 2, 3]);
    let mut second = view(&[1], &[2, 3], &[1, 2, 3], &[1, 2, 3]);
    second.caught_up = set(&[2]);
    let third = view(&[1], &[2, 3], &[1, 2, 3], &[1, 2, 3]);

    assert_eq!(step(&first), Some(Step::AddLearner(3)));
    assert_eq!(step(&second), None);
    assert_eq!(step(&third), Some(Step::SetVoters(set(&[1, 2, 3]))));
}

#[test]
fn a_voter_that_is_down_for_a_moment_keeps_its_vote() {
    let view = view(&[1, 2, 3], &[], &[1, 2, 4], &[1, 2, 3, 4]);

    assert_eq!(step(&view), None);
}

#[test]
fn a_voter_that_is_gone_is_replaced() {
    let mut view = view(&[1, 2, 3], &[], &[1, 2, 4], &[1, 2, 3, 4]);
    view.gone = set(&[3]);

    assert_eq!(step(&view), Some(Step::AddLearner(4)));
    view.learners = set(&[4]);
    assert_eq!(step(&view), None);
    view.caught_up = set(&[4]);
    assert_eq!(step(&view), Some(Step::SetVoters(set(&[1, 2, 4]))));
}

#[test]
fn a_voter_that_is_gone_stays_while_nobody_can_replace_it() {
    let mut view = view(&[1, 2, 3], &[], &[1, 2], &[1, 2, 3]);
    view.gone = set(&[3]);

    assert_eq!(step(&view), None);
}

#[test]
fn a_voter_that_was_removed_loses_its_vote_and_the_number_stays_odd() {
    let with_replacement = view(&[1, 2, 3], &[4], &[1, 2, 4], &[1, 2, 4]);
    let without = view(&[1, 2, 3], &[], &[1, 2], &[1, 2]);

    assert_eq!(
        step(&with_replacement),
        Some(Step::SetVoters(set(&[1, 2, 4])))
    );
    assert_eq!(step(&without), Some(Step::SetVoters(set(&[1]))));
}

#[test]
fn a_leader_that_was_removed_has_another_lead_and_one_that_alone_votes_gives_its_vote_away() {
    let with_heirs = view(&[1, 2, 3], &[4], &[1, 2, 3, 4], &[2, 3, 4]);
    let alone = view(&[1], &[2], &[1, 2], &[2]);

    assert_eq!(step(&with_heirs), Some(Step::MakeWay));
    assert_eq!(step(&alone), Some(Step::SetVoters(set(&[2]))));
}

#[test]
fn nothing_is_changed_without_a_majority_of_old_and_new() {
    let view = view(&[1, 2, 3], &[], &[1], &[1]);

    assert_eq!(step(&view), None);
}

#[test]
fn a_change_that_was_begun_is_finished() {
    let mut view = view(&[1, 2, 3], &[], &[1, 2, 3], &[1, 2, 3]);
    view.joint = true;

    assert_eq!(step(&view), Some(Step::SetVoters(set(&[1, 2, 3]))));
}

#[test]
fn a_learner_that_is_not_needed_is_forgotten() {
    let view = view(&[1, 2, 3], &[9], &[1, 2, 3], &[1, 2, 3]);

    assert_eq!(step(&view), Some(Step::Forget(set(&[9]))));
}

#[test]
fn a_node_gets_a_vote_only_after_it_has_been_up_for_a_while() {
    let mut view = view(&[1], &[2, 3], &[1, 2, 3], &[1, 2, 3]);
    view.settled = set(&[1, 2]);

    let early = decide(&view);
    view.settled = set(&[1, 2, 3]);
    let later = decide(&view);

    assert_eq!((early.step, early.wait), (None, Wait::Settled(NodeId(3))));
    assert_eq!(later.step, Some(Step::SetVoters(set(&[1, 2, 3]))));
}

#[test]
fn who_has_been_up_for_a_while_is_chosen_before_who_has_not() {
    let mut view = view(&[1, 2, 3], &[], &[1, 2, 4, 5], &[1, 2, 3, 4, 5]);
    view.gone = set(&[3]);
    view.settled = set(&[1, 2, 5]);

    assert_eq!(step(&view), Some(Step::AddLearner(5)));
}

#[test]
fn a_voter_that_is_gone_is_replaced_where_fewest_voters_are() {
    let mut view = zoned(
        view(&[1, 2, 3], &[], &[1, 2, 4, 5], &[1, 2, 3, 4, 5]),
        "abcac",
    );
    view.gone = set(&[3]);

    assert_eq!(step(&view), Some(Step::AddLearner(5)));
}

#[test]
fn voters_are_chosen_from_as_many_zones_as_there_are() {
    let view = zoned(view(&[1], &[], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]), "aaabc");

    assert_eq!(decide(&view).voters, set(&[1, 4, 5]));
}

#[test]
fn a_vote_moves_out_of_a_crowded_zone_but_never_the_leaders_and_not_for_nothing() {
    let crowded = zoned(view(&[1, 2, 3], &[4], &[1, 2, 3, 4], &[1, 2, 3, 4]), "aaab");
    let spread = zoned(view(&[1, 2, 4], &[3], &[1, 2, 3, 4], &[1, 2, 3, 4]), "aaab");

    assert_eq!(step(&crowded), Some(Step::SetVoters(set(&[1, 2, 4]))));
    assert_eq!(step(&spread), Some(Step::Forget(set(&[3]))));
}

#[test]
fn no_vote_moves_between_zones_while_a_voter_is_down() {
    let view = zoned(view(&[1, 2, 3], &[4], &[1, 2, 4], &[1, 2, 3, 4]), "aaab");

    assert_eq!(decide(&view).voters, set(&[1, 2, 3]));
}

#[test]
fn what_is_waited_for_is_said() {
    let two = decide(&view(&[1], &[2], &[1, 2], &[1, 2]));
    let down = view(&[1, 2, 3], &[], &[1, 2], &[1, 2, 3]);
    let mut gone = down.clone();
    gone.gone = set(&[3]);
    let alone = decide(&view(&[1, 2, 3], &[], &[1], &[1]));

    assert_eq!(two.wait, Wait::Nodes);
    assert_eq!(decide(&down).wait, Wait::Return(NodeId(3)));
    assert_eq!(decide(&gone).wait, Wait::Replacement(NodeId(3)));
    assert_eq!(alone.wait, Wait::Majority);
}

#[test]
fn each_node_is_told_why_it_votes_or_not() {
    let mut view = view(&[1, 2, 3], &[4], &[1, 2, 4, 5], &[1, 2, 3, 4, 5, 6]);
    view.gone = set(&[3]);
    view.caught_up = set(&[1, 2]);
    let decision = decide(&view);
    let told: Vec<Standing> = (1..=6)
        .map(|node| standing(&view, &decision, node))
        .collect();

    assert_eq!(
        told,
        [
            Standing::Leads,
            Standing::Votes,
            Standing::Gone,
            Standing::CatchingUp,
            Standing::Spare,
            Standing::Absent,
        ]
    );
}

proptest! {
    /// Whatever nodes do, each change is safe, and once they do nothing more the voters come to rest.
    #[test]
    fn every_change_is_safe_and_the_voters_come_to_rest(
        target in prop::sample::select(vec![1_usize, 3, 5, 7]),
        zones in prop::collection::vec(0_u8..3, 9),
        events in prop::collection::vec((1_u64..=9, 0_u8..6), 0..60),
    ) {
        let all: Vec<u64> = (1..=9).collect();
        let mut world = view(&[1], &[], &[1], &all);
        world.target = target;
        world.members.zones = all.iter().map(|id| {
            let zone = zones[usize::try_from(*id).unwrap() - 1];
            (*id, zone.to_string())
        }).collect();
        for (node, event) in events {
            disturb(&mut world, node, event);
            take(&mut world)?;
        }
        for node in &all {
            disturb(&mut world, *node, 0);
            disturb(&mut world, *node, 5);
        }
        for _ in 0..64 {
            world.caught_up = set(&all);
            take(&mut world)?;
        }
        let rest = decide(&world);
        prop_assert_eq!(rest.step, None);
        prop_assert_eq!(rest.wait, Wait::Nothing);
        prop_assert_eq!(world.voters.len(), target);
        prop_assert!(world.learners.is_empty());
    }
}

/// What may happen to a node between two looks. The leader stays.
fn disturb(world: &mut View, node: u64, event: u8) {
    if node == world.us {
        return;
    }
    let down = !world.members.alive.contains(&node);
    match event {
        0 => {
            world.members.alive.insert(node);
            world.members.all.insert(node);
            world.gone.remove(&node);
        }
        1 => {
            world.members.alive.remove(&node);
            world.settled.remove(&node);
        }
        2 if down => {
            world.gone.insert(node);
        }
        3 if down => {
            world.members.all.remove(&node);
        }
        4 => {
            world.caught_up.insert(node);
        }
        5 if !down => {
            world.settled.insert(node);
        }
        _ => {}
    }
}

/// Takes the next step, and checks that it may be taken.
fn take(world: &mut View) -> Result<(), TestCaseError> {
    match decide(world).step {
        None => {}
        Some(Step::MakeWay) => prop_assert!(false, "nobody was removed that leads"),
        Some(Step::AddLearner(id)) => {
            prop_assert!(!world.voters.contains(&id) && world.learners.insert(id));
            world.caught_up.remove(&id);
        }
        Some(Step::Forget(ids)) => {
            prop_assert!(ids.is_disjoint(&world.voters));
            world.learners.retain(|id| !ids.contains(id));
        }
        Some(Step::SetVoters(voters)) => {
            let is_up = |id: &&u64| world.members.alive.contains(id);
            for old_or_new in [&world.voters, &voters] {
                let up = old_or_new.iter().filter(is_up).count();
                prop_assert!(up * 2 > old_or_new.len(), "{:?} of {:?}", up, old_or_new);
            }
            for new in voters.difference(&world.voters) {
                let ready = world.caught_up.contains(new) && world.settled.contains(new);
                prop_assert!(ready && !world.gone.contains(new), "{}", new);
            }
            prop_assert!(voters.contains(&world.us) && voters.len() <= world.target);
            prop_assert!(voters.len() % 2 == 1 || voters.len() >= world.voters.len());
            world.learners.retain(|id| !voters.contains(id));
            world.voters = voters;
        }
    }
    Ok(())
}

/// Puts node 1 in the first zone, node 2 in the second, and so on.
fn zoned(mut view: View, zones: &str) -> View {
    let zones = zones.chars().map(String::from);
    view.members.zones = (1..).zip(zones).collect();
    view
}
