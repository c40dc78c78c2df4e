//! One write while others write and nodes leave the network and join it again: networkdb's churn test.
//!
//! Every 20 ms another node makes eight entries, and every fifth time one of those that come and go does so. One tracked write is
//! to reach all that stay.

use std::{ops::Range, time::Duration};

use rand::RngExt;
use weft::sim::{Tally, world::draw};

use super::{Cell, NETWORK, Sample, Watched, observe::settle};

const STEP: Duration = Duration::from_millis(20);
const STEPS: usize = 250;
const WRITES_A_STEP: usize = 8;
const STEPS_A_MOVE: usize = 5;
/// One node in so many comes and goes.
const MOVERS: usize = 5;
/// How long after the churn the tracked write may still come, and then all must agree.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    seeds.map(|seed| sample(cell, seed)).collect()
}

fn sample(cell: &Cell, seed: u64) -> Sample {
    let mut world = cell.world(seed, 0);
    settle(&mut world);
    let movers = cell.nodes / MOVERS;
    let stable = cell.nodes - movers;
    let tracked = world.rng.random_range(STEPS / 5..STEPS * 4 / 5);
    let before = Tally::of(&world);

    for step in 0..STEPS {
        junk(&mut world, step % cell.nodes);
        if step % STEPS_A_MOVE == 0 && movers > 0 {
            let at = stable + step / STEPS_A_MOVE % movers;
            if world.machines[at].disk.attached.contains(&NETWORK) {
                world.detach(at, NETWORK);
            } else {
                world.attach(at, NETWORK);
            }
        }
        let part = STEP.mul_f64(world.rng.random_range(0.0..1.0));
        world.run_for(part);
        if step == tracked {
            track(&mut world, stable);
        }
        world.run_for(STEP - part);
    }

    let tally = Tally::of(&world).since(&before);
    let seen = world.run_until(STEP, LIMIT, |world| world.observer.awaited() == 0);
    let agreed = world.run_until(STEP * 10, LIMIT, agree);
    Sample {
        took: world.observer.all().longest(),
        copies_per_node: tally.copies(0),
        diverged: Some(agreed.is_none()),
        violations: u64::from(seen.is_none()),
        ..Sample::default()
    }
}

/// Makes entries that nobody waits for; a machine that is not attached makes none.
fn junk(world: &mut Watched, at: usize) {
    for _ in 0..WRITES_A_STEP {
        let (address, value) = world.draw_entry(NETWORK);
        world.put(at, address, value);
    }
}

/// Writes what is to reach all that stay.
fn track(world: &mut Watched, stable: usize) {
    let (address, value) = world.draw_entry(NETWORK);
    let writer = draw(&mut world.rng, stable);
    let awaited = (address.clone(), Some(value.clone()));
    let others = (0..stable).filter(|at| *at != writer);
    world.observer.expect(world.now(), awaited, others);
    world.put(writer, address, value);
}

/// Returns whether all that are attached show the same.
fn agree(world: &mut Watched) -> bool {
    let nodes = world.machines.iter_mut().filter_map(|at| at.node.as_mut());
    let mut roots = nodes.filter_map(|node| node.root(NETWORK));
    let first = roots.next();
    roots.all(|root| Some(root) == first)
}
