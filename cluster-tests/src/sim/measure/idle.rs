//! What nodes send while nothing happens, by how many entries they hold.

use std::{ops::Range, time::Duration};

use weft::sim::Tally;

use super::{Cell, Sample};

/// How long is waited before it is counted, and how long it is.
const SETTLE_FOR: Duration = Duration::from_secs(10);
const COUNT_FOR: Duration = Duration::from_secs(60);

pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    seeds.map(|seed| sample(cell, seed)).collect()
}

/// The bytes of a sample are those of one node in one second; a node held for down although it is well is a violation.
fn sample(cell: &Cell, seed: u64) -> Sample {
    let mut world = cell.world(seed, cell.entries);
    world.run_for(SETTLE_FOR);
    let before = Tally::of(&world);
    world.run_for(COUNT_FOR);
    let tally = Tally::of(&world).since(&before);
    let node_seconds = cell.nodes as f64 * COUNT_FOR.as_secs_f64();
    Sample {
        case: cell.profile.name(),
        bytes_per_node: Some(tally.bytes as f64 / node_seconds),
        violations: world.observer.take_downs().len() as u64,
        ..Sample::default()
    }
}
