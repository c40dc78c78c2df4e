//! What nodes record of each other, and of themselves, among others.

use std::time::Duration;

use super::{
    network::{Network, addr, id, identity},
    secs,
};
use crate::core::{
    membership::{Config, Identity, MemberState, Membership, State, What, Why},
    model::{Instant, NodeId},
};

/// Returns what one node has recorded of another.
fn trail(network: &Network, at: u64, of: u64) -> Vec<(What, Why)> {
    let trail = network.nodes[&id(at)].trail(id(of)).unwrap_or_default();
    let transitions = trail.transitions.iter();
    transitions.map(|one| (one.what, one.why)).collect()
}

fn whats(network: &Network, at: u64, of: u64) -> Vec<What> {
    let trail = trail(network, at, of);
    trail.into_iter().map(|(what, _)| what).collect()
}

#[test]
fn a_crash_leaves_who_suspected_and_who_held_for_down_on_every_node() {
    let mut network = Network::with_nodes(5, 51);
    network.streams = true;
    network.crash(5);
    network.time_until(secs(10), |network| network.all_think(5, false));

    let mut probers = 0;
    let mut deciders = 0;
    for at in 1..=4 {
        let all = trail(&network, at, 5);
        let [joined, suspected, down] = all[..] else {
            panic!("at {at}: {all:?}");
        };
        assert_eq!(joined.0, What::Joined);
        assert_eq!((suspected.0, down.0), (What::Suspected, What::Down));
        let another = |by: NodeId| assert!(by != id(5) && by != id(at));
        if let Why::NoAck { asked_on_stream } = suspected.1 {
            assert!(asked_on_stream);
            probers += 1;
        } else if let Why::Told(by) = suspected.1 {
            another(by);
        } else {
            panic!("at {at}: {suspected:?}");
        }
        if down.1 == Why::NotRefuted {
            deciders += 1;
        } else if let Why::Told(by) | Why::Accused(Some(by)) = down.1 {
            another(by);
        } else {
            panic!("at {at}: {down:?}");
        }
    }
    assert!(probers >= 1 && deciders >= 1, "{probers}, {deciders}");
}

#[test]
fn without_streams_nobody_claims_to_have_asked_on_one() {
    let config = Config {
        stream_ping: false,
        ..Config::lan()
    };
    let mut network = Network::new(config, 52);
    for number in 1..=2 {
        network.join(number, 1, 1);
    }
    network.run(secs(5));
    network.crash(2);
    network.run(secs(5));

    let all = trail(&network, 1, 2);

    let no_ack = Why::NoAck {
        asked_on_stream: false,
    };
    assert_eq!(
        all[1..],
        [(What::Suspected, no_ack), (What::Down, Why::NotRefuted)]
    );
}

#[test]
fn a_suspicion_and_its_refutation_are_recorded_by_the_suspect_too() {
    let mut network = Network::with_nodes(3, 53);
    let suspicion = MemberState {
        identity: identity(3, 1),
        incarnation: 0,
        state: State::Suspect,
    };
    network.on(1, |machine, now| {
        machine.take_in(now, Some(id(2)), vec![suspicion]);
    });
    network.run(secs(2));

    assert_eq!(
        trail(&network, 1, 3)[1..],
        [
            (What::Suspected, Why::Told(id(2))),
            (What::Refuted, Why::Itself)
        ]
    );
    let own = trail(&network, 3, 3);
    assert_eq!(own[0], (What::Joined, Why::Started));
    assert!(
        matches!(own[1..], [(What::Refuted, Why::SaidOfUs(Some(_)))]),
        "{own:?}"
    );
}

#[test]
fn who_is_accused_is_suspected_on_that_word_and_down_on_it_once_it_does_not_refute() {
    let mut network = Network::with_nodes(3, 54);
    network.crash(3);
    let accusation = MemberState {
        identity: identity(3, 1),
        incarnation: 0,
        state: State::Down,
    };
    network.on(1, |machine, now| {
        machine.take_in(now, Some(id(2)), vec![accusation]);
    });
    network.time_until(secs(5), |network| !network.nodes[&id(1)].is_alive(id(3)));

    let accused = Why::Accused(Some(id(2)));
    assert_eq!(
        trail(&network, 1, 3)[1..],
        [(What::Suspected, accused), (What::Down, accused)]
    );
}

#[test]
fn one_that_left_was_removed_or_came_back_is_recorded_as_that() {
    let mut network = Network::with_nodes(4, 55);
    network.on(4, Membership::leave);
    network.run(secs(1));
    network.crash(4);
    let left = trail(&network, 1, 4);
    assert!(
        matches!(left[1..], [(What::Left, Why::Itself | Why::Told(_))]),
        "{left:?}"
    );

    let elsewhere = Identity {
        addr: addr(77),
        ..identity(4, 2)
    };
    let list = network.nodes[&id(1)].list();
    network.start(elsewhere);
    network.on(4, |machine, now| machine.apply(now, list));
    network.run(secs(1));
    let returned = network.nodes[&id(1)].last_transition(id(4)).unwrap();
    assert_eq!(returned.what, What::Returned);
    assert_eq!(returned.moved_from, Some(addr(4)));
    assert_eq!(returned.identity, elsewhere);

    network.on(1, |machine, now| machine.remove(now, id(4)));
    assert_eq!(
        trail(&network, 1, 4).last(),
        Some(&(What::Left, Why::Removed))
    );
}

#[test]
fn a_node_that_was_held_for_down_records_that_it_returned_and_so_do_the_others() {
    let mut network = Network::with_nodes(5, 56);
    network.groups.insert(id(5), 1);
    network.run(secs(10));
    network.groups.clear();
    network
        .time_until(secs(60), Network::everyone_sees_everyone)
        .unwrap();

    for at in 1..=4 {
        let all = whats(&network, at, 5);
        assert_eq!(all[..3], [What::Joined, What::Suspected, What::Down]);
        assert_eq!(all.last(), Some(&What::Returned), "at {at}: {all:?}");
    }
    let own = trail(&network, 5, 5);
    assert!(
        matches!(own.last(), Some((What::Returned, Why::SaidOfUs(Some(_))))),
        "{own:?}"
    );
    let last = network.nodes[&id(5)].last_transition(id(5)).unwrap();
    assert_eq!(last.identity.rejoin, 1);
}

#[test]
fn what_is_kept_of_the_dead_goes_with_them() {
    let config = Config {
        remember_down_for: secs(300),
        ..Config::lan()
    };
    let mut network = Network::new(config, 57);
    for number in 1..=40 {
        network.join(number, 1, 1);
    }
    network.run(secs(5));
    for number in 2..=40 {
        network.crash(number);
    }
    network.run(secs(60));
    let kept = |network: &Network| network.nodes[&id(1)].transitions_held();
    assert!(kept(&network) >= 40 * 2);

    network.run(secs(600));

    // This node's own, and what a watcher may still have to hear.
    assert_eq!(kept(&network), 1 + 39);
    let machine = &network.nodes[&id(1)];
    assert_eq!(machine.members().count(), 0);
    assert_eq!(machine.last_transition(id(2)), None);
    let heard = machine.transitions(machine.revision() - 39, 100).unwrap();
    assert!(
        heard
            .iter()
            .all(|one| one.transition.what == What::Forgotten)
    );
}

#[test]
fn the_round_trip_that_is_told_is_that_of_the_probes() {
    let mut network = Network::with_nodes(8, 58);
    network.run(secs(60));

    for at in 1..=8 {
        for of in (1..=8).filter(|of| *of != at) {
            let health = network.nodes[&id(at)].health(id(of));
            // Each way takes 0.2 to 1.0 ms.
            let rtt = health.rtt.unwrap();
            let expected = Duration::from_micros(400)..Duration::from_micros(2_000);
            assert!(expected.contains(&rtt), "{rtt:?}");
            assert_eq!(health.percent(), Some(100));
        }
    }
    assert_eq!(network.nodes[&id(1)].health(NodeId(99)).probes, 0);
}

#[test]
fn a_member_that_only_answers_on_streams_is_told_from_one_that_does_not_answer() {
    let mut network = Network::with_nodes(4, 59);
    network.streams = true;
    network.loss = 1.0;
    network.run(secs(60));
    let health = network.nodes[&id(1)].health(id(2));
    assert_eq!((health.stream, health.percent()), (16, Some(0)));

    network.streams = false;
    network.run(secs(3));
    let missed: u8 = (2..=4)
        .map(|of| network.nodes[&id(1)].health(id(of)).missed)
        .sum();
    assert!(missed > 0);
}

#[test]
fn a_long_list_of_members_costs_nothing_and_is_told_all_the_same() {
    let now = Instant::from_start(secs(1));
    let mut machine = Membership::new(Config::lan(), identity(1, 1), 1, now);
    let began = machine.revision();
    let list = (2..=1_001).map(|number| MemberState {
        identity: identity(number, 1),
        incarnation: 0,
        state: State::Alive,
    });
    machine.apply(now, list.collect());
    assert_eq!(machine.transitions_held(), 1);

    machine.remove(now + secs(5), id(7));

    let trail = machine.trail(id(7)).unwrap().transitions;
    let all: Vec<_> = trail
        .iter()
        .map(|one| (one.at, one.what, one.why))
        .collect();
    let joined = (now, What::Joined, Why::Listed);
    let removed = (now + secs(5), What::Left, Why::Removed);
    assert_eq!(all, [joined, removed]);
    assert_eq!(machine.transitions_held(), 3);
    let heard = machine.transitions(began, usize::MAX).unwrap();
    let joins = heard
        .iter()
        .filter(|one| one.transition.what == What::Joined);
    assert_eq!((joins.count(), heard.len()), (1_000, 1_001));
    let last = heard.last().unwrap();
    assert_eq!(
        (last.revision, last.transition.what),
        (began + 1_001, What::Left)
    );
}
