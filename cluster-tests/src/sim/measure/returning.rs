//! A node that crashes, is cut off or stands still: how long until its entry is hidden everywhere, and, once it is back, until the
//! entry shows everywhere again.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use weft::core::model::Value;
use weft::sim::{
    Address,
    world::{draw, id_of},
};

use super::{
    Cell, NETWORK, Sample, Watched,
    observe::{rest, settle},
};

/// How long it is waited until all have noticed.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a node is away that nobody waits for: by then it is held for down.
const AWAY_FOR: Duration = Duration::from_secs(15);

/// Why a node is away.
#[derive(Clone, Copy)]
enum Away {
    Crash,
    Partition,
    Pause,
}

impl Away {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Crash => ("crash hidden", "crash back"),
            Self::Partition => ("partition hidden", "partition back"),
            Self::Pause => ("pause hidden", "pause back"),
        }
    }
}

/// Takes two samples of each reason a seed: hidden, and back.
pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    let mut world = cell.world(seeds.start, 0);
    settle(&mut world);
    let mut samples = Vec::new();
    for _ in seeds {
        for away in [Away::Crash, Away::Partition, Away::Pause] {
            samples.extend(sample(&mut world, away));
        }
    }
    samples
}

fn sample(world: &mut Watched, away: Away) -> [Sample; 2] {
    let at = draw(&mut world.rng, world.machines.len());
    let (address, value) = world.draw_entry(NETWORK);
    world.put(at, address.clone(), value.clone());
    rest(world);
    world.observer.take_downs();
    let (hidden, back) = away.names();

    let gone_at = world.now();
    let hidden = wait(
        world,
        at,
        (&address, None),
        (hidden, |world| match away {
            Away::Crash => world.crash(at),
            Away::Partition => {
                let nodes = world.machines.len();
                world.links.partition(&BTreeSet::from([at]), nodes);
            }
            Away::Pause => world.pause(at, AWAY_FOR),
        }),
    );
    let was_away = world.now().saturating_duration_since(gone_at);
    // A program that stands still goes on by itself; what is awaited is awaited from then on.
    world.run_for(AWAY_FOR.saturating_sub(was_away));
    let back = wait(
        world,
        at,
        (&address, Some(value)),
        (back, |world| match away {
            Away::Crash => world.start(at),
            Away::Partition => world.links.heal(),
            Away::Pause => {}
        }),
    );
    world.delete(at, &address);
    rest(world);
    [hidden, back]
}

/// Lets something happen to a machine, and waits until all others show its entry so. Another that is held for down meanwhile,
/// although it is well, is a violation.
fn wait(
    world: &mut Watched,
    at: usize,
    (address, shown): (&Address, Option<Value>),
    (case, act): (&'static str, impl FnOnce(&mut Watched)),
) -> Sample {
    world.observer.forget_delays();
    let others = (0..world.machines.len()).filter(|other| *other != at);
    world
        .observer
        .expect(world.now(), (address.clone(), shown), others);
    act(world);
    world.run_until(LOOK_EVERY, LIMIT, |world| world.observer.awaited() == 0);
    let unseen = world.observer.give_up();
    // Who is cut off holds all others for down, and rightly so.
    let downs = world.observer.take_downs();
    let false_downs = downs
        .iter()
        .filter(|(by, node)| *by != at && *node != id_of(at));
    Sample {
        case,
        took: world.observer.all().longest(),
        violations: unseen as u64 + false_downs.count() as u64,
        ..Sample::default()
    }
}
