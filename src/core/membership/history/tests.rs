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

fn step(node: u64, state: Option<State>) -> Step {
    Step {
        identity: identity(node, 1, 0),
        state,
        incarnation: 0,
        moved_from: None,
    }
}

impl History {
    fn suspect(&mut self, node: u64) {
        let suspected = (What::Suspected, Why::Listed);
        self.record(
            Instant::default(),
            suspected,
            step(node, Some(State::Suspect)),
        );
    }

    /// Returns how many are held in trails; the index of those that are superseded must agree.
    fn held(&self) -> usize {
        let held: usize = self.trails.values().map(|trail| trail.kept.len()).sum();
        assert_eq!(held, self.len().0);
        held
    }
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

    let trail = history.trail(NodeId(7)).unwrap();

    assert_eq!(trail.transitions().count(), TRAIL_MAX);
    assert_eq!(trail.dropped(), 10);
    assert_eq!(trail.last().unwrap().revision, history.revision());
    assert_eq!(history.trail(NodeId(8)).unwrap().transitions().count(), 1);
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
    let kept: Vec<usize> = (0..members)
        .map(|node| history.trail(NodeId(node)).unwrap().transitions().count())
        .collect();
    let (least, most) = (kept.iter().min().unwrap(), kept.iter().max().unwrap());
    assert!(most - least <= 1, "{least} to {most}");
    // One that is quiet keeps what was said of it last, whatever the others do.
    history.suspect(members);
    for _ in 0..2 * TRAIL_MAX {
        for node in 0..members {
            history.suspect(node);
        }
    }
    assert!(history.last(NodeId(members)).is_some());
}

#[test]
fn the_trail_of_one_that_is_forgotten_goes_and_watchers_hear_of_it() {
    let mut history = History::of_boot(Boot(0));
    for _ in 0..5 {
        history.suspect(7);
    }

    let forgotten = (What::Forgotten, Why::Outlived);
    history.record(Instant::default(), forgotten, step(7, None));

    assert_eq!(history.trail(NodeId(7)), None);
    assert_eq!(history.held(), 0);
    let heard = history.since(5, 10).unwrap();
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].what, heard[0].state), (What::Forgotten, None));
}

#[test]
fn a_watcher_hears_every_transition_once_or_is_told_that_it_missed_some() {
    let mut history = History::of_boot(Boot(0));
    for node in 0..RECENT_MAX as u64 + 5 {
        history.suspect(node);
    }

    assert_eq!(history.since(4, 1), Err(Missed { oldest: 5 }));
    let first = history.since(5, 2).unwrap();
    let rest = history.since(7, usize::MAX).unwrap();
    let revisions = |heard: &[Transition]| heard.iter().map(|one| one.revision).collect::<Vec<_>>();
    assert_eq!(revisions(&first), [6, 7]);
    assert_eq!(rest.len(), RECENT_MAX - 2);
    assert_eq!(history.since(history.revision(), 9), Ok(Vec::new()));
    assert!(history.since(history.revision() + 1, 9).is_err());
}

#[test]
fn a_revision_of_the_start_before_is_told_to_list_again() {
    let mut before = History::of_boot(Boot(1_000));
    let mut after = History::of_boot(Boot(1_001));
    for _ in 0..10 {
        before.suspect(7);
        after.suspect(7);
    }

    assert!(after.since(before.revision(), 100).is_err());
}
