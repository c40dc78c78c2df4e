//! A run of chaos, then calm: what the schedule says, then the time to converge, then the checks.

use std::{collections::BTreeSet, ops::AddAssign, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use weft::{
    core::{
        membership,
        model::{Key, Mutated, Mutation, NetworkId, TableName, Value},
        netdb,
    },
    sim::Settings,
};

use super::{
    Counts, Trace, World, calm,
    check::{self, Barriers, Checkers, Claims, Connections, Violation},
    fault::Faults,
    schedule::{self, Action, KEY_SPREADS_WITHIN, Schedule, Size},
};

/// How long a barrier is waited for.
const BARRIER_FOR: Duration = Duration::from_secs(3);
/// Delays where no fault spreads them.
const DELAY_MIN: Duration = Duration::from_micros(200);
const DELAY_MAX: Duration = Duration::from_millis(1);

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// Where all chance comes from.
    pub seed: u64,
    /// How large it is.
    pub size: Size,
    /// What may go wrong.
    pub faults: Faults,
    /// How the nodes are set up.
    pub settings: Settings,
    /// What happens.
    pub schedule: Schedule,
}

/// What was seen in a run, so that a test can say that it was.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Floors that rose.
    pub floors_raised: u64,
    /// Snapshots below a floor that were taken.
    pub snapshots: u64,
    /// Generations that took over from one that still showed.
    pub settled: u64,
    /// Barriers that ended because everyone had the write.
    pub barriers_everywhere: u64,
    /// Barriers whose time was over.
    pub barriers_late: u64,
    /// Claims that a network is synced that were held against something.
    pub synced_claims: u64,
    /// Nodes that were held for down, for a reason.
    pub downs: u64,
    /// Nodes that were held for down, and returned.
    pub renewals: u64,
    /// Transitions of members that were recorded.
    pub transitions: u64,
    /// Suspicions that ran out although they were refuted.
    pub refuted: u64,
    /// Datagrams whose key the receiver did not have.
    pub unknown_keys: u64,
    /// Records of unknown kinds that were skipped.
    pub unknown_records: u64,
    /// How long it took until a crash amid the calm was noticed by all; of several runs the longest.
    pub hidden_after: Duration,
}

/// What a run was like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The hash of all that happened.
    pub trace: Trace,
    /// What was done how often.
    pub counts: Counts,
    /// What was seen of it.
    pub seen: Seen,
    /// How long the calm had to last.
    pub converged_after: Duration,
}

impl Chaos {
    /// A run of that seed: two to seven machines, one to three networks, and faults drawn by the seed too.
    pub fn new(seed: u64) -> Self {
        let size = Size {
            machines: 2 + (seed % 6) as usize,
            networks: 1 + (seed / 6 % 3) as u32,
            steps: 120,
        };
        Self::sized(seed, size)
    }

    /// A run of that seed and size.
    pub fn sized(seed: u64, size: Size) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let faults = Faults::draw(&mut rng);
        Self {
            seed,
            size,
            settings: settings(&mut rng),
            schedule: schedule::draw(seed, size, &faults),
            faults,
        }
    }

    /// The same run of nodes that have a defect.
    pub fn mutated(mut self, mutation: Mutation) -> Self {
        self.settings.netdb.mutated = Mutated::by(mutation);
        self.settings.membership.mutated = Mutated::by(mutation);
        self
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report, Violation> {
        let checkers = Checkers::default();
        let settings = self.settings.clone();
        let mut run = Run {
            world: World::set_up(self.seed, self.size.machines, checkers, settings),
            left: BTreeSet::new(),
            seen: Seen::default(),
        };
        for (turn, (at, action)) in self.schedule.iter().enumerate() {
            let wait = at.saturating_sub(run.world.now().since_start());
            run.world.run_for(wait);
            run.check(turn % self.size.machines)?;
            tracing::info!(%action, "chaos");
            run.act(action);
            run.note_trouble(action);
        }
        run.calm_down()
    }
}

/// Figures that make a small world meet what a large one meets: the end of a page, floors that pass sleepers, logs that are kept
/// no longer.
fn settings(rng: &mut StdRng) -> Settings {
    let pick = |rng: &mut StdRng, seconds: [u64; 3]| {
        Duration::from_secs(seconds[rng.random_range(0..seconds.len())])
    };
    Settings {
        membership: membership::Config::lan(),
        netdb: netdb::Config {
            page: 160,
            retention: pick(rng, [4, 12, 30]),
            floor_after: pick(rng, [1, 5, 600]),
            ..netdb::Config::default()
        },
        mixed_versions: true,
    }
}

/// A run that is under way.
pub(super) struct Run {
    pub(super) world: World,
    /// Machines whose node has left and was not ended since.
    left: BTreeSet<usize>,
    pub(super) seen: Seen,
}

impl Run {
    /// Checks what must hold at any time; what is dear to check at one machine only.
    pub(super) fn check(&mut self, at: usize) -> Result<(), Violation> {
        let world = &mut self.world;
        Barriers::check(world)?;
        Claims::check(world)?;
        world.observer.connections.check()?;
        world.observer.renewals.check()?;
        world.observer.histories.check()?;
        world.observer.written.check()?;
        check::only_the_living_show(world)?;
        check::logs_are_sound(world, at)?;
        check::nothing_comes_back(world, at)?;
        check::queues_are_short(world, at)?;
        check::nothing_is_malformed(world, at)
    }

    fn act(&mut self, action: &Action) {
        let world = &mut self.world;
        match *action {
            Action::Put(at, network, key, value) => {
                let value = Value::new(value.to_be_bytes().to_vec()).expect("short");
                world.put(at, address(network, key), value);
            }
            Action::Delete(at, network, key) => drop(world.delete(at, &address(network, key))),
            Action::Attach(at, network) => self.attach(at, NetworkId(network)),
            Action::Detach(at, network) => {
                let network = NetworkId(network);
                if !world.machines[at].disk.is_full {
                    world.observer.barriers.forget_member(at, network);
                    world.observer.claims.forget(at, Some(network));
                }
                world.detach(at, network);
            }
            Action::Barrier(at, network) => self.ask_barrier(at, NetworkId(network)),
            Action::Crash(at) => self.end(at, World::crash),
            Action::LoseDisk(at) => self.end(at, World::lose_disk),
            Action::LoseWrites(at) => self.end(at, World::lose_writes),
            Action::SyncDisk(at) => world.sync_disk(at),
            Action::FillDisk(at) => world.fill_disk(at),
            Action::FreeDisk(at) => world.free_disk(at),
            Action::Leave(at) => {
                world.leave(at);
                self.left.insert(at);
            }
            Action::Start(at) => self.start(at),
            Action::Cut(from, to) => {
                world.counts.partitions += 1;
                world.links.cut(from, to);
            }
            Action::Partition(ref side) => {
                world.counts.partitions += 1;
                world.links.partition(side, world.machines.len());
            }
            Action::Heal => world.links.heal(),
            Action::Loss(share) => world.links.loss = share,
            Action::Duplicates(share) => world.links.duplicates = share,
            Action::Delay(up_to) => world.links.delay = DELAY_MIN..up_to.max(DELAY_MAX),
            Action::Pause(at, duration) => world.pause(at, duration),
            Action::Clock(at, skew) => world.step_clock(at, skew - world.machines[at].skew),
            Action::AddKey => world.add_key(),
            Action::PromoteKey => world.promote_key(),
            Action::HandKeys(at) => world.hand_keys(at),
            Action::SayUnknown(at) => world.say_unknown(at),
        }
    }

    /// Notes who is in trouble because of an action.
    fn note_trouble(&mut self, action: &Action) {
        let now = self.world.now();
        let machines = self.world.machines.len();
        let connections = &mut self.world.observer.connections;
        if let Action::Pause(at, duration) = *action {
            connections.note_trouble(at, machines, now + duration);
        }
        // Who has not got the key yet hears nobody who has, until the last has got it.
        let until = if let Action::AddKey = action {
            Some(now + KEY_SPREADS_WITHIN)
        } else if let Action::PromoteKey | Action::HandKeys(_) = action {
            Some(now)
        } else {
            None
        };
        if let Some(until) = until {
            for at in 0..machines {
                connections.note_trouble(at, machines, until);
            }
        }
        Connections::note(&mut self.world);
    }

    fn attach(&mut self, at: usize, network: NetworkId) {
        let attached = |world: &World| world.machines[at].disk.attached.contains(&network);
        let before = attached(&self.world);
        self.world.attach(at, network);
        if !before && attached(&self.world) {
            Claims::note_attached(&mut self.world, at, network);
        }
    }

    fn ask_barrier(&mut self, at: usize, network: NetworkId) {
        let asked = self.world.with(at, |node, now| {
            let version = node.written(network).ok()?;
            Some((
                node.applied(now, version, now.instant + BARRIER_FOR),
                version,
            ))
        });
        if let Some(asked) = asked.flatten() {
            Barriers::note_asked(&mut self.world, at, asked);
        }
    }

    fn end(&mut self, at: usize, how: fn(&mut World, usize)) {
        self.count(at);
        self.left.remove(&at);
        how(&mut self.world, at);
    }

    fn start(&mut self, at: usize) {
        if self.world.machines[at].node.is_none() {
            self.world.start(at);
        }
    }

    /// Ends the program of a machine amid the calm.
    pub(super) fn crash(&mut self, at: usize) {
        self.end(at, World::crash);
        self.note_trouble(&Action::Crash(at));
    }

    /// Takes what a machine has counted, before that is lost with its program.
    fn count(&mut self, at: usize) {
        if let Some(node) = &self.world.machines[at].node {
            let stats = node.stats();
            self.seen += Seen {
                floors_raised: stats.netdb.floors_raised,
                snapshots: stats.netdb.snapshots,
                settled: stats.netdb.settled,
                refuted: stats.membership.refuted,
                unknown_keys: stats.rejections.unknown_key,
                unknown_records: stats.unknown_records,
                ..Seen::default()
            };
        }
    }

    /// All faults end, and everybody runs.
    pub(super) fn end_faults(&mut self) {
        self.world.links.heal();
        self.world.links.loss = 0.0;
        self.world.links.duplicates = 0.0;
        self.world.links.delay = DELAY_MIN..DELAY_MAX;
        for at in std::mem::take(&mut self.left) {
            self.end(at, World::crash);
        }
        for at in 0..self.world.machines.len() {
            self.world.free_disk(at);
            self.start(at);
            self.world.hand_keys(at);
            self.note_trouble(&Action::HandKeys(at));
        }
    }

    fn calm_down(mut self) -> Result<Report, Violation> {
        let converged_after = calm::calm_down(&mut self)?;
        for at in 0..self.world.machines.len() {
            self.count(at);
        }
        let checkers = &self.world.observer;
        self.seen.barriers_everywhere = checkers.barriers.everywhere;
        self.seen.barriers_late = checkers.barriers.late;
        self.seen.synced_claims = checkers.claims.checked;
        self.seen.downs = checkers.connections.explained;
        self.seen.renewals = checkers.renewals.renewed;
        self.seen.transitions = checkers.histories.transitions;
        Ok(Report {
            trace: self.world.trace,
            counts: self.world.counts.clone(),
            seen: self.seen,
            converged_after,
        })
    }
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.floors_raised += other.floors_raised;
        self.snapshots += other.snapshots;
        self.settled += other.settled;
        self.barriers_everywhere += other.barriers_everywhere;
        self.barriers_late += other.barriers_late;
        self.synced_claims += other.synced_claims;
        self.downs += other.downs;
        self.renewals += other.renewals;
        self.transitions += other.transitions;
        self.refuted += other.refuted;
        self.unknown_keys += other.unknown_keys;
        self.unknown_records += other.unknown_records;
        self.hidden_after = self.hidden_after.max(other.hidden_after);
    }
}

fn address(network: u32, key: u8) -> (NetworkId, TableName, Key) {
    let table = TableName::new("t").expect("a letter");
    let key = Key::new(vec![key]).expect("one byte");
    (NetworkId(network), table, key)
}
