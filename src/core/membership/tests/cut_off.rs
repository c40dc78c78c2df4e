//! Nodes that were cut off, and what the others make of their word.

use std::time::Duration;

use super::{
    is_down,
    network::{Network, id, identity},
    secs,
};
use crate::core::membership::{Event, MemberState, Membership, State};

/// Cuts a side off for that long, then heals, and lets all find each other.
fn part_and_heal(
    network: &mut Network,
    side: std::ops::RangeInclusive<u64>,
    for_how_long: Duration,
) {
    for number in side {
        network.groups.insert(id(number), 1);
    }
    network.run(for_how_long);
    network.forget_what_was();
    network.groups.clear();
    let took = network.time_until(secs(60), Network::everyone_sees_everyone);
    assert!(took.is_some_and(|took| took < secs(20)), "{took:?}");
}

fn renewed(network: &Network) -> Vec<u64> {
    let events = network.events.iter();
    let mut renewed: Vec<u64> = events
        .filter(|(_, _, event)| matches!(event, Event::Renewed(_)))
        .map(|(_, node, _)| node.0)
        .collect();
    renewed.dedup();
    renewed
}

#[test]
fn nobody_is_taken_for_down_on_the_word_of_one_that_was_cut_off() {
    for seed in 0..8 {
        let mut network = Network::with_nodes(16, seed);

        part_and_heal(&mut network, 5..=5, secs(4 + seed * 3));

        let downs = network.count(is_down);
        assert_eq!(downs, 0, "seed {seed}: {:?}", network.events);
        assert_eq!(renewed(&network), [5], "seed {seed}");
    }
}

#[test]
fn nobody_is_taken_for_down_by_its_own_side_when_halves_meet_again() {
    for seed in 0..8 {
        let mut network = Network::with_nodes(16, seed);

        part_and_heal(&mut network, 1..=8, secs(4 + seed * 3));

        assert_eq!(
            network.count(is_down),
            0,
            "seed {seed}: {:?}",
            network.events
        );
    }
}

#[test]
fn a_node_cut_off_for_a_moment_harms_nobody() {
    for millis in (900..2_000).step_by(50) {
        let mut network = Network::with_nodes(16, millis);
        network.groups.insert(id(5), 1);
        network.run(Duration::from_millis(millis));
        network.groups.clear();
        network.forget_what_was();

        let took = network.time_until(secs(60), Network::everyone_sees_everyone);

        assert!(took.is_some_and(|took| took < secs(20)), "{took:?}");
        let harmed = |(_, by, event): &(_, _, Event)| {
            *by != id(5) && matches!(event, Event::Down(node) if *node != id(5))
        };
        let harmed: Vec<_> = network.events.iter().filter(|e| harmed(e)).collect();
        assert!(harmed.is_empty(), "after {millis} ms: {harmed:?}");
    }
}

#[test]
fn a_node_that_is_alone_hides_all_others_and_learns_of_them_again() {
    let mut network = Network::with_nodes(5, 30);
    network.groups.insert(id(5), 1);
    let took = network.time_until(secs(20), |network| {
        network.nodes[&id(5)].alive().next().is_none()
    });
    assert!(took.is_some_and(|took| took < secs(5)), "{took:?}");
    network.forget_what_was();

    network.groups.clear();
    network.run(secs(20));

    network.assert_all_alive();
    let lives: Vec<u16> = (1..=5)
        .map(|number| network.nodes[&id(number)].identity().rejoin)
        .collect();
    assert_eq!(lives, [0, 0, 0, 0, 1]);
}

#[test]
fn a_half_that_crashes_at_once_is_hidden_by_the_other_as_soon_as_one_is() {
    for seed in 0..4 {
        let mut network = Network::with_nodes(32, seed);
        for number in 17..=32 {
            network.crash(number);
        }

        let took = network.time_until(secs(60), Network::everyone_sees_everyone);

        assert!(
            took.is_some_and(|took| took < secs(5)),
            "seed {seed}: {took:?}"
        );
    }
}

#[test]
fn a_member_that_one_node_calls_down_refutes_that() {
    let mut network = Network::with_nodes(16, 31);
    let slander = MemberState {
        identity: identity(9, 1),
        incarnation: 0,
        state: State::Down,
    };

    for number in 1..=4 {
        network.on(number, |machine, now| {
            machine.take_in(now, Some(id(16)), vec![slander]);
        });
    }
    network.run(secs(10));

    network.assert_all_alive();
    assert!(network.events.is_empty(), "{:?}", network.events);
    assert_eq!(network.nodes[&id(1)].stats().hearings, 1);
}

#[test]
fn a_suspect_is_told_by_its_nearest_and_by_nobody_else() {
    let mut network = Network::with_nodes(40, 32);
    let suspicion = MemberState {
        identity: identity(9, 1),
        incarnation: 0,
        state: State::Suspect,
    };

    for number in (1..=40).filter(|number| *number != 9) {
        network.on(number, |machine, now| {
            machine.take_in(now, Some(id(50)), vec![suspicion]);
        });
    }

    let tell = |machine: &&Membership| !machine.telling.is_empty();
    assert_eq!(network.nodes.values().filter(tell).count(), 8);
    network.run(secs(2));
    network.assert_all_alive();
    let tell_still = network.nodes.values().filter(tell).count();
    assert_eq!(tell_still, 0);
}

#[test]
fn a_suspicion_that_nobody_ended_does_not_make_a_later_word_believed_at_once() {
    let mut network = Network::with_nodes(3, 33);
    let claim = |state| MemberState {
        identity: identity(2, 1),
        incarnation: 0,
        state,
    };
    // It cannot hear that it is suspected, nor that it is not.
    network.groups.insert(id(2), 1);
    network.on(1, |machine, now| {
        machine.take_in(now, Some(id(3)), vec![claim(State::Suspect)]);
    });
    let patience = network.config.suspect_for;
    network.groups.clear();
    let (machine, now) = (network.nodes.get_mut(&id(1)).unwrap(), network.now);

    let later = now + patience * 2 + Duration::from_millis(1);
    machine.take_in(later, Some(id(3)), vec![claim(State::Down)]);

    assert!(machine.is_alive(id(2)));
    machine.take_in(later, Some(id(3)), vec![claim(State::Down)]);
    assert!(machine.is_alive(id(2)));
    assert_eq!(machine.stats().hearings, 2);
}
