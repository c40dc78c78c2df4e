//! A node crashes: how long until the first other has noticed, and until its entry is hidden everywhere.

use std::{ops::Range, time::Duration};

use weft::sim::{
    Tally,
    world::{draw, id_of},
};

use super::{
    Cell, NETWORK, Sample, Watched,
    observe::{rest, settle},
};

/// For how long it is counted what nodes send while nothing happens.
const COUNT_FOR: Duration = Duration::from_secs(2);
/// How long it is waited until all have noticed, and how often it is looked.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the node has to come back before the next one crashes.
const BACK_FOR: Duration = Duration::from_secs(5);

/// Takes a sample a seed.
pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    let mut world = cell.world(seeds.start, 0);
    settle(&mut world);
    seeds.map(|_| sample(&mut world)).collect()
}

fn sample(world: &mut Watched) -> Sample {
    let nodes = world.machines.len();
    let at = draw(&mut world.rng, nodes);
    let (address, value) = world.draw_entry(NETWORK);
    world.put(at, address.clone(), value);
    rest(world);
    let before = Tally::of(world);
    world.run_for(COUNT_FOR);
    let sent = Tally::of(world).since(&before).bytes as f64;
    let well_before = world.observer.take_downs().len();

    world.observer.forget_delays();
    let others = (0..nodes).filter(|other| *other != at);
    let hidden = (address.clone(), None);
    world.observer.expect(world.now(), hidden, others);
    world.crash(at);
    world.run_until(LOOK_EVERY, LIMIT, |world| world.observer.awaited() == 0);
    let unseen = world.observer.give_up();
    let downs = world.observer.take_downs();
    let false_downs = downs.iter().filter(|(_, node)| *node != id_of(at)).count() + well_before;
    let (took, first) = (
        world.observer.all().longest(),
        world.observer.all().quantile(0.0),
    );

    world.start(at);
    world.run_for(BACK_FOR);
    world.delete(at, &address);
    rest(world);
    Sample {
        case: "crash",
        took,
        first,
        bytes_per_node_s: Some(sent / COUNT_FOR.as_secs_f64() / nodes as f64),
        false_downs: Some(false_downs as u64),
        violations: unseen as u64 + false_downs as u64,
        ..Sample::default()
    }
}
