//! What a driver has heard of a network, and what it must hear next.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    core::{
        model::{Key, NetworkId, NodeId, TableName, Value},
        netdb::{Change, EntryView},
    },
    driver::TableEvent,
};

type Place = (TableName, Key);

/// The other nodes' entries as the driver knows them.
///
/// **Invariant:** the driver hears of an entry when what it knows differs from what is visible, and then once. Events are
/// computed from what it knows, not from what kind of change there was: so it makes no difference whether a change comes
/// as such, or by listing again.
#[derive(Debug)]
pub(super) struct Heard {
    network: NetworkId,
    tables: BTreeSet<TableName>,
    entries: BTreeMap<Place, (NodeId, Value)>,
}

impl Heard {
    /// Starts with a driver that knows nothing and is interested in `tables`.
    pub(super) fn new(network: NetworkId, tables: BTreeSet<TableName>) -> Self {
        Self {
            network,
            tables,
            entries: BTreeMap::new(),
        }
    }

    /// Takes all that is visible: what is gone first, then what is new or different.
    pub(super) fn handle_snapshot(&mut self, visible: Vec<EntryView>) -> Vec<TableEvent> {
        let visible: BTreeMap<Place, (NodeId, Value)> = visible
            .into_iter()
            .filter(|entry| !entry.ours && self.tables.contains(&entry.table))
            .map(|entry| ((entry.table, entry.key), (entry.owner, entry.value)))
            .collect();
        let gone: Vec<Place> = self.entries.keys().cloned().collect();
        let gone = gone
            .into_iter()
            .filter(|place| !visible.contains_key(place));
        let mut events: Vec<TableEvent> = gone.filter_map(|place| self.tell(place, None)).collect();
        let there = visible.into_iter();
        events.extend(there.filter_map(|(place, now)| self.tell(place, Some(now))));
        events
    }

    /// Takes one change of what is visible.
    pub(super) fn handle_change(&mut self, change: Change) -> Option<TableEvent> {
        if !self.tables.contains(&change.table) {
            return None;
        }
        // An own entry that covers another node's takes that one out of the driver's sight.
        let now = change.value.filter(|_| !change.ours);
        let now = now.map(|value| (change.owner, value));
        self.tell((change.table, change.key), now)
    }

    fn tell(&mut self, place: Place, now: Option<(NodeId, Value)>) -> Option<TableEvent> {
        let before = match &now {
            Some(entry) => self.entries.insert(place.clone(), entry.clone()),
            None => self.entries.remove(&place),
        };
        let value = now.as_ref().map(|(_, value)| value.clone());
        let previous = before.as_ref().map(|(_, value)| value.clone());
        let (owner, _) = now.or(before)?;
        if value == previous {
            return None;
        }
        let (table, key) = place;
        Some(TableEvent {
            network: self.network,
            table,
            key,
            previous,
            value,
            owner,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        model::Hlc,
        netdb::{ChangeKind, Reason},
    };

    #[test]
    fn an_entry_of_another_node_is_told_once_and_its_end_too() {
        let mut heard = heard();

        let created = heard.handle_change(change("k", Some("v"), 2)).unwrap();
        let again = heard.handle_change(change("k", Some("v"), 2));
        let gone = heard.handle_change(change("k", None, 2)).unwrap();
        let gone_again = heard.handle_change(change("k", None, 2));

        assert_eq!((created.previous, created.value), (None, Some(value("v"))));
        assert_eq!((gone.previous, gone.value), (Some(value("v")), None));
        assert_eq!((again, gone_again), (None, None));
    }

    #[test]
    fn existing_entries_come_as_creates() {
        let mut heard = heard();

        let events = heard.handle_snapshot(vec![entry("a", "1", 2), entry("b", "2", 3)]);

        assert_eq!(events.len(), 2);
        assert!(events.iter().all(|event| event.previous.is_none()));
    }

    #[test]
    fn own_entries_and_other_tables_are_never_told() {
        let mut heard = heard();
        let stranger = EntryView {
            table: TableName::new("other").unwrap(),
            ..entry("a", "1", 2)
        };

        assert_eq!(heard.handle_snapshot(vec![entry("a", "1", OWN)]), []);
        assert_eq!(heard.handle_snapshot(vec![stranger]), []);
        assert_eq!(heard.handle_change(change("a", Some("1"), OWN)), None);
        assert_eq!(heard.handle_change(change("a", None, OWN)), None);
    }

    #[test]
    fn an_own_entry_that_covers_anothers_hides_it_until_it_goes() {
        let mut heard = heard();
        heard.handle_snapshot(vec![entry("k", "theirs", 2)]);

        let covered = heard.handle_change(change("k", Some("ours"), OWN)).unwrap();
        let shown = heard.handle_change(change("k", Some("theirs"), 2)).unwrap();

        assert_eq!((covered.value, covered.owner), (None, NodeId(2)));
        assert_eq!((shown.previous, shown.value), (None, Some(value("theirs"))));
    }

    #[test]
    fn listing_again_tells_exactly_the_difference() {
        let mut heard = heard();
        heard.handle_snapshot(vec![
            entry("gone", "1", 2),
            entry("same", "2", 2),
            entry("moved", "3", 2),
        ]);

        let events = heard.handle_snapshot(vec![
            entry("same", "2", 2),
            entry("moved", "4", 3),
            entry("new", "5", 3),
        ]);

        let told = events.iter().map(|event| {
            (
                event.key.as_bytes(),
                event.previous.is_some(),
                event.value.is_some(),
            )
        });
        let told: Vec<_> = told.collect();
        let expected: [(&[u8], bool, bool); 3] = [
            (b"gone", true, false),
            (b"moved", true, true),
            (b"new", false, true),
        ];
        assert_eq!(told, expected);
    }

    const OWN: u64 = 1;

    fn heard() -> Heard {
        Heard::new(NetworkId(1), BTreeSet::from([table()]))
    }

    fn table() -> TableName {
        TableName::new("t").unwrap()
    }

    fn key(text: &str) -> Key {
        Key::new(text.as_bytes().to_vec()).unwrap()
    }

    fn value(text: &str) -> Value {
        Value::new(text.as_bytes().to_vec()).unwrap()
    }

    fn entry(of: &str, text: &str, owner: u64) -> EntryView {
        EntryView {
            network: NetworkId(1),
            table: table(),
            key: key(of),
            value: value(text),
            owner: NodeId(owner),
            written: Hlc(1),
            ours: owner == OWN,
        }
    }

    fn change(of: &str, now: Option<&str>, owner: u64) -> Change {
        Change {
            kind: match now {
                Some(_) => ChangeKind::Updated,
                None => ChangeKind::Deleted(Reason::Removed),
            },
            network: NetworkId(1),
            table: table(),
            key: key(of),
            value: now.map(value),
            previous: None,
            owner: NodeId(owner),
            written: Hlc(1),
            ours: owner == OWN,
        }
    }
}
