//! The simulator's runs: fifty seeds on every change, and what shows that they are worth something.

use std::time::Duration;

use cluster_tests::sim::{Chaos, Counts};
use weft::{
    core::model::{Key, NetworkId, TableName, Value},
    sim::World,
};

/// Seeds that once failed: they are run for ever.
const KEPT: &[u64] = &[67, 125];

#[test]
fn fifty_seeds_of_chaos_end_in_calm_and_their_faults_really_happen() {
    let run = |seed| match Chaos::new(seed).run() {
        Ok(report) => report.counts,
        Err(violation) => panic!("seed {seed}: {violation}"),
    };

    let counts: Vec<Counts> = KEPT.iter().copied().chain(0..50).map(run).collect();

    let total = |count: fn(&Counts) -> u64| counts.iter().map(count).sum::<u64>();
    assert!(total(|c| c.crashes) > 20);
    assert!(total(|c| c.partitions) > 20);
    assert!(total(|c| c.lost) > 1_000);
    assert!(total(|c| c.duplicated) > 1_000);
    assert!(total(|c| c.pauses) > 20);
    assert!(total(|c| c.clock_steps) > 20);
    assert!(total(|c| c.requests) > 1_000);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 17] {
        let first = Chaos::new(seed).run();
        let second = Chaos::new(seed).run();

        assert_eq!(first, second);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let one = Chaos::new(1).run().unwrap();
    let other = Chaos::new(7).run().unwrap();

    assert_ne!(one.trace, other.trace);
}

#[test]
fn one_change_reaches_25_nodes_within_15_ms() {
    let mut world = World::new(25, 25);
    let network = NetworkId(1);
    for at in 0..25 {
        world.attach(at, network);
    }
    world.run_for(Duration::from_secs(5));
    let (table, key) = (
        TableName::new("t").unwrap(),
        Key::new(b"k".to_vec()).unwrap(),
    );

    world
        .put(0, (network, table, key), Value::new(b"v".to_vec()).unwrap())
        .unwrap();
    let took = world.run_until(
        Duration::from_micros(100),
        Duration::from_secs(1),
        |world| {
            let seen = |at: &usize| {
                let node = world.machines[*at].node.as_ref().unwrap();
                node.get(network, "t", b"k").is_some()
            };
            (0..25).filter(seen).count() == 25
        },
    );

    assert!(
        took.is_some_and(|took| took <= Duration::from_millis(15)),
        "{took:?}"
    );
}
