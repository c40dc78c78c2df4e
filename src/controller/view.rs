//! What use cases take and answer. Doors turn these into their own types.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::CertificateView;
use crate::{
    core::{
        ipam::Utilisation,
        model::{
            ClusterId, EndpointId, EndpointRecord, Labels, Mac, Name, NetworkId, NetworkRecord,
            NodeId, Prefix, TableName,
        },
        netdb::{EntryView, SyncState, Version},
    },
    driver::{Allocation, Capability, Decoded, InterfaceName, IpamCapability, Route},
    raft::RaftStatus,
    runtime::NodeStatus,
};

/// A network that somebody wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkRequest {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// The driver, for example `overlay`.
    pub driver: Name,
    /// Options for the driver.
    pub options: BTreeMap<String, String>,
    /// The subnets wanted; none: what the driver needs, from the cluster's default pool.
    pub subnets: Vec<SubnetRequest>,
    /// Whether one of the subnets must be of IPv6.
    pub ipv6: bool,
}

/// Who shall hand out a network's pools and addresses, in place of the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpamRequest {
    /// The IPAM driver.
    pub driver: Name,
    /// Options for it.
    pub options: BTreeMap<String, String>,
}

/// A subnet that somebody wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SubnetRequest {
    /// Which addresses; nothing: the next free subnet of the default pools.
    pub prefix: Option<Prefix>,
    /// The gateway; nothing: the first address.
    pub gateway: Option<IpAddr>,
    /// The part that addresses are handed out from, unless somebody names one; nothing: all of it.
    pub range: Option<Prefix>,
    /// Addresses that something outside the cluster has.
    pub reserved: Vec<IpAddr>,
}

/// The addresses of a subnet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolView {
    /// The network.
    pub network: NetworkRecord,
    /// The subnet.
    pub subnet: Prefix,
    /// How many addresses endpoints have, and could have.
    pub in_use: Utilisation,
    /// How many are leased to nodes.
    pub leased: u128,
    /// Each block that is leased, to whom, and how many of its addresses endpoints have.
    pub blocks: Vec<(Prefix, NodeId, Utilisation)>,
}

/// How far a network has come on this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Setup {
    /// The driver is being told; it is tried again if it fails.
    Pending {
        /// Why it has not worked yet; nothing at first.
        reason: Option<String>,
    },
    /// Endpoints can join.
    Ready,
    /// The network was removed, and is being taken down.
    Removing,
}

/// A network among others, and how far it has come on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedNetwork {
    /// What the leader agreed.
    pub record: NetworkRecord,
    /// How far its driver has come.
    pub setup: Setup,
    /// How far its entries have come; nothing while this node does not carry it.
    pub sync: Option<SyncState>,
}

/// What waiting for others has brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppliedView {
    /// The network.
    pub network: NetworkId,
    /// The newest of this node's writes that was waited for.
    pub version: Version,
    /// The live members that may lack it, each with its name if that is known; nobody: all have it.
    pub lacking: Vec<(NodeId, Option<Name>)>,
}

/// A network, seen from this node.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// What the leader agreed.
    pub record: NetworkRecord,
    /// How far its driver has come on this node.
    pub setup: Setup,
    /// How far its entries have come; nothing while this node does not carry it.
    pub sync: Option<SyncState>,
    /// The endpoints that have joined anywhere, and this node's own others.
    pub endpoints: Vec<EndpointView>,
    /// The driver's state of it on this node.
    pub driver_state: serde_json::Value,
    /// Why this host's container engine does not have it, though it should.
    pub engine_problem: Option<String>,
}

/// How far an endpoint has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It has an address, and nobody reaches it.
    Created,
    /// It is connected, and every node knows where it is.
    Joined,
}

/// An endpoint, seen from this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointView {
    /// The endpoint.
    pub record: EndpointRecord,
    /// The node that has it.
    pub node: NodeId,
    /// How far it has come. Other nodes' endpoints are seen once they have joined.
    pub state: EndpointState,
    /// What its sandbox needs; only in the answer to a join.
    pub sandbox: Option<Sandbox>,
}

/// What a sandbox needs to use an endpoint that has joined.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Sandbox {
    /// The interface's name in the sandbox that it was moved into; nothing if the caller moves it.
    pub name: Option<String>,
    /// The interface; nothing for a driver that gives none.
    pub interface: Option<InterfaceName>,
    /// The default gateways.
    pub gateways: Vec<IpAddr>,
    /// More routes.
    pub routes: Vec<Route>,
}

/// An endpoint that an engine wants: it has asked for the address before, and gives it back itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldEndpoint {
    /// Its id, which follows from the engine's.
    pub id: EndpointId,
    /// Its name until the engine tells the container's.
    pub name: Name,
    /// Its addresses, at most one of each family, which are held.
    pub addresses: Vec<IpAddr>,
    /// The MAC address; nothing: any.
    pub mac: Option<Mac>,
}

/// An address that an engine holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Held {
    /// The network.
    pub network: NetworkId,
    /// The address.
    pub address: IpAddr,
    /// The endpoint of this node that has it.
    pub endpoint: Option<EndpointId>,
}

/// A table of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableView {
    /// The table.
    pub table: TableName,
    /// How many entries are visible in it.
    pub entries: usize,
}

/// A node at a glance.
#[derive(Clone, Debug)]
pub struct StatusView {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// The cluster.
    pub cluster: ClusterId,
    /// The version of the program.
    pub version: &'static str,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// This node's part in the agreement.
    pub raft: RaftStatus,
    /// Counters, members and queues.
    pub runtime: NodeStatus,
    /// The networks, and how far each has come on this node.
    pub networks: BTreeMap<NetworkId, Setup>,
    /// How many endpoints this node has.
    pub endpoints: usize,
    /// Table entries that are still to be taken back.
    pub removals: usize,
    /// Its certificate.
    pub certificate: CertificateView,
    /// The container engine of its host, if it serves one.
    pub engine: Option<EngineView>,
    /// Why networks are not in that engine, by the network's name.
    pub engine_problems: BTreeMap<Name, String>,
}

/// The container engine of this node's host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EngineView {
    /// Its version; nothing while it is not there.
    pub version: Option<String>,
    /// That Weft is tested with others.
    pub untested: Option<String>,
    /// What of it is in the way of Weft's networks.
    pub in_the_way: Option<String>,
}

/// A member and what it says of itself.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// What membership knows of it.
    pub member: crate::runtime::MemberView,
    /// Its name; nothing while its record has not come.
    pub name: Option<Name>,
    /// The version of its program.
    pub version: Option<String>,
    /// What its operator says of it.
    pub labels: Labels,
    /// What it can do that others may lack.
    pub capabilities: Vec<Name>,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it votes, as far as this node knows.
    pub votes: bool,
    /// What became of it last.
    pub last: Option<super::TransitionView>,
}

/// A driver of this node, of whatever kind.
#[derive(Clone, PartialEq, Debug)]
pub struct DriverView {
    /// The name it is registered by.
    pub name: Name,
    /// Where its process listens; nothing for one that is built in.
    pub address: Option<String>,
    /// Whether it still knows what it was told.
    pub is_alive: bool,
    /// What it can do.
    pub capability: DriverCapability,
    /// The networks that use it.
    pub networks: Vec<Name>,
    /// What it says of itself.
    pub state: serde_json::Value,
}

/// What a driver can do, by its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverCapability {
    /// It carries networks.
    Network(Capability),
    /// It hands out pools and addresses, and needs this for it.
    Ipam(IpamCapability),
    /// It hands out what networks need in the whole cluster.
    Allocator {
        /// What is agreed without asking it.
        agreed: Allocation,
        /// Whether the leader's node asks it.
        is_asked: bool,
    },
}

/// A plugin of this host, in use or not.
pub type PluginView = crate::driver::PluginListed;

/// An endpoint, and what is known of it everywhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointDetail {
    /// The endpoint.
    pub view: EndpointView,
    /// The driver of its network.
    pub driver: Name,
    /// Its table entries, as this node sees them.
    pub entries: Vec<EntryDetail>,
    /// Which members may lack something that this node has written; nothing for another node's endpoint.
    pub applied: Option<AppliedView>,
}

/// An entry, and what its driver says that it means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryDetail {
    /// The entry.
    pub entry: EntryView,
    /// What it means; nothing if the driver does not say.
    pub explained: Option<Decoded>,
}
