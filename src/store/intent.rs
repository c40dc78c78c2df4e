//! What this node is about to ask of plugins: they outlive it, so what it had them do and did not live to write down is known
//! from here after its next start, and taken back.

use std::net::IpAddr;

use bincode::{Decode, Encode};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Fault, Store, StoreError};
use crate::core::{
    model::{EndpointId, EndpointRecord, Family, Mac, Name, NetworkId},
    wire::codec,
};

/// Endpoints that a driver is being asked to make, by id.
const ENDPOINTS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("weft_intended_endpoints");

/// Which driver was asked for a network, by what was asked for and the network.
const NETWORKS: TableDefinition<'_, (u8, u32), &[u8]> =
    TableDefinition::new("weft_intended_networks");

/// Addresses that an IPAM driver is being asked for, by who gets it and the family.
const ADDRESSES: TableDefinition<'_, (u128, u8), &[u8]> =
    TableDefinition::new("weft_intended_addresses");

/// An address that an IPAM driver is being asked for, or that is on its way back to it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct AskedAddress {
    /// The network.
    pub network: NetworkId,
    /// Who gets it.
    pub endpoint: EndpointId,
    /// Of which family it is.
    pub family: Family,
    /// The driver's name of the pool.
    pub pool: String,
    /// Which one was asked for; nothing: one that the driver chooses.
    pub wanted: Option<IpAddr>,
    /// The MAC address in whose name it was asked for.
    pub mac: Option<Mac>,
    /// What the driver has answered; nothing: it is not known.
    pub given: Option<IpAddr>,
}

impl AskedAddress {
    fn key(&self) -> (u128, u8) {
        let family = match self.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        (self.endpoint.0, family)
    }
}

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
    transaction.open_table(ADDRESSES)?;
    Ok(())
}

/// Forgets an endpoint that was being made, and the addresses that were asked for it: it was made.
pub(super) fn settle(transaction: &WriteTransaction, id: EndpointId) -> Result<(), Fault> {
    transaction.open_table(ENDPOINTS)?.remove(id.0)?;
    let mut addresses = transaction.open_table(ADDRESSES)?;
    addresses.retain_in((id.0, 0)..=(id.0, u8::MAX), |_, _| false)?;
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
        self.change(|transaction| {
            transaction.open_table(ENDPOINTS)?.remove(id.0)?;
            Ok(())
        })
    }

    /// Writes that an IPAM driver is about to be asked for an address, what it has answered, or that it is about to get the
    /// address back. [`Self::put_endpoint`] of the endpoint ends that.
    pub fn intend_address(&self, asked: &AskedAddress) -> Result<(), StoreError> {
        self.change(|transaction| {
            let mut table = transaction.open_table(ADDRESSES)?;
            table.insert(asked.key(), codec::encode(asked).as_slice())?;
            Ok(())
        })
    }

    /// Returns the addresses that an IPAM driver may have handed out for endpoints that were not written since.
    pub fn intended_addresses(&self) -> Result<Vec<AskedAddress>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(ADDRESSES)?;
            let mut addresses = Vec::new();
            for row in table.iter()? {
                addresses.push(codec::decode(row?.1.value())?);
            }
            Ok(addresses)
        })
    }

    /// Writes that an IPAM driver has such an address, or keeps it for good.
    pub fn drop_intended_address(&self, asked: &AskedAddress) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.open_table(ADDRESSES)?.remove(asked.key())?;
            Ok(())
        })
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
