//! Digests: what members say of the networks they share, once a second; equal roots, equal entries.

use std::collections::BTreeSet;

use rand::RngExt;

use super::{
    LogId, NetDb, SyncState,
    message::{Digest, Root},
    spread::Item,
    tree::Scope,
};
use crate::core::model::{Instant, NetworkId, NodeId};

/// How many roots one digest record carries: at most 16 bytes each.
const ROOTS_A_RECORD: usize = 48;

impl NetDb {
    /// Sends the roots to ring ±1 and one random node of each network.
    pub(super) fn send_digests(&mut self) {
        let mut targets = BTreeSet::new();
        let networks: Vec<NetworkId> = self.replicas.keys().copied().collect();
        for network in networks {
            targets.extend(self.ring(network).at_distance(1));
            targets.extend(self.pick_other(network, self.me));
        }
        for to in targets {
            self.send_digest_to(to, false);
        }
    }

    /// Returns a random member of a network that is neither this node nor `but`.
    pub(super) fn pick_other(&mut self, network: NetworkId, but: NodeId) -> Option<NodeId> {
        let pick: u64 = self.rng.random();
        let me = self.me;
        let ring = self.ring(network);
        let len = u64::try_from(ring.len()).expect("a length fits");
        let at = |step: u64| usize::try_from((pick % len + step) % len).expect("below a length");
        (0..len.min(3))
            .map(|step| ring.get(at(step)))
            .find(|node| *node != me && *node != but)
    }

    /// Sends a node the roots of all networks that it carries too.
    pub(super) fn send_digest_to(&mut self, to: NodeId, answer: bool) {
        if !self.owners.is_alive(to) {
            return;
        }
        let mut roots = Vec::new();
        for (&network, replica) in &mut self.replicas {
            if network != NetworkId::CLUSTER && !self.owners.is_attached(to, network) {
                continue;
            }
            roots.push(Root {
                network,
                hash: replica.root(),
                synced: self.sync_states.get(&network) == Some(&SyncState::Synced),
            });
        }
        for roots in roots.chunks(ROOTS_A_RECORD) {
            let roots = roots.to_vec();
            self.spread.tell(to, Item::Digest(Digest { roots, answer }));
        }
    }

    pub(super) fn handle_digest(&mut self, now: Instant, from: NodeId, digest: &Digest) {
        let mut differs = false;
        for &root in &digest.roots {
            let Root { network, .. } = root;
            let Some(replica) = self.replicas.get_mut(&network) else {
                continue;
            };
            let equal = replica.root() == root.hash;
            if let Some(log) = self.our_log(network).filter(|_| equal) {
                let head = self.own_head(&log);
                self.note_reached(network, from, head);
            }
            if equal && root.synced && self.is_new(now, network) {
                // Its root leaves out the logs of those that it holds for down; here their owners may be alive.
                self.want_missing(from, network);
            } else if equal {
                self.note_whole(now, network, &Scope::whole(), root.synced);
            } else {
                differs = true;
                self.want_sync(from, network);
                if self.is_lossy || digest.answer {
                    self.tell_what_is_here(from, network);
                }
            }
        }
        self.start_sync(now, from);
        if differs && !digest.answer {
            self.send_digest_to(from, true);
        }
    }

    /// A member has our log of a network up to there. What is no member says counts for nothing, and is not remembered.
    pub(super) fn note_reached(&mut self, network: NetworkId, from: NodeId, prefix: u64) {
        if self.owners.is_attached(from, network) {
            self.floors.note_reached(network, from, prefix);
        }
    }

    /// Returns the newest number of one of our logs, 0 if nothing was written.
    pub(super) fn own_head(&self, log: &LogId) -> u64 {
        let replica = self.replicas.get(&log.network);
        let held = replica.and_then(|replica| replica.log(log));
        held.map_or(0, |log| log.have.head())
    }
}
