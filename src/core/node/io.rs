//! What goes into a node and what comes out of it.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;

use crate::core::{
    membership,
    model::{Boot, ClusterId, Generation, NetworkId, NodeId},
    netdb::{self, Applied, BarrierId, SyncState},
    wire::{
        codec::CodecError,
        envelope::{Rejected, Rejections},
        keyring::Keyring,
    },
};

/// What one node is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster, bound into every datagram.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Where others reach it.
    pub addr: SocketAddr,
    /// Which start of the program this is.
    pub boot: Boot,
    /// Which life of its logs.
    pub generation: Generation,
    /// The keys of the datagrams.
    pub keyring: Keyring,
    /// The newest version of the wire that it speaks: at most [`NEWEST`](crate::core::wire::versions::NEWEST).
    pub newest: u8,
    /// Probing.
    pub membership: membership::Config,
    /// Dissemination and anti-entropy.
    pub netdb: netdb::Config,
    /// Where chance comes from.
    pub seed: u64,
}

/// A sealed datagram to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Where it goes.
    pub to: SocketAddr,
    /// The whole datagram.
    pub datagram: Bytes,
}

/// Something that the world around the node acts on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The members changed.
    Member(membership::Event),
    /// What is visible changed; the history has it.
    Changed,
    /// A network has come so far.
    Synced(NetworkId, SyncState),
    /// A barrier has ended.
    Barrier(BarrierId, Applied),
}

/// Why a datagram, or what it held, was not taken. Counted; its sender hears nothing.
#[derive(Debug, thiserror::Error)]
pub enum DatagramError {
    /// It is not authentic, or not for us.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It is authentic, and a record is cut off: its sender is faulty.
    #[error("node {from} sent a datagram with a record that is cut off")]
    Truncated {
        /// Who sent it.
        from: NodeId,
    },
    /// It is authentic, and its sender was removed from the cluster.
    #[error("node {from} was removed from the cluster")]
    Removed {
        /// Who sent it.
        from: NodeId,
    },
}

/// Why a request or an answer on a stream was not taken. Counted; its sender is at fault.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It asks for nothing that this version knows.
    #[error("unknown request on a stream")]
    Unknown,
    /// It does not decode, or breaks a bound.
    #[error("malformed request on a stream: {0:?}")]
    Sync(netdb::Refusal),
    /// A list of members, or a member, does not decode.
    #[error("malformed list of members: {0}")]
    Members(#[from] CodecError),
}

/// What a node has counted since its start.
#[derive(Clone, Default, Debug)]
pub struct Stats {
    /// Datagrams sealed.
    pub datagrams_sent: u64,
    /// Bytes of them.
    pub datagram_bytes_sent: u64,
    /// Datagrams opened.
    pub datagrams_opened: u64,
    /// Nodes that were heard, by the version of the wire that is spoken with them.
    pub spoken: BTreeMap<u8, usize>,
    /// Datagrams refused before anything in them was read.
    pub rejections: Rejections,
    /// Datagrams of nodes that were removed from the cluster: nothing in them was read.
    pub from_removed: u64,
    /// Records of a kind that this version does not know: skipped.
    pub unknown_records: u64,
    /// Records of members that were dropped.
    pub membership_errors: u64,
    /// Records that found no address for their node.
    pub unaddressed: u64,
    /// What the network DB has counted.
    pub netdb: netdb::Stats,
    /// What membership has counted.
    pub membership: membership::Stats,
}

#[cfg(test)]
mod tests {
    use crate::core::{membership, netdb};

    #[test]
    fn digests_come_more_often_than_a_neighbour_is_asked_for_its_silence() {
        let profiles = [
            (membership::Config::lan(), netdb::Config::lan()),
            (membership::Config::wan(), netdb::Config::wan()),
            (membership::Config::local(), netdb::Config::lan()),
        ];
        for (membership, netdb) in profiles {
            assert!(membership.neighbour_silence > netdb.digest_every.mul_f64(1.1));
        }
    }
}
