//! Who hears of which change: bounded, resumable; lag means "list again".
//!
//! Every change gets the next revision and is kept in one history, oldest first, within [`HISTORY_MAX`] and
//! [`HISTORY_BYTES`]. A watcher is a place in that history, so a slow one costs nothing; one whose place is gone is told that
//! it lags, and lists again.

use std::collections::VecDeque;

use crate::core::{
    model::{Boot, Key, NetworkId, TableName, Value},
    netdb::Change,
};

/// How many changes the history keeps.
pub const HISTORY_MAX: usize = 16_384;
/// How many bytes of keys and values the history keeps.
pub const HISTORY_BYTES: usize = 16 * 1024 * 1024;

/// Which changes a watcher hears of; what is not given is any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Only this network.
    pub network: Option<NetworkId>,
    /// Only this table.
    pub table: Option<TableName>,
    /// Only keys that begin so.
    pub prefix: Vec<u8>,
}

impl Filter {
    /// Returns whether an entry's change passes.
    pub fn passes(&self, network: NetworkId, table: &TableName, key: &Key) -> bool {
        self.network.is_none_or(|wanted| wanted == network)
            && self.table.as_ref().is_none_or(|wanted| wanted == table)
            && key.as_bytes().starts_with(&self.prefix)
    }
}

/// A change, and its place in this node's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revised {
    /// One more than that of the change before; not comparable between nodes.
    pub revision: u64,
    /// What changed.
    pub change: Change,
}

/// The watcher's place is no longer in the history: it must list again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("changes up to revision {oldest} are no longer kept: list again")]
pub struct Lagged {
    /// The oldest revision that could still be resumed from.
    pub oldest: u64,
}

/// The changes that a watcher had not heard of, at most as many as it asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Those that pass its filter.
    pub changes: Vec<Revised>,
    /// Where to go on.
    pub next: u64,
}

/// The history of changes.
#[derive(Default, Debug)]
pub struct History {
    changes: VecDeque<Change>,
    bytes: usize,
    /// The revision of the newest change, or where the history began if there was none.
    revision: u64,
}

/// How many revisions a second of a node's life has room for: boots are numbered by seconds at least.
const REVISIONS_A_SECOND: u64 = 1 << 20;

// Programs whose only numbers are doubles read revisions too.
const _: () = assert!(u32::MAX as u64 * REVISIONS_A_SECOND < 1 << 53);

impl History {
    /// Begins the history of a start of the program, beyond the revisions of every start before: who resumes from one of
    /// those is told to list again.
    pub fn of_boot(boot: Boot) -> Self {
        Self {
            revision: u64::from(boot.0) * REVISIONS_A_SECOND,
            ..Self::default()
        }
    }

    /// Takes a change; the oldest go where there are too many.
    pub fn record(&mut self, change: Change) {
        self.revision += 1;
        self.bytes += weight(&change);
        self.changes.push_back(change);
        while self.changes.len() > HISTORY_MAX || self.bytes > HISTORY_BYTES {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= weight(&oldest);
        }
    }

    /// Forgets all changes so far, as time does: who resumes from an earlier one lists again.
    pub(crate) fn forget(&mut self) {
        self.changes = VecDeque::new();
        self.bytes = 0;
    }

    /// Returns the revision of the newest change: where a watcher begins that has just listed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns what followed revision `after`, looking at no more than `limit` changes.
    pub fn since(&self, after: u64, filter: &Filter, limit: usize) -> Result<Heard, Lagged> {
        let oldest = self.revision - self.changes.len() as u64;
        if after < oldest || after > self.revision {
            return Err(Lagged { oldest });
        }
        let skip = usize::try_from(after - oldest).unwrap_or(usize::MAX);
        let looked_at = self.changes.iter().zip(oldest + 1..).skip(skip).take(limit);
        let mut heard = Heard {
            changes: Vec::new(),
            next: after,
        };
        for (change, revision) in looked_at {
            heard.next = revision;
            if filter.passes(change.network, &change.table, &change.key) {
                heard.changes.push(Revised {
                    revision,
                    change: change.clone(),
                });
            }
        }
        Ok(heard)
    }
}

fn weight(change: &Change) -> usize {
    let value = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.as_bytes().len());
    size_of::<Change>()
        + change.key.as_bytes().len()
        + value(&change.value)
        + value(&change.previous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        model::{Hlc, NodeId},
        netdb::ChangeKind,
    };

    #[test]
    fn a_watcher_hears_every_change_that_passes_once_and_in_order() {
        let mut history = History::default();
        for n in 0..10 {
            history.record(change(n % 2, n));
        }
        let filter = Filter {
            network: Some(NetworkId(1)),
            ..Filter::default()
        };

        let first = history.since(0, &filter, 6).unwrap();
        let second = history.since(first.next, &filter, 100).unwrap();

        let revisions =
            |heard: &Heard| heard.changes.iter().map(|c| c.revision).collect::<Vec<_>>();
        assert_eq!(revisions(&first), [2, 4, 6]);
        assert_eq!(revisions(&second), [8, 10]);
        assert_eq!(second.next, 10);
    }

    #[test]
    fn n29_a_watcher_hears_of_what_its_filter_names() {
        let mut history = History::default();
        for (network, table) in [(1, "a"), (1, "b"), (2, "a"), (2, "b")] {
            let table = TableName::new(table).unwrap();
            for n in [0x0100, 0x0200] {
                history.record(Change {
                    table: table.clone(),
                    ..change(network, n)
                });
            }
        }
        let heard = |network: Option<u32>, table: Option<&str>, prefix: &[u8]| {
            let filter = Filter {
                network: network.map(NetworkId),
                table: table.map(|table| TableName::new(table).unwrap()),
                prefix: prefix.to_vec(),
            };
            history.since(0, &filter, 100).unwrap().changes.len()
        };

        assert_eq!(heard(None, None, b""), 8);
        assert_eq!(heard(Some(1), None, b""), 4);
        assert_eq!(heard(None, Some("b"), b""), 4);
        assert_eq!(heard(Some(1), Some("b"), b""), 2);
        assert_eq!(heard(Some(1), Some("b"), &[0, 0, 2]), 1);
        assert_eq!(heard(Some(3), None, b""), 0);
    }

    #[test]
    fn a_watcher_that_falls_behind_the_history_is_told_to_list_again() {
        let mut history = History::default();
        for n in 0..HISTORY_MAX as u32 + 5 {
            history.record(change(1, n));
        }

        let lagged = history.since(4, &Filter::default(), 10);

        assert_eq!(lagged, Err(Lagged { oldest: 5 }));
        assert!(history.since(5, &Filter::default(), 10).is_ok());
    }

    #[test]
    fn a_revision_of_another_life_is_told_to_list_again() {
        assert!(History::default().since(7, &Filter::default(), 10).is_err());
    }

    #[test]
    fn a_revision_of_the_start_before_is_told_to_list_again() {
        let mut before = History::of_boot(Boot(1_000));
        let mut after = History::of_boot(Boot(1_001));
        for n in 0..10 {
            before.record(change(1, n));
            after.record(change(1, n));
        }

        let resumed = after.since(before.revision(), &Filter::default(), 100);

        assert!(resumed.is_err());
        assert!(
            after
                .since(after.revision() - 5, &Filter::default(), 100)
                .is_ok()
        );
    }

    #[test]
    fn a_history_of_large_values_is_bounded_by_bytes() {
        let mut history = History::default();
        for n in 0..1_000 {
            let value = Value::new(vec![0; Value::LEN_MAX]).unwrap();
            history.record(Change {
                value: Some(value),
                ..change(1, n)
            });
        }

        assert!(history.bytes <= HISTORY_BYTES);
        assert!(history.changes.len() < 1_000);
    }

    fn change(network: u32, n: u32) -> Change {
        Change {
            kind: ChangeKind::Created,
            network: NetworkId(network),
            table: TableName::new("t").unwrap(),
            key: Key::new(n.to_be_bytes().to_vec()).unwrap(),
            value: None,
            previous: None,
            owner: NodeId(1),
            written: Hlc::default(),
            ours: false,
        }
    }
}
