//! Members come and go: whose entries show, and which are dropped.

use std::collections::BTreeMap;

use super::{LogId, NetDb, Reason};
use crate::core::{
    model::{Boot, Generation, Instant, NetworkId, NodeId},
    wire::codec,
};

/// How many networks a generation may name when it says that it is ready.
const READY_MAX: usize = 65_536;
/// How near on a ring those are that tell a member that has come up what they have.
const DIGEST_TO_RISEN: usize = 2;
/// For how many members at once rings are made anew: to put each on its place of a long ring moves all after it.
const RINGS_ANEW: usize = 16;

/// A generation has said that it is ready; it is shown alone once its logs have come this far.
#[derive(Debug)]
pub(super) struct Settling {
    generation: Generation,
    heads: BTreeMap<LogId, u64>,
}

impl NetDb {
    /// A member is alive: what it wrote is shown, unless it was down and has been started anew.
    pub fn handle_member_up(&mut self, node: NodeId, boot: Boot) {
        self.handle_members_up(&[(node, boot)]);
    }

    /// Members are alive, as [`Self::handle_member_up`] says of one.
    pub fn handle_members_up(&mut self, risen: &[(NodeId, Boot)]) {
        if risen.len() > RINGS_ANEW {
            self.rings.clear();
        }
        for &(node, boot) in risen {
            self.owners.up(node, boot);
            self.refresh(node, Reason::Removed);
        }
        // What it missed it gets from those near it on a ring: if everybody told it, n that start at once would say n² digests.
        let networks: Vec<NetworkId> = self.replicas.keys().copied().collect();
        for &(node, _) in risen {
            let is_near = |network: &NetworkId| self.ring(*network).is_near(node, DIGEST_TO_RISEN);
            if networks.iter().any(is_near) {
                self.send_digest_to(node, false);
            }
        }
    }

    /// A member is down: its entries are hidden, and kept for the retention.
    pub fn handle_member_down(&mut self, now: Instant, node: NodeId) {
        self.owners.down(node, now + self.config.retention);
        self.member_gone(node, Reason::OwnerDown);
    }

    /// A member has left in that boot: its entries are dropped.
    pub fn handle_member_left(&mut self, node: NodeId, boot: Boot) {
        self.owners.left(node, boot);
        self.member_gone(node, Reason::OwnerLeft);
    }

    fn member_gone(&mut self, node: NodeId, reason: Reason) {
        self.spread.forget(node);
        self.syncs.forget(node);
        self.floors.forget_node(node);
        self.settling.remove(&node);
        self.refresh(node, reason);
        self.end_barriers(self.spread.now());
    }

    /// Shows, hides or drops an owner's logs as [`super::owners`] says now.
    pub(super) fn refresh(&mut self, owner: NodeId, reason: Reason) {
        let networks: Vec<NetworkId> = self.replicas.keys().copied().collect();
        for network in networks {
            let Some(replica) = self.replicas.get_mut(&network) else {
                continue;
            };
            let logs: Vec<LogId> = replica.logs_of(owner).collect();
            let mut differences = Vec::new();
            // What takes over is shown before what it takes over from goes, so that equal values make no change.
            for log in logs.iter().filter(|log| self.owners.shows(log)) {
                differences.extend(replica.show(log, true));
            }
            for log in logs.iter().filter(|log| !self.owners.shows(log)) {
                if self.owners.is_over(log) {
                    differences.extend(replica.drop_log(log));
                } else {
                    differences.extend(replica.show(log, false));
                }
            }
            self.report(network, differences, reason);
        }
        for (network, ring) in &mut self.rings {
            ring.set(owner, self.owners.is_attached(owner, *network));
        }
    }

    /// A generation says up to where its logs must have come before it stands alone.
    pub(super) fn note_ready(&mut self, log: LogId, seq: u64, value: &[u8]) {
        let Ok(heads) = codec::decode::<Vec<(NetworkId, u64, u64)>>(value) else {
            return self.refuse(super::Refusal::Malformed);
        };
        if !self.owners.is_settling(log.owner) {
            return;
        }
        let mut needed = BTreeMap::from([(log, seq)]);
        let heads = heads.into_iter().take(READY_MAX);
        needed.extend(heads.map(|(network, epoch, head)| {
            (
                LogId {
                    network,
                    epoch,
                    ..log
                },
                head,
            )
        }));
        self.settling.insert(
            log.owner,
            Settling {
                generation: log.generation,
                heads: needed,
            },
        );
        self.settle_if_ready(log.owner);
    }

    /// Lets the newest generation stand alone if all that it wrote again is here.
    pub(super) fn settle_if_ready(&mut self, owner: NodeId) {
        let Some(settling) = self.settling.get(&owner) else {
            return;
        };
        let is_here = |(log, head): (&LogId, &u64)| match self.replicas.get(&log.network) {
            None => true,
            Some(replica) => {
                *head == 0
                    || replica
                        .log(log)
                        .is_some_and(|held| held.have.prefix() >= *head)
            }
        };
        if self.owners.newest(owner) == settling.generation && settling.heads.iter().all(is_here) {
            self.settle(owner);
        }
    }

    fn settle(&mut self, owner: NodeId) {
        self.settling.remove(&owner);
        if self.owners.settle(owner) {
            self.stats.settled += 1;
            self.refresh(owner, Reason::Removed);
        }
    }

    /// Ends graces and retentions that are over.
    pub(super) fn expire_owners(&mut self, now: Instant) {
        let (settled, forgotten) = self.owners.expire(now);
        for owner in settled {
            self.settle(owner);
        }
        if !forgotten.is_empty() {
            self.syncs.ask_again();
        }
        for owner in forgotten {
            self.refresh(owner, Reason::OwnerDown);
        }
    }
}
