//! A run of chaos, then calm: random work and random faults by seed, then the time to converge, then the checks.

use std::{collections::BTreeSet, time::Duration};

use rand::RngExt;
use weft::core::model::{Key, NetworkId, TableName, Value};

use super::{
    Counts, Trace, World,
    check::{self, Checkers, Violation},
    world::draw,
};

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many machines there are.
    pub machines: usize,
    /// How many networks they attach to and detach from.
    pub networks: u32,
    /// How many things happen.
    pub steps: usize,
    /// How long the calm may last until all agree: detection, refutation, and a few rounds of anti-entropy.
    pub calm: Duration,
}

/// What a run was like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The hash of all that happened.
    pub trace: Trace,
    /// What happened how often.
    pub counts: Counts,
    /// How long the calm had to last.
    pub converged_after: Duration,
}

impl Chaos {
    /// A run of that seed: two to seven machines, faults drawn by the seed too, so that each is also left out.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            machines: 2 + (seed % 6) as usize,
            networks: 1 + (seed / 6 % 3) as u32,
            steps: 120,
            calm: Duration::from_secs(60),
        }
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report, Violation> {
        let mut world = World::observed(self.seed, self.machines, Checkers::default());
        world.run_for(Duration::from_secs(1));
        let faults: Vec<bool> = (0..6).map(|_| world.rng.random_bool(0.6)).collect();
        for at in 0..self.machines {
            for network in 1..=self.networks {
                if world.rng.random_bool(0.8) {
                    world.attach(at, NetworkId(network));
                }
            }
        }
        for _ in 0..self.steps {
            self.act(&mut world, &faults);
            let pause = world.rng.random_range(1..300);
            world.run_for(Duration::from_millis(pause));
            check::only_the_living_show(&world)?;
        }
        self.calm_down(&mut world)
    }

    /// One thing happens: mostly work, sometimes a fault that this seed has.
    fn act(&self, world: &mut World, faults: &[bool]) {
        let Some(at) = world.draw_running() else {
            return world.start(0);
        };
        let network = NetworkId(world.rng.random_range(1..=self.networks));
        let address = (network, table(), key(world));
        match world.rng.random_range(0..24) {
            0..=8 => {
                let value = Value::new(world.rng.random::<[u8; 4]>().to_vec()).expect("short");
                world.put(at, address, value);
            }
            9..=12 => drop(world.delete(at, &address)),
            13..=14 => world.attach(at, network),
            15 => world.detach(at, network),
            16 if faults[0] && world.running().len() > 1 => world.crash(at),
            17..=18 => self.start_one(world),
            19 if faults[1] => self.cut(world),
            20 => world.links.heal(),
            21 if faults[2] => world.links.loss = world.rng.random_range(0.0..0.5),
            22 if faults[3] => {
                let millis = world.rng.random_range(50..3000);
                world.pause(at, Duration::from_millis(millis));
            }
            23 if faults[4] => {
                let millis = world.rng.random_range(-20_000..20_000);
                world.step_clock(at, millis);
            }
            _ if faults[5] => world.links.duplicates = 0.2,
            _ => {}
        }
    }

    fn start_one(&self, world: &mut World) {
        let crashed = (0..self.machines).find(|at| world.machines[*at].node.is_none());
        if let Some(at) = crashed {
            world.start(at);
        }
    }

    fn cut(&self, world: &mut World) {
        world.counts.partitions += 1;
        if world.rng.random_bool(0.3) {
            let (from, to) = (
                draw(&mut world.rng, self.machines),
                draw(&mut world.rng, self.machines),
            );
            world.links.cut(from, to);
        } else {
            let side: BTreeSet<usize> = (0..self.machines)
                .filter(|_| world.rng.random_bool(0.5))
                .collect();
            world.links.partition(&side, self.machines);
        }
    }

    fn calm_down(&self, world: &mut World) -> Result<Report, Violation> {
        world.links.heal();
        world.links.loss = 0.0;
        world.links.duplicates = 0.0;
        for at in 0..self.machines {
            if world.machines[at].node.is_none() {
                world.start(at);
            }
        }
        let every = Duration::from_millis(100);
        let took = world.run_until(every, self.calm, |world| check::converged(world).is_ok());
        check::converged(world)?;
        check::mirrored(world)?;
        check::only_the_living_show(world)?;
        world.observer.nonces.check()?;
        Ok(Report {
            trace: world.trace,
            counts: world.counts.clone(),
            converged_after: took.unwrap_or(self.calm),
        })
    }
}

fn table() -> TableName {
    TableName::new("t").expect("a letter")
}

/// Few keys, so that owners meet.
fn key(world: &mut World) -> Key {
    Key::new(vec![world.rng.random_range(b'a'..=b'f')]).expect("one byte")
}
