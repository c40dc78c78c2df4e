//! What is recorded, and what is kept at the bounds.

use super::*;

fn identity(node: u64, boot: u32, rejoin: u16) -> Identity {
    Identity {
        node: NodeId(node),
        addr: ([10, 0, 0, 7], 9338).into(),
        boot: Boot(boot),
        rejoin,
    }
}

fn member((boot, rejoin): (u32, u16), incarnation: u16, state: State) -> Member {
    Member {
        identity: identity(7, boot, rejoin),
        state,
        incarnation,
        since: Instant::default(),
    }
}

fn transition(node: u64, what: What, state: Option<State>) -> Transition {
    Transition {
        at: Instant::default(),
        what,
        why: Why::Told(NodeId(1)),
        identity: identity(node, 1, 0),
        state,
        incarnation: 0,
        moved_from: None,
    }
}

impl History {
    fn suspect(&mut self, node: u64) {
        let suspected = transition(node, What::Suspected, Some(State::Suspect));
        self.record(None, suspected);
    }

    fn kept(&self, node: u64) -> &Kept {
        &self.trails[&NodeId(node)]
    }

    /// Returns how many are held in trails; the index of those that are superseded must agree.
    fn held(&self) -> usize {
        let trails = self.trails.values();
        let held: usize = trails.map(|kept| kept.transitions.len()).sum();
        assert_eq!(held, self.trails.len() + self.superseded.len());
        held
    }
}

fn machine(boot: u32) -> Membership {
    let config = crate::core::membership::Config::lan();
    Membership::new(config, identity(1, boot, 0), 1, Instant::default())
}

#[test]
fn each_change_of_state_or_life_has_its_name() {
    use State::{Alive, Down, Left, Suspect};
    let first = |incarnation, state| member((1, 0), incarnation, state);
    let rejoined = |state| member((1, 1), 0, state);
    let restarted = |state| member((2, 0), 0, state);
    for (before, after, expected) in [
        (None, first(0, Alive), Some(What::Joined)),
        (None, first(0, Suspect), Some(What::Suspected)),
        (None, first(0, Down), Some(What::Down)),
        (None, first(0, Left), Some(What::Left)),
        (Some(first(0, Alive)), first(0, Alive), None),
        (
            Some(first(0, Alive)),
            first(0, Suspect),
            Some(What::Suspected),
        ),
        (Some(first(0, Suspect)), first(0, Suspect), None),
        (
            Some(first(0, Suspect)),
            first(1, Suspect),
            Some(What::Suspected),
        ),
        (
            Some(first(0, Suspect)),
            first(1, Alive),
            Some(What::Refuted),
        ),
        (
            Some(first(0, Suspect)),
            rejoined(Alive),
            Some(What::Returned),
        ),
        (Some(first(0, Alive)), first(1, Alive), Some(What::Refuted)),
        (Some(first(3, Alive)), rejoined(Alive), Some(What::Returned)),
        (
            Some(first(0, Alive)),
            restarted(Alive),
            Some(What::Restarted),
        ),
        (
            Some(first(0, Suspect)),
            restarted(Alive),
            Some(What::Restarted),
        ),
        (Some(first(0, Suspect)), first(0, Down), Some(What::Down)),
        (Some(first(0, Down)), first(1, Down), None),
        (Some(first(0, Down)), rejoined(Down), Some(What::Down)),
        (Some(first(0, Down)), first(0, Left), Some(What::Left)),
        (Some(first(0, Down)), first(0, Alive), Some(What::Returned)),
        (Some(first(0, Down)), restarted(Alive), Some(What::Returned)),
        (
            Some(first(0, Left)),
            restarted(Suspect),
            Some(What::Suspected),
        ),
    ] {
        let found = what(before.as_ref(), &after);

        assert_eq!(found, expected, "{before:?} to {after:?}");
    }
}

#[test]
fn a_trail_keeps_its_latest_and_counts_what_went() {
    let mut history = History::of_boot(Boot(0));
    history.suspect(8);
    for _ in 0..TRAIL_MAX + 10 {
        history.suspect(7);
    }

    let kept = history.kept(7);

    assert_eq!(kept.transitions.len(), TRAIL_MAX);
    assert_eq!(kept.dropped, 10);
    assert_eq!(kept.transitions.back().unwrap().revision, history.revision);
    assert_eq!(history.kept(8).transitions.len(), 1);
    assert_eq!(history.held(), TRAIL_MAX + 1);
}

#[test]
fn when_too_many_come_and_go_the_oldest_of_all_goes_but_never_a_members_last() {
    let mut history = History::of_boot(Boot(0));
    let members = 1_000;
    for _ in 0..TRAIL_MAX {
        for node in 0..members {
            history.suspect(node);
        }
    }

    assert_eq!(history.held(), SUPERSEDED_MAX + members as usize);
    let kept = (0..members).map(|node| history.kept(node).transitions.len());
    let (least, most) = (kept.clone().min().unwrap(), kept.max().unwrap());
    assert!(most - least <= 1, "{least} to {most}");
    // One that is quiet keeps what was said of it last, whatever the others do.
    history.suspect(members);
    for _ in 0..2 * TRAIL_MAX {
        for node in 0..members {
            history.suspect(node);
        }
    }
    assert_eq!(history.kept(members).transitions.len(), 1);
}

#[test]
fn the_trail_of_one_that_is_forgotten_goes_and_watchers_hear_of_it_for_a_while() {
    let mut machine = machine(1);
    for _ in 0..5 {
        machine.history.suspect(7);
    }
    let before = machine.revision();

    let forgotten = transition(7, What::Forgotten, None);
    machine.history.record(None, forgotten);

    assert_eq!(machine.trail(NodeId(7)), None);
    assert_eq!(machine.history.held(), 1);
    let heard = machine.transitions(before, 10).unwrap();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].transition, forgotten);
    // What became of it before is gone with it.
    assert_eq!(
        machine.transitions(before - 1, 10),
        Err(Missed { oldest: before })
    );
    for _ in 0..RECENT_MAX {
        machine.history.suspect(8);
    }
    assert!(machine.history.forgotten.is_empty());
}

#[test]
fn a_watcher_hears_every_transition_once_or_is_told_that_it_missed_some() {
    let mut machine = machine(1);
    for node in 0..RECENT_MAX as u64 + 5 {
        machine.history.suspect(10 + node);
    }
    let newest = machine.revision();
    let oldest = newest - RECENT_MAX as u64;

    assert_eq!(machine.transitions(oldest - 1, 1), Err(Missed { oldest }));
    let first = machine.transitions(oldest, 2).unwrap();
    let rest = machine.transitions(oldest + 2, usize::MAX).unwrap();
    let revisions = |heard: &[Revised]| heard.iter().map(|one| one.revision).collect::<Vec<_>>();
    assert_eq!(revisions(&first), [oldest + 1, oldest + 2]);
    assert_eq!(first[0].transition.identity.node, NodeId(15));
    assert_eq!(rest.len(), RECENT_MAX - 2);
    assert_eq!(machine.transitions(newest, 9), Ok(Vec::new()));
    assert!(machine.transitions(newest + 1, 9).is_err());
}

#[test]
fn a_watcher_is_told_that_it_missed_what_a_trail_keeps_no_more() {
    let mut machine = machine(1);
    let began = machine.revision();
    for _ in 0..TRAIL_MAX + 1 {
        machine.history.suspect(7);
    }

    let missed = machine.transitions(began, usize::MAX);

    let oldest = began + 1;
    assert_eq!(missed, Err(Missed { oldest }));
    let heard = machine.transitions(oldest, usize::MAX).unwrap();
    assert_eq!(heard.len(), TRAIL_MAX);
}

#[test]
fn a_revision_of_the_start_before_is_told_to_list_again() {
    let mut before = machine(1_000);
    let mut after = machine(1_001);
    for _ in 0..10 {
        before.history.suspect(7);
        after.history.suspect(7);
    }

    assert!(after.transitions(before.revision(), 100).is_err());
}
