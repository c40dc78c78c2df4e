//! Nodes that are well, beside some that get no processor: how often one is held for down all the same.

use std::{ops::Range, time::Duration};

use rand::RngExt;
use weft::{
    core::model::Instant,
    sim::{
        Tally,
        world::{draw, machine_of},
    },
};

use super::{Cell, Sample};

/// How long it is looked on, and in what steps.
const LOOK_FOR: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_millis(500);
/// One in so many nodes is starved, and at least one.
const STARVED: usize = 50;
/// How long a starved node stands still; each pause is drawn, short ones as often as long ones.
const PAUSES: Range<f64> = 0.1..10.0;
/// In which part of the steps a starved node that runs stands still again.
const AGAIN: f64 = 0.2;

pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    seeds.map(|seed| sample(cell, seed)).collect()
}

fn sample(cell: &Cell, seed: u64) -> Sample {
    let mut world = cell.world(seed, 0);
    let count = (cell.nodes / STARVED).max(1);
    let mut starved = Vec::new();
    while starved.len() < count {
        let at = draw(&mut world.rng, cell.nodes);
        if !starved.contains(&at) {
            starved.push(at);
        }
    }
    let mut paused_until = vec![Instant::default(); cell.nodes];
    let before = Tally::of(&world);
    let end = world.now() + LOOK_FOR;
    let mut false_downs = 0;
    while world.now() < end {
        for &at in &starved {
            if paused_until[at] <= world.now() && world.rng.random_bool(AGAIN) {
                let exponent = world.rng.random_range(PAUSES.start.ln()..PAUSES.end.ln());
                let pause = Duration::from_secs_f64(exponent.exp());
                paused_until[at] = world.now() + pause;
                world.pause(at, pause);
            }
        }
        world.run_for(STEP);
        let downs = world.observer.take_downs();
        let of_well = |(_, node): &&(_, _)| !starved.contains(&machine_of(*node));
        false_downs += downs.iter().filter(of_well).count() as u64;
    }
    let sent = Tally::of(&world).since(&before).bytes as f64;
    Sample {
        case: "falsedown",
        bytes_per_node_s: Some(sent / LOOK_FOR.as_secs_f64() / cell.nodes as f64),
        false_downs: Some(false_downs),
        violations: false_downs,
        ..Sample::default()
    }
}
