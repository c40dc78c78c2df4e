//! Records: the values of the tables that Weft itself keeps. Each is encoded with `core::wire::codec`.

use std::{collections::BTreeMap, net::IpAddr};

use bincode::{
    Decode, Encode,
    de::{Decoder, read::Reader},
    enc::Encoder,
    error::{DecodeError, EncodeError},
};
use serde::{Deserialize, Serialize};

use super::{
    EndpointId, Family, Hlc, Key, Labels, Mac, Name, NetworkId, NodeId, Prefix, TableName, Value,
    Vni, Vtep,
};

/// One subnet of a network, as the leader allocated it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub struct Subnet {
    /// The addresses of the subnet.
    pub prefix: Prefix,
    /// The gateway's address, inside the prefix.
    pub gateway: IpAddr,
    /// The VXLAN id that carries this subnet; nothing for a driver that needs none.
    pub vni: Option<Vni>,
}

/// A network as the leader agreed it. Cluster scope, table `networks`, key: the network's id, 4 bytes big endian.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// The allocator's number.
    pub id: NetworkId,
    /// The name a person gave.
    pub name: Name,
    /// The driver, for example `overlay` or `null`.
    pub driver: Name,
    /// Options, passed to the driver unchanged.
    pub options: BTreeMap<String, String>,
    /// The subnets; none for a driver without addresses.
    pub subnets: Vec<Subnet>,
}

/// A block of addresses leased to a node. Cluster scope, table `blocks`, key: network id (4 bytes), then the prefix.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub struct BlockRecord {
    /// The network whose pool it was cut from.
    pub network: NetworkId,
    /// The block.
    pub prefix: Prefix,
    /// Who hands out its addresses.
    pub node: NodeId,
}

/// An endpoint that has joined. The network's table `endpoints`, key: the endpoint's id, 16 bytes big endian.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// The endpoint.
    pub id: EndpointId,
    /// The network it belongs to.
    pub network: NetworkId,
    /// The name a person gave; unique in the network among a node's endpoints. It may change.
    pub name: Name,
    /// Its address with the subnet's prefix length; nothing on a network without addresses.
    pub address: Option<Prefix>,
    /// Its address of the other family, in a network that has both.
    pub second: Option<Prefix>,
    /// Its MAC address.
    pub mac: Mac,
}

/// More names of an endpoint. The network's table `names`, key: the endpoint's id, 16 bytes big endian.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub struct NamesRecord {
    /// The names, beside the one in the endpoint's record; several endpoints may have one name.
    pub names: Vec<Name>,
}

/// The table of [`NamesRecord`]s.
pub const NAMES_TABLE: &str = "names";

impl NetworkRecord {
    /// Returns the families that its subnets are of: an endpoint has an address of each.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        let has = |family: &Family| {
            let mut subnets = self.subnets.iter();
            subnets.any(|subnet| Family::of(subnet.gateway) == *family)
        };
        Family::BOTH.into_iter().filter(has)
    }
}

impl EndpointRecord {
    /// Returns its addresses, with their subnets' prefix lengths.
    pub fn addresses(&self) -> impl Iterator<Item = Prefix> + use<> {
        self.address.into_iter().chain(self.second)
    }

    /// Returns it with more addresses, as many as it has room for: one of each family.
    #[must_use]
    pub fn with(&self, more: &[Prefix]) -> Self {
        let mut addresses = self.addresses().chain(more.iter().copied());
        Self {
            address: addresses.next(),
            second: addresses.next(),
            ..self.clone()
        }
    }

    /// Returns whether both are one endpoint, under whatever name.
    pub fn is_same(&self, other: &Self) -> bool {
        let Self {
            id,
            network,
            name: _,
            address: _,
            second: _,
            mac,
        } = self;
        let is_one = (*id, *network, *mac) == (other.id, other.network, other.mac);
        is_one && self.addresses().eq(other.addresses())
    }
}

/// Where an endpoint's packets go. The network's table `overlay_peers`, key: the endpoint's id, 16 bytes big endian.
///
/// What is encoded of the addresses beyond the first comes last, and is left out where there are none: so an endpoint with
/// one address is read by nodes that know of one only, and what they wrote is read here. Nothing may be encoded after it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerRecord {
    /// The endpoint's first address with its subnet's prefix length: it says which tunnel.
    pub address: Prefix,
    /// The endpoint's MAC address.
    pub mac: Mac,
    /// The node that carries it.
    pub vtep: Vtep,
    /// Its further addresses.
    pub others: Vec<Prefix>,
}

impl PeerRecord {
    /// Returns all its addresses, the first one first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let all = std::iter::once(&self.address).chain(&self.others);
        all.map(|prefix| prefix.0.addr())
    }
}

impl Encode for PeerRecord {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.address, self.mac, self.vtep).encode(encoder)?;
        match self.others.is_empty() {
            true => Ok(()),
            false => self.others.encode(encoder),
        }
    }
}

impl<Context> Decode<Context> for PeerRecord {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (address, mac, vtep) = Decode::decode(decoder)?;
        let others = match decoder.reader().peek_read(1) {
            Some(_) => Decode::decode(decoder)?,
            None => Vec::new(),
        };
        Ok(Self {
            address,
            mac,
            vtep,
            others,
        })
    }
}

/// What a node says of itself. Cluster scope, table `nodes`, key: the node's id, 8 bytes big endian.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The name a person gave, or the host's.
    pub name: Name,
    /// The version of the program, for example `0.1.0`.
    pub version: String,
}

/// What an operator says of a node. Cluster scope, table `labels`, key: the node's id, 8 bytes big endian. A node without
/// labels has no entry.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct LabelsRecord {
    /// The labels.
    pub labels: Labels,
}

/// The table of [`LabelsRecord`]s.
pub const LABELS_TABLE: &str = "labels";

/// What a node can do that others may lack. Cluster scope, table `capabilities`, key: the node's id, 8 bytes big endian.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct CapabilitiesRecord {
    /// A word for each; readers skip those that they do not know.
    pub capabilities: Vec<Name>,
}

/// The table of [`CapabilitiesRecord`]s.
pub const CAPABILITIES_TABLE: &str = "capabilities";

/// One numbered change of a log: a put, or a delete where there is no value.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Dot {
    /// Its place in the log: 1, 2, 3 …
    pub seq: u64,
    /// When its owner wrote it.
    pub written: Hlc,
    /// The table of the entry.
    pub table: TableName,
    /// The key of the entry.
    pub key: Key,
    /// The value put; nothing for a delete.
    pub value: Option<Value>,
}

/// A table entry that somebody asks to be written.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TableEntry {
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
}
