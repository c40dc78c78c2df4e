//! Why a write was refused. Nothing was written.

use crate::core::model::{LimitError, NetworkId, NodeId};

/// Why a put or a delete was refused; nothing was written, so the caller may try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A create met a visible entry (N2). Update it, or choose another key.
    #[error("the entry exists already, owned by node {owner}")]
    AlreadyExists {
        /// Whose entry is visible.
        owner: NodeId,
    },
    /// There is no visible entry to update or delete (N3, N5).
    #[error("there is no such entry")]
    NotFound,
    /// This node has not attached to the network.
    #[error("this node is not attached to network {0}")]
    NotAttached(NetworkId),
    /// Only its owner may change an entry.
    #[error("the entry belongs to node {owner}: only its owner may change it")]
    NotOwner {
        /// Whose entry it is.
        owner: NodeId,
    },
    /// The key, the value or the table's name is over its limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The node holds as many tables or dots as it may. Delete something, or wait until floors move.
    #[error("too much is unsent or held: try again later")]
    Backpressure,
}
