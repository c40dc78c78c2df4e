//! Who hands out which address, in virtual time: the allocator behind a simulated log, the nodes' blocks, and their gossip.
//!
//! Small beside the [whole node's simulation](super::chaos), and so it does hours of a cluster in a fraction of a second. The
//! log elects, loses, delays and repeats; nodes are cut off, started again with only their disk, and shut out; endpoints come
//! and go in subnets that are too small for them. What must hold is in [`check`], one file a property.

pub mod check;
mod disturb;
mod gossip;
mod log;
mod look;
mod node;
mod operation;
mod world;

use check::Checks;
use world::World;

use super::Violation;

/// How long one run is, in seconds of the cluster.
pub const RUN_SECONDS: u64 = 3_600;

/// A defect to put in on purpose, so that the checks prove that they would notice it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// A block is given back without the number of its lease.
    ReturnUnnumbered,
    /// A block whose return was not answered is used on.
    UseUnanswered,
    /// Blocks of a former run are used as if they were new.
    ForgetRest,
    /// A block is given back before everybody has heard that its endpoint is gone.
    SkipBarrier,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ReturnUnnumbered,
        Self::UseUnanswered,
        Self::ForgetRest,
        Self::SkipBarrier,
    ];
}

/// What happened in a run: none of it may be zero over many.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Endpoints with an address that nobody named.
    pub dynamic: u64,
    /// Endpoints with an address that somebody named.
    pub named: u64,
    /// Of the former, those whose node could not reach the leader.
    pub isolated: u64,
    /// Refusals of a node that could not reach the leader.
    pub refused_isolated: u64,
    /// Addresses that were used again.
    pub reused: u64,
    /// Of those, the ones that had not rested, because nothing else was free.
    pub cut_short: u64,
    /// Endpoints removed.
    pub removed: u64,
    /// Commands applied.
    pub applied: u64,
    /// Of those, the ones that were there before.
    pub repeated: u64,
    /// Leases given back.
    pub returned: u64,
    /// Returns that were refused because the lease had a newer number.
    pub stale: u64,
    /// Operations whose answer did not come in time.
    pub unanswered: u64,
    /// Proposals that a leader lost with its lead.
    pub lost: u64,
    /// Elections, each from a snapshot.
    pub elections: u64,
    /// Times the network was parted.
    pub partitions: u64,
    /// Nodes started again.
    pub restarts: u64,
    /// Nodes shut out.
    pub shut_out: u64,
    /// Networks made.
    pub networks: u64,
}

impl std::ops::AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.dynamic += other.dynamic;
        self.named += other.named;
        self.isolated += other.isolated;
        self.refused_isolated += other.refused_isolated;
        self.reused += other.reused;
        self.cut_short += other.cut_short;
        self.removed += other.removed;
        self.applied += other.applied;
        self.repeated += other.repeated;
        self.returned += other.returned;
        self.stale += other.stale;
        self.unanswered += other.unanswered;
        self.lost += other.lost;
        self.elections += other.elections;
        self.partitions += other.partitions;
        self.restarts += other.restarts;
        self.shut_out += other.shut_out;
        self.networks += other.networks;
    }
}

/// Runs one seed for an hour of the cluster.
pub fn run(seed: u64, defect: Option<Defect>) -> Result<Tally, Violation> {
    let mut world = World::new(seed, defect);
    world.run(RUN_SECONDS)?;
    Ok(world.tally)
}
