//! Whose logs count: who is alive, in which generation, attached in which epoch.
//!
//! **Invariant:** a log is shown iff its owner is alive, its epoch is the owner's current attachment to the network, and its
//! generation is the newest known, or the one before it while the newest is not ready.

use std::collections::{BTreeMap, BTreeSet};

use super::{message::LogId, small::SmallMap};
use crate::core::model::{Boot, Generation, Instant, NetworkId, NodeId};

/// How many owners that membership has not named may have logs here, as many as there may be members; more are refused. Who
/// makes names up keeps no member out: a network takes more logs than these have.
const STRANGERS_MAX: usize = 16_384;
/// How many owners that are over are remembered, so that nothing late of theirs is taken. More are forgotten: what is late
/// then is kept hidden for the retention, and goes again.
const FENCES_MAX: usize = 16_384;

/// What is known of one owner.
#[derive(Default, Debug)]
struct Owner {
    life: Life,
    boot: Boot,
    newest: Generation,
    /// The generation before the newest, shown until the newest is ready.
    leaving: Option<(Generation, Instant)>,
    /// Generations below this one are over: their logs are dropped and refused.
    oldest: Generation,
    /// Its logs were kept for the retention; until it is alive again none are taken.
    forgotten: bool,
    /// Per network the newest attach epoch, and whether it still stands; per generation.
    attached: SmallMap<(NetworkId, Generation), (u64, bool)>,
}

/// Whether an owner lives, as membership says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Life {
    /// Membership has not named it.
    #[default]
    Unknown,
    Alive,
    Down,
    Left,
}

/// All owners that this node has heard of.
#[derive(Debug)]
pub(super) struct Owners {
    me: NodeId,
    owners: BTreeMap<NodeId, Owner>,
    /// Owners that membership has not named, and whose logs are kept.
    strangers: BTreeSet<NodeId>,
    pub(super) strangers_max: usize,
    /// Owners that have left, or whose logs were kept for the retention.
    fenced: BTreeSet<NodeId>,
    /// Until when the logs of owners that are not alive are kept.
    retained: BTreeMap<NodeId, Instant>,
    /// When a retention or a grace ends, at the latest; one that ended before is found to have ended when its time comes.
    deadlines: BTreeSet<(Instant, NodeId)>,
}

impl Owners {
    pub(super) fn new(me: NodeId, generation: Generation) -> Self {
        let mut owners = BTreeMap::new();
        for (node, newest) in [(me, generation), (NodeId::CLUSTER, Generation(0))] {
            owners.insert(
                node,
                Owner {
                    life: Life::Alive,
                    newest,
                    oldest: newest,
                    ..Owner::default()
                },
            );
        }
        Self {
            me,
            owners,
            strangers: BTreeSet::new(),
            strangers_max: STRANGERS_MAX,
            fenced: BTreeSet::new(),
            retained: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Returns how many owners are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// Returns whether a log of this owner may be taken.
    pub(super) fn admits(&mut self, node: NodeId) -> bool {
        if self.owners.contains_key(&node) {
            return true;
        }
        let has_room = self.strangers.len() < self.strangers_max;
        if has_room {
            self.strangers.insert(node);
        }
        has_room
    }

    /// An owner is over: it is remembered while there is room.
    fn fence(&mut self, node: NodeId) {
        self.strangers.remove(&node);
        self.fenced.insert(node);
        if self.fenced.len() > FENCES_MAX {
            let retained = &self.retained;
            let mut over = self.fenced.iter().copied();
            if let Some(first) = over.find(|node| !retained.contains_key(node)) {
                self.fenced.remove(&first);
                self.owners.remove(&first);
            }
        }
    }

    /// A node is alive. One that was down and comes back from a restart shows nothing of its former generation.
    pub(super) fn up(&mut self, node: NodeId, boot: Boot) {
        let owner = self.owners.entry(node).or_default();
        let restarted = owner.boot < boot && owner.boot != Boot::default();
        if restarted && matches!(owner.life, Life::Down | Life::Left) {
            owner.oldest = owner.oldest.max(Generation::begun_after(owner.boot));
            owner.leaving = None;
        }
        owner.boot = owner.boot.max(boot);
        owner.life = Life::Alive;
        owner.forgotten = false;
        self.strangers.remove(&node);
        self.fenced.remove(&node);
        self.end_retention(node);
    }

    pub(super) fn down(&mut self, node: NodeId, retain_until: Instant) {
        let owner = self.owners.entry(node).or_default();
        owner.life = Life::Down;
        self.strangers.remove(&node);
        self.end_retention(node);
        self.retained.insert(node, retain_until);
        self.deadlines.insert((retain_until, node));
    }

    fn end_retention(&mut self, node: NodeId) {
        if let Some(until) = self.retained.remove(&node) {
            self.deadlines.remove(&(until, node));
        }
    }

    /// A node has left: what it wrote so far is over.
    pub(super) fn left(&mut self, node: NodeId, boot: Boot) {
        let owner = self.owners.entry(node).or_default();
        owner.oldest = owner.oldest.max(Generation::begun_after(boot));
        if boot < owner.boot {
            // A former life of it has left: of the one that is known now it says nothing.
            return;
        }
        owner.life = Life::Left;
        owner.boot = boot;
        owner.leaving = None;
        // It may have been started again since, and that may be known already.
        let oldest = owner.oldest;
        owner
            .attached
            .retain(|(_, generation), _| *generation >= oldest);
        self.end_retention(node);
        self.fence(node);
    }

    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        self.owners
            .get(&node)
            .is_some_and(|owner| owner.life == Life::Alive)
    }

    /// Returns every live node, ourselves included, the cluster not.
    pub(super) fn alive(&self) -> impl Iterator<Item = NodeId> {
        let alive = |(node, owner): (&NodeId, &Owner)| {
            (owner.life == Life::Alive && *node != NodeId::CLUSTER).then_some(*node)
        };
        self.owners.iter().filter_map(alive)
    }

    /// Returns whether a node is alive and attached to `network`, in its newest generation or in one that still shows.
    pub(super) fn is_attached(&self, node: NodeId, network: NetworkId) -> bool {
        self.owners.get(&node).is_some_and(|owner| {
            let leaving = owner.leaving.map(|(generation, _)| generation);
            let stands = |generation| {
                let attached = owner.attached.get(&(network, generation));
                attached.is_some_and(|(_, stands)| *stands)
            };
            let attached = stands(owner.newest) || leaving.is_some_and(stands);
            owner.life == Life::Alive && (network == NetworkId::CLUSTER || attached)
        })
    }

    /// Returns the newest known generation of a node.
    pub(super) fn newest(&self, node: NodeId) -> Generation {
        self.owners
            .get(&node)
            .map_or(Generation(0), |owner| owner.newest)
    }

    /// Returns every live node attached to `network`, ourselves included.
    pub(super) fn attached(&self, network: NetworkId) -> impl Iterator<Item = NodeId> {
        self.alive()
            .filter(move |node| self.is_attached(*node, network))
    }

    /// A log names a generation: a newer one than known takes over, at once or when it is ready. Returns whether it did.
    pub(super) fn learn_generation(
        &mut self,
        node: NodeId,
        generation: Generation,
        grace_until: Instant,
    ) -> bool {
        let owner = self.owners.entry(node).or_default();
        if generation <= owner.newest {
            return false;
        }
        let former = owner.newest;
        owner.newest = generation;
        if owner.life == Life::Alive && former >= owner.oldest && former != Generation(0) {
            if owner.leaving.is_some() {
                // Two at most: what is neither the newest nor the one before it shows no more, however fast they follow.
                owner.oldest = owner.oldest.max(former);
                owner.attached.retain(|(_, of), _| *of >= former);
            }
            owner.leaving = Some((former, grace_until));
            self.deadlines.insert((grace_until, node));
        } else {
            owner.leaving = None;
            owner.oldest = owner.oldest.max(generation);
        }
        true
    }

    /// The newest generation stands alone from now on. Returns whether another was still shown.
    pub(super) fn settle(&mut self, node: NodeId) -> bool {
        let Some(owner) = self.owners.get_mut(&node) else {
            return false;
        };
        let had = owner.leaving.take().is_some();
        owner.oldest = owner.oldest.max(owner.newest);
        let newest = owner.newest;
        owner
            .attached
            .retain(|(_, generation), _| *generation >= newest);
        had
    }

    /// The newest generation's log of a network has come so far that its tombstones go: the generation before it is over there.
    /// Returns whether it still stood.
    pub(super) fn end_former(&mut self, log: &LogId) -> bool {
        let Some(owner) = self.owners.get_mut(&log.owner) else {
            return false;
        };
        let mut ended = false;
        for ((network, generation), attached) in owner.attached.iter_mut() {
            if *network == log.network && *generation < log.generation && attached.1 {
                // No epoch comes after this one, so nothing that is late makes it stand again.
                *attached = (u64::MAX, false);
                ended = true;
            }
        }
        ended
    }

    /// A log came whose owner does not live, as far as is known: unless it comes back, the log is kept no longer than until then.
    pub(super) fn retain_unless_alive(&mut self, node: NodeId, until: Instant) {
        let owner = self.owners.entry(node).or_default();
        if owner.life != Life::Alive && !owner.forgotten && !self.retained.contains_key(&node) {
            self.retained.insert(node, until);
            self.deadlines.insert((until, node));
        }
    }

    /// Returns whether the owner has a generation that waits to be ready.
    pub(super) fn is_settling(&self, node: NodeId) -> bool {
        self.owners
            .get(&node)
            .is_some_and(|owner| owner.leaving.is_some())
    }

    /// Notes an attach (`stands`) or detach in `epoch`. Returns whether it is news.
    pub(super) fn attach(&mut self, log: LogId, epoch: u64, stands: bool) -> bool {
        let owner = self.owners.entry(log.owner).or_default();
        let attachment = (log.network, log.generation);
        let known = owner.attached.get(&attachment).copied();
        if known.unwrap_or_default() >= (epoch, stands) {
            return false;
        }
        owner.attached.insert(attachment, (epoch, stands));
        true
    }

    /// Returns the attachments of a cluster scope's log that stand, as the names of the logs that they make.
    pub(super) fn standing(&self, log: &LogId) -> impl Iterator<Item = LogId> {
        let attached = self.owners.get(&log.owner).map(|owner| &owner.attached);
        let log = *log;
        attached.into_iter().flat_map(SmallMap::iter).filter_map(
            move |(&(network, generation), &(epoch, stands))| {
                let made = LogId {
                    network,
                    epoch,
                    ..log
                };
                (stands && generation == log.generation).then_some(made)
            },
        )
    }

    /// The attachment that has made a log stands no longer.
    pub(super) fn end_attachment(&mut self, log: &LogId) {
        if let Some(owner) = self.owners.get_mut(&log.owner) {
            let attachment = (log.network, log.generation);
            owner.attached.insert(attachment, (log.epoch, false));
        }
    }

    /// Returns whether the attachment that has made a log is known and stands.
    pub(super) fn stands(&self, log: &LogId) -> bool {
        let owner = self.owners.get(&log.owner);
        let known = owner.and_then(|owner| owner.attached.get(&(log.network, log.generation)));
        known == Some(&(log.epoch, true))
    }

    /// Returns whether a log is over: a former generation, or a former attachment.
    pub(super) fn is_over(&self, log: &LogId) -> bool {
        let Some(owner) = self.owners.get(&log.owner) else {
            return false;
        };
        let former_attachment = log.network != NetworkId::CLUSTER
            && owner
                .attached
                .get(&(log.network, log.generation))
                .is_some_and(|&(epoch, stands)| {
                    log.epoch < epoch || (log.epoch == epoch && !stands)
                });
        owner.forgotten || log.generation < owner.oldest || former_attachment
    }

    /// Returns whether the log's entries are shown.
    pub(super) fn shows(&self, log: &LogId) -> bool {
        let Some(owner) = self.owners.get(&log.owner) else {
            return false;
        };
        let attached = log.network == NetworkId::CLUSTER
            || owner
                .attached
                .get(&(log.network, log.generation))
                .is_some_and(|&(epoch, stands)| stands && epoch == log.epoch);
        let current = log.generation == owner.newest
            || owner
                .leaving
                .is_some_and(|(leaving, _)| leaving == log.generation);
        owner.life == Life::Alive && attached && current && log.generation >= owner.oldest
    }

    /// Returns our attach epoch in a network.
    pub(super) fn our_epoch(&self, network: NetworkId) -> Option<u64> {
        if network == NetworkId::CLUSTER {
            return Some(0);
        }
        let owner = &self.owners[&self.me];
        let &(epoch, stands) = owner.attached.get(&(network, owner.newest))?;
        stands.then_some(epoch)
    }

    /// Returns the next time at which [`Self::expire`] has work.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Returns the owners whose grace has ended, and those whose logs need no longer be kept.
    pub(super) fn expire(&mut self, now: Instant) -> (Vec<NodeId>, BTreeSet<NodeId>) {
        let mut settled = Vec::new();
        let mut forgotten = BTreeSet::new();
        while let Some(&(until, node)) = self.deadlines.first().filter(|first| first.0 <= now) {
            self.deadlines.remove(&(until, node));
            let Some(owner) = self.owners.get_mut(&node) else {
                continue;
            };
            if owner.leaving.is_some_and(|(_, until)| until <= now) {
                settled.push(node);
            }
            if self.retained.get(&node).is_some_and(|until| *until <= now) {
                self.retained.remove(&node);
                owner.forgotten = true;
                owner.attached.clear();
                forgotten.insert(node);
                self.fence(node);
            }
        }
        (settled, forgotten)
    }
}
