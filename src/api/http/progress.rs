//! The JSON of how far things have come: a network's entries on a node, and a write on the network's members.

use serde::{Deserialize, Serialize};

use super::types::{Endpoint, Network, Setup};
use crate::core::model::{Generation, Name, NetworkId, NodeId};

/// How far a network's entries have come on a node since it attached to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// They are being fetched: what is there may not be all.
    Syncing,
    /// All have come; from now on changes come as they are made.
    Synced,
    /// They could not be fetched, since a member does not answer; it is tried again.
    Degraded,
}

impl SyncState {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syncing => "syncing",
            Self::Synced => "synced",
            Self::Degraded => "degraded",
        }
    }
}

/// How many of the networks that a node carries are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SyncCounts {
    /// Their entries are being fetched.
    pub syncing: u64,
    /// All their entries have come.
    pub synced: u64,
    /// Their entries could not be fetched yet.
    pub degraded: u64,
}

/// One network of `GET /v1/networks`: what the leader agreed, and how far it has come on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedNetwork {
    /// The network.
    #[serde(flatten)]
    pub network: Network,
    /// How far its driver has come.
    pub setup: Setup,
    /// How far its entries have come; nothing while this node does not carry it.
    pub sync: Option<SyncState>,
}

/// The query of what can be waited for: `?wait_ms=10000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// How long to wait at most, in milliseconds.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// `POST /v1/networks/{network}/applied`: whether every live member of the network has all that this node had written in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The network.
    pub network: NetworkId,
    /// The newest write that was waited for.
    pub version: Version,
    /// Whether all have it.
    pub applied: bool,
    /// The live members that may lack it: they have not said in time that they have it.
    pub lacking: Vec<Lacking>,
}

/// A place in what a node writes in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Which life of the node's entries.
    pub generation: Generation,
    /// Which of the node's attachments to the network.
    pub epoch: u64,
    /// The number of the write: 1, 2, 3 …; 0 if there was none.
    pub seq: u64,
}

/// A member that may lack a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// The node.
    pub node: NodeId,
    /// Its name, if it is known.
    pub name: Option<Name>,
}

/// `POST …/endpoints/{endpoint}/leave`: the endpoint, and what was waited for if anything was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftEndpoint {
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// Who has heard that it left; only if that was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
}
