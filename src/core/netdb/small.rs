//! A map that nearly always holds a few: then it is a list in order that takes no more room than they need.
//!
//! There is one for every other node, or a few, so that what an empty tree costs would be most of a node's memory.

use std::{borrow::Borrow, collections::BTreeMap, ops::RangeBounds};

/// How many are a few. More are in a tree from then on, until none is left.
const FEW: usize = 8;

/// A map in order of its keys.
#[derive(Clone, Debug)]
pub(super) enum SmallMap<K, V> {
    /// At most [`FEW`], in order.
    Few(Vec<(K, V)>),
    #[expect(
        clippy::box_collection,
        reason = "unboxed, a few would need a third more"
    )]
    Many(Box<BTreeMap<K, V>>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Self::Few(few) => few
                .iter()
                .find(|(held, _)| held == key)
                .map(|(_, value)| value),
            Self::Many(many) => many.get(key),
        }
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value in; returns the one that was there.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Self::Few(few) => match few.binary_search_by(|(held, _)| held.cmp(&key)) {
                Ok(at) => Some(std::mem::replace(&mut few[at].1, value)),
                Err(at) if few.len() < FEW => {
                    few.reserve_exact(1);
                    few.insert(at, (key, value));
                    None
                }
                Err(_) => {
                    let mut many: BTreeMap<K, V> = std::mem::take(few).into_iter().collect();
                    many.insert(key, value);
                    *self = Self::Many(Box::new(many));
                    None
                }
            },
            Self::Many(many) => many.insert(key, value),
        }
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            Self::Few(few) => {
                let at = few.iter().position(|(held, _)| held == key)?;
                Some(few.remove(at).1)
            }
            Self::Many(many) => {
                let removed = many.remove(key);
                if many.is_empty() {
                    *self = Self::default();
                }
                removed
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps only what `keep` says yes to.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        match self {
            Self::Few(few) => few.retain_mut(|(key, value)| keep(key, value)),
            Self::Many(many) => many.retain(keep),
        }
    }

    /// Returns all, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.range(..)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten();
        few.map(|(key, value)| (&*key, value))
            .chain(many.into_iter().flat_map(|many| many.iter_mut()))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Returns those whose keys are within a range, in order.
    pub(super) fn range(
        &self,
        range: impl RangeBounds<K> + Clone,
    ) -> impl Iterator<Item = (&K, &V)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let within = range.clone();
        let few = few.into_iter().flatten();
        few.filter(move |(key, _)| within.contains(key.borrow()))
            .map(|(key, value)| (key, value))
            .chain(
                many.into_iter()
                    .flat_map(move |many| many.range(range.clone())),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_tree_is_whatever_is_done_with_it() {
        let (mut small, mut tree) = (SmallMap::default(), BTreeMap::new());
        let mut state = 7u64;
        for step in 0..4_000u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // It grows beyond a few and shrinks again.
            let keys = if step % 400 < 200 { 24 } else { 4 };
            let key = (state >> 33) % keys;
            match (state >> 60) % 4 {
                0 | 1 => assert_eq!(small.insert(key, step), tree.insert(key, step)),
                2 => assert_eq!(small.remove(&key), tree.remove(&key)),
                _ => {
                    small.retain(|held, _| held % 5 != key % 5);
                    tree.retain(|held, _| held % 5 != key % 5);
                }
            }

            assert_eq!(small.len(), tree.len());
            assert_eq!(small.get(&key), tree.get(&key));
            assert!(small.iter().eq(tree.iter()));
            assert!(small.iter_mut().eq(tree.iter_mut()));
            assert!(small.range(3..=key.max(3)).eq(tree.range(3..=key.max(3))));
        }
    }

    #[test]
    fn one_takes_the_room_of_one() {
        let mut small = SmallMap::default();

        small.insert(1u64, 2u32);

        assert!(matches!(&small, SmallMap::Few(few) if few.capacity() == 1));
        assert_eq!(size_of_val(&small), size_of::<Vec<u8>>());
    }
}
