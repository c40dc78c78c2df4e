//! A set of offsets, as bits in chunks: a full /16 takes ten kilobytes, and a few addresses of a /64 a few chunks.

use std::collections::BTreeMap;

/// How many words of bits a chunk has.
const WORDS: usize = 4;
/// How many offsets a chunk has.
const CHUNK: u128 = WORDS as u128 * u64::BITS as u128;

/// Offsets into a block.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Offsets {
    /// Number of the chunk → its bits; none without a bit.
    chunks: BTreeMap<u128, [u64; WORDS]>,
    len: usize,
}

impl Offsets {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, offset: u128) -> bool {
        let (chunk, word, bit) = place(offset);
        let words = self.chunks.get(&chunk);
        words.is_some_and(|words| words.get(word).is_some_and(|word| word & bit != 0))
    }

    /// Adds an offset; returns whether it is new.
    pub(super) fn insert(&mut self, offset: u128) -> bool {
        let (chunk, word, bit) = place(offset);
        let words = self.chunks.entry(chunk).or_default();
        let Some(word) = words.get_mut(word).filter(|word| **word & bit == 0) else {
            return false;
        };
        *word |= bit;
        self.len += 1;
        true
    }

    /// Takes an offset out; returns whether it was there.
    pub(super) fn remove(&mut self, offset: u128) -> bool {
        let (chunk, word, bit) = place(offset);
        let Some(words) = self.chunks.get_mut(&chunk) else {
            return false;
        };
        let Some(word) = words.get_mut(word).filter(|word| **word & bit != 0) else {
            return false;
        };
        *word &= !bit;
        self.len -= 1;
        if words.iter().all(|word| *word == 0) {
            self.chunks.remove(&chunk);
        }
        true
    }

    /// Returns the first offset from `first` to `last` that is not in the set. It skips whole words.
    pub(super) fn first_absent(&self, first: u128, last: u128) -> Option<u128> {
        let mut candidate = first;
        while candidate <= last {
            let (chunk, word, bit) = place(candidate);
            let Some(words) = self.chunks.get(&chunk) else {
                return Some(candidate);
            };
            let mut passed = bit - 1;
            let mut at = candidate & !u128::from(u64::BITS - 1);
            for bits in words.iter().skip(word) {
                let ones = (bits | passed).trailing_ones();
                if ones < u64::BITS {
                    return Some(at + u128::from(ones)).filter(|found| *found <= last);
                }
                passed = 0;
                at = at.checked_add(u128::from(u64::BITS))?;
            }
            candidate = at;
        }
        None
    }
}

/// Returns the chunk of an offset, the word in it, and the bit in that.
fn place(offset: u128) -> (u128, usize, u64) {
    let inside = (offset % CHUNK) as usize;
    let bits = u64::BITS as usize;
    (offset / CHUNK, inside / bits, 1 << (inside % bits))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0u128..700), 0..300), first in 0u128..700) {
            let (mut offsets, mut model) = (Offsets::default(), BTreeSet::new());
            for (adds, offset) in steps {
                if adds {
                    prop_assert_eq!(offsets.insert(offset), model.insert(offset));
                } else {
                    prop_assert_eq!(offsets.remove(offset), model.remove(&offset));
                }
                prop_assert_eq!(offsets.len(), model.len());
            }
            prop_assert!((0..700).all(|offset| offsets.contains(offset) == model.contains(&offset)));
            let absent = (first..=700).find(|offset| !model.contains(offset));
            prop_assert_eq!(offsets.first_absent(first, 700), absent);
        }
    }

    #[test]
    fn a_full_set_has_nothing_absent_and_the_last_offset_of_all_is_one() {
        let mut offsets = Offsets::default();
        assert!((0..600).all(|offset| offsets.insert(offset)));

        assert_eq!(offsets.first_absent(0, 599), None);
        assert_eq!(offsets.first_absent(0, 600), Some(600));
        assert!(offsets.insert(u128::MAX));
        assert_eq!(offsets.first_absent(u128::MAX, u128::MAX), None);
    }
}
