//! Nodes that join through one at once: how long until every node sees all.
//!
//! Certificates and the leader's part are left out: each gets the list of members that the seed has at that moment.

use std::{ops::Range, time::Duration};

use rand::RngExt;
use weft::sim::{Arrivals, Tally, World};

use super::{Cell, Sample, Watched};

/// Within what time all come.
const COME_WITHIN: f64 = 0.1;
/// How long it is waited until all see all, and how often it is looked.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    seeds.map(|seed| sample(cell, seed)).collect()
}

fn sample(cell: &Cell, seed: u64) -> Sample {
    let mut world = World::bare(seed, cell.nodes, Arrivals::default(), cell.settings());
    world.links.loss = cell.loss_pct / 100.0;
    world.start(0);
    world.run_for(Duration::from_secs(1));
    let (began, before) = (world.now(), Tally::of(&world));
    let mut comes: Vec<Duration> = (1..cell.nodes)
        .map(|_| Duration::from_secs_f64(world.rng.random_range(0.0..COME_WITHIN)))
        .collect();
    comes.sort_unstable();
    for (at, comes) in (1..).zip(comes) {
        let due = began + comes;
        world.run_for(due.saturating_duration_since(world.now()));
        world.join(at, 0);
    }
    let seen = world.run_until(LOOK_EVERY, LIMIT, |world| all_see_all(world));
    let took = world.now().saturating_duration_since(began);
    let false_downs = world.observer.take_downs().len() as u64;
    let sent = Tally::of(&world).since(&before).bytes as f64;
    Sample {
        case: "join",
        took: seen.map(|_| took),
        bytes_per_node: Some(sent / cell.nodes as f64),
        false_downs: Some(false_downs),
        violations: u64::from(seen.is_none()) + false_downs,
        ..Sample::default()
    }
}

fn all_see_all(world: &Watched) -> bool {
    let all = world.machines.len();
    let mut nodes = world
        .machines
        .iter()
        .filter_map(|machine| machine.node.as_ref());
    nodes.all(|node| node.membership().alive().count() + 1 == all)
}
