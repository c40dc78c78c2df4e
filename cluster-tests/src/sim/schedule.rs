//! A schedule: what happens in a run and when, as data, so that it can be printed, replayed and made shorter.
//!
//! It is drawn from the seed before the run begins, and nothing in it depends on the run: an action that finds its machine
//! crashed, or its entry gone, does nothing. So any part of a schedule is a schedule too.

use std::{collections::BTreeSet, fmt, ops::Range, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::fault::{Fault, Faults};

/// How long a program stands still at most.
pub const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How far a wall clock is off at most, in milliseconds: two of them stay within what the network DB forgives
/// ([`weft::core::model::Hlc::DRIFT_MAX`]).
const SKEW_MAX: i64 = 25_000;
/// How long after a key is added it is promoted at most, and how long after either a node hears of it.
const KEY_STEP_MAX: u64 = 3_000;
/// Within what time of its adding every node has a key.
pub const KEY_SPREADS_WITHIN: Duration = Duration::from_millis(2 * KEY_STEP_MAX);
/// When the first thing happens: until then the nodes meet.
const FIRST: Duration = Duration::from_secs(1);

/// When what happens, in order of time.
pub type Schedule = Vec<(Duration, Action)>;

/// Something that happens in a run. Machines, networks and keys are named by small numbers.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// A node writes an entry; the value names the write.
    Put(usize, u32, u8, u32),
    /// A node deletes its entry.
    Delete(usize, u32, u8),
    /// A node attaches to a network.
    Attach(usize, u32),
    /// A node detaches from a network.
    Detach(usize, u32),
    /// A node asks to be told when all have what it wrote last in a network.
    Barrier(usize, u32),
    /// A machine's program ends.
    Crash(usize),
    /// A machine's program ends and its disk is lost.
    LoseDisk(usize),
    /// A machine's program ends and its disk lacks the last writes.
    LoseWrites(usize),
    /// A machine's disk keeps what it has promised to keep.
    SyncDisk(usize),
    /// A machine's disk takes no more.
    FillDisk(usize),
    /// A machine's disk has room again.
    FreeDisk(usize),
    /// A node says that it leaves.
    Leave(usize),
    /// A machine's program starts, unless it runs.
    Start(usize),
    /// Nothing passes from one machine to another.
    Cut(usize, usize),
    /// Nothing passes between these machines and the others.
    Partition(BTreeSet<usize>),
    /// All that was cut is open again.
    Heal,
    /// That share of the datagrams is lost.
    Loss(f64),
    /// That share of the datagrams arrives twice.
    Duplicates(f64),
    /// What is under way takes up to so long.
    Delay(Duration),
    /// A machine's program stands still.
    Pause(usize, Duration),
    /// A machine's wall clock is off by so many milliseconds.
    Clock(usize, i64),
    /// A key is added to the ring that starting programs get.
    AddKey,
    /// The newest key becomes the one that seals.
    PromoteKey,
    /// A node is given the ring.
    HandKeys(usize),
    /// A node says something that nobody knows.
    SayUnknown(usize),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// How large a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// How many machines there are.
    pub machines: usize,
    /// How many networks they attach to and detach from.
    pub networks: u32,
    /// How many times something is drawn.
    pub steps: usize,
}

/// Draws the schedule of a seed.
pub fn draw(seed: u64, size: Size, faults: &Faults) -> Schedule {
    let mut drawing = Drawing {
        rng: StdRng::seed_from_u64(seed ^ 0x5eed_5eed_5eed_5eed),
        size,
        now: FIRST,
        writes: 0,
        next_key: FIRST,
        schedule: Vec::new(),
    };
    drawing.attach_most();
    for _ in 0..size.steps {
        let gap = drawing.gap();
        drawing.now += gap;
        match faults.pick(&mut drawing.rng) {
            Some(fault) if drawing.rng.random_bool(0.3) => drawing.fault(fault),
            Some(_) | None => drawing.work(),
        }
    }
    let mut schedule = drawing.schedule;
    // Stable, so that what was drawn first of one moment happens first.
    schedule.sort_by_key(|(at, _)| *at);
    schedule
}

struct Drawing {
    rng: StdRng,
    size: Size,
    now: Duration,
    writes: u32,
    /// When the key may change again: a ring holds three, so a node must have had the chance to hear of each.
    next_key: Duration,
    schedule: Schedule,
}

impl Drawing {
    fn add(&mut self, after: Duration, action: Action) {
        self.schedule.push((self.now + after, action));
    }

    fn at_once(&mut self, action: Action) {
        self.add(Duration::ZERO, action);
    }

    fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    /// Things come in bursts, so that they meet what is under way, and apart, so that they meet what has settled.
    fn gap(&mut self) -> Duration {
        if self.rng.random_bool(0.5) {
            Duration::from_micros(self.rng.random_range(0..5_000))
        } else {
            self.millis(1..400)
        }
    }

    fn machine(&mut self) -> usize {
        self.rng.random_range(0..self.size.machines)
    }

    fn network(&mut self) -> u32 {
        self.rng.random_range(1..=self.size.networks)
    }

    fn attach_most(&mut self) {
        for at in 0..self.size.machines {
            for network in 1..=self.size.networks {
                if self.rng.random_bool(0.8) {
                    self.at_once(Action::Attach(at, network));
                }
            }
        }
    }

    /// A node does what nodes are for. Few keys, so that owners meet.
    fn work(&mut self) {
        let at = self.machine();
        self.work_at(at);
    }

    fn work_at(&mut self, at: usize) {
        let network = self.network();
        let key = self.rng.random_range(b'a'..=b'f');
        let action = match self.rng.random_range(0..20) {
            0..=9 => {
                self.writes += 1;
                Action::Put(at, network, key, self.writes)
            }
            10..=14 => Action::Delete(at, network, key),
            15..=16 => Action::Attach(at, network),
            17 => Action::Detach(at, network),
            _ => Action::Barrier(at, network),
        };
        self.at_once(action);
    }

    fn fault(&mut self, fault: Fault) {
        let at = self.machine();
        match fault {
            Fault::Loss => {
                let share = self.rng.random_range(0.05..0.5);
                self.at_once(Action::Loss(share));
                let after = self.millis(500..8_000);
                self.add(after, Action::Loss(0.0));
            }
            Fault::Cuts => {
                let to = self.machine();
                self.at_once(Action::Cut(at, to));
                self.heal_later();
            }
            Fault::Partitions => {
                let side = (0..self.size.machines).filter(|_| self.rng.random_bool(0.5));
                let side = side.collect();
                self.at_once(Action::Partition(side));
                self.heal_later();
            }
            Fault::Duplicates => {
                let share = self.rng.random_range(0.05..0.5);
                self.at_once(Action::Duplicates(share));
            }
            Fault::Reorder => {
                let up_to = self.millis(2..120);
                self.at_once(Action::Delay(up_to));
            }
            Fault::Pauses => {
                let millis = PAUSE_MAX.as_millis() as u64;
                let duration = self.millis(50..millis);
                self.at_once(Action::Pause(at, duration));
            }
            Fault::ClockSteps => {
                let skew = self.rng.random_range(-SKEW_MAX..SKEW_MAX);
                self.at_once(Action::Clock(at, skew));
            }
            Fault::Crashes => self.end(Action::Crash(at), at),
            Fault::LostDisks => self.end(Action::LoseDisk(at), at),
            Fault::LostWrites => {
                self.at_once(Action::SyncDisk(at));
                for _ in 0..self.rng.random_range(1..6) {
                    let after = self.millis(1..200);
                    self.now += after;
                    self.work_at(at);
                }
                self.end(Action::LoseWrites(at), at);
            }
            Fault::FullDisks => {
                self.at_once(Action::FillDisk(at));
                for _ in 0..self.rng.random_range(1..6) {
                    let after = self.millis(1..200);
                    self.now += after;
                    self.work_at(at);
                }
                let after = self.millis(1..4_000);
                self.add(after, Action::FreeDisk(at));
            }
            Fault::Leaves => {
                self.at_once(Action::Leave(at));
                let after = self.millis(5..1_000);
                self.now += after;
                self.end(Action::Crash(at), at);
            }
            Fault::KeyRotation => self.change_key(),
            Fault::MixedVersions => self.at_once(Action::SayUnknown(at)),
        }
    }

    fn heal_later(&mut self) {
        let after = self.millis(200..8_000);
        self.add(after, Action::Heal);
    }

    /// A program ends, and starts again: before anybody can notice, or after all have.
    fn end(&mut self, how: Action, at: usize) {
        self.at_once(how);
        let after = if self.rng.random_bool(0.5) {
            self.millis(1..500)
        } else {
            self.millis(500..10_000)
        };
        self.add(after, Action::Start(at));
    }

    /// A key is added, each node hears of it when it does, then it seals, and each node hears of that when it does.
    fn change_key(&mut self) {
        if self.now < self.next_key {
            return;
        }
        self.next_key = self.now + Duration::from_secs(8);
        let promoted = self.millis(0..KEY_STEP_MAX);
        self.at_once(Action::AddKey);
        self.add(promoted, Action::PromoteKey);
        for at in 0..self.size.machines {
            let first = self.millis(0..KEY_STEP_MAX);
            self.add(first, Action::HandKeys(at));
            let second = promoted + self.millis(0..KEY_STEP_MAX);
            self.add(second, Action::HandKeys(at));
        }
    }
}
