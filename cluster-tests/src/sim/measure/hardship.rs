//! Nodes that are well while others are not: some get no processor, are cut off one way or both, again and again. How often one
//! that is well is held for down by one that is well and connected with it, or by one that only got no processor.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use rand::RngExt;
use weft::{
    core::model::Instant,
    sim::{
        Tally,
        world::{draw, machine_of},
    },
};

use super::{Cell, Sample, Watched, observe::settle};

/// How long it is looked on at each hardship, and how often.
const LOOK_FOR: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(100);
/// How long a hardship lasts, and how long there is none; in seconds, short ones as often as long ones.
const LASTS: Range<f64> = 0.1..10.0;
const RESTS: Range<f64> = 0.1..5.0;
/// What comes of a hardship is over so long after its end.
const OVER_AFTER: Duration = Duration::from_secs(2);

/// What some of the nodes suffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hardship {
    /// Up to a third of the nodes get no processor, each for a time of its own.
    Starved,
    /// A node hears nobody, and is heard.
    Deaf,
    /// A node is heard by nobody, and hears.
    Mute,
    /// Up to as many links as there are nodes let pass nothing in one direction.
    OneWay,
    /// Up to an eighth of the nodes, and one at least, are cut off from the others, and not from each other.
    Apart,
}

impl Hardship {
    const ALL: [Self; 5] = [
        Self::Starved,
        Self::Deaf,
        Self::Mute,
        Self::OneWay,
        Self::Apart,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Starved => "starved",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::OneWay => "one way",
            Self::Apart => "apart",
        }
    }
}

/// Takes a sample of each hardship a seed, and one of all of them.
pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    let each = Hardship::ALL.map(|one| (one.name(), vec![one]));
    let kinds: Vec<_> = each
        .into_iter()
        .chain([("any", Hardship::ALL.to_vec())])
        .collect();
    let of_seed = |seed| kinds.iter().map(move |kind| (seed, kind));
    seeds
        .flat_map(of_seed)
        .map(|(seed, (case, kinds))| sample(cell, seed, (case, kinds)))
        .collect()
}

fn sample(cell: &Cell, seed: u64, (case, kinds): (&'static str, &[Hardship])) -> Sample {
    let mut world = cell.world(seed, 0);
    settle(&mut world);
    world.observer.take_downs();
    let before = Tally::of(&world);
    let mut looker = Looker::default();
    let end = world.now() + LOOK_FOR;
    while world.now() < end {
        looker.look_for(&mut world, RESTS);
        let kind = kinds[draw(&mut world.rng, kinds.len())];
        looker.begin(&mut world, kind);
        looker.look_for(&mut world, LASTS);
        looker.end(&mut world);
    }
    looker.look_on(&mut world, OVER_AFTER);
    let sent = Tally::of(&world).since(&before).bytes as f64;
    Sample {
        case,
        bytes_per_node_s: Some(sent / LOOK_FOR.as_secs_f64() / cell.nodes as f64),
        false_downs: Some(looker.false_downs),
        violations: looker.false_downs,
        ..Sample::default()
    }
}

/// Looks on, and knows who has a reason to hold whom for down.
#[derive(Default)]
struct Looker {
    /// Which links are cut: from, to.
    cut: BTreeSet<(usize, usize)>,
    /// Until when one machine has a reason to hold another for down.
    excused: BTreeMap<(usize, usize), Instant>,
    false_downs: u64,
}

impl Looker {
    fn begin(&mut self, world: &mut Watched, kind: Hardship) {
        let nodes = world.machines.len();
        match kind {
            Hardship::Starved => {
                let count = 1 + draw(&mut world.rng, (nodes / 3).max(1));
                for at in some(world, count) {
                    let pause = drawn(world, LASTS);
                    world.pause(at, pause);
                    // It has none to hold others for down.
                    for other in 0..nodes {
                        self.excuse((other, at), world.now() + pause);
                    }
                }
            }
            Hardship::Deaf => {
                let at = draw(&mut world.rng, nodes);
                self.cut
                    .extend((0..nodes).filter(|o| *o != at).map(|o| (o, at)));
            }
            Hardship::Mute => {
                let at = draw(&mut world.rng, nodes);
                self.cut
                    .extend((0..nodes).filter(|o| *o != at).map(|o| (at, o)));
            }
            Hardship::OneWay => {
                for _ in 0..=draw(&mut world.rng, nodes) {
                    let pair = (draw(&mut world.rng, nodes), draw(&mut world.rng, nodes));
                    self.cut.insert(pair);
                }
            }
            Hardship::Apart => {
                let count = 1 + draw(&mut world.rng, (nodes / 8).max(1));
                let side = some(world, count);
                for &inside in &side {
                    for outside in (0..nodes).filter(|other| !side.contains(other)) {
                        self.cut.extend([(inside, outside), (outside, inside)]);
                    }
                }
            }
        }
        for &(from, to) in &self.cut {
            world.links.cut(from, to);
        }
    }

    fn end(&mut self, world: &mut Watched) {
        world.links.heal();
        for (from, to) in std::mem::take(&mut self.cut) {
            self.excuse((from, to), world.now());
            self.excuse((to, from), world.now());
        }
    }

    /// Until what comes of that is over.
    fn excuse(&mut self, pair: (usize, usize), until: Instant) {
        let known = self.excused.entry(pair).or_default();
        *known = (until + OVER_AFTER).max(*known);
    }

    fn look_for(&mut self, world: &mut Watched, range: Range<f64>) {
        let duration = drawn(world, range);
        self.look_on(world, duration);
    }

    fn look_on(&mut self, world: &mut Watched, duration: Duration) {
        let end = world.now() + duration;
        while world.now() < end {
            let left = end.saturating_duration_since(world.now());
            world.run_for(left.min(STEP));
            for (at, node) in world.observer.take_downs() {
                let pair = (at, machine_of(node));
                let excused = self
                    .excused
                    .get(&pair)
                    .is_some_and(|until| world.now() <= *until);
                let is_cut = self.cut.contains(&pair) || self.cut.contains(&(pair.1, pair.0));
                self.false_downs += u64::from(!excused && !is_cut);
            }
        }
    }
}

/// Draws some of the machines.
fn some(world: &mut Watched, count: usize) -> BTreeSet<usize> {
    let nodes = world.machines.len();
    let mut drawn = BTreeSet::new();
    while drawn.len() < count {
        drawn.insert(draw(&mut world.rng, nodes));
    }
    drawn
}

/// Draws a time, short ones as often as long ones.
fn drawn(world: &mut Watched, range: Range<f64>) -> Duration {
    let exponent = world.rng.random_range(range.start.ln()..range.end.ln());
    Duration::from_secs_f64(exponent.exp())
}
