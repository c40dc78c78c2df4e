//! A cell: a measure at one size and loss. Its worlds are independent, so they run on all cores.

use std::{
    num::NonZero,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use clap::ValueEnum;
use weft::{
    core::netdb::Scheme,
    sim::{Arrivals, Settings, Settled},
};

use super::{
    NETWORK, Part, Row, Sample, Watched, burst, change, churn, conflict, crash, falsedown,
    hardship, idle, joining, returning,
};

/// How many machines may share their world among samples: larger ones are dear to make.
const OWN_WORLD_MAX: usize = 200;
/// How many samples then share one.
const SAMPLES_A_WORLD: u64 = 10;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Measure {
    /// One change in a quiet cluster: create, update, delete, join or leave a network
    Change,
    /// Many entries created at once by one node
    Burst,
    /// One write while others write and nodes leave and join the network
    Churn,
    /// What nodes send while nothing happens
    Idle,
    /// Two writers of one key at the same instant
    Conflict,
    /// A node that crashes, is cut off or stands still, and returns
    Return,
    /// A node that crashes
    Crash,
    /// Nodes that are well and held for down, beside some that get no processor
    #[value(name = "falsedown")]
    FalseDown,
    /// Nodes that are well and held for down, while others are starved, deaf, mute or cut off
    Hardship,
    /// Nodes that join through one at once
    Join,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Change,
        Self::Burst,
        Self::Churn,
        Self::Idle,
        Self::Conflict,
        Self::Return,
        Self::Crash,
        Self::FalseDown,
        Self::Hardship,
        Self::Join,
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Burst => "burst",
            Self::Churn => "churn",
            Self::Idle => "idle",
            Self::Conflict => "conflict",
            Self::Return => "return",
            Self::Crash => "crash",
            Self::FalseDown => "falsedown",
            Self::Hardship => "hardship",
            Self::Join => "join",
        }
    }
}

/// How nodes probe each other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
pub enum Profile {
    /// One site
    #[default]
    Lan,
    /// Several sites
    Wan,
}

impl Profile {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }
}

/// A measure at one size and loss.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// What is measured.
    pub measure: Measure,
    /// How many machines there are.
    pub nodes: usize,
    /// How many entries there are, or are made.
    pub entries: usize,
    /// How many of a hundred datagrams are lost.
    pub loss_pct: f64,
    /// How many samples are taken.
    pub seeds: u64,
    /// The first seed.
    pub seed_base: u64,
    /// How nodes probe each other.
    pub profile: Profile,
    /// To whom a new dot is pushed at once.
    pub scheme: Scheme,
    /// Which part of membership is left out.
    pub without: Option<Part>,
}

impl Cell {
    /// Returns how many worlds are needed.
    pub fn worlds(&self) -> usize {
        self.seeds_by_world().len()
    }

    /// Measures: the whole, and then each part that the measure has. `done` hears of each world that is over.
    pub fn run(&self, done: &(dyn Fn() + Sync)) -> Vec<Row> {
        Row::all(self, &self.samples(done))
    }

    fn seeds_by_world(&self) -> Vec<Range<u64>> {
        let shares = matches!(
            self.measure,
            Measure::Change | Measure::Return | Measure::Crash
        );
        let step = if shares && self.nodes > OWN_WORLD_MAX {
            SAMPLES_A_WORLD
        } else {
            1
        };
        let end = self.seed_base + self.seeds;
        let starts = (self.seed_base..end).step_by(usize::try_from(step).expect("it is small"));
        starts.map(|start| start..end.min(start + step)).collect()
    }

    fn samples(&self, done: &(dyn Fn() + Sync)) -> Vec<Sample> {
        let worlds = self.seeds_by_world();
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut taken = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(seeds) = worlds.get(at) else {
                    return taken;
                };
                taken.push((at, self.measure(seeds.clone())));
                done();
            }
        };
        let mut all: Vec<(usize, Vec<Sample>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..cores.min(worlds.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let taken = threads.into_iter().map(|thread| thread.join());
            taken
                .flat_map(|taken| taken.expect("a world that panics is a defect of ours"))
                .collect()
        });
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().flat_map(|(_, samples)| samples).collect()
    }

    /// Takes the samples of one world.
    fn measure(&self, seeds: Range<u64>) -> Vec<Sample> {
        match self.measure {
            Measure::Change => change::samples(self, seeds),
            Measure::Burst => burst::samples(self, seeds),
            Measure::Churn => churn::samples(self, seeds),
            Measure::Idle => idle::samples(self, seeds),
            Measure::Conflict => conflict::samples(self, seeds),
            Measure::Return => returning::samples(self, seeds),
            Measure::Crash => crash::samples(self, seeds),
            Measure::FalseDown => falsedown::samples(self, seeds),
            Measure::Hardship => hardship::samples(self, seeds),
            Measure::Join => joining::samples(self, seeds),
        }
    }

    /// Returns how nodes are set up.
    pub(super) fn settings(&self) -> Settings {
        let mut settings = match self.profile {
            Profile::Lan => Settings::lan(),
            Profile::Wan => Settings::wan(),
        };
        settings.netdb.scheme = self.scheme;
        if let Some(part) = self.without {
            part.leave_out_of(&mut settings);
        }
        settings
    }

    /// Makes a settled world of that many entries.
    pub(super) fn world(&self, seed: u64, entries: usize) -> Watched {
        let settled = Settled {
            entries,
            settings: self.settings(),
            ..Settled::new(self.nodes, NETWORK)
        };
        let mut world = settled.world(seed, Arrivals::default());
        world.links.loss = self.loss_pct / 100.0;
        world
    }
}
