//! One log as this node has it.
//!
//! **Invariants**: I2 for every `s` in have, there is the dot `s`, or a later dot of the same key, or `s ≤ floor`; I3 every dot
//! is in have; I4 floor ≤ the prefix of have.

use std::collections::BTreeSet;

use super::{
    entries::EntryAt,
    have::Have,
    message::LogId,
    small::SmallMap,
    tree::{Place, name_hash},
};
use crate::core::model::mix;

/// How far a log has come here: it differs whenever dots or a floor have come, or holes were covered.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    prefix: u64,
    head: u64,
    ranges: usize,
    pub(super) floor: u64,
}

/// One log as this node has it.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) id: LogId,
    pub(super) place: Place,
    pub(super) have: Have,
    pub(super) floor: u64,
    pub(super) shown: bool,
    /// The newest dot of each key the owner holds, tombstones included, and where it is.
    pub(super) dots: SmallMap<u64, EntryAt>,
    /// Which of them are tombstones.
    pub(super) tombstones: BTreeSet<u64>,
    /// The hash that the tree's sums hold, and whether it is to be computed anew.
    pub(super) summed: u64,
    pub(super) is_touched: bool,
}

impl Log {
    pub(super) fn new(id: LogId, shown: bool) -> Self {
        Self {
            id,
            place: Place::of(&id),
            have: Have::default(),
            floor: 0,
            shown,
            dots: SmallMap::default(),
            tombstones: BTreeSet::new(),
            summed: 0,
            is_touched: false,
        }
    }

    /// What the log adds to the sums of the tree: a number that equal sets of dots of one log share, and equal
    /// floors, 0 while it is hidden or empty.
    pub(super) fn hash(&self) -> u64 {
        if !self.shown || self.have.head() == 0 {
            return 0;
        }
        let mut hash = mix(name_hash(&self.id) ^ self.have.prefix());
        // Who missed a floor's push would keep its tombstones until the next write.
        hash = mix(hash ^ self.floor.rotate_left(32));
        for &(first, last) in self.have.ranges() {
            hash = mix(mix(hash ^ first) ^ last);
        }
        hash
    }

    /// Returns how far the log has come here.
    pub(super) fn extent(&self) -> Extent {
        Extent {
            prefix: self.have.prefix(),
            head: self.have.head(),
            ranges: self.have.ranges().len(),
            floor: self.floor,
        }
    }

    /// Returns the lowest tombstone.
    pub(super) fn first_tombstone(&self) -> Option<u64> {
        self.tombstones.first().copied()
    }

    /// Returns the dots at or below `seq`, as ranges of adjacent held numbers.
    pub(super) fn kept_up_to(&self, seq: u64) -> Vec<(u64, u64)> {
        let mut kept: Vec<(u64, u64)> = Vec::new();
        for (&held, _) in self.dots.range(..=seq) {
            match kept.last_mut() {
                Some(last) if last.1 + 1 == held => last.1 = held,
                Some(_) | None => kept.push((held, held)),
            }
        }
        kept
    }
}
