//! What a watcher is told: a difference of what was visible, never the kind of message that made it.

use serde::{Deserialize, Serialize};

use crate::core::model::{Hlc, Key, NetworkId, NodeId, TableName, Value};

/// Why an entry is no longer visible.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its owner deleted it.
    Removed,
    /// Its owner left the network or the cluster.
    OwnerLeft,
    /// Its owner is down; it comes back with it.
    OwnerDown,
    /// This node has left the network.
    Detached,
}

/// What happened to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not visible and is now.
    Created,
    /// Its value or its owner is another.
    Updated,
    /// It was visible and is no longer.
    Deleted(Reason),
}

/// One change of what is visible.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The network of the entry.
    pub network: NetworkId,
    /// The table of the entry.
    pub table: TableName,
    /// The key of the entry.
    pub key: Key,
    /// The value that is visible now; nothing after a delete.
    pub value: Option<Value>,
    /// The value that was visible before; nothing before a create.
    pub previous: Option<Value>,
    /// Whose entry it is, or was.
    pub owner: NodeId,
    /// When the owner wrote what is visible now, or what was last.
    pub written: Hlc,
    /// This node wrote it.
    pub ours: bool,
}

/// An entry as it is visible.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryView {
    /// The network of the entry.
    pub network: NetworkId,
    /// The table of the entry.
    pub table: TableName,
    /// The key of the entry.
    pub key: Key,
    /// The visible value.
    pub value: Value,
    /// Who wrote it.
    pub owner: NodeId,
    /// When it was written.
    pub written: Hlc,
    /// This node wrote it.
    pub ours: bool,
}
