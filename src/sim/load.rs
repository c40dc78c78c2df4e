//! A load: nodes that create, update and delete entries at random, and what that is like for all others. For planning.

use std::{ops::Range, time::Duration};

use rand::RngExt;

use super::{
    arrivals::Arrivals,
    delays::Delays,
    machine::Counts,
    observer::Address,
    settle::Settled,
    tally::Tally,
    world::{Settings, World, draw},
};
use crate::core::model::NetworkId;

/// The network that all nodes are attached to.
const NETWORK: NetworkId = NetworkId(1);
/// How long the nodes run before anything happens, and how long it is then counted what they send all the time.
const SETTLE_FOR: Duration = Duration::from_secs(2);
const IDLE_FOR: Duration = Duration::from_secs(2);
/// How long it is waited for the last events to arrive.
const ARRIVE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many of a hundred events are creates, and how many of them updates; the rest are deletes.
const CREATES: u32 = 50;
const UPDATES: u32 = 30;

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many entries there are before.
    pub entries: usize,
    /// How many events happen.
    pub events: u64,
    /// How many of them a second, on average.
    pub rate: f64,
    /// The share of datagrams that are lost.
    pub loss: f64,
    /// How long a datagram is under way.
    pub delay: Range<Duration>,
    /// Where all chance comes from.
    pub seed: u64,
    /// How every node is set up.
    pub settings: Settings,
}

/// What it was like.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long each event took to each node that did not cause it.
    pub each: Delays,
    /// How long each event took to the last of them.
    pub all: Delays,
    /// How long it lasted from the first event to the last arrival.
    pub lasted: Duration,
    /// What was sent and received in that time.
    pub tally: Tally,
    /// Bytes a second that all nodes together send while nothing happens.
    pub idle_bytes: f64,
    /// How many events did not reach every node.
    pub missing: usize,
    /// How many nodes do not show what the first one does.
    pub diverged: usize,
    /// How often what has happened in the whole run.
    pub counts: Counts,
}

impl Load {
    /// Runs it; `progress` hears how many events there were.
    pub fn run(&self, mut progress: impl FnMut(u64)) -> Outcome {
        let mut world = self.world();
        world.run_for(SETTLE_FOR);
        let before = Tally::of(&world);
        world.run_for(IDLE_FOR);
        let idle = Tally::of(&world).since(&before);

        let (before, began) = (Tally::of(&world), world.now());
        let mut entries = Entries::of(&world);
        for event in 0..self.events {
            let wait = -f64::ln(1.0 - world.rng.random::<f64>()) / self.rate;
            world.run_for(Duration::from_secs_f64(wait));
            entries.change(&mut world);
            progress(event + 1);
        }
        world.run_until(LOOK_EVERY, ARRIVE_WITHIN, |world| {
            world.observer.awaited() == 0
        });
        let lasted = world.now().saturating_duration_since(began);
        let missing = world.observer.give_up();
        Outcome {
            each: world.observer.each().clone(),
            all: world.observer.all().clone(),
            lasted,
            tally: Tally::of(&world).since(&before),
            idle_bytes: idle.bytes as f64 / IDLE_FOR.as_secs_f64(),
            missing,
            diverged: diverged(&mut world),
            counts: world.counts.clone(),
        }
    }

    fn world(&self) -> World<Arrivals> {
        let settled = Settled {
            entries: self.entries,
            settings: self.settings.clone(),
            ..Settled::new(self.nodes, NETWORK)
        };
        let mut world = settled.world(self.seed, Arrivals::default());
        world.links.loss = self.loss;
        world.links.delay = self.delay.clone();
        world
    }
}

/// The entries that stand, and whose they are.
struct Entries(Vec<(usize, Address)>);

impl Entries {
    fn of(world: &World<Arrivals>) -> Self {
        let machines = world.machines.iter().enumerate();
        let owned = machines.flat_map(|(at, machine)| {
            let entries = machine.disk.entries.keys();
            entries.map(move |address| (at, address.clone()))
        });
        Self(owned.collect())
    }

    /// Creates, updates or deletes an entry, and waits for that at all other nodes. One that is under way is left alone.
    fn change(&mut self, world: &mut World<Arrivals>) {
        let kind = world.rng.random_range(0..100);
        let picked = (kind >= CREATES && !self.0.is_empty())
            .then(|| draw(&mut world.rng, self.0.len()))
            .filter(|place| !world.observer.awaits(&self.0[*place].1));
        let (fresh, value) = world.draw_entry(NETWORK);
        let Some(place) = picked else {
            let at = draw(&mut world.rng, world.machines.len());
            expect(world, at, (fresh.clone(), Some(value.clone())));
            world.put(at, fresh.clone(), value);
            self.0.push((at, fresh));
            return;
        };
        if kind < CREATES + UPDATES {
            let (at, address) = self.0[place].clone();
            expect(world, at, (address.clone(), Some(value.clone())));
            world.put(at, address, value);
        } else {
            let (at, address) = self.0.swap_remove(place);
            expect(world, at, (address.clone(), None));
            world.delete(at, &address);
        }
    }
}

fn expect(
    world: &mut World<Arrivals>,
    by: usize,
    awaited: (Address, Option<crate::core::model::Value>),
) {
    let others = (0..world.machines.len()).filter(|at| *at != by);
    world.observer.expect(world.now(), awaited, others);
}

/// Returns how many nodes do not hold what the first one does, a moment after all has arrived.
fn diverged(world: &mut World<Arrivals>) -> usize {
    let nodes = world.machines.iter_mut().filter_map(|at| at.node.as_mut());
    let roots: Vec<Option<u64>> = nodes.map(|node| node.root(NETWORK)).collect();
    roots.iter().filter(|root| **root != roots[0]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load {
            nodes: 10,
            entries: 50,
            events: 200,
            rate: 1000.0,
            loss: 0.0,
            delay: Duration::from_micros(200)..Duration::from_millis(1),
            seed: 7,
            settings: Settings::default(),
        }
    }

    #[test]
    fn all_events_arrive_at_all_others_and_the_same_seed_gives_the_same() {
        let mut heard = 0;

        let outcome = load().run(|events| heard = events);

        assert_eq!(heard, 200);
        assert_eq!((outcome.missing, outcome.diverged), (0, 0));
        assert_eq!(outcome.all.len(), 200);
        assert_eq!(outcome.each.len(), 200 * 9);
        let again = load().run(|_| {});
        assert_eq!((again.all, again.tally), (outcome.all, outcome.tally));
    }

    #[test]
    fn with_losses_all_events_arrive_too() {
        let outcome = Load {
            loss: 0.2,
            ..load()
        }
        .run(|_| {});

        assert_eq!((outcome.missing, outcome.diverged), (0, 0));
        assert!(outcome.counts.lost > 0);
    }
}
