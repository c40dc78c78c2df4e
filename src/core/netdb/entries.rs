//! The entries of one network: found by key, or by a place that is theirs as long as they are held.
//!
//! A log names its entries by place, so that what it has is read in order without a search for each key.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use super::{
    slots::{Place, Slots},
    versions::{Version, Versions},
};

/// A table and a key, as one comparable run of bytes: the table's number, then the key.
pub(super) type EntryKey = Arc<[u8]>;

/// Where an entry is.
pub(super) type EntryAt = Place;

/// A key and who holds it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: EntryKey,
    pub(super) versions: Versions,
}

/// Where a version has come to.
#[derive(Debug)]
pub(super) enum Placed {
    /// It is the first of its key.
    First(EntryAt),
    /// Its key is held already: it is handed back.
    Held(EntryAt, Version),
}

/// The entries of one network.
///
/// **Invariant:** `index` names each place that holds something once, under the key that is there.
#[derive(Default, Debug)]
pub(super) struct Entries {
    index: BTreeMap<EntryKey, EntryAt>,
    places: Slots<Held>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Puts a version whose key is not held. The tree is searched once: that is most of what a dot costs.
    pub(super) fn place(&mut self, key: EntryKey, version: Version) -> Placed {
        let vacant = match self.index.entry(key) {
            Entry::Occupied(occupied) => return Placed::Held(*occupied.get(), version),
            Entry::Vacant(vacant) => vacant,
        };
        let place = self.places.put(Held {
            key: Arc::clone(vacant.key()),
            versions: Versions::One(version),
        });
        vacant.insert(place);
        Placed::First(place)
    }

    /// Returns what is at a place that was handed out and has not been removed.
    pub(super) fn at(&self, place: EntryAt) -> &Held {
        &self.places[place]
    }

    pub(super) fn at_mut(&mut self, place: EntryAt) -> &mut Held {
        &mut self.places[place]
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Held> {
        self.index.get(key).map(|&place| self.at(place))
    }

    /// Returns all entries from a key on, in order.
    pub(super) fn from(&self, key: &[u8]) -> impl Iterator<Item = &Held> {
        let range = (Bound::Included(key), Bound::Unbounded);
        let places = self.index.range::<[u8], _>(range);
        places.map(|(_, &place)| self.at(place))
    }

    /// Takes an entry out; its place is another's from now on.
    pub(super) fn remove(&mut self, place: EntryAt) {
        if let Some(held) = self.places.take(place) {
            self.index.remove(&held.key);
        }
        if self.index.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::Hlc;

    fn version(seq: u64) -> Version {
        Version {
            log: 0,
            seq,
            written: Hlc::default(),
            value: None,
        }
    }

    fn first(entries: &mut Entries, key: &[u8]) -> EntryAt {
        match entries.place(key.into(), version(1)) {
            Placed::First(place) => place,
            Placed::Held(..) => panic!("{key:?} is held"),
        }
    }

    #[test]
    fn a_place_is_the_keys_until_it_is_removed_and_then_anothers() {
        let mut entries = Entries::default();
        let (b, a) = (first(&mut entries, b"b"), first(&mut entries, b"a"));

        let again = entries.place(b"b"[..].into(), version(2));
        entries.remove(b);
        let c = first(&mut entries, b"c");

        assert!(matches!(again, Placed::Held(place, returned) if place == b && returned.seq == 2));
        assert_eq!(c, b);
        assert!(entries.get(b"b").is_none());
        assert_eq!(&*entries.at(a).key, b"a");
        let keys: Vec<_> = entries.from(b"").map(|held| held.key.to_vec()).collect();
        assert_eq!(keys, [b"a", b"c"]);
    }

    #[test]
    fn what_is_empty_begins_anew() {
        let mut entries = Entries::default();
        let place = first(&mut entries, b"a");

        entries.remove(place);

        assert_eq!(entries.len(), 0);
        assert_eq!(first(&mut entries, b"b"), 0);
    }
}
