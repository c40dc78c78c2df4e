//! What comes out of the machine: events, datagrams' records, counts, errors.

use std::net::SocketAddr;

use bytes::Bytes;

use super::Identity;
use crate::core::{model::NodeId, wire::record::RecordKind};

/// What changed among the members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A member is alive that was not known, was down or had left.
    Up(NodeId),
    /// A member did not refute in time.
    Down(NodeId),
    /// A member said that it leaves. If it was down before, this comes after [`Event::Down`].
    Left(NodeId),
    /// A member has another address or another boot. If it was not alive before, [`Event::Up`] follows.
    Moved(NodeId, SocketAddr),
    /// This node was declared down although it lives, and has returned as this identity.
    Renewed(Identity),
    /// Two nodes run with one id: here they are. The operator must stop one of them and give it an id of its own.
    Clash {
        /// The id; ours if we are one of the two.
        node: NodeId,
        /// Where the node is that holds it.
        holder: SocketAddr,
        /// Where the other one is.
        other: SocketAddr,
    },
}

/// A record to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// To whom.
    pub to: NodeId,
    /// Where that is.
    pub addr: SocketAddr,
    /// What the record is.
    pub kind: RecordKind,
    /// The record.
    pub body: Bytes,
}

/// Why a record was dropped. Its sender wrote it; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// It does not decode.
    #[error("malformed: {0}")]
    Malformed(#[from] PacketError),
    /// As many members are known as may be.
    #[error("too many members: {0} are known")]
    TooMany(usize),
}

/// Why bytes are not a SWIM packet or a list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Something is missing.
    #[error("cut off")]
    CutOff,
    /// It names a kind, a state or an address family that does not exist.
    #[error("unknown {0}")]
    Unknown(&'static str),
    /// Something follows its end.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// It asks its sender, or this node, about itself.
    #[error("goes in a circle")]
    Circular,
    /// There is no room to write it.
    #[error("no room")]
    NoRoom,
}

/// What the machine has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// SWIM packets handled.
    pub packets: u64,
    /// Second copies dropped.
    pub copies_dropped: u64,
    /// Packets of an earlier life of their sender, or meant for an earlier life of ours.
    pub stale: u64,
    /// Suspicions that ran out although they were refuted.
    pub refuted: u64,
    /// Members asked on a stream because they did not answer a probe, and answers that came in time.
    pub stream_pings: u64,
    /// See `stream_pings`.
    pub stream_pongs: u64,
    /// Neighbours on the ring that were silent, and were asked.
    pub neighbours_asked: u64,
    /// Members this node began to suspect.
    pub suspected: u64,
    /// Claims that a member is down that it could still refute.
    pub hearings: u64,
    /// Times this node was late itself and gave the others the time that it lost.
    pub stalls: u64,
    /// Records dropped because the outgoing queue was full.
    pub overflows: u64,
    /// Times this node asked another for its members because theirs differed.
    pub repairs: u64,
    /// Pushes of news sent, copies not counted.
    pub pushes: u64,
}
