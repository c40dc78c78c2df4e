//! Many entries created at once by one node, until all nodes have all.

use std::{ops::Range, time::Duration};

use weft::{
    core::model::Value,
    sim::{Address, world::draw},
};

use super::{
    Cell, NETWORK, Sample,
    observe::{observe, settle},
};

/// How long it is waited for all to arrive.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    seeds.map(|seed| sample(cell, seed)).collect()
}

fn sample(cell: &Cell, seed: u64) -> Sample {
    let mut world = cell.world(seed, 0);
    settle(&mut world);
    let writer = draw(&mut world.rng, cell.nodes);
    let entries: Vec<(Address, Value)> = (0..cell.entries)
        .map(|_| world.draw_entry(NETWORK))
        .collect();
    let lens = entries
        .iter()
        .map(|((_, _, key), value)| key.as_bytes().len() + value.as_bytes().len());
    let content = lens.sum::<usize>() * (cell.nodes - 1);

    let seen = observe(&mut world, LIMIT, |world| {
        for (address, value) in entries {
            let others = (0..cell.nodes).filter(|at| *at != writer);
            let awaited = (address.clone(), Some(value.clone()));
            world.observer.expect(world.now(), awaited, others);
            world.put(writer, address, value);
        }
    });

    let nodes = world.machines.iter().filter_map(|at| at.node.as_deref());
    let overflows: u64 = nodes.map(|node| node.stats().netdb.overflows).sum();
    tracing::debug!(seed, overflows, overrun = world.counts.overrun, "burst");
    Sample {
        copies_per_node: seen.tally.copies(cell.entries as u64),
        times_content: Some(seen.bytes / content as f64),
        ..seen.sample("", cell.nodes)
    }
}
