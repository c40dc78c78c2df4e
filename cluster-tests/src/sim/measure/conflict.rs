//! Two writers of one key at the same instant: all must show the same, and soon.

use std::{ops::Range, time::Duration};

use weft::{
    core::model::Value,
    sim::{Address, world::draw},
};

use super::{Cell, NETWORK, Sample, Watched, observe::observe};

/// How long it is waited until all show the later write.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    seeds.map(|seed| sample(cell, seed)).collect()
}

fn sample(cell: &Cell, seed: u64) -> Sample {
    let mut world = cell.world(seed, 0);
    let first = draw(&mut world.rng, cell.nodes);
    let second = (first + 1 + draw(&mut world.rng, cell.nodes - 1)) % cell.nodes;
    let (address, value) = world.draw_entry(NETWORK);
    let (_, other) = world.draw_entry(NETWORK);

    let seen = observe(&mut world, LIMIT, |world| {
        let one = world.put(first, address.clone(), value.clone());
        let two = world.put(second, address.clone(), other.clone());
        // Who wrote later wins, the greater node if both wrote at once.
        let order = |version: Option<weft::core::netdb::Version>| {
            version.map(|version| (version.written, version.log.owner))
        };
        let (winner, shown) = if order(one) > order(two) {
            (first, value)
        } else {
            (second, other)
        };
        let others = (0..cell.nodes).filter(|at| *at != winner);
        let awaited = (address.clone(), Some(shown));
        world.observer.expect(world.now(), awaited, others);
    });

    Sample {
        diverged: Some(!is_one(&world, &address)),
        ..seen.sample("", cell.nodes)
    }
}

/// Returns whether all machines show the same value, and show one.
fn is_one(world: &Watched, (network, table, key): &Address) -> bool {
    let shown = |machine: &weft::sim::Machine| -> Option<Value> {
        let node = machine.node.as_ref()?;
        Some(node.get(*network, table.as_str(), key.as_bytes())?.value)
    };
    let mut values = world.machines.iter().map(shown);
    let first = values.next().flatten();
    first.is_some() && values.all(|value| value == first)
}
