//! What is kept, as it is encoded in the file.

use std::fmt;

use bincode::{Decode, Encode};

use crate::core::{
    model::{ClusterId, EndpointRecord, Name, NodeId, TableEntry},
    wire::keyring::AgreedRing,
};

/// Who this node is, once it is part of a cluster.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeIdentity {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// The cluster it is part of.
    pub cluster: ClusterId,
    /// Its certificate and key; the caller knows the bytes. Never printed.
    pub credentials: Vec<u8>,
    /// The keys of the datagrams.
    pub ring: AgreedRing,
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("node", &self.node)
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// An endpoint of this node, with the entries whose life is the endpoint's.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StoredEndpoint {
    /// The endpoint.
    pub record: EndpointRecord,
    /// Whether it has joined, so that its entries are to be asserted.
    pub joined: bool,
    /// The entries its driver added; none before it has joined.
    pub entries: Vec<TableEntry>,
}
