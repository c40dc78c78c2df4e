//! libnetwork's load cases of the network DB, N46 to N51, in virtual time: what all nodes write, delete and leave behind.
//!
//! After each, every node and every watcher of everything shows what its owners have, and nothing waits anywhere.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, time::Duration};

use cluster_tests::sim::{Checkers, World, check};
use weft::core::model::{Key, NetworkId, TableName, Value};

const NODES: usize = 5;
const NETWORKS: [NetworkId; 2] = [NetworkId(1), NetworkId(2)];
/// How many rounds every node writes in, one entry a network and round.
const ROUNDS: u32 = 40;
const ROUND: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_secs(10);

#[test]
fn n46_what_all_write_and_delete_is_gone_everywhere() {
    let mut world = joined(46);
    for round in 0..ROUNDS {
        write(&mut world, round, 0..NODES);
        delete(&mut world, round, 0..NODES);
    }
    expect(&mut world, |_| 0);
}

#[test]
fn n47_what_all_write_is_everywhere() {
    let mut world = joined(47);
    for round in 0..ROUNDS {
        write(&mut world, round, 0..NODES);
    }
    expect(&mut world, |_| NODES * ROUNDS as usize);
}

#[test]
fn n48_what_was_deleted_does_not_come_back_with_a_leave_and_a_join() {
    for wait in [Duration::ZERO, Duration::from_secs(3)] {
        let mut world = joined(48);
        for round in 0..ROUNDS {
            write(&mut world, round, 0..NODES);
            delete(&mut world, round, 0..NODES);
        }
        world.run_for(wait);
        leave_networks(&mut world, 0..NODES);
        join_networks(&mut world, 0..NODES);
        expect(&mut world, |_| 0);
    }
}

#[test]
fn n49_entries_of_those_that_leave_a_network_go_with_them() {
    let mut world = joined(49);
    for round in 0..ROUNDS {
        write(&mut world, round, 0..NODES);
    }
    world.run_for(Duration::from_secs(3));
    leave_networks(&mut world, 0..2);
    expect(
        &mut world,
        |at| if at < 2 { 0 } else { 3 * ROUNDS as usize },
    );
}

#[test]
fn n50_who_rejoins_has_the_others_entries_and_none_of_its_former_ones() {
    let mut world = joined(50);
    for round in 0..ROUNDS {
        write(&mut world, round, 0..NODES);
    }
    world.run_for(Duration::from_secs(3));
    leave_networks(&mut world, 0..2);
    join_networks(&mut world, 0..2);
    write(&mut world, ROUNDS, 0..1);
    expect(&mut world, |_| 3 * ROUNDS as usize + 1);
}

/// A world of nodes that are attached to all networks.
fn joined(seed: u64) -> World {
    let mut world = World::observed(seed, NODES, Checkers::default());
    world.run_for(Duration::from_secs(1));
    join_networks(&mut world, 0..NODES);
    world.run_for(SETTLE);
    world
}

fn join_networks(world: &mut World, nodes: std::ops::Range<usize>) {
    for (at, network) in nodes.flat_map(|at| NETWORKS.map(|network| (at, network))) {
        world.attach(at, network);
    }
}

fn leave_networks(world: &mut World, nodes: std::ops::Range<usize>) {
    for (at, network) in nodes.flat_map(|at| NETWORKS.map(|network| (at, network))) {
        world.detach(at, network);
    }
}

fn address(at: usize, network: NetworkId, round: u32) -> (NetworkId, TableName, Key) {
    let key = format!("{at}/{round}").into_bytes();
    let table = TableName::new("t").unwrap();
    (network, table, Key::new(key).unwrap())
}

/// Every node writes a key of its own in every network.
fn write(world: &mut World, round: u32, nodes: std::ops::Range<usize>) {
    for (at, network) in nodes.flat_map(|at| NETWORKS.map(|network| (at, network))) {
        let value = Value::new(round.to_be_bytes().to_vec()).unwrap();
        world.put(at, address(at, network, round), value).unwrap();
    }
    world.run_for(ROUND);
}

/// Every node deletes what it wrote in that round.
fn delete(world: &mut World, round: u32, nodes: std::ops::Range<usize>) {
    for (at, network) in nodes.flat_map(|at| NETWORKS.map(|network| (at, network))) {
        world.delete(at, &address(at, network, round)).unwrap();
    }
}

/// Once it has settled, each node shows that many entries in each network, its watcher too, and nothing waits (N51).
fn expect(world: &mut World, entries: impl Fn(usize) -> usize) {
    world.run_for(SETTLE);
    check::converged(world).unwrap();
    check::mirrored(world).unwrap();
    for at in 0..NODES {
        let node = world.machines[at].node.as_ref().unwrap();
        let (listed, _) = node.list(&weft::core::watch::Filter::default());
        let mut shown: BTreeMap<NetworkId, usize> = BTreeMap::new();
        for entry in listed {
            *shown.entry(entry.network).or_default() += 1;
        }
        for network in NETWORKS {
            let shown = shown.get(&network).copied().unwrap_or(0);
            assert_eq!(shown, entries(at), "machine {at}, network {network}");
        }
        assert_eq!(node.stats().netdb.queued, 0, "machine {at}");
    }
}
