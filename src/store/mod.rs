//! The one file on disk: identity, generation, endpoints and their entries, what a container engine was promised, Raft log,
//! known members.
//!
//! **Invariants:** what a call wrote is on the disk when it returns (fsync), and a crash or a full disk at any point leaves all of
//! a call or nothing of it; one daemon at a time has the file. Calls block for as long as the disk takes: a task of the async
//! runtime makes them on a thread for blocking work.

mod abort;
mod engine;
mod error;
mod file;
mod intent;
mod record;

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use redb::{
    Durability, ReadTransaction, ReadableTable, TableDefinition, TableHandle, WriteTransaction,
};

use self::{
    abort::FaultPoint,
    file::{DataFile, META},
};
use crate::core::{
    model::{Boot, EndpointId, Generation, Key, Labels, NetworkId, TableEntry, TableName, Value},
    wire::codec,
};

pub use abort::Side;
pub(crate) use error::Fault;
pub use error::StoreError;
pub use file::FILE_NAME;
pub use intent::{Asked, AskedAddress};
pub use record::{NodeIdentity, StoredEndpoint};

/// Endpoints of this node, by id.
const ENDPOINTS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("weft_endpoints");

/// Entries that this node was asked to write, by (network, table, key).
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("weft_entries");

const IDENTITY: &str = "identity";
const STARTS: &str = "starts";
const MEMBERS: &str = "members";
const LABELS: &str = "labels";

/// The file, open. Clones share it; it is closed when the last one goes.
#[derive(Clone, Debug)]
pub struct Store {
    file: Arc<DataFile>,
    fault_point: FaultPoint,
}

impl Store {
    /// Opens the file in the data directory, and makes both if they are not there.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let file = Arc::new(DataFile::open(directory)?);
        let store = Self {
            file,
            fault_point: FaultPoint::default(),
        };
        store.write(|transaction| {
            transaction.open_table(ENDPOINTS)?;
            transaction.open_table(ENTRIES)?;
            intent::make(transaction)?;
            engine::make(transaction)
        })?;
        Ok(store)
    }

    /// Returns who this node is; nothing if it belongs to no cluster.
    pub fn identity(&self) -> Result<Option<NodeIdentity>, StoreError> {
        self.meta(IDENTITY)
    }

    /// Makes the node a part of a cluster.
    pub fn set_identity(&self, identity: &NodeIdentity) -> Result<(), StoreError> {
        self.set_meta(IDENTITY, &codec::encode(identity))
    }

    /// Counts a start: returns a generation and a boot that were never used before.
    pub fn start(&self, unix_seconds: u64) -> Result<(Generation, Boot), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(META)?;
            let last = match table.get(STARTS)? {
                Some(bytes) => codec::decode::<Boot>(bytes.value())?,
                None => Boot::default(),
            };
            let boot = Boot::after(last, unix_seconds);
            table.insert(STARTS, codec::encode(&boot).as_slice())?;
            Ok((Generation::begun_by(boot), boot))
        })
    }

    /// Returns this node's endpoints.
    pub fn endpoints(&self) -> Result<Vec<StoredEndpoint>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(ENDPOINTS)?;
            let mut endpoints = Vec::new();
            for row in table.iter()? {
                endpoints.push(codec::decode(row?.1.value())?);
            }
            Ok(endpoints)
        })
    }

    /// Writes an endpoint together with its entries, in place of what was there of it.
    pub fn put_endpoint(&self, endpoint: &StoredEndpoint) -> Result<(), StoreError> {
        self.change(|transaction| {
            let mut table = transaction.open_table(ENDPOINTS)?;
            table.insert(endpoint.record.id.0, codec::encode(endpoint).as_slice())?;
            intent::settle(transaction, endpoint.record.id)
        })
    }

    /// Removes an endpoint and its entries, if it is there.
    pub fn remove_endpoint(&self, id: EndpointId) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.open_table(ENDPOINTS)?.remove(id.0)?;
            Ok(())
        })
    }

    /// Returns the entries that this node was asked to write and that belong to no endpoint.
    pub fn entries(&self) -> Result<Vec<(NetworkId, TableEntry)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(ENTRIES)?;
            let mut entries = Vec::new();
            for row in table.iter()? {
                let (address, value) = row?;
                let (network, table, key) = codec::decode(address.value())?;
                let value = Value::new(value.value().to_vec());
                let value = value.map_err(|limit| Fault::Corrupt(limit.to_string()))?;
                entries.push((network, TableEntry { table, key, value }));
            }
            Ok(entries)
        })
    }

    /// Writes such an entry, in place of what was there.
    pub fn put_entry(&self, network: NetworkId, entry: &TableEntry) -> Result<(), StoreError> {
        self.change(|transaction| {
            let mut table = transaction.open_table(ENTRIES)?;
            let address = codec::encode(&(network, &entry.table, &entry.key));
            table.insert(address.as_slice(), entry.value.as_bytes())?;
            Ok(())
        })
    }

    /// Removes such an entry, if it is there.
    pub fn remove_entry(
        &self,
        network: NetworkId,
        table: &TableName,
        key: &Key,
    ) -> Result<(), StoreError> {
        self.change(|transaction| {
            let address = codec::encode(&(network, table, key));
            transaction
                .open_table(ENTRIES)?
                .remove(address.as_slice())?;
            Ok(())
        })
    }

    /// Returns the members as they were remembered last; the caller knows the bytes.
    pub fn members(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(META)?;
            Ok(table.get(MEMBERS)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Remembers the members.
    pub fn set_members(&self, members: &[u8]) -> Result<(), StoreError> {
        self.set_meta(MEMBERS, members)
    }

    /// Returns the labels that this node was given while it ran.
    pub fn labels(&self) -> Result<Labels, StoreError> {
        Ok(self.meta(LABELS)?.unwrap_or_default())
    }

    /// Remembers such labels, in place of those that were there.
    pub fn set_labels(&self, labels: &Labels) -> Result<(), StoreError> {
        self.set_meta(LABELS, &codec::encode(labels))
    }

    /// Forgets everything but how often the node was started: it is part of no cluster any more.
    pub fn clear(&self) -> Result<(), StoreError> {
        self.write(|transaction| {
            let names: Vec<_> = transaction.list_tables()?.collect();
            for name in names
                .into_iter()
                .filter(|table| table.name() != META.name())
            {
                transaction.delete_table(name)?;
            }
            transaction.open_table(ENDPOINTS)?;
            transaction.open_table(ENTRIES)?;
            intent::make(transaction)?;
            engine::make(transaction)?;
            let mut meta = transaction.open_table(META)?;
            meta.remove(IDENTITY)?;
            meta.remove(MEMBERS)?;
            meta.remove(LABELS)?;
            Ok(())
        })
    }

    /// Has the process die, as by SIGKILL, at one side of the n-th write of an endpoint or entry from now on.
    #[cfg(feature = "mutations")]
    pub fn abort_at(&self, side: Side, write: u32) {
        self.fault_point.set(side, write);
    }

    /// Writes something of this node's endpoints and entries.
    fn change<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.fault_point.pass(Side::Before);
        let value = self.write(body)?;
        self.fault_point.pass(Side::After);
        Ok(value)
    }

    /// Runs `body` in one durable write transaction. For rooms that keep tables of their own in the file.
    pub(crate) fn write<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.file.write(Durability::Immediate, body)
    }

    /// As [`Self::write`], but without waiting for the disk: a crash may undo it, until another write is durable.
    pub(crate) fn write_lazily<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.file.write(Durability::None, body)
    }

    /// Runs `body` on the state as it is now. For rooms that keep tables of their own in the file.
    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.file.read(body)
    }

    fn meta<T: bincode::Decode<()>>(&self, name: &str) -> Result<Option<T>, StoreError> {
        self.read(|transaction| {
            let bytes = transaction.open_table(META)?.get(name)?;
            Ok(bytes
                .map(|bytes| codec::decode(bytes.value()))
                .transpose()?)
        })
    }

    fn set_meta(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(META)?.insert(name, value)?;
            Ok(())
        })
    }
}
