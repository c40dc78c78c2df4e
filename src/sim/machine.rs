//! A machine of the world: a program that may be ended and started, and a disk that outlives it.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::{
    model::{Boot, Instant, Key, NetworkId, NodeId, TableName, Value},
    node::Node,
};

/// A node's own entries, by address.
pub type Entries = BTreeMap<(NetworkId, TableName, Key), Value>;

/// What survives a crash: what the node's store would have written.
#[derive(Clone, Default, Debug)]
pub struct Disk {
    /// The last boot.
    pub boot: Boot,
    /// The node's own entries.
    pub entries: Entries,
    /// The networks it is attached to.
    pub attached: BTreeSet<NetworkId>,
    /// The attachments and entries that would be there after a crash that loses what the disk had only promised to keep.
    pub(super) synced: (BTreeSet<NetworkId>, Entries),
    /// It takes no more: whatever has to be on it first is refused.
    pub is_full: bool,
}

/// One machine of the world.
pub struct Machine {
    /// The program, unless it is crashed.
    pub node: Option<Box<Node>>,
    /// Which node its disk makes it.
    pub id: NodeId,
    /// Its disk.
    pub disk: Disk,
    /// How far its wall clock is off, in milliseconds.
    pub skew: i64,
    pub(super) paused_until: Instant,
    pub(super) timer: Option<Instant>,
    /// From when on its line can carry more, out and in.
    pub(super) sends_from: Instant,
    pub(super) receives_from: Instant,
}

impl Machine {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            node: None,
            id,
            disk: Disk::default(),
            skew: 0,
            paused_until: Instant::default(),
            timer: None,
            sends_from: Instant::default(),
            receives_from: Instant::default(),
        }
    }
}

/// What has happened in a run, so that a test can say that it did.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Datagrams that arrived.
    pub datagrams: u64,
    /// Datagrams lost by chance or by a cut.
    pub lost: u64,
    /// Datagrams lost for want of room at the receiver.
    pub overrun: u64,
    /// Datagrams that arrived twice.
    pub duplicated: u64,
    /// Requests on streams that arrived.
    pub requests: u64,
    /// Bytes of datagrams sent.
    pub bytes: u64,
    /// Bytes sent on streams: requests and their answers.
    pub stream_bytes: u64,
    /// Programs that were ended.
    pub crashes: u64,
    /// Disks that were lost whole.
    pub lost_disks: u64,
    /// Disks that lost their last writes, and had some to lose.
    pub lost_writes: u64,
    /// Writes and starts that a full disk did not take.
    pub refused_writes: u64,
    /// Nodes that said that they leave.
    pub leaves: u64,
    /// Links that were cut, in one direction or all between two sides.
    pub partitions: u64,
    /// Programs that stood still for a while.
    pub pauses: u64,
    /// Steps of wall clocks.
    pub clock_steps: u64,
    /// Keys that took over from another.
    pub rotations: u64,
    /// Records sent of a kind that nobody knows.
    pub unknown_records: u64,
    /// Events handled.
    pub events: u64,
}
