//! What this node is about to ask of plugins: they outlive it, so what it had them do and did not live to write down is known
//! from here after its next start, and taken back.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Fault, Store, StoreError};
use crate::core::{
    model::{EndpointId, EndpointRecord, Name, NetworkId},
    wire::codec,
};

/// Endpoints that a driver is being asked to make, by id.
const ENDPOINTS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("weft_intended_endpoints");

/// Which driver was asked for a network, by what was asked for and the network.
const NETWORKS: TableDefinition<'_, (u8, u32), &[u8]> =
    TableDefinition::new("weft_intended_networks");

/// What a driver is asked for a network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Asked {
    /// To set it up on this node.
    SetUp = 1,
    /// To allocate, in the name of the cluster, what it needs.
    Allocate = 2,
}

/// Makes the tables if they are not there.
pub(super) fn make(transaction: &WriteTransaction) -> Result<(), Fault> {
    transaction.open_table(ENDPOINTS)?;
    transaction.open_table(NETWORKS)?;
    Ok(())
}

/// Forgets an endpoint that is being made: it was, or is no longer wanted.
pub(super) fn settle(transaction: &WriteTransaction, id: EndpointId) -> Result<(), Fault> {
    transaction.open_table(ENDPOINTS)?.remove(id.0)?;
    Ok(())
}

impl Store {
    /// Writes that a driver is about to be asked to make an endpoint. [`Self::put_endpoint`] of it ends that.
    pub fn intend_endpoint(&self, endpoint: &EndpointRecord) -> Result<(), StoreError> {
        self.change(|transaction| {
            let mut table = transaction.open_table(ENDPOINTS)?;
            table.insert(endpoint.id.0, codec::encode(endpoint).as_slice())?;
            Ok(())
        })
    }

    /// Returns the endpoints that a driver was about to be asked to make, and that were not written since.
    pub fn intended_endpoints(&self) -> Result<Vec<EndpointRecord>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(ENDPOINTS)?;
            let mut endpoints = Vec::new();
            for row in table.iter()? {
                endpoints.push(codec::decode(row?.1.value())?);
            }
            Ok(endpoints)
        })
    }

    /// Writes that an endpoint is not made after all.
    pub fn drop_intended(&self, id: EndpointId) -> Result<(), StoreError> {
        self.change(|transaction| settle(transaction, id))
    }

    /// Writes that a driver is about to be asked for something for a network.
    pub fn intend_network(
        &self,
        (asked, network): (Asked, NetworkId),
        driver: &Name,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(NETWORKS)?;
            let driver = codec::encode(driver);
            table.insert((asked as u8, network.0), driver.as_slice())?;
            Ok(())
        })
    }

    /// Returns the networks that drivers were asked this for, each with the driver.
    pub fn intended_networks(&self, asked: Asked) -> Result<Vec<(NetworkId, Name)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(NETWORKS)?;
            let mut networks = Vec::new();
            for row in table.range((asked as u8, 0)..=(asked as u8, u32::MAX))? {
                let (key, driver) = row?;
                let driver = codec::decode(driver.value())?;
                networks.push((NetworkId(key.value().1), driver));
            }
            Ok(networks)
        })
    }

    /// Writes that what a driver was asked for was taken back.
    pub fn settle_network(&self, asked: Asked, network: NetworkId) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(NETWORKS)?;
            table.remove((asked as u8, network.0))?;
            Ok(())
        })
    }
}
