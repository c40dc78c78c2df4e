//! openraft's types with ours filled in.

use std::io::Cursor;

use openraft::EmptyNode;

use crate::core::allocator::{AllocatorError, Command, Outcome};

/// What applying an entry came to; blank entries and changes of membership are `Done`.
pub(super) type Applied = Result<Outcome, AllocatorError>;

openraft::declare_raft_types!(
    /// A log of the allocator's commands. Nodes are known by id; where they are is the transport's business.
    pub(super) Types:
        D = Command,
        R = Applied,
        NodeId = u64,
        Node = EmptyNode,
);

pub(super) type Entry = openraft::Entry<Types>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type StoredMembership = openraft::StoredMembership<u64, EmptyNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<u64, EmptyNode>;
pub(super) type StorageError = openraft::StorageError<u64>;
pub(super) type StorageIOError = openraft::StorageIOError<u64>;
