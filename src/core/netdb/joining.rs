//! Networks that are new here: they come from their nearest members at once, and have come whole once all of the tree has.

use std::{collections::BTreeSet, time::Duration};

use super::{NetDb, SyncState, sync::Step, tree::Scope};
use crate::core::model::{Instant, NetworkId, NodeId};

/// How long after its attachment a node believes only those who have come whole themselves; then they may all be new.
pub const BELIEVE_AFTER: Duration = Duration::from_secs(3);

/// An answer on a stream that has lost a segment waits for a timer of 200 ms, and who stands still answers later. How far along
/// the ring members are asked while none answers: hedged requests (Dean and Barroso, The Tail at Scale, 2013).
const HEDGE_TO: usize = 6;
/// How often the nearest are asked what they have in a few datagrams, and how far they are.
const HEDGES_MAX: u32 = 12;
const NEAREST: usize = 3;
/// How much more often where datagrams are lost and the ring is so small that there are fewer of them.
const HASTE: u32 = 3;
/// After how many of these hedges one more step along the ring is asked on streams, where no datagrams are lost: who answers
/// late all the same brings everything once more.
const PATIENCE: u32 = 3;

/// A network that is new here.
#[derive(Debug)]
pub(super) struct Joining {
    since: Instant,
    /// How far along the ring members were asked on streams.
    asked_to: usize,
    /// When it is time to ask the nearest again, how much of all that is left, and how much has gone since anybody was asked on
    /// a stream. Each counts for [`HASTE`], but for one in haste.
    hedge_at: Instant,
    hedges_left: u32,
    hedged: u32,
    /// Whether somebody answered who is new too: then all may be, and digests tell when one is not.
    met_new: bool,
    /// What has not come whole yet.
    missing: Scope,
}

impl Joining {
    /// Returns whether more members are to be asked for it.
    fn is_hedged(&self) -> bool {
        self.hedges_left > 0 && !self.met_new
    }

    /// Returns whether it believes those that have not come whole themselves.
    fn is_late(&self, now: Instant) -> bool {
        self.since + BELIEVE_AFTER <= now
    }
}

impl NetDb {
    /// A network is new here, and nothing of it has come.
    pub(super) fn begin_joining(&mut self, now: Instant, network: NetworkId) {
        let joining = Joining {
            since: now,
            asked_to: 1,
            hedge_at: now + self.hedge_after(network).0,
            hedges_left: HEDGES_MAX * HASTE,
            hedged: 0,
            met_new: false,
            missing: Scope::whole(),
        };
        self.syncs.joining.insert(network, joining);
    }

    /// A network is new here: its nearest members are asked for it, each for a share.
    pub(super) fn sync_with_neighbours(&mut self, now: Instant, network: NetworkId) {
        self.begin_joining(now, network);
        let neighbours: Vec<NodeId> = self.ring(network).at_distance(1).collect();
        let cluster = self.sync_states.get(&NetworkId::CLUSTER);
        if neighbours.is_empty() && cluster == Some(&SyncState::Synced) {
            self.set_sync_state(network, SyncState::Synced);
        }
        for (at, node) in neighbours.iter().enumerate() {
            let share = Scope::share(at, neighbours.len());
            let step = Step::Fetch(share, None);
            self.syncs.wanted.insert((*node, network), step);
            self.start_sync(now, *node);
        }
    }

    /// Returns when [`Self::hedge`] has work.
    pub(super) fn hedge_at(&self) -> Option<Instant> {
        let joining = self.syncs.joining.values();
        let waiting = joining.filter(|joining| joining.is_hedged());
        waiting.map(|joining| joining.hedge_at).min()
    }

    /// Returns how long nothing may come of a network before more members are asked for it, and for how much that counts.
    fn hedge_after(&mut self, network: NetworkId) -> (Duration, u32) {
        if self.is_lossy && self.ring(network).len() <= 2 * NEAREST {
            (self.config.pull_again / HASTE, 1)
        } else {
            (self.config.pull_again, HASTE)
        }
    }

    /// Something of a network has come: whoever was asked answers.
    pub(super) fn put_off_hedge(&mut self, now: Instant, network: NetworkId) {
        let (after, _) = self.hedge_after(network);
        if let Some(joining) = self.syncs.joining.get_mut(&network) {
            joining.hedge_at = now + after;
            joining.hedged = 0;
        }
    }

    /// Asks more members for what has not come yet of networks that are new here, where nobody answers.
    pub(super) fn hedge(&mut self, now: Instant) {
        let joining = self.syncs.joining.iter();
        let due = joining.filter(|(_, joining)| joining.is_hedged() && joining.hedge_at <= now);
        let due: Vec<NetworkId> = due.map(|(network, _)| *network).collect();
        for network in due {
            self.hedge_one(now, network);
        }
    }

    fn hedge_one(&mut self, now: Instant, network: NetworkId) {
        let (after, counts) = self.hedge_after(network);
        let patience = if self.is_lossy { 1 } else { PATIENCE };
        let Some(joining) = self.syncs.joining.get_mut(&network) else {
            return;
        };
        joining.hedge_at = now + after;
        joining.hedges_left = joining.hedges_left.saturating_sub(counts);
        joining.hedged += counts;
        let asks_further = joining.hedged >= HASTE * patience;
        if asks_further {
            joining.hedged = 0;
            joining.asked_to += 1;
        }
        let asked_to = joining.asked_to;
        let ring = self.ring(network);
        let nearest: BTreeSet<NodeId> = (1..=asked_to.min(NEAREST))
            .flat_map(|distance| ring.at_distance(distance))
            .collect();
        let further: Vec<NodeId> = ring
            .at_distance(asked_to)
            .filter(|_| asks_further && asked_to <= HEDGE_TO)
            .collect();
        for member in nearest {
            // Of a network with little in it they tell in datagrams what they have.
            self.send_digest_to(member, true);
        }
        for member in further {
            self.want_missing(member, network);
            self.start_sync(now, member);
        }
    }

    pub(super) fn set_sync_state(&mut self, network: NetworkId, state: SyncState) {
        if state == SyncState::Synced {
            self.syncs.joining.remove(&network);
        }
        let Some(known) = self.sync_states.get_mut(&network) else {
            return;
        };
        if *known != state {
            *known = state;
            self.synced.push_back((network, state));
        }
    }

    /// A part of a network is as `synced` member has it. Once that is so of all of it, it has come whole.
    pub(super) fn note_whole(
        &mut self,
        now: Instant,
        network: NetworkId,
        part: &Scope,
        synced: bool,
    ) {
        let Some(joining) = self.syncs.joining.get_mut(&network) else {
            return self.set_sync_state(network, SyncState::Synced);
        };
        if synced || joining.is_late(now) {
            joining.missing.subtract(part);
            if joining.missing.is_empty() {
                self.set_sync_state(network, SyncState::Synced);
            }
        } else {
            joining.met_new = true;
        }
    }

    /// Networks whose only member this node is have come whole, once it could have heard of others. Who else is a member of
    /// a network is known once the cluster scope has come.
    pub(super) fn note_alone(&mut self, now: Instant) {
        let joining = self.syncs.joining.iter();
        let waiting: Vec<NetworkId> = joining
            .filter(|(_, joining)| joining.is_late(now))
            .map(|(network, _)| *network)
            .collect();
        for network in waiting {
            let cluster = self.sync_states.get(&NetworkId::CLUSTER);
            let knows_members =
                network == NetworkId::CLUSTER || cluster == Some(&SyncState::Synced);
            if knows_members && self.ring(network).others().next().is_none() {
                self.set_sync_state(network, SyncState::Synced);
            }
        }
    }

    /// Returns whether a network has not come whole yet, and only those that have it whole are believed.
    pub(super) fn is_new(&self, now: Instant, network: NetworkId) -> bool {
        let joining = self.syncs.joining.get(&network);
        joining.is_some_and(|joining| !joining.is_late(now))
    }

    /// What has not come yet of a network that is new here is wanted from a member, unless it is being asked already.
    pub(super) fn want_missing(&mut self, with: NodeId, network: NetworkId) {
        let asked = self.syncs.under_way.get(&with);
        if asked.is_some_and(|call| call.network == network) {
            return;
        }
        if let Some(joining) = self.syncs.joining.get(&network) {
            let step = Step::Fetch(joining.missing.clone(), None);
            self.syncs.wanted.entry((with, network)).or_insert(step);
        }
    }
}
