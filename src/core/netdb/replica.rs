//! One network's entries as this node has them: per log its dots, per key whoever holds it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    entries::{Entries, EntryAt, EntryKey, Placed},
    log::Log,
    message::{Complete, LogId, WireDot},
    slots::Slots,
    tables::{TableId, Tables},
    tree::{Scope, Sums, WIDTH},
    versions::{Version, Versions},
};
use crate::core::model::{
    Generation, Hlc, Key, Mutated, Mutation, NetworkId, NodeId, TableName, Value,
};

/// How many logs one network may have here; more are refused until some are over.
const LOGS_MAX: usize = 65_536;

/// How many keys one log may hold here; dots of more are refused until some are deleted.
const DOTS_MAX: usize = 1 << 20;

/// What is seen of a key: the winning version's owner and value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) owner: NodeId,
    pub(super) written: Hlc,
    pub(super) value: Value,
}

/// A key whose visible value is not what it was.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) table: TableName,
    pub(super) key: Key,
    pub(super) before: Option<Seen>,
    pub(super) after: Option<Seen>,
}

/// What became of a dot.
#[derive(Debug)]
pub(super) enum Applied {
    /// It was known, or superseded, or below the floor.
    Known,
    /// It is new here.
    New(Option<Difference>),
    /// There is no room for it: it comes later by anti-entropy.
    NoRoom,
}

/// The entries of one network.
#[derive(Debug)]
pub(super) struct Replica {
    network: NetworkId,
    index: BTreeMap<LogId, u32>,
    logs: Slots<Log>,
    entries: Entries,
    tables: Tables,
    /// The sums of the hash tree's buckets, but for the logs that were touched since.
    sums: [u64; WIDTH],
    touched: Vec<u32>,
    mutated: Mutated,
}

impl Replica {
    pub(super) fn new(network: NetworkId, mutated: Mutated) -> Self {
        Self {
            network,
            index: BTreeMap::new(),
            logs: Slots::default(),
            entries: Entries::default(),
            tables: Tables::default(),
            sums: [0; WIDTH],
            touched: Vec::new(),
            mutated,
        }
    }

    pub(super) fn network(&self) -> NetworkId {
        self.network
    }

    pub(super) fn log(&self, id: &LogId) -> Option<&Log> {
        self.index.get(id).and_then(|&at| self.logs.get(at))
    }

    pub(super) fn logs(&self) -> impl Iterator<Item = &Log> {
        self.index.values().filter_map(|&at| self.logs.get(at))
    }

    /// Returns the logs of one owner.
    pub(super) fn logs_of(&self, owner: NodeId) -> impl Iterator<Item = LogId> {
        let bound = |generation, epoch| LogId {
            network: self.network,
            owner,
            generation,
            epoch,
        };
        let first = bound(Generation(0), 0);
        let last = bound(Generation(u32::MAX), u64::MAX);
        self.index.range(first..=last).map(|(log, _)| *log)
    }

    /// Returns how many keys are held.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the root hash: the sum of all buckets.
    pub(super) fn root(&mut self) -> u64 {
        let add = |sum: u64, bucket: &u64| sum.wrapping_add(*bucket);
        self.buckets().iter().fold(0, add)
    }

    /// Returns the sums of the hash tree's buckets.
    pub(super) fn buckets(&mut self) -> &[u64; WIDTH] {
        for at in std::mem::take(&mut self.touched) {
            let Some(log) = self.logs.get_mut(at) else {
                continue;
            };
            let hash = log.hash();
            let sum = &mut self.sums[usize::from(log.place.bucket)];
            *sum = sum.wrapping_sub(log.summed).wrapping_add(hash);
            log.summed = hash;
            log.is_touched = false;
        }
        &self.sums
    }

    /// Returns the sums of the parts of one bucket.
    pub(super) fn parts(&mut self, bucket: u8) -> Sums {
        self.buckets();
        let mut parts = vec![0u64; WIDTH];
        for log in self.logs().filter(|log| log.place.bucket == bucket) {
            let part = &mut parts[usize::from(log.place.part)];
            *part = part.wrapping_add(log.summed);
        }
        parts
    }

    /// Returns the logs that are in a scope, from `from` on, in order.
    pub(super) fn logs_in(&self, scope: &Scope, from: Option<LogId>) -> impl Iterator<Item = &Log> {
        let from = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        let logs = self.index.range((from, std::ops::Bound::Unbounded));
        logs.filter(|(id, _)| scope.contains(id))
            .filter_map(|(_, &at)| self.logs.get(at))
    }

    /// Notes that a log's hash is to be computed anew.
    fn touch(&mut self, at: u32) -> &mut Log {
        let log = &mut self.logs[at];
        if !log.is_touched {
            log.is_touched = true;
            self.touched.push(at);
        }
        log
    }

    /// Returns the log's place, making the log if there is room for one more.
    pub(super) fn open(&mut self, id: LogId, shown: bool) -> Option<u32> {
        if let Some(&at) = self.index.get(&id) {
            return Some(at);
        }
        if self.index.len() >= LOGS_MAX {
            return None;
        }
        let at = self.logs.put(Log::new(id, shown));
        self.index.insert(id, at);
        Some(at)
    }

    fn log_at(&mut self, at: u32) -> &mut Log {
        &mut self.logs[at]
    }

    /// Takes a dot of the log at `at`, unless what is held of the log would need more than `ranges_max` ranges.
    pub(super) fn apply(&mut self, at: u32, dot: &WireDot<'_>, ranges_max: usize) -> Applied {
        let log = self.log_at(at);
        if log.have.contains(dot.seq) || dot.seq <= log.floor {
            return Applied::Known;
        }
        if !log.have.has_room_for(dot.seq, ranges_max) {
            return Applied::NoRoom;
        }
        let Some(table) = self.tables.intern(dot.table) else {
            return Applied::NoRoom;
        };
        let key = entry_key(table, dot.key);
        if self.log_at(at).dots.len() >= DOTS_MAX {
            let held = self.entries.get(&key);
            if held.is_none_or(|held| held.versions.of(at).is_none()) {
                return Applied::NoRoom;
            }
        }
        self.touch(at).have.insert(dot.seq);
        Applied::New(self.put(at, key, dot))
    }

    /// Puts a dot into its key's place, unless the log has a later one there.
    fn put(&mut self, at: u32, wanted: EntryKey, dot: &WireDot<'_>) -> Option<Difference> {
        let version = Version {
            log: at,
            seq: dot.seq,
            written: dot.written,
            value: dot.value.map(Into::into),
        };
        let (place, former, before) = match self.entries.place(wanted, version) {
            Placed::First(place) => (place, None, None),
            Placed::Held(place, version) => {
                let held = self.entries.at(place).versions.of(at);
                if held.is_some_and(|held| held.seq > dot.seq) {
                    return None;
                }
                let before = self.seen(place);
                let former = self.entries.at_mut(place).versions.put(version);
                (place, former, before)
            }
        };
        let log = self.log_at(at);
        if let Some(former) = former {
            log.dots.remove(&former.seq);
            log.tombstones.remove(&former.seq);
        }
        if dot.value.is_none() {
            log.tombstones.insert(dot.seq);
        }
        log.dots.insert(dot.seq, place);
        self.difference(place, before, self.seen(place))
    }

    /// Takes what a complete answer says beside its dots. Returns the keys that went.
    pub(super) fn complete(&mut self, at: u32, complete: &Complete) -> Vec<Difference> {
        let log = self.touch(at);
        log.have.union(&complete.have);
        let mut gone = Vec::new();
        if let Some(kept) = &complete.kept {
            let is_kept = |seq: u64| {
                let after = kept.partition_point(|range| range.0 <= seq);
                after > 0 && seq <= kept[after - 1].1
            };
            let lost = log
                .dots
                .range(..=complete.floor)
                .filter(|(seq, _)| !is_kept(**seq));
            let lost: Vec<u64> = lost.map(|(seq, _)| *seq).collect();
            gone.extend(lost.into_iter().filter_map(|seq| self.remove_dot(at, seq)));
        }
        gone.extend(self.raise_floor(at, complete.floor));
        gone
    }

    /// Raises a log's floor, no higher than the prefix, and forgets the tombstones that it passes.
    pub(super) fn raise_floor(&mut self, at: u32, floor: u64) -> Vec<Difference> {
        let log = self.log_at(at);
        let floor = log.floor.max(floor.min(log.have.prefix()));
        if floor > log.floor {
            self.touch(at).floor = floor;
        }
        let log = self.log_at(at);
        let passed: Vec<u64> = log.tombstones.range(..=log.floor).copied().collect();
        passed
            .into_iter()
            .filter_map(|seq| self.remove_dot(at, seq))
            .collect()
    }

    fn remove_dot(&mut self, at: u32, seq: u64) -> Option<Difference> {
        let log = self.log_at(at);
        let place = log.dots.remove(&seq)?;
        log.tombstones.remove(&seq);
        let before = self.seen(place);
        let (_, empty) = self.entries.at_mut(place).versions.take(at);
        let difference = self.difference(place, before, self.seen(place));
        if empty {
            self.entries.remove(place);
        }
        difference
    }

    /// Drops a log and all it holds. Returns the keys whose visible value changed.
    pub(super) fn drop_log(&mut self, id: &LogId) -> Vec<Difference> {
        let Some(at) = self.index.get(id).copied() else {
            return Vec::new();
        };
        let seqs: Vec<u64> = self.log_at(at).dots.keys().copied().collect();
        let gone = seqs
            .into_iter()
            .filter_map(|seq| self.remove_dot(at, seq))
            .collect();
        self.buckets();
        if let Some(log) = self.logs.take(at) {
            let sum = &mut self.sums[usize::from(log.place.bucket)];
            *sum = sum.wrapping_sub(log.summed);
        }
        self.index.remove(id);
        gone
    }

    /// Shows or hides a log. Returns the keys whose visible value changed.
    pub(super) fn show(&mut self, id: &LogId, shown: bool) -> Vec<Difference> {
        let Some(at) = self.index.get(id).copied() else {
            return Vec::new();
        };
        if self.log_at(at).shown == shown {
            return Vec::new();
        }
        let places: Vec<EntryAt> = self.log_at(at).dots.values().copied().collect();
        let before: Vec<_> = places.iter().map(|place| self.seen(*place)).collect();
        self.touch(at).shown = shown;
        let differences = places.into_iter().zip(before);
        differences
            .filter_map(|(place, before)| self.difference(place, before, self.seen(place)))
            .collect()
    }

    fn seen(&self, place: EntryAt) -> Option<Seen> {
        let versions = &self.entries.at(place).versions;
        seen((&self.logs, self.mutated), versions)
    }

    fn difference(
        &self,
        place: EntryAt,
        before: Option<Seen>,
        after: Option<Seen>,
    ) -> Option<Difference> {
        let same = match (&before, &after) {
            (Some(before), Some(after)) => {
                before.owner == after.owner && before.value == after.value
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if same {
            return None;
        }
        let (table, key) = self.tables.split(&self.entries.at(place).key);
        Some(Difference {
            table,
            key,
            before,
            after,
        })
    }

    /// Returns what is seen of one key.
    pub(super) fn get(&self, table: &str, key: &[u8]) -> Option<Seen> {
        seen((&self.logs, self.mutated), self.versions(table, key)?)
    }

    /// Returns whose entry is seen of one key.
    pub(super) fn owner(&self, table: &str, key: &[u8]) -> Option<NodeId> {
        let (_, owner) = winner((&self.logs, self.mutated), self.versions(table, key)?)?;
        Some(owner)
    }

    /// Finds the versions of a key without making an [`EntryKey`].
    fn versions(&self, table: &str, key: &[u8]) -> Option<&Versions> {
        let table = self.tables.find(table)?.to_be_bytes();
        let mut wanted = [0; size_of::<TableId>() + Key::LEN_MAX];
        let wanted = wanted.get_mut(..table.len() + key.len())?;
        wanted[..table.len()].copy_from_slice(&table);
        wanted[table.len()..].copy_from_slice(key);
        self.entries.get(wanted).map(|held| &held.versions)
    }

    /// Returns whether the log at `id` holds a live entry of that key.
    pub(super) fn holds(&self, id: &LogId, table: &str, key: &[u8]) -> bool {
        let held = self.index.get(id).zip(self.versions(table, key));
        held.and_then(|(at, versions)| versions.of(*at))
            .is_some_and(|version| version.value.is_some())
    }

    /// Returns what is seen of every key, of one table or of all.
    pub(super) fn list(&self, table: Option<&TableName>) -> Vec<(TableName, Key, Seen)> {
        let start: Option<TableId> = match table {
            Some(table) => match self.tables.find(table.as_str()) {
                Some(id) => Some(id),
                None => return Vec::new(),
            },
            None => None,
        };
        let from = start.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec());
        let entries = self.entries.from(&from);
        entries
            .take_while(|held| held.key.starts_with(&from))
            .filter_map(|held| {
                let seen = seen((&self.logs, self.mutated), &held.versions)?;
                let (table, key) = self.tables.split(&held.key);
                Some((table, key, seen))
            })
            .collect()
    }

    /// Calls `f` with each held dot of a log within `first..=last`, lowest first, until it returns false.
    pub(super) fn each_dot(
        &self,
        log: &Log,
        range: (u64, u64),
        mut f: impl FnMut(&WireDot<'_>) -> bool,
    ) {
        let Some(&at) = self.index.get(&log.id) else {
            return;
        };
        for (&seq, &place) in log.dots.range(range.0..=range.1) {
            let held = self.entries.at(place);
            let Some(version) = held.versions.of(at) else {
                continue;
            };
            let (table, name) = self.tables.borrow(&held.key);
            let dot = WireDot {
                seq,
                written: version.written,
                table,
                key: name,
                value: version.value.as_deref(),
            };
            if !f(&dot) {
                return;
            }
        }
    }
}

/// The winner among the versions of one key, and its owner: of a log that is shown, live, the greatest (Hlc, owner). Of one
/// owner its newest log speaks, so what a new generation has deleted is gone even while the former one still shows.
fn winner<'a>(
    held: (&Slots<Log>, Mutated),
    versions: &'a Versions,
) -> Option<(&'a Version, NodeId)> {
    let (logs, mutated) = held;
    let shown_log = |version: &Version| logs.get(version.log).filter(|log| log.shown);
    let is_newest = |id: &LogId| {
        let mut others = versions.as_slice().iter().filter_map(shown_log);
        !others.any(|other| other.id.owner == id.owner && other.id > *id)
    };
    let shown = versions.as_slice().iter().filter_map(|version| {
        let id = shown_log(version)?.id;
        (version.value.is_some() && is_newest(&id)).then_some((version, id.owner))
    });
    if mutated.has(Mutation::IgnoreOrder) {
        shown.min_by_key(|(version, _)| version.log)
    } else {
        shown.max_by_key(|(version, owner)| (version.written, *owner, version.seq))
    }
}

/// What is seen of one key: a copy of the winner.
fn seen(held: (&Slots<Log>, Mutated), versions: &Versions) -> Option<Seen> {
    let (version, owner) = winner(held, versions)?;
    let value = Bytes::copy_from_slice(version.value.as_deref()?);
    Some(Seen {
        owner,
        written: version.written,
        value: Value::new(value).expect("checked when it came"),
    })
}

fn entry_key(table: TableId, key: &[u8]) -> EntryKey {
    let table = table.to_be_bytes().into_iter();
    table.chain(key.iter().copied()).collect()
}
