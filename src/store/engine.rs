//! What a container engine was promised: which of its networks is which of ours, and the addresses it holds.
//!
//! An engine tells neither again after a restart of this node, so both are here before it has our answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Fault, Store, StoreError};
use crate::core::{model::NetworkId, wire::codec};

/// Networks of an engine, by the engine's id.
const NETWORKS: TableDefinition<'_, &str, u32> = TableDefinition::new("weft_engine_networks");

/// Addresses that an engine holds, by (network, address).
const HELD: TableDefinition<'_, &[u8], ()> = TableDefinition::new("weft_held_addresses");

/// Makes the tables if they are not there.
pub(super) fn make(transaction: &WriteTransaction) -> Result<(), Fault> {
    transaction.open_table(NETWORKS)?;
    transaction.open_table(HELD)?;
    Ok(())
}

impl Store {
    /// Returns which network each of the engine's networks stands for.
    pub fn engine_networks(&self) -> Result<BTreeMap<String, NetworkId>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(NETWORKS)?;
            let mut networks = BTreeMap::new();
            for row in table.iter()? {
                let (id, network) = row?;
                networks.insert(id.value().to_owned(), NetworkId(network.value()));
            }
            Ok(networks)
        })
    }

    /// Remembers which network a network of the engine stands for.
    pub fn put_engine_network(&self, id: &str, network: NetworkId) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(NETWORKS)?.insert(id, network.0)?;
            Ok(())
        })
    }

    /// Forgets a network of the engine, if it is there.
    pub fn remove_engine_network(&self, id: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(NETWORKS)?.remove(id)?;
            Ok(())
        })
    }

    /// Returns the addresses that an engine holds.
    pub fn held_addresses(&self) -> Result<BTreeSet<(NetworkId, IpAddr)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(HELD)?;
            let mut held = BTreeSet::new();
            for row in table.iter()? {
                held.insert(codec::decode(row?.0.value())?);
            }
            Ok(held)
        })
    }

    /// Writes that an engine holds an address.
    pub fn hold_address(&self, network: NetworkId, address: IpAddr) -> Result<(), StoreError> {
        self.write(|transaction| {
            let key = codec::encode(&(network, address));
            transaction.open_table(HELD)?.insert(key.as_slice(), ())?;
            Ok(())
        })
    }

    /// Writes that an engine holds an address no longer.
    pub fn free_address(&self, network: NetworkId, address: IpAddr) -> Result<(), StoreError> {
        self.write(|transaction| {
            let key = codec::encode(&(network, address));
            transaction.open_table(HELD)?.remove(key.as_slice())?;
            Ok(())
        })
    }
}
