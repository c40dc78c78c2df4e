//! A watch replays to the table: whoever applies every change has what a list shows.

use std::collections::BTreeMap;

use weft::core::{
    model::{Key, NetworkId, NodeId, TableName, Value},
    netdb::ChangeKind,
    node::Node,
    watch::{Filter, Heard},
};

use super::Violation;
use crate::sim::World;

const PROPERTY: &str = "a watch replays to the table";

/// What a watcher of everything has been told.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Mirror {
    revision: u64,
    entries: BTreeMap<(NetworkId, TableName, Key), (NodeId, Value)>,
    /// Changes that contradict what was told before.
    contradictions: Vec<String>,
}

impl Mirror {
    /// Returns up to where the node's history was heard.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes what a node has told since the last time; after a lag it lists again.
    pub fn follow(&mut self, node: &Node) {
        let Some(heard) = heard(node, self.revision) else {
            let (entries, revision) = node.list(&Filter::default());
            self.revision = revision;
            let entry =
                |e: weft::core::netdb::EntryView| ((e.network, e.table, e.key), (e.owner, e.value));
            self.entries = entries.into_iter().map(entry).collect();
            return;
        };
        self.revision = heard.next;
        for revised in heard.changes {
            let change = revised.change;
            let address = (change.network, change.table, change.key);
            let before = match (change.kind, change.value) {
                (ChangeKind::Created | ChangeKind::Updated, Some(value)) => {
                    self.entries.insert(address.clone(), (change.owner, value))
                }
                (ChangeKind::Deleted(_), None) => self.entries.remove(&address),
                (kind, value) => {
                    self.contradictions
                        .push(format!("{kind:?} with value {value:?}"));
                    continue;
                }
            };
            let is_create = change.kind == ChangeKind::Created;
            if is_create != before.is_none() || before.map(|(_, value)| value) != change.previous {
                self.contradictions
                    .push(format!("{:?} of {address:?}", change.kind));
            }
        }
    }
}

/// Checks the property at every running machine.
pub fn mirrored(world: &World) -> Result<(), Violation> {
    for at in world.running() {
        let violation = |seen| Violation {
            property: PROPERTY,
            seen: format!("machine {at}: {seen}"),
        };
        let machine = &world.machines[at];
        let mirror = world.observer.mirror(at);
        if let Some(first) = mirror.contradictions.first() {
            return Err(violation(first.clone()));
        }
        let node = machine.node.as_ref().expect("it runs");
        let (entries, _) = node.list(&Filter::default());
        let listed: BTreeMap<_, _> = entries
            .into_iter()
            .map(|e| ((e.network, e.table, e.key), (e.owner, e.value)))
            .collect();
        if listed != mirror.entries {
            let differs = listed
                .iter()
                .find(|(key, value)| mirror.entries.get(key) != Some(value));
            return Err(violation(format!(
                "the list and the replay differ, for one in {differs:?}"
            )));
        }
    }
    Ok(())
}

/// Returns all that a node has told its watchers since a revision, or nothing if it must be listed again.
fn heard(node: &Node, after: u64) -> Option<Heard> {
    node.changes(after, &Filter::default(), usize::MAX).ok()
}
