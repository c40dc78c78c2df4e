//! Neighbours on the ring, and how soon they notice.

use std::time::Duration;

use super::{is_down, network::*, secs};
use crate::core::membership::{Config, Stats};

fn sum(network: &Network, of: impl Fn(&Stats) -> u64) -> u64 {
    network.nodes.values().map(|node| of(node.stats())).sum()
}

/// Returns how long it takes at most until all have noticed a crash, of many.
fn longest(neighbour_silence: Duration) -> Duration {
    let config = Config {
        neighbour_silence,
        ..Config::lan()
    };
    (0..60)
        .map(|seed| {
            let mut network = Network::of(config.clone(), 10, seed);
            network.streams = true;
            network.run(Duration::from_millis(37 * seed));
            network.crash(1 + seed % 10);
            let crashed = 1 + seed % 10;
            network
                .time_until(secs(20), |network| network.all_think(crashed, false))
                .unwrap()
        })
        .max()
        .unwrap()
}

#[test]
fn no_crash_waits_for_chance() {
    let config = Config::lan();
    let spread = Duration::from_millis(50);
    let bound = config.neighbour_silence + config.probe_period + config.suspect_for + spread;

    let (with, without) = (longest(config.neighbour_silence), longest(secs(3600)));

    assert!(with <= bound, "{with:?}");
    assert!(without > bound, "{without:?}");
    assert!(bound < Duration::from_millis(2500));
}

#[test]
fn a_neighbour_that_only_others_reach_is_not_suspected() {
    let mut network = Network::with_nodes(8, 51);
    network.streams = true;
    let neighbours: Vec<_> = network.nodes[&id(1)].neighbours().collect();
    for neighbour in &neighbours {
        network.cut.insert((id(1), *neighbour));
        network.cut.insert((*neighbour, id(1)));
    }

    network.run(secs(60));

    assert_eq!(neighbours.len(), 2);
    assert_eq!(network.count(is_down), 0);
    assert!(network.nodes[&id(1)].stats().neighbours_asked > 50);
    assert_eq!(sum(&network, |stats| stats.suspected), 0);
}

#[test]
fn a_neighbour_that_is_heard_is_not_asked() {
    let mut network = Network::with_nodes(8, 52);
    let asked = |network: &Network| sum(network, |stats| stats.neighbours_asked);
    let mut hear = || {
        network.run(secs(1));
        for number in 1..=8 {
            let neighbours: Vec<_> = network.nodes[&id(number)].neighbours().collect();
            for neighbour in neighbours {
                network.on(number, |machine, now| machine.hear(now, neighbour));
            }
        }
        asked(&network)
    };
    let before = hear();
    assert!(before > 0);

    let after = (0..60).map(|_| hear()).last();

    assert_eq!(after, Some(before));
}
