//! The JSON of the control API, both directions: the server writes these types, the client reads them.
//!
//! **Invariant:** a field is added, never renamed or removed; readers ignore fields that they do not know.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::core::model::{
    ClusterId, EndpointId, Mac, Name, NetworkId, NodeId, Prefix, Subnet, TableName,
};

pub use super::blob::Blob;
pub use super::drivers::{
    CreateIpam, Driver, DriverKind, EndpointDetail, ExplainedEntry, Plugin, PluginState, Scope,
};
pub use super::error::{Code, ErrorBody, Failure};
pub use super::members::{Member, MemberCounts, MemberState};
pub use super::progress::{
    Applied, Lacking, LeftEndpoint, ListedNetwork, SyncCounts, SyncState, Version, WaitQuery,
};
pub use super::trust::Certificate;

/// `GET /v1/status`: what this node says of itself and of the cluster it sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// Where other nodes reach it: the real port, also when port 0 was asked for.
    pub address: SocketAddr,
    /// Whether its endpoints are asserted and other nodes may rely on it.
    pub ready: bool,
    /// How long it has been up, in milliseconds.
    pub uptime_ms: u64,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
    /// How it takes part in agreement.
    pub raft: RaftStatus,
    /// How many members it sees, by state.
    pub members: MemberCounts,
    /// How many networks there are, by how far they have come here.
    pub networks: NetworkCounts,
    /// How many of them have all their entries here.
    #[serde(default)]
    pub sync: SyncCounts,
    /// How far what every node carries has come: which networks and members there are.
    #[serde(default)]
    pub cluster_sync: Option<SyncState>,
    /// How many endpoints this node has, joined or not.
    pub endpoints: u64,
    /// Its certificate.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// The Docker engine of its host, if it serves one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerEngine>,
    /// What the node has counted since it came up; names end in `_total` for counters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
}

/// The Docker engine of a node's host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DockerEngine {
    /// Its version; nothing while it is not there.
    pub version: Option<String>,
    /// That Weft is tested with others, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untested: Option<String>,
    /// What somebody must act on, a line each: networks that are not in the engine and why, a swarm in the way of Weft's tunnels.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// How a node takes part in agreement (Raft).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RaftStatus {
    /// `leader`, `follower`, `candidate`, `learner` or `none`.
    pub role: String,
    /// The term.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who is being brought up to date before it votes.
    pub learners: Vec<NodeId>,
    /// The last entry applied here.
    pub applied: u64,
    /// The last entry in the log here.
    pub last_log: u64,
    /// What keeps the leader from changing who votes; only the leader knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<super::cluster::Waits>,
}

/// How many networks have come how far on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkCounts {
    /// Endpoints can join.
    pub ready: u64,
    /// The driver has not set them up yet.
    pub pending: u64,
    /// Removed, and being taken down.
    pub removing: u64,
}

/// `POST /v1/networks`: what to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateNetwork {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// The driver; `overlay` if not given.
    #[serde(default = "overlay")]
    pub driver: Name,
    /// Options, passed to the driver unchanged.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Subnets wanted; with none, the leader picks one from its pool.
    #[serde(default)]
    pub subnets: Vec<CreateSubnet>,
    /// Who hands out its pools and addresses; nothing for the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<CreateIpam>,
    /// Whether one of the subnets must be of IPv6; if none is named, the leader picks a /64 of the cluster's own.
    #[serde(default)]
    pub ipv6: bool,
}

impl CreateNetwork {
    /// Returns the wish for an overlay network of this name, everything else left to the leader.
    pub fn overlay(name: Name) -> Self {
        Self {
            name,
            driver: overlay(),
            options: BTreeMap::new(),
            subnets: Vec::new(),
            ipam: None,
            ipv6: false,
        }
    }
}

fn overlay() -> Name {
    Name::new("overlay").expect("`overlay` keeps to a name's letters and length")
}

/// A subnet that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSubnet {
    /// The prefix; nothing to have one picked.
    #[serde(default)]
    pub prefix: Option<Prefix>,
    /// The gateway; nothing for the first address.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The part that addresses are handed out from, unless somebody names one; nothing for all of it.
    #[serde(default)]
    pub range: Option<Prefix>,
    /// Addresses that something outside the cluster has.
    #[serde(default)]
    pub reserved: Vec<IpAddr>,
}

/// A network, as the leader agreed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The leader's number for it, never used again.
    pub id: NetworkId,
    /// Its name.
    pub name: Name,
    /// Its driver.
    pub driver: Name,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Its subnets, each with its VNI if the driver needs one.
    pub subnets: Vec<Subnet>,
}

/// `GET /v1/networks/{network}`: a network, its endpoints, and what this node's driver made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkDetail {
    /// The network.
    #[serde(flatten)]
    pub network: Network,
    /// How far its driver has come on this node.
    pub setup: Setup,
    /// How far its entries have come; nothing while this node does not carry it.
    #[serde(default)]
    pub sync: Option<SyncState>,
    /// The endpoints that have joined on any node, and this node's own others.
    pub endpoints: Vec<Endpoint>,
    /// What this node's driver says of it, in the driver's words.
    pub driver_state: serde_json::Value,
    /// Why this host's container engine does not have it, though it should; nothing if it has, or there is no engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_problem: Option<String>,
}

/// How far a network has come on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Setup {
    /// Its driver is being told; that is tried again until it works.
    Pending {
        /// Why it has not worked yet; nothing at first.
        reason: Option<String>,
    },
    /// Endpoints can join.
    Ready,
    /// The network was removed, and is being taken down.
    Removing,
}

impl Setup {
    /// Returns the word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Ready => "ready",
            Self::Removing => "removing",
        }
    }
}

/// `POST /v1/networks/{network}/endpoints`: what to create, on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEndpoint {
    /// Its name, unique among the network's endpoints of this node.
    pub name: Name,
    /// The address wanted; nothing to have one picked.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The address wanted of the other family, in a network that has both; nothing to have one picked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_address: Option<IpAddr>,
}

/// Where an endpoint is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It has an address, and nobody can reach it yet.
    Created,
    /// It is in the network, known to every node.
    Joined,
}

impl EndpointState {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Joined => "joined",
        }
    }
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The endpoint.
    pub id: EndpointId,
    /// Its name.
    pub name: Name,
    /// Its network.
    pub network: NetworkId,
    /// The name of its network.
    pub network_name: Option<Name>,
    /// The node that carries it.
    pub node: NodeId,
    /// The name of that node.
    pub node_name: Option<Name>,
    /// Its address with the subnet's prefix length.
    pub address: Option<Prefix>,
    /// Its address of the other family, in a network that has both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_address: Option<Prefix>,
    /// Its MAC address.
    pub mac: Mac,
    /// Where it is in its life.
    pub state: EndpointState,
    /// What a sandbox needs to use it; only in the answer to a join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// What a sandbox needs to use an endpoint that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The interface's name in the sandbox that it was moved into; nothing if the caller moves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The interface to move into the sandbox; nothing for a driver that gives none.
    pub interface: Option<Interface>,
    /// The default gateways, at most one for each family.
    pub gateways: Vec<IpAddr>,
    /// More routes.
    pub routes: Vec<Route>,
}

/// The query of `POST …/join`: a sandbox on this node to move the interface into.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinQuery {
    /// The path of its network namespace, as the daemon sees it; nothing: the caller moves the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// The interface's name there; nothing: the first free of `eth0`, `eth1` ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// An interface for a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The link that the driver made.
    pub source: String,
    /// What its name inside the sandbox begins with, for example `eth`.
    pub prefix: String,
}

/// A route for a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub destination: Prefix,
    /// The next hop; nothing when the destination is on the link.
    pub via: Option<IpAddr>,
}

/// One table of `GET /v1/networks/{network}/tables`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The table.
    pub name: TableName,
    /// How many entries are visible in it.
    pub entries: u64,
}

/// An entry of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The network.
    pub network: NetworkId,
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Blob,
    /// The value.
    pub value: Blob,
    /// The node that wrote it.
    pub owner: NodeId,
    /// When its owner wrote it, in milliseconds since 1970.
    pub written_ms: u64,
    /// Whether this node wrote it.
    pub ours: bool,
}

/// `PUT …/entries?key=`: the value to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutEntry {
    /// The value.
    pub value: Blob,
    /// When to write.
    #[serde(default)]
    pub mode: PutMode,
}

/// Whether a put may create, update, or do both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutMode {
    /// The key must be new.
    Create,
    /// The key must be there, and this node's own.
    Update,
    /// Either.
    #[default]
    Upsert,
}

/// How a key in a query is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Encoding {
    /// As text.
    #[default]
    #[serde(rename = "utf-8", alias = "utf8", alias = "text")]
    Utf8,
    /// In base64 (RFC 4648 §4, with padding).
    #[serde(rename = "base64")]
    Base64,
}

/// The query that names one key: `?key=…&encoding=utf-8|base64`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyQuery {
    /// The key.
    pub key: String,
    /// How it is written.
    #[serde(default)]
    pub encoding: Encoding,
}

/// The query of `GET /v1/watch`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchQuery {
    /// The network, by name or number.
    pub network: String,
    /// Only this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
    /// Only keys that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How the prefix is written.
    #[serde(default)]
    pub encoding: Encoding,
    /// Changes after this revision instead of a snapshot, if it is still remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// One message of `GET /v1/watch`: first the entries that are there, then `synced`, then changes and states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WatchEvent {
    /// An entry that was there when the watch began.
    Entry(Entry),
    /// All that was there has been sent; changes follow.
    Synced {
        /// The last change that is in what was sent.
        revision: u64,
    },
    /// Something changed.
    Change(Change),
    /// How far the network's entries have come on this node: at first, and whenever it changes. All that came before has
    /// been sent.
    State {
        /// The network.
        network: NetworkId,
        /// How far; nothing if this node does not carry it.
        sync: Option<SyncState>,
    },
    /// The watcher was too slow and has missed changes: what it knew is void, and all that is there follows anew.
    Lagged,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It has another value, or another owner.
    Updated,
    /// Its owner removed it.
    Removed,
    /// Its owner left the cluster or the network.
    OwnerLeft,
    /// Its owner is down; it comes back with it.
    OwnerDown,
    /// This node has left the network.
    Detached,
}

impl ChangeKind {
    /// Returns whether the entry is gone.
    pub fn is_gone(self) -> bool {
        match self {
            Self::Created | Self::Updated => false,
            Self::Removed | Self::OwnerLeft | Self::OwnerDown | Self::Detached => true,
        }
    }

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Removed => "removed",
            Self::OwnerLeft => "owner_left",
            Self::OwnerDown => "owner_down",
            Self::Detached => "detached",
        }
    }
}

/// A change of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its place in this node's history: a later watch may go on from here.
    pub revision: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The network.
    pub network: NetworkId,
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Blob,
    /// The value now; nothing if the entry is gone.
    pub value: Option<Blob>,
    /// The value before; nothing if the entry is new.
    pub previous: Option<Blob>,
    /// Who wrote it.
    pub owner: NodeId,
    /// When its owner wrote it, in milliseconds since 1970.
    pub written_ms: u64,
    /// Whether this node wrote it.
    pub ours: bool,
}

/// `GET` and `POST /v1/token`: what a newcomer needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The join token.
    pub token: String,
}

/// `POST /v1/token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateToken {
    /// Whether to make a new secret; the old one is refused from then on.
    #[serde(default)]
    pub rotate: bool,
}

/// `POST /v1/leave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// Leave also if the cluster ends with it, or cannot agree to it now.
    #[serde(default)]
    pub force: bool,
}

/// The answer to `POST /v1/leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The cluster that was left.
    pub cluster: ClusterId,
    /// The node that left.
    pub node: NodeId,
    /// How many members are still there.
    pub remaining: u64,
}
