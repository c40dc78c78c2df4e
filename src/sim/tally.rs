//! A tally: what a world has sent and received so far, to be compared with what it had before.

use super::{observer::Observer, world::World};

/// What has been sent and received so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Bytes of datagrams and on streams, without the headers of UDP, TCP and IP.
    pub bytes: u64,
    /// Dots that were new where they came or were written.
    pub applied: u64,
    /// Dots that were known already where they came.
    pub duplicates: u64,
}

impl Tally {
    /// Takes stock of a world; what programs that have ended had counted is not in it.
    pub fn of<O: Observer>(world: &World<O>) -> Self {
        let mut tally = Self {
            bytes: world.counts.bytes + world.counts.stream_bytes,
            ..Self::default()
        };
        let nodes = world.machines.iter().filter_map(|at| at.node.as_deref());
        for node in nodes {
            let netdb = node.stats().netdb;
            tally.applied += netdb.applied;
            tally.duplicates += netdb.duplicates;
        }
        tally
    }

    /// Returns what came after an earlier tally.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(before.bytes),
            applied: self.applied.saturating_sub(before.applied),
            duplicates: self.duplicates.saturating_sub(before.duplicates),
        }
    }

    /// Returns how often each dot that was lacked came. `written` of those that were new were not received.
    pub fn copies(&self, written: u64) -> Option<f64> {
        let needed = self.applied.saturating_sub(written);
        (needed > 0).then(|| (needed + self.duplicates) as f64 / needed as f64)
    }
}
