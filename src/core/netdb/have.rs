//! Which dots of a log a replica has: a prefix and a few ranges above it.

use bincode::{Decode, Encode};

use super::message::SEQ_MAX;

/// How many ranges above the prefix a replica keeps for one log; a dot that would need one more is not taken, and comes by
/// anti-entropy.
pub(super) const RANGES_MAX: usize = 256;
/// How many there may be of a log that comes on a stream, page by page: its end joins them. Who asks for the next page says all.
pub(super) const RANGES_ON_STREAM: usize = 65_536;

/// A set of sequence numbers: `1..=prefix`, and ranges above it.
///
/// **Invariant:** ranges are inclusive, ascending, and neither touch each other nor the prefix.
#[derive(Clone, Default, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Have {
    prefix: u64,
    ranges: Vec<(u64, u64)>,
}

/// Brings ranges in order, and joins those that touch or overlap.
pub(super) fn join(ranges: &mut Vec<(u64, u64)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let joins = next.0 <= last.1.saturating_add(1);
        if joins {
            last.1 = last.1.max(next.1);
        }
        joins
    });
}

impl Have {
    /// Returns the set `1..=prefix`.
    pub(super) fn up_to(prefix: u64) -> Self {
        Self {
            prefix,
            ranges: Vec::new(),
        }
    }

    /// Returns the largest number below which nothing is missing.
    pub(super) fn prefix(&self) -> u64 {
        self.prefix
    }

    /// Returns the largest number in the set, 0 if it is empty.
    pub(super) fn head(&self) -> u64 {
        self.ranges.last().map_or(self.prefix, |range| range.1)
    }

    /// Returns the ranges above the prefix.
    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Returns whether a set that came from elsewhere keeps the invariant, in at most `ranges_max` ranges.
    pub(super) fn is_well_formed(&self, ranges_max: usize) -> bool {
        let mut end = self.prefix;
        self.ranges.len() <= ranges_max
            && self.head() <= SEQ_MAX
            && self.ranges.iter().all(|&(first, last)| {
                let apart = end.checked_add(1).is_some_and(|next| first > next);
                end = last;
                apart && first <= last
            })
    }

    /// Returns whether `seq` is in the set.
    pub(super) fn contains(&self, seq: u64) -> bool {
        if seq <= self.prefix {
            return seq > 0;
        }
        let after = self.ranges.partition_point(|range| range.0 <= seq);
        after > 0 && seq <= self.ranges[after - 1].1
    }

    /// Returns whether `seq` can be added within `ranges_max` ranges.
    pub(super) fn has_room_for(&self, seq: u64, ranges_max: usize) -> bool {
        self.ranges.len() < ranges_max || seq == self.prefix + 1
    }

    /// Returns as much of the set as others take: its first [`RANGES_MAX`] ranges. What is left out is told again, no worse.
    pub(super) fn within_bounds(&self) -> Self {
        let ranges = self.ranges.iter().take(RANGES_MAX);
        Self {
            prefix: self.prefix,
            ranges: ranges.copied().collect(),
        }
    }

    /// Adds `first..=last`.
    pub(super) fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        if first <= self.prefix.saturating_add(1) {
            self.prefix = self.prefix.max(last);
        } else {
            let from = self
                .ranges
                .partition_point(|range| range.1.saturating_add(1) < first);
            let to = self
                .ranges
                .partition_point(|range| range.0 <= last.saturating_add(1));
            let (mut low, mut high) = (first, last);
            if from < to {
                low = low.min(self.ranges[from].0);
                high = high.max(self.ranges[to - 1].1);
            }
            self.ranges.splice(from..to, [(low, high)]);
        }
        let mut absorbed = 0;
        for &(first, last) in &self.ranges {
            if first > self.prefix.saturating_add(1) {
                break;
            }
            self.prefix = self.prefix.max(last);
            absorbed += 1;
        }
        self.ranges.drain(..absorbed);
    }

    /// Adds `seq`.
    pub(super) fn insert(&mut self, seq: u64) {
        self.insert_range(seq, seq);
    }

    /// Adds everything in `other`.
    pub(super) fn union(&mut self, other: &Self) {
        self.insert_range(1, other.prefix);
        for &(first, last) in &other.ranges {
            self.insert_range(first, last);
        }
    }

    /// Returns whether everything in this set is in `other`.
    pub(super) fn is_subset_of(&self, other: &Self) -> bool {
        let covered = |first: u64, last: u64| {
            last <= other.prefix
                || other
                    .ranges
                    .iter()
                    .any(|range| range.0 <= first.max(other.prefix + 1) && last <= range.1)
        };
        (self.prefix == 0 || covered(1, self.prefix))
            && self
                .ranges
                .iter()
                .all(|&(first, last)| covered(first, last))
    }

    /// Returns at most `limit` ranges of what is missing in `1..=up_to`, lowest first.
    pub(super) fn missing(&self, up_to: u64, limit: usize) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = self.prefix + 1;
        for &(first, last) in &self.ranges {
            if missing.len() == limit || next > up_to {
                return missing;
            }
            missing.push((next, (first - 1).min(up_to)));
            next = last + 1;
        }
        if next <= up_to && missing.len() < limit {
            missing.push((next, up_to));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_have_is_the_set_of_what_was_added(inserts in prop::collection::vec((1u64..60, 0u64..6), 0..40)) {
            let mut have = Have::default();
            let mut model = BTreeSet::new();

            for (first, len) in inserts {
                have.insert_range(first, first + len);
                model.extend(first..=first + len);
            }

            prop_assert!(have.is_well_formed(RANGES_MAX));
            for seq in 0..70 {
                prop_assert_eq!(have.contains(seq), model.contains(&seq));
            }
            let missing: BTreeSet<u64> =
                have.missing(65, usize::MAX).into_iter().flat_map(|(a, b)| a..=b).collect();
            prop_assert_eq!(missing, (1..=65).filter(|seq| !model.contains(seq)).collect::<BTreeSet<_>>());
        }

        #[test]
        fn a_subset_is_what_set_theory_says(
            a in prop::collection::vec(1u64..20, 0..12),
            b in prop::collection::vec(1u64..20, 0..20),
        ) {
            let fill = |seqs: &[u64]| {
                let mut have = Have::default();
                seqs.iter().for_each(|&seq| have.insert(seq));
                have
            };

            let subset = fill(&a).is_subset_of(&fill(&b));

            prop_assert_eq!(subset, a.iter().all(|seq| b.contains(seq)));
        }
    }

    #[test]
    fn a_set_that_breaks_its_invariant_is_not_well_formed() {
        for (prefix, ranges) in [
            (3, vec![(4, 5)]),
            (0, vec![(5, 4)]),
            (0, vec![(2, 3), (4, 5)]),
            (u64::MAX, vec![(1, 1)]),
            (u64::MAX, vec![]),
            (0, vec![(5, SEQ_MAX + 1)]),
        ] {
            assert!(!Have { prefix, ranges }.is_well_formed(RANGES_MAX));
        }
    }
}
