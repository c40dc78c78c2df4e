//! Table names ⇄ small numbers, so that an entry does not carry its table's name.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::core::model::{Key, TableName};

/// How many tables one network may have; entries of more are refused.
const TABLES_MAX: usize = 4096;

/// A table's number on this node, in this network.
pub(super) type TableId = u16;

/// The tables of one network.
#[derive(Default, Debug)]
pub(super) struct Tables {
    names: Vec<TableName>,
    ids: BTreeMap<TableName, TableId>,
}

impl Tables {
    pub(super) fn find(&self, name: &str) -> Option<TableId> {
        self.ids.get(name).copied()
    }

    /// Returns the table's number, or nothing if the name is bad or there are too many tables.
    pub(super) fn intern(&mut self, name: &str) -> Option<TableId> {
        if let Some(id) = self.find(name) {
            return Some(id);
        }
        if self.names.len() >= TABLES_MAX {
            return None;
        }
        let name = TableName::new(name).ok()?;
        let id = TableId::try_from(self.names.len()).ok()?;
        self.names.push(name.clone());
        self.ids.insert(name, id);
        Some(id)
    }

    /// Parts an entry's key into its table and its key.
    pub(super) fn borrow<'a>(&'a self, entry: &'a [u8]) -> (&'a str, &'a [u8]) {
        let (table, key) = entry.split_at(size_of::<TableId>());
        let table = TableId::from_be_bytes([table[0], table[1]]);
        (self.names[usize::from(table)].as_str(), key)
    }

    /// Parts an entry's key into its table and its key, owned.
    pub(super) fn split(&self, entry: &[u8]) -> (TableName, Key) {
        let (table, key) = entry.split_at(size_of::<TableId>());
        let table = TableId::from_be_bytes([table[0], table[1]]);
        let key = Key::new(Bytes::copy_from_slice(key)).expect("checked when it came");
        (self.names[usize::from(table)].clone(), key)
    }
}
