//! The hash tree over a network's logs: 64 buckets of 64 parts each, by the hash of a log's name.
//!
//! Two replicas find the logs that differ by comparing the sums of the buckets, then of the parts of the buckets that differ:
//! 512 bytes a step, whatever is in them (Merkle, 1987; the fan-out of 64 is that of DeCandia et al., 2007, made to fit a packet).
//!
//! **Invariant:** a sum is that of the hashes of the logs that are shown and not empty, so it does not depend on their order,
//! and a log that only some still hide makes no difference.

use bincode::{Decode, Encode};

use super::message::LogId;
use crate::core::model::mix;

/// How many buckets there are, and how many parts each has.
pub(super) const WIDTH: usize = 64;

/// A hash of a log's name, the same everywhere.
pub(super) fn name_hash(id: &LogId) -> u64 {
    let hash = mix(u64::from(id.network.0) ^ mix(id.owner.0));
    mix(hash ^ (u64::from(id.generation.0) << 32) ^ mix(id.epoch))
}

/// Where a log is in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) bucket: u8,
    pub(super) part: u8,
}

impl Place {
    pub(super) fn of(id: &LogId) -> Self {
        let bits = name_hash(id) >> 52;
        let low = |bits: u64| u8::try_from(bits & 63).expect("six bits");
        Self {
            bucket: low(bits >> 6),
            part: low(bits),
        }
    }
}

/// Some parts of the tree: per bucket, which of its parts.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Scope(Vec<(u8, u64)>);

impl Scope {
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Returns the whole tree.
    pub(super) fn whole() -> Self {
        Self::share(0, 1)
    }

    /// Returns the share of one of `of` nodes, so that all shares are the whole.
    pub(super) fn share(of: usize, nodes: usize) -> Self {
        let buckets = (0u8..).take(WIDTH).skip(of).step_by(nodes.max(1));
        Self(buckets.map(|bucket| (bucket, u64::MAX)).collect())
    }

    /// Returns the part of the tree that a log is in.
    pub(super) fn around(id: &LogId) -> Self {
        let place = Place::of(id);
        Self(vec![(place.bucket, 1 << place.part)])
    }

    /// Returns whether one that came from elsewhere names buckets of the tree, each once.
    pub(super) fn is_well_formed(&self) -> bool {
        self.0.len() <= WIDTH
            && self
                .0
                .iter()
                .all(|(bucket, _)| usize::from(*bucket) < WIDTH)
            && self.0.windows(2).all(|pair| pair[0].0 < pair[1].0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, parts)| *parts == 0)
    }

    pub(super) fn contains(&self, id: &LogId) -> bool {
        let place = Place::of(id);
        let found = self.0.binary_search_by_key(&place.bucket, |entry| entry.0);
        found.is_ok_and(|at| self.0[at].1 >> place.part & 1 == 1)
    }

    /// Returns whether every part is in `other` too.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let mut beyond = self.clone();
        beyond.subtract(other);
        beyond.is_empty()
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = u8> {
        self.0.iter().map(|(bucket, _)| *bucket)
    }

    /// Adds parts of a bucket that is behind all that were added.
    pub(super) fn push(&mut self, bucket: u8, parts: u64) {
        if parts != 0 {
            self.0.push((bucket, parts));
        }
    }

    /// Takes out what is in `other`.
    pub(super) fn subtract(&mut self, other: &Self) {
        for (bucket, parts) in &mut self.0 {
            let theirs = other.0.iter().find(|(other, _)| other == bucket);
            *parts &= !theirs.map_or(0, |(_, parts)| *parts);
        }
        self.0.retain(|(_, parts)| *parts != 0);
    }
}

/// The sums of a bucket's parts, or of the tree's buckets.
pub(super) type Sums = Vec<u64>;

/// Returns which of two lists of sums differ, as a mask.
pub(super) fn differing(ours: &[u64], theirs: &[u64]) -> u64 {
    let pairs = ours.iter().zip(theirs).enumerate();
    pairs.fold(0, |mask, (at, (ours, theirs))| {
        mask | (u64::from(ours != theirs) << at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::{Generation, NetworkId, NodeId};

    fn log(owner: u64) -> LogId {
        LogId {
            network: NetworkId(1),
            owner: NodeId(owner),
            generation: Generation(1),
            epoch: 1,
        }
    }

    #[test]
    fn the_shares_of_all_nodes_are_the_whole_and_do_not_overlap() {
        for nodes in 1..=3 {
            for owner in 0..500 {
                let holders =
                    (0..nodes).filter(|of| Scope::share(*of, nodes).contains(&log(owner)));
                assert_eq!(holders.count(), 1);
            }
        }
    }

    #[test]
    fn logs_scatter_over_the_tree() {
        let mut buckets = vec![0; WIDTH];
        for owner in 0..6_400 {
            buckets[usize::from(Place::of(&log(owner)).bucket)] += 1;
        }
        assert!(
            buckets.iter().all(|count| (50..150).contains(count)),
            "{buckets:?}"
        );
    }

    #[test]
    fn the_scope_around_a_log_holds_it_and_few_others() {
        let scope = Scope::around(&log(7));

        assert!(scope.contains(&log(7)) && scope.is_well_formed());
        assert!(
            (0..4_096)
                .filter(|owner| scope.contains(&log(*owner)))
                .count()
                < 10
        );
    }

    #[test]
    fn what_is_subtracted_is_out() {
        let mut scope = Scope::whole();

        scope.subtract(&Scope::around(&log(7)));
        scope.subtract(&Scope::share(1, 2));

        assert!(!scope.contains(&log(7)));
        scope.subtract(&Scope::share(0, 2));
        assert!(scope.is_empty());
    }

    #[test]
    fn a_scope_that_names_no_bucket_of_the_tree_or_one_twice_is_not_well_formed() {
        for scope in [vec![(64, 1)], vec![(3, 1), (3, 2)], vec![(4, 1), (3, 1)]] {
            assert!(!Scope(scope).is_well_formed());
        }
    }
}
