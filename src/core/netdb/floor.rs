//! The owner's floor: below it, tombstones are forgotten.
//!
//! A member whose root equals ours has all of our log; others are asked how far they have it. Once every member of the network is
//! past a delete, its tombstone goes; or after `floor_after`, which only costs those who slept a snapshot.

use std::collections::{BTreeMap, VecDeque};

use super::{LogId, NetDb, log::Log};
use crate::core::model::{Instant, NetworkId, NodeId, Now};

/// How many own deletes are remembered with their time; more go when every member has them.
const DELETES_MAX: usize = 1 << 20;

/// How many members are asked at once how far they are, while a tombstone waits for them.
const ASK_MEMBERS: usize = 16;

/// What is known of how far others have our logs.
#[derive(Default, Debug)]
pub(super) struct Floors {
    /// How far a member is known to have our log of a network.
    reached: BTreeMap<(NetworkId, NodeId), u64>,
    /// Our deletes, oldest first.
    deletes: VecDeque<(Instant, LogId, u64)>,
}

impl Floors {
    pub(super) fn note_delete(&mut self, now: Instant, log: LogId, seq: u64) {
        if self.deletes.len() < DELETES_MAX {
            self.deletes.push_back((now, log, seq));
        }
    }

    pub(super) fn note_reached(&mut self, network: NetworkId, node: NodeId, prefix: u64) {
        let known = self.reached.entry((network, node)).or_default();
        *known = prefix.max(*known);
    }

    /// Returns how far a member is known to have our log.
    pub(super) fn reached(&self, network: NetworkId, node: NodeId) -> u64 {
        self.reached.get(&(network, node)).copied().unwrap_or(0)
    }

    pub(super) fn forget_node(&mut self, node: NodeId) {
        self.reached.retain(|(_, member), _| *member != node);
    }

    /// A member has attached to a network anew, or detached: what it had of ours there it has no longer.
    pub(super) fn forget_member(&mut self, network: NetworkId, node: NodeId) {
        self.reached.remove(&(network, node));
    }

    pub(super) fn forget_network(&mut self, network: NetworkId) {
        self.reached.retain(|(of, _), _| *of != network);
        self.deletes.retain(|(_, log, _)| log.network != network);
    }
}

impl NetDb {
    /// Raises the floors of our own logs as far as they may.
    pub(super) fn move_own_floors(&mut self, now: Now) {
        let mut floors: BTreeMap<LogId, u64> = BTreeMap::new();
        let floor_after = self.config.floor_after;
        let is_old = |&(at, ..): &(Instant, LogId, u64)| at + floor_after <= now.instant;
        while self.floors.deletes.front().is_some_and(is_old) {
            if let Some((_, log, seq)) = self.floors.deletes.pop_front() {
                floors.insert(log, seq);
            }
        }
        let networks: Vec<NetworkId> = self.replicas.keys().copied().collect();
        for network in networks {
            let Some(log) = self.our_log(network) else {
                continue;
            };
            let others: Vec<NodeId> = self.ring(log.network).others().collect();
            let reached = others
                .into_iter()
                .map(|node| self.floors.reached(network, node));
            let all = reached.min().unwrap_or_else(|| self.own_head(&log));
            let first = self.replicas[&network]
                .log(&log)
                .and_then(Log::first_tombstone);
            if let Some(tombstone) = first.filter(|tombstone| *tombstone > all) {
                self.ask_how_far(network, tombstone, ASK_MEMBERS);
            }
            let floor = floors.entry(log).or_default();
            *floor = all.max(*floor);
        }
        for (log, floor) in floors {
            self.raise_own_floor(now.instant, log, floor);
        }
    }

    fn raise_own_floor(&mut self, now: Instant, log: LogId, floor: u64) {
        let Some(replica) = self.replicas.get_mut(&log.network) else {
            return;
        };
        let passes = replica.log(&log).and_then(|log| log.first_tombstone());
        if passes.is_none_or(|tombstone| tombstone > floor) {
            return;
        }
        let Some(at) = replica.open(log, true) else {
            return;
        };
        let gone = replica.raise_floor(at, floor);
        debug_assert!(gone.is_empty(), "a tombstone is not visible");
        self.stats.floors_raised += 1;
        self.spread_dot(now, log, 0, None);
    }
}
