//! The cluster log: what every node shall know of the allocator's state, as the dots of one log.

use std::collections::BTreeMap;

use crate::core::model::{Dot, Hlc, Key, TableName, Value};

/// How many deletes are remembered. A replica that missed more is below the floor and gets the whole log.
pub const TOMBSTONES_MAX: usize = 1_024;

/// The newest dot of every key, and the last deletes.
///
/// **Invariant:** numbers are dense and only grow; a delete that is not remembered any more is at the floor or below.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ClusterLog {
    live: BTreeMap<(TableName, Key), (u64, Hlc, Value)>,
    /// Number → what was deleted; only if nothing was put in its place.
    tombstones: BTreeMap<u64, (TableName, Key, Hlc)>,
    last: u64,
    floor: u64,
    /// Dots that nobody took yet; not a part of the state, so a snapshot has none.
    fresh: Vec<Dot>,
}

impl ClusterLog {
    /// Writes an entry; returns the number of its dot.
    pub(super) fn put(&mut self, at: Hlc, table: TableName, key: Key, value: Value) -> u64 {
        self.write(at, table, key, Some(value));
        self.last
    }

    pub(super) fn delete(&mut self, at: Hlc, table: TableName, key: Key) {
        self.write(at, table, key, None);
    }

    fn write(&mut self, written: Hlc, table: TableName, key: Key, value: Option<Value>) {
        self.last += 1;
        let dot = Dot {
            seq: self.last,
            written,
            table,
            key,
            value,
        };
        self.fresh.push(dot.clone());
        self.keep(dot);
        while self.tombstones.len() > TOMBSTONES_MAX {
            if let Some((seq, _)) = self.tombstones.pop_first() {
                self.floor = seq;
            }
        }
    }

    /// Puts a dot where it belongs; what it supersedes goes.
    fn keep(&mut self, dot: Dot) {
        self.tombstones
            .retain(|_, (table, key, _)| *table != dot.table || *key != dot.key);
        let address = (dot.table, dot.key);
        match dot.value {
            Some(value) => {
                self.live.insert(address, (dot.seq, dot.written, value));
            }
            None => {
                self.live.remove(&address);
                let (table, key) = address;
                self.tombstones.insert(dot.seq, (table, key, dot.written));
            }
        }
    }

    /// Returns the number of the dot that an entry has.
    pub(super) fn number(&self, table: TableName, key: Key) -> Option<u64> {
        self.live.get(&(table, key)).map(|(seq, ..)| *seq)
    }

    /// Gives every entry a new number, so far on that nobody has seen it; what anybody has of the log is below the floor.
    pub(super) fn renumber(&mut self, skipped: u64) {
        let live = std::mem::take(&mut self.live);
        self.tombstones.clear();
        self.last = self.last.saturating_add(skipped);
        self.floor = self.last;
        for ((table, key), (_, written, value)) in live {
            self.write(written, table, key, Some(value));
        }
    }

    /// Returns the dots made since the last call.
    pub(super) fn take_fresh(&mut self) -> Vec<Dot> {
        std::mem::take(&mut self.fresh)
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Returns every dot that is kept, by number.
    pub(super) fn dots(&self) -> Vec<Dot> {
        let live = self
            .live
            .iter()
            .map(|((table, key), (seq, written, value))| Dot {
                seq: *seq,
                written: *written,
                table: table.clone(),
                key: key.clone(),
                value: Some(value.clone()),
            });
        let deletes = self
            .tombstones
            .iter()
            .map(|(seq, (table, key, written))| Dot {
                seq: *seq,
                written: *written,
                table: table.clone(),
                key: key.clone(),
                value: None,
            });
        let mut dots: Vec<Dot> = live.chain(deletes).collect();
        dots.sort_by_key(|dot| dot.seq);
        dots
    }

    /// Makes the log again from what [`Self::dots`], [`Self::last`] and [`Self::floor`] returned.
    pub(super) fn restore(last: u64, floor: u64, dots: impl IntoIterator<Item = Dot>) -> Self {
        let mut log = Self {
            last,
            floor,
            ..Self::default()
        };
        for dot in dots {
            log.keep(dot);
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        TableName::new("t").unwrap()
    }

    fn key(n: usize) -> Key {
        Key::new(n.to_be_bytes().to_vec()).unwrap()
    }

    fn value() -> Value {
        Value::new(vec![1]).unwrap()
    }

    #[test]
    fn dots_are_numbered_densely_and_only_the_newest_of_a_key_is_kept() {
        let mut log = ClusterLog::default();

        log.put(Hlc(1), table(), key(1), value());
        log.put(Hlc(2), table(), key(2), value());
        log.put(Hlc(3), table(), key(1), value());
        log.delete(Hlc(4), table(), key(2));

        let fresh: Vec<u64> = log.take_fresh().iter().map(|dot| dot.seq).collect();
        let kept: Vec<(u64, bool)> = log
            .dots()
            .iter()
            .map(|dot| (dot.seq, dot.value.is_some()))
            .collect();
        assert_eq!(fresh, [1, 2, 3, 4]);
        assert_eq!(kept, [(3, true), (4, false)]);
        assert!(log.take_fresh().is_empty());
    }

    #[test]
    fn a_key_put_again_has_no_tombstone_left() {
        let mut log = ClusterLog::default();
        log.put(Hlc(1), table(), key(1), value());
        log.delete(Hlc(2), table(), key(1));

        log.put(Hlc(3), table(), key(1), value());

        assert_eq!(log.dots().len(), 1);
    }

    #[test]
    fn a_renumbered_log_has_the_same_entries_and_nothing_at_its_floor_or_below() {
        let mut log = ClusterLog::default();
        log.put(Hlc(1), table(), key(1), value());
        log.put(Hlc(2), table(), key(2), value());
        log.delete(Hlc(3), table(), key(1));

        log.renumber(100);

        let dots = log.dots();
        let kept: Vec<(u64, Hlc, &Key)> = dots
            .iter()
            .map(|dot| (dot.seq, dot.written, &dot.key))
            .collect();
        assert_eq!((log.floor(), log.last()), (103, 104));
        assert_eq!(kept, [(104, Hlc(2), &key(2))]);
    }

    #[test]
    fn the_floor_follows_the_deletes_that_are_forgotten() {
        let mut log = ClusterLog::default();
        for n in 0..=TOMBSTONES_MAX {
            log.put(Hlc(1), table(), key(n), value());
            log.delete(Hlc(1), table(), key(n));
        }

        assert_eq!(log.floor(), 2);
        assert_eq!(log.dots().len(), TOMBSTONES_MAX);
    }
}
