//! The machine among others, in virtual time.

mod cut_off;
mod history;
mod hostile;
mod neighbours;
mod network;
mod stream_ping;

use std::time::Duration;

use network::{Network, addr, id, identity};

use super::{
    Config, Event, Identity, MemberState, Membership, State,
    packet::{Packet, write_preamble},
};
use crate::core::{model::Instant, wire::record::RecordKind};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn is_down(event: &Event) -> bool {
    matches!(event, Event::Down(_))
}

#[test]
fn a_newcomer_is_seen_by_all_within_milliseconds() {
    let mut network = Network::with_nodes(16, 1);

    network.join(17, 1, 4);
    let took = network.time_until(secs(1), Network::everyone_sees_everyone);

    assert!(took.unwrap() < Duration::from_millis(20), "{took:?}");
    let ups = network.count(|event| *event == Event::Up(id(17)));
    assert_eq!(ups, 16);
}

#[test]
fn nodes_that_join_all_at_once_find_each_other() {
    let mut network = Network::new(Config::lan(), 21);
    network.loss = 0.1;
    for number in 1..=64 {
        network.join(number, 1, 1);
    }

    let took = network.time_until(secs(30), Network::everyone_sees_everyone);

    assert!(took.unwrap() < secs(5), "{took:?}");
}

#[test]
fn who_was_removed_does_not_come_back_on_anybodys_word() {
    let mut network = Network::with_nodes(8, 23);
    for number in 1..=4 {
        network.on(number, |machine, now| machine.remove(now, id(8)));
    }
    let left = network.count(|event| *event == Event::Left(id(8)));
    assert_eq!(left, 4);
    network.forget_what_was();

    for (rejoin, incarnation) in [(0, 0), (0, 9), (3, 0)] {
        let alive = MemberState {
            identity: Identity {
                rejoin,
                ..identity(8, 1 + u32::from(rejoin))
            },
            incarnation,
            state: State::Alive,
        };
        for number in 1..=4 {
            network.on(number, |machine, now| {
                machine.take_in(now, Some(id(5)), vec![alive]);
            });
        }
    }

    for number in 1..=4 {
        assert!(!network.nodes[&id(number)].is_alive(id(8)));
        assert_eq!(network.events_at(number), []);
    }
}

#[test]
fn a_node_that_missed_a_leave_asks_for_it() {
    let mut network = Network::with_nodes(16, 22);

    network.groups.insert(id(5), 1);
    network.on(9, Membership::leave);
    network.crash(9);
    network.run(Duration::from_millis(300));
    network.groups.clear();
    let took = network.time_until(secs(10), |network| !network.nodes[&id(5)].is_alive(id(9)));

    assert!(took.unwrap() < secs(3), "{took:?}");
    assert_eq!(network.events_at(5), [Event::Left(id(9))]);
}

#[test]
fn all_nodes_of_a_cluster_that_restarts_at_once_find_each_other_again() {
    let mut network = Network::with_nodes(8, 2);
    let remembered: Vec<_> = (1..=8)
        .map(|number| network.nodes[&id(number)].list())
        .collect();

    for number in 1..=8 {
        network.start(identity(number, 2));
    }
    for (number, list) in (1..=8).zip(remembered) {
        network.on(number, |machine, now| machine.apply(now, list));
    }
    let took = network.time_until(secs(10), |network| {
        network.everyone_sees_everyone()
            && network
                .nodes
                .values()
                .all(|machine| machine.members().all(|member| member.identity.boot.0 == 2))
    });

    assert!(took.unwrap() < secs(3), "{took:?}");
}

#[test]
fn a_node_that_nobody_answers_asks_again_until_somebody_does() {
    let mut network = Network::new(Config::lan(), 3);
    network.start(identity(1, 1));
    let list = vec![MemberState {
        identity: identity(2, 1),
        incarnation: 0,
        state: State::Alive,
    }];
    network.on(1, |machine, now| machine.apply(now, list));
    network.run(secs(120));
    assert!(!network.nodes[&id(1)].is_alive(id(2)));

    network.start(identity(2, 2));
    let took = network.time_until(secs(60), Network::everyone_sees_everyone);

    assert!(took.unwrap() < secs(12), "{took:?}");
}

#[test]
fn a_crash_of_one_of_three_is_noticed_by_both_others_within_two_and_a_half_seconds() {
    for seed in 0..60 {
        let mut network = Network::with_nodes(3, seed);
        network.run(Duration::from_millis(seed * 37));

        network.crash(3);
        let took = network
            .time_until(secs(10), |network| network.all_think(3, false))
            .unwrap();

        assert!(
            took <= Duration::from_millis(2_500),
            "seed {seed}: {took:?}"
        );
    }
}

#[test]
fn a_crash_among_many_is_noticed_by_all_a_few_milliseconds_after_the_first() {
    let mut all = Vec::new();
    for seed in 0..5 {
        let mut network = Network::with_nodes(64, seed);

        network.crash(64);
        let first = network
            .time_until(secs(10), |network| network.count(is_down) > 0)
            .unwrap();
        let rest = network
            .time_until(secs(10), |network| network.all_think(64, false))
            .unwrap();

        assert!(rest <= Duration::from_millis(20), "{rest:?}");
        all.push(first + rest);
    }
    all.sort();
    assert!(all[2] <= Duration::from_millis(2_500), "{all:?}");
}

#[test]
fn an_idle_node_of_three_sends_at_most_600_bytes_a_second() {
    let mut network = Network::with_nodes(3, 5);
    network.run(secs(10));
    network.forget_what_was();

    network.run(secs(300));

    for (node, bytes) in &network.bytes_sent {
        let rate = bytes / 300;
        assert!(rate <= 600, "{node} sent {rate} B/s");
    }
    assert!(network.events.is_empty());
}

#[test]
fn a_lone_node_sends_nothing() {
    let mut network = Network::new(Config::lan(), 5);
    network.start(identity(1, 1));

    network.run(secs(100));

    assert!(network.bytes_sent.is_empty());
}

#[test]
fn no_healthy_node_is_taken_for_down_whatever_is_lost() {
    for loss in [0.0, 0.1, 0.3] {
        let mut network = Network::with_nodes(16, 7);
        network.loss = loss;

        network.run(secs(300));

        assert_eq!(network.count(is_down), 0, "at loss {loss}");
        let suspected: u64 = network
            .nodes
            .values()
            .map(|machine| machine.stats().suspected)
            .sum();
        match loss {
            0.0 => assert_eq!(suspected, 0),
            0.3 => assert!(suspected > 10, "{suspected}"),
            _ => {}
        }
    }
}

#[test]
fn a_refuted_suspicion_does_not_make_a_healthy_node_return() {
    let mut network = Network::with_nodes(16, 8);
    network.loss = 0.3;

    network.run(secs(200));

    assert_eq!(network.count(|event| matches!(event, Event::Renewed(_))), 0);
    let refuted: u64 = network
        .nodes
        .values()
        .map(|machine| machine.stats().refuted)
        .sum();
    assert!(refuted > 0);
}

#[test]
fn a_leave_is_known_to_all_at_once_and_is_not_undone() {
    let mut network = Network::with_nodes(16, 9);
    network.loss = 0.3;

    network.on(5, Membership::leave);
    let took = network.time_until(secs(1), |network| {
        network.count(|event| *event == Event::Left(id(5))) == 15
    });
    network.run(secs(60));

    assert!(took.unwrap() < Duration::from_millis(100), "{took:?}");
    assert_eq!(network.count(|event| *event == Event::Up(id(5))), 0);
    assert!(network.all_think(5, false));
}

#[test]
fn stale_gossip_does_not_bring_back_who_left_but_a_new_boot_does() {
    let mut network = Network::with_nodes(4, 10);
    let stale = network.nodes[&id(1)].list();
    network.on(4, Membership::leave);
    network.run(secs(1));
    network.crash(4);
    network.forget_what_was();

    for number in 1..=3 {
        let stale = stale.clone();
        network.on(number, |machine, now| machine.apply(now, stale));
    }
    network.run(secs(30));
    assert!(network.events.is_empty(), "{:?}", network.events);
    network.join(4, 2, 1);
    network.run(secs(1));

    network.assert_all_alive();
    assert_eq!(
        network.events_at(2),
        [Event::Moved(id(4), addr(4)), Event::Up(id(4))]
    );
}

#[test]
fn a_restart_is_seen_as_a_move_while_nobody_has_noticed_the_crash() {
    let mut network = Network::with_nodes(3, 11);

    network.crash(3);
    network.join(3, 2, 1);
    network.run(secs(5));

    network.assert_all_alive();
    assert_eq!(network.events_at(2), [Event::Moved(id(3), addr(3))]);
}

#[test]
fn a_restart_at_another_address_is_seen_as_a_move_and_an_up() {
    let mut network = Network::with_nodes(3, 12);
    network.crash(3);
    network.run(secs(5));
    network.forget_what_was();

    let elsewhere = Identity {
        addr: addr(77),
        ..identity(3, 2)
    };
    let list = network.nodes[&id(1)].list();
    network.start(elsewhere);
    network.on(3, |machine, now| machine.apply(now, list));
    network.run(secs(1));

    network.assert_all_alive();
    assert_eq!(
        network.events_at(2),
        [Event::Moved(id(3), addr(77)), Event::Up(id(3))]
    );
    assert_eq!(network.nodes[&id(2)].address(id(3)), Some(addr(77)));
}

#[test]
fn a_node_declared_down_though_it_lives_returns_by_itself() {
    let mut network = Network::with_nodes(5, 13);
    network.groups.insert(id(5), 1);
    network.run(secs(10));
    assert!(network.all_think(5, false));
    network.forget_what_was();

    network.groups.clear();
    let took = network.time_until(secs(60), Network::everyone_sees_everyone);

    assert!(took.unwrap() < secs(10), "{took:?}");
    let renewed = Identity {
        rejoin: 1,
        ..identity(5, 1)
    };
    assert!(network.events_at(5).contains(&Event::Renewed(renewed)));
}

#[test]
fn a_partition_of_any_length_heals() {
    let mut network = Network::with_nodes(16, 14);
    for number in 1..=8 {
        network.groups.insert(id(number), 1);
    }
    network.run(secs(600));
    assert_eq!(network.nodes[&id(1)].alive().count(), 7);

    network.groups.clear();
    let took = network.time_until(secs(60), Network::everyone_sees_everyone);

    assert!(took.unwrap() < secs(10), "{took:?}");
}

#[test]
fn a_node_that_slept_does_not_accuse_the_others() {
    let mut network = Network::with_nodes(8, 15);

    network.pause(3);
    network.run(secs(6));
    assert!(network.all_think(3, false));
    network.forget_what_was();
    network.resume(3);
    network.run(secs(10));

    network.assert_all_alive();
    assert_eq!(network.count(is_down), 0);
    assert!(network.nodes[&id(3)].stats().stalls > 0);
}

#[test]
fn two_nodes_with_one_id_are_reported() {
    let mut network = Network::with_nodes(4, 16);
    let clone = Identity {
        addr: addr(66),
        ..identity(3, 1)
    };
    let mut stranger = Membership::new(Config::lan(), clone, 1, network.now);
    stranger.apply(network.now, network.nodes[&id(1)].list());
    let announce = std::iter::from_fn(|| stranger.poll_transmit())
        .find(|outgoing| outgoing.to == id(1))
        .unwrap();

    network.on(1, |machine, now| {
        machine.handle_datagram(now, id(3), &announce.body).unwrap();
    });

    let clash = Event::Clash {
        node: id(3),
        holder: addr(3),
        other: addr(66),
    };
    assert_eq!(network.events_at(1), [clash]);
    assert_eq!(network.nodes[&id(1)].address(id(3)), Some(addr(3)));
}

#[test]
fn a_node_that_moves_to_and_fro_is_reported_as_two() {
    let mut network = Network::with_nodes(4, 17);

    for (boot, number) in [(2, 66), (3, 3)] {
        let moved = MemberState {
            identity: Identity {
                addr: addr(number),
                ..identity(3, boot)
            },
            incarnation: 0,
            state: State::Alive,
        };
        network.on(1, |machine, now| machine.apply(now, vec![moved]));
    }

    let clash = Event::Clash {
        node: id(3),
        holder: addr(3),
        other: addr(66),
    };
    assert!(network.events_at(1).contains(&clash));
}

#[test]
fn a_newcomer_with_a_taken_id_hears_of_it() {
    let network = Network::with_nodes(3, 18);
    let taken = network.nodes[&id(1)].list();
    let clone = Identity {
        addr: addr(66),
        ..identity(2, 1)
    };
    let mut stranger = Membership::new(Config::lan(), clone, 1, network.now);

    stranger.apply(network.now, taken);

    let clash = Event::Clash {
        node: id(2),
        holder: addr(2),
        other: addr(66),
    };
    let heard: Vec<_> = std::iter::from_fn(|| stranger.poll_event()).collect();
    // Which of two nodes of one boot counts is decided by address, so that all decide alike.
    assert_eq!(heard.contains(&clash), addr(2) > addr(66));
}

#[test]
fn what_is_remembered_of_gone_members_is_bounded() {
    let config = Config {
        remember_down_for: secs(300),
        ..Config::lan()
    };
    let mut now = Instant::from_start(secs(1));
    let mut machine = Membership::new(config, identity(1, 1), 1, now);
    let gone: Vec<MemberState> = (2..6_000)
        .map(|number| MemberState {
            identity: identity(number, 1),
            incarnation: 0,
            state: State::Down,
        })
        .collect();

    machine.apply(now, gone);
    assert_eq!(machine.members().count(), super::table::GONE_MAX);
    while now.since_start() < secs(400) {
        now = machine.poll_timeout().unwrap();
        machine.handle_timeout(now);
        while machine.poll_transmit().is_some() {}
    }

    assert_eq!(machine.members().count(), 0);
}

#[test]
fn the_same_seed_gives_the_same_story() {
    let story = |seed| {
        let mut network = Network::with_nodes(8, seed);
        network.loss = 0.2;
        network.crash(3);
        network.run(secs(20));
        (
            network.arrivals,
            network.bytes_sent,
            format!("{:?}", network.events),
        )
    };

    assert_eq!(story(19), story(19));
    assert_ne!(story(19), story(20));
}

#[test]
fn what_depends_on_the_size_follows_while_the_cluster_grows_and_shrinks() {
    let mut now = Instant::from_start(secs(1));
    let config = Config {
        copies: 1,
        ..Config::lan()
    };
    let mut machine = Membership::new(config, identity(1, 1), 1, now);
    let members = |numbers: std::ops::Range<u64>, state| -> Vec<MemberState> {
        let member = |number| MemberState {
            identity: identity(number, 1),
            incarnation: 0,
            state,
        };
        numbers.map(member).collect()
    };
    let mut known = 2;
    // SWIM §4.1: four times the logarithm, and six at least.
    for (nodes, rides) in [(20, 6), (200, 9), (2_000, 13)] {
        machine.apply(now, members(known..nodes + 1, State::Alive));
        known = nodes + 2;
        assert_eq!(machine.tuned().rides, rides, "among {nodes}");

        // So often is a change of now really sent.
        let news = members(nodes + 1..nodes + 2, State::Alive);
        machine.take_in(now, Some(id(2)), news.clone());
        let mut sent = 0;
        // No member is held for down by then, though none answers.
        let until = now + secs(1);
        while let Some(next) = machine.poll_timeout().filter(|next| *next < until) {
            now = next;
            machine.handle_timeout(now);
            sent += rides_of(&mut machine, news[0].identity);
        }
        assert_eq!(sent, usize::from(rides), "among {nodes}");
    }

    machine.apply(now, members(4..2_001, State::Left));
    assert_eq!(machine.tuned().rides, 6);
}

/// Returns how many of the packets that go out now carry a change of a member that is alive.
fn rides_of(machine: &mut Membership, member: Identity) -> usize {
    let ours = machine.identity().node;
    let packets = std::iter::from_fn(|| machine.poll_transmit());
    packets
        .filter(|outgoing| outgoing.kind == RecordKind::FOCA)
        .filter(|outgoing| {
            let to = identity(outgoing.to.0, 1);
            let mut bytes = Vec::new();
            write_preamble(&mut bytes, ours, to);
            bytes.extend_from_slice(&outgoing.body);
            let told = Packet::read(&bytes).unwrap().members;
            told.iter()
                .any(|told| told.identity == member && told.state == State::Alive)
        })
        .count()
}
