//! The messages of libnetwork's remote driver protocol, as far as Weft sends or reads them.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    core::model::{EndpointId, EndpointRecord, NetworkId, NetworkRecord, Prefix, Subnet},
    driver::NodePlace,
};

/// Where libnetwork puts the options a person gave.
const GENERIC: &str = "com.docker.network.generic";

/// What an endpoint lets in from outside.
const EXPOSED_PORTS: &str = "com.docker.network.endpoint.exposedports";
const PORT_MAP: &str = "com.docker.network.portmap";

/// The id of a network as plugins expect one: 64 hexadecimal digits, of which many take only the first five.
///
/// A number times an odd number, modulo 2³²: different for each, and its first digits differ too.
pub(super) fn network_id(network: NetworkId) -> String {
    format!("{:08x}", network.0.wrapping_mul(0x9e37_79b1)).repeat(8)
}

pub(super) fn endpoint_id(endpoint: EndpointId) -> String {
    endpoint.to_string().repeat(2)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkCall {
    #[serde(rename = "NetworkID")]
    network: String,
}

impl NetworkCall {
    pub(super) fn of(network: NetworkId) -> Self {
        Self {
            network: network_id(network),
        }
    }
}

#[derive(Serialize)]
pub(super) struct EndpointCall {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
}

impl EndpointCall {
    pub(super) fn of(network: NetworkId, endpoint: EndpointId) -> Self {
        Self {
            network: network_id(network),
            endpoint: endpoint_id(endpoint),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    network: String,
    options: BTreeMap<&'static str, BTreeMap<String, String>>,
    #[serde(rename = "IPv4Data")]
    ipv4: Vec<IpamData>,
    #[serde(rename = "IPv6Data")]
    ipv6: Vec<IpamData>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamData {
    address_space: &'static str,
    pool: String,
    /// One that is there but empty is an error to plugins in Go.
    #[serde(skip_serializing_if = "String::is_empty")]
    gateway: String,
    aux_addresses: BTreeMap<String, String>,
}

impl IpamData {
    /// What a network without subnets has: libnetwork's null IPAM, by which plugins know that addresses are theirs to give.
    fn null() -> Self {
        Self {
            address_space: "null",
            pool: "0.0.0.0/0".to_owned(),
            gateway: String::new(),
            aux_addresses: BTreeMap::new(),
        }
    }
}

/// The data of a network's subnets, of IPv4 and of IPv6.
fn ipam_data(network: &NetworkRecord) -> [Vec<IpamData>; 2] {
    if network.subnets.is_empty() {
        return [vec![IpamData::null()], Vec::new()];
    }
    let data = |subnet: &Subnet| IpamData {
        address_space: "weft",
        pool: subnet.prefix.to_string(),
        gateway: format!("{}/{}", subnet.gateway, subnet.prefix.0.prefix_len()),
        aux_addresses: BTreeMap::new(),
    };
    let of_family = |is_v4: bool| {
        let subnets = network.subnets.iter();
        let family = subnets.filter(move |subnet| subnet.gateway.is_ipv4() == is_v4);
        family.map(data).collect()
    };
    [of_family(true), of_family(false)]
}

impl CreateNetwork {
    /// Has no gateway where the driver wants none.
    pub(super) fn of(network: &NetworkRecord, skipped: &GwAllocReply) -> Self {
        let [mut ipv4, mut ipv6] = ipam_data(network);
        for (data, is_skipped) in [
            (&mut ipv4, skipped.skip_ipv4),
            (&mut ipv6, skipped.skip_ipv6),
        ] {
            if is_skipped {
                data.iter_mut().for_each(|data| data.gateway.clear());
            }
        }
        Self {
            network: network_id(network.id),
            options: BTreeMap::from([(GENERIC, network.options.clone())]),
            ipv4,
            ipv6,
        }
    }
}

/// Asks whether a network with these options needs an address of each family for its gateway.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GwAllocCheck {
    options: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl GwAllocCheck {
    pub(super) fn of(network: &NetworkRecord) -> Self {
        Self {
            options: BTreeMap::from([(GENERIC, network.options.clone())]),
        }
    }
}

/// Which families need none.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct GwAllocReply {
    #[serde(rename = "SkipIPv4")]
    pub(super) skip_ipv4: bool,
    #[serde(rename = "SkipIPv6")]
    pub(super) skip_ipv6: bool,
}

/// Its options are those of the network alone, not within others.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AllocateNetwork<'a> {
    #[serde(rename = "NetworkID")]
    network: String,
    options: &'a BTreeMap<String, String>,
    #[serde(rename = "IPv4Data")]
    ipv4: Vec<IpamData>,
    #[serde(rename = "IPv6Data")]
    ipv6: Vec<IpamData>,
}

impl<'a> AllocateNetwork<'a> {
    pub(super) fn of(network: &'a NetworkRecord) -> Self {
        let [ipv4, ipv6] = ipam_data(network);
        Self {
            network: network_id(network.id),
            options: &network.options,
            ipv4,
            ipv6,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct AllocateReply {
    #[serde(deserialize_with = "or_default")]
    pub(super) options: BTreeMap<String, String>,
}

/// Reads `null` as what a missing field is: a plugin written in Go sends it for an empty list.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An empty field is one that is not set, in both directions.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Interface {
    #[serde(skip_serializing_if = "String::is_empty")]
    address: String,
    #[serde(rename = "AddressIPv6", skip_serializing_if = "String::is_empty")]
    address_ipv6: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mac_address: String,
}

impl Interface {
    /// Returns the addresses that a driver answers for an endpoint. What it has been given it may not answer otherwise.
    pub(super) fn given(&self, endpoint: &EndpointRecord) -> Result<Vec<Prefix>, String> {
        if !self.mac_address.is_empty() {
            return Err("it changed an address or a MAC that was given".to_owned());
        }
        let mut given = Vec::new();
        for (text, is_v6) in [(&self.address, false), (&self.address_ipv6, true)] {
            if text.is_empty() {
                continue;
            }
            let mut has = endpoint.addresses();
            if has.any(|has| has.0.addr().is_ipv6() == is_v6) {
                return Err("it changed an address or a MAC that was given".to_owned());
            }
            let address: IpNet = text
                .parse()
                .map_err(|error| format!("address {text:?}: {error}"))?;
            if address.addr().is_ipv6() != is_v6 {
                return Err(format!("address {text:?} is of the other family"));
            }
            given.push(Prefix(address));
        }
        Ok(given)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateEndpoint {
    #[serde(flatten)]
    ids: EndpointCall,
    interface: Interface,
    options: BTreeMap<String, String>,
}

impl CreateEndpoint {
    pub(super) fn of(endpoint: &EndpointRecord) -> Self {
        let mut interface = Interface {
            mac_address: endpoint.mac.to_string(),
            ..Interface::default()
        };
        for address in endpoint.addresses() {
            match address.0.addr() {
                IpAddr::V4(_) => interface.address = address.to_string(),
                IpAddr::V6(_) => interface.address_ipv6 = address.to_string(),
            }
        }
        Self {
            ids: EndpointCall::of(endpoint.network, endpoint.id),
            interface,
            options: BTreeMap::new(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Join {
    #[serde(flatten)]
    ids: EndpointCall,
    sandbox_key: String,
    options: BTreeMap<String, String>,
}

impl Join {
    pub(super) fn of(endpoint: &EndpointRecord) -> Self {
        Self {
            ids: EndpointCall::of(endpoint.network, endpoint.id),
            sandbox_key: String::new(),
            options: BTreeMap::new(),
        }
    }
}

/// What `ProgramExternalConnectivity` is asked with. Weft maps no ports.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Outside {
    #[serde(flatten)]
    ids: EndpointCall,
    options: BTreeMap<&'static str, [(); 0]>,
}

impl Outside {
    pub(super) fn of(endpoint: &EndpointRecord) -> Self {
        Self {
            ids: EndpointCall::of(endpoint.network, endpoint.id),
            options: BTreeMap::from([(EXPOSED_PORTS, []), (PORT_MAP, [])]),
        }
    }
}

/// What `DiscoverNew` and `DiscoverDelete` tell: a node, by its address.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Discovery {
    discovery_type: u8,
    discovery_data: NodeData,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeData {
    address: String,
    bind_address: String,
    #[serde(rename = "Self")]
    is_self: bool,
}

impl Discovery {
    /// Keys, the protocol's other kind of discovery, are told to no plugin.
    const NODE: u8 = 1;

    pub(super) fn of(node: NodePlace) -> Self {
        let address = node.address.to_string();
        Self {
            discovery_type: Self::NODE,
            discovery_data: NodeData {
                bind_address: address.clone(),
                address,
                is_self: node.is_self,
            },
        }
    }
}

/// A reply that says no more than that it is done. Whatever else it says is not for us.
#[derive(Deserialize)]
pub(super) struct Nothing {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Capabilities {
    #[serde(default)]
    pub(super) scope: String,
    #[serde(default)]
    pub(super) connectivity_scope: String,
    /// Whether it can be asked `GwAllocCheck`; an older plugin cannot.
    #[serde(default)]
    pub(super) gw_alloc_checker: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InterfaceReply {
    #[serde(default)]
    pub(super) interface: Option<Interface>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct JoinReply {
    pub(super) interface_name: Option<LinkName>,
    pub(super) gateway: String,
    #[serde(rename = "GatewayIPv6")]
    pub(super) gateway_ipv6: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) static_routes: Vec<StaticRoute>,
    #[serde(deserialize_with = "or_default")]
    pub(super) table_entries: Vec<EntryReply>,
}

/// Beyond libnetwork's protocol: the answer of a table driver to CreateNetwork.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NetworkReply {
    #[serde(deserialize_with = "or_default")]
    pub(super) tables: Vec<TableReply>,
    pub(super) position: Option<PositionReply>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TableReply {
    pub(super) name: String,
    #[serde(default = "endpoint_type")]
    pub(super) object_type: u32,
}

fn endpoint_type() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PositionReply {
    pub(super) stream: String,
    pub(super) revision: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EntryReply {
    pub(super) table_name: String,
    pub(super) key: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EventNotify {
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    pub(super) stream: String,
    pub(super) after: u64,
    pub(super) events: Vec<Event>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Event {
    pub(super) revision: u64,
    /// As in libnetwork: 1 created, 2 updated, 3 deleted.
    #[serde(rename = "Type")]
    pub(super) kind: u8,
    pub(super) table_name: String,
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) previous: Option<String>,
    pub(super) owner: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct EventReply {
    pub(super) revision: Option<u64>,
    pub(super) retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DecodeTableEntry {
    pub(super) table_name: String,
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct DecodeReply {
    #[serde(rename = "EndpointID")]
    pub(super) endpoint: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) info: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LinkName {
    pub(super) src_name: String,
    pub(super) dst_prefix: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct StaticRoute {
    pub(super) destination: String,
    pub(super) route_type: u8,
    pub(super) next_hop: String,
}
