//! A rotation of the datagram keys, step by step, and when one is due.
//!
//! A key is added, all live members fetch the ring and open with it, it is promoted, all fetch that and seal with it; so no datagram
//! is lost on the rotation's account. Which step is next is read off the ring that the cluster agreed on, not remembered: whoever
//! goes on with a rotation that a lost leader cut off finds the key that was added, and promotes that one.
//!
//! **Invariant:** what [replaces](Goal::Replace) the keys never promotes one that was there before it began, since that one may be
//! known to whom the keys are kept from.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::keyring::{AgreedRing, KeyId};
use crate::core::model::{Instant, NodeId, UnixMillis};

/// How long all members together have to fetch a ring before the rotation goes on without those that have not.
const SPREAD_FOR: Duration = Duration::from_secs(10);

/// How long to wait before those that have not fetched it are told again, and before what should have changed is looked at again.
const TELL_AGAIN: Duration = Duration::from_millis(200);

/// How long a rotation may take in all: three rings to be fetched, and as much again.
const ROTATE_WITHIN: Duration = Duration::from_secs(60);

/// How long ago a key was added that seals nothing yet, when whoever added it is taken for lost.
const RESUME_AFTER: Duration = Duration::from_secs(30);

const _: () = assert!(RESUME_AFTER.as_secs() > 2 * SPREAD_FOR.as_secs());

/// What a rotation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// That another key seals; the former one opens until the next rotation. One that was cut off is gone on with.
    Rotate,
    /// That a key seals which nobody had before, and that no other opens.
    Replace,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Have a key added to the ring, and say [which](Rotation::handle_added).
    Add,
    /// Have these members fetch the ring, and say what each [has](Rotation::handle_has) then.
    Tell {
        /// The version to have.
        version: u64,
        /// Who lacks it, for all that is known.
        whom: BTreeSet<NodeId>,
        /// How long to wait for their answers.
        within: Duration,
    },
    /// Have that key seal.
    Promote(KeyId),
    /// Have all other keys dropped.
    Retire,
    /// Look at the ring again after so long.
    Pause(Duration),
    /// Nothing: that key seals.
    Done(KeyId),
    /// Nothing: the ring was changed by others all the time. It may be tried again.
    Overtaken,
}

/// One rotation, on the node that does it.
#[derive(Clone, Debug)]
pub struct Rotation {
    goal: Goal,
    until: Instant,
    /// The key that shall seal, or a later one.
    key: Option<KeyId>,
    /// Which version of the ring each member had when it was asked last.
    has: BTreeMap<NodeId, u64>,
    spread: Option<Spread>,
}

/// One version of the ring on its way to all members.
#[derive(Clone, Debug)]
struct Spread {
    version: u64,
    until: Instant,
    tell_at: Instant,
}

impl Rotation {
    /// Begins a rotation, or goes on with one that was cut off.
    pub fn new(goal: Goal, now: Instant) -> Self {
        Self {
            goal,
            until: now + ROTATE_WITHIN,
            key: None,
            has: BTreeMap::new(),
            spread: None,
        }
    }

    /// Notes which key was added.
    pub fn handle_added(&mut self, id: KeyId) {
        self.key = Some(id);
    }

    /// Notes which version of the ring a member has.
    pub fn handle_has(&mut self, node: NodeId, version: u64) {
        let has = self.has.entry(node).or_default();
        *has = version.max(*has);
    }

    /// Returns what to do next, as the ring stands and with those members alive, without the one that rotates.
    pub fn step(&mut self, ring: &AgreedRing, members: &BTreeSet<NodeId>, now: Instant) -> Step {
        if now >= self.until {
            return Step::Overtaken;
        }
        let (seals, newest) = (ring.keys.primary().0, ring.keys.newest());
        let key = match (self.key, self.goal) {
            (Some(key), Goal::Rotate | Goal::Replace) => key,
            (None, Goal::Rotate) if newest != seals => *self.key.insert(newest),
            (None, Goal::Rotate | Goal::Replace) => return Step::Add,
        };
        if key.is_after(newest) {
            // This node has not heard of it yet, or others have retired it.
            return Step::Pause(TELL_AGAIN);
        }
        if let Some(step) = self.spread(ring.version, members, now) {
            return step;
        }
        if key.is_after(seals) {
            return Step::Promote(newest);
        }
        match self.goal {
            Goal::Replace if ring.keys.keys().count() > 1 => Step::Retire,
            Goal::Replace | Goal::Rotate => Step::Done(seals),
        }
    }

    /// Returns who of these members has not fetched that ring, for all that is known.
    pub fn behind(&self, version: u64, members: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let lacks = |node: &&NodeId| self.has.get(node).is_none_or(|has| *has < version);
        members.iter().filter(lacks).copied().collect()
    }

    /// Has a version told to everybody: nothing is left to do once all have it, or their time is over.
    fn spread(&mut self, version: u64, members: &BTreeSet<NodeId>, now: Instant) -> Option<Step> {
        let whom = self.behind(version, members);
        if whom.is_empty() {
            return None;
        }
        let fresh = Spread {
            version,
            until: now + SPREAD_FOR,
            tell_at: now,
        };
        let known = self.spread.take().filter(|known| known.version == version);
        let spread = self.spread.insert(known.unwrap_or(fresh));
        if now >= spread.until {
            return None;
        }
        let early = spread.tell_at.saturating_duration_since(now);
        if !early.is_zero() {
            return Some(Step::Pause(early));
        }
        spread.tell_at = now + TELL_AGAIN;
        Some(Step::Tell {
            version,
            whom,
            within: spread.until.saturating_duration_since(now),
        })
    }
}

/// Returns whether the leader rotates now: a key has sealed for as long as it shall, or a rotation was cut off.
///
/// `added` is when a key was added last. A wall clock that is set back puts it off by as much.
pub fn is_due(ring: &AgreedRing, added: UnixMillis, now: UnixMillis, every: Duration) -> bool {
    let passed = Duration::from_millis(now.0.saturating_sub(added.0));
    let is_cut_off = ring.keys.newest() != ring.keys.primary().0;
    passed >= every || (is_cut_off && passed >= RESUME_AFTER)
}

#[cfg(test)]
mod tests;
