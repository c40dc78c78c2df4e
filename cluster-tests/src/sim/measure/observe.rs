//! Observing one change in a quiet world: how long it takes to all who are to see it, and what is sent for it.

use std::time::Duration;

use rand::RngExt;
use weft::sim::Tally;

use super::{Sample, Watched};

/// How long worlds run before they are looked at: until nodes have noticed how much is lost; of a few members they hear less.
const SETTLE_FOR: Duration = Duration::from_secs(5);
const SETTLE_MANY_FOR: Duration = Duration::from_secs(2);
/// How long after a change bytes are counted: the last that is sent for it follows after 25 ms, but for losses.
const COUNT_FOR: Duration = Duration::from_millis(75);
const COUNT_LOSSES_FOR: Duration = Duration::from_millis(250);
/// More nodes than these are many, and need no more than a short rest.
const MANY: usize = 200;
/// How often it is looked whether all has arrived; when it did is noted exactly.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Lets a new world run until it may be looked at.
pub(super) fn settle(world: &mut Watched) {
    world.run_for(if world.machines.len() > MANY {
        SETTLE_MANY_FOR
    } else {
        SETTLE_FOR
    });
}

/// Lets nothing happen for a while, drawn anew each time so that changes meet all phases of what is periodic; many nodes are in
/// all phases at any time. Returns how many bytes a second the world sends.
pub(super) fn rest(world: &mut Watched) -> f64 {
    let longest = if world.machines.len() > MANY {
        120
    } else {
        1500
    };
    let millis = world.rng.random_range(longest / 3..longest);
    let duration = Duration::from_millis(millis);
    let before = Tally::of(world);
    world.run_for(duration);
    Tally::of(world).since(&before).bytes as f64 / duration.as_secs_f64()
}

/// What a change was observed to be.
pub(super) struct Observed {
    /// How long until all that was awaited had arrived; nothing if it has not.
    pub(super) took: Option<Duration>,
    /// What was sent for it, beyond what is sent all the time.
    pub(super) bytes: f64,
    /// All that was sent and received meanwhile.
    pub(super) tally: Tally,
}

/// Rests, then lets `change` happen, which says what it expects, and looks on until it has, or for `limit`.
pub(super) fn observe(
    world: &mut Watched,
    limit: Duration,
    change: impl FnOnce(&mut Watched),
) -> Observed {
    let idle = rest(world);
    world.observer.give_up();
    world.observer.forget_delays();
    let (before, began) = (Tally::of(world), world.now());
    change(world);
    let waited = world.run_until(LOOK_EVERY, limit, |world| world.observer.awaited() == 0);
    let unseen = world.observer.give_up();
    let took = world.observer.each().longest();
    let count_for = if world.links.loss > 0.0 {
        COUNT_LOSSES_FOR
    } else {
        COUNT_FOR
    };
    world.run_for(count_for.saturating_sub(waited.unwrap_or(limit)));
    let tally = Tally::of(world).since(&before);
    let lasted = world.now().saturating_duration_since(began);
    Observed {
        took: took.filter(|_| unseen == 0),
        bytes: (tally.bytes as f64 - idle * lasted.as_secs_f64()).max(0.0),
        tally,
    }
}

impl Observed {
    /// Makes a sample of it, in a world of so many nodes.
    pub(super) fn sample(&self, case: &'static str, nodes: usize) -> Sample {
        Sample {
            case,
            took: self.took,
            bytes_per_node: Some(self.bytes / nodes as f64),
            violations: u64::from(self.took.is_none()),
            ..Sample::default()
        }
    }
}
