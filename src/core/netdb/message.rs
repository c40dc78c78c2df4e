//! What replicas say to each other: push, ihave, pull and digest in datagrams; sync requests and replies on streams.

use bincode::{BorrowDecode, Decode, Encode};

use super::{
    have::{Have, RANGES_MAX},
    tree::{Scope, Sums},
};
use crate::core::{
    model::{Generation, Hlc, NetworkId, NodeId},
    wire::codec::{self, CodecError},
};

/// The largest number that a dot may have: a million writes a second reach it in nine years. What comes from elsewhere and
/// names a larger one lies, and sums of such numbers do not overflow.
pub(super) const SEQ_MAX: u64 = 1 << 48;

/// The name of a log: one owner's dots in one network, in one generation and one attachment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct LogId {
    /// The network the entries are in.
    pub network: NetworkId,
    /// Who writes the log.
    pub owner: NodeId,
    /// Which life of the owner.
    pub generation: Generation,
    /// The owner's attach epoch: the dot that attached it, 0 in the cluster scope.
    pub epoch: u64,
}

/// One dot on the wire, borrowed from the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, BorrowDecode)]
pub(super) struct WireDot<'a> {
    /// Its place in the log.
    pub(super) seq: u64,
    /// When its owner wrote it.
    pub(super) written: Hlc,
    /// The entry's table.
    pub(super) table: &'a str,
    /// The entry's key.
    pub(super) key: &'a [u8],
    /// The value put, nothing for a delete.
    pub(super) value: Option<&'a [u8]>,
}

/// The head of a push; dots follow it to the end of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct PushHead {
    pub(super) log: LogId,
    pub(super) floor: u64,
}

/// Reads the dots that follow a [`PushHead`].
pub(super) fn wire_dots(mut rest: &[u8]) -> impl Iterator<Item = Result<WireDot<'_>, CodecError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match codec::decode_borrowed::<WireDot<'_>>(rest) {
            Ok((dot, used)) => {
                rest = &rest[used..];
                Some(Ok(dot))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}

/// "I have these dots of this log."
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Ihave {
    pub(super) log: LogId,
    pub(super) ranges: Vec<(u64, u64)>,
    /// They do not fit a datagram: ask for them on a stream.
    pub(super) large: bool,
}

/// "Push me these dots of this log."
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Pull {
    pub(super) log: LogId,
    pub(super) ranges: Vec<(u64, u64)>,
}

/// What the sender says of a network that it shares with the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Root {
    pub(super) network: NetworkId,
    /// The sum of the hashes of the logs it shows.
    pub(super) hash: u64,
    /// Whether the sender itself has come whole since it attached.
    pub(super) synced: bool,
}

/// The root of every network that sender and receiver share.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Digest {
    pub(super) roots: Vec<Root>,
    /// This answers a digest, so it is not answered.
    pub(super) answer: bool,
}

/// "How far do you have this log?" The answer is a [`Reached`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Ask {
    pub(super) log: LogId,
    /// Where the asker has it: what is missing up to there may be pulled from it.
    pub(super) seq: u64,
}

/// "This is how far I have this log."
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Reached {
    pub(super) log: LogId,
    pub(super) prefix: u64,
}

/// What a replica has of one log.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct LogSummary {
    pub(super) log: LogId,
    pub(super) have: Have,
    pub(super) floor: u64,
}

/// A request on a stream, about one network.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct SyncRequest {
    pub(super) network: NetworkId,
    pub(super) ask: SyncAsk,
}

/// What is asked: where we differ, or what I lack there.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum SyncAsk {
    /// Which buckets of the hash tree differ from these?
    Buckets(Sums),
    /// Which parts of these buckets differ?
    Parts(Vec<(u8, Sums)>),
    /// Send what I lack of these logs.
    Fetch(Fetch),
}

/// A request for what the asker lacks of some logs.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Fetch {
    /// Where in the hash tree they are.
    pub(super) scope: Scope,
    /// The first of them by name, if not all are asked for at once.
    pub(super) from: Option<LogId>,
    /// The last of them.
    pub(super) through: Option<LogId>,
    /// What the asker has of each; it has nothing of those that it does not name.
    pub(super) logs: Vec<LogSummary>,
}

/// The answer to a [`SyncRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct SyncReply {
    pub(super) network: NetworkId,
    pub(super) answer: SyncAnswer,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum SyncAnswer {
    /// The answering node does not carry the network.
    NotCarried,
    /// What differs of what was compared.
    Differs(Scope),
    /// What the asker lacks, at most a page.
    Deltas(Deltas),
}

/// A page of what the asker lacks.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Deltas {
    /// Whether the answering node itself has come whole since it attached.
    pub(super) synced: bool,
    /// Where to go on asking; nothing if this was all.
    pub(super) next: Option<LogId>,
    pub(super) logs: Vec<LogDelta>,
}

/// What one log's asker lacks.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct LogDelta {
    pub(super) log: LogId,
    /// Encoded [`WireDot`]s.
    pub(super) dots: Vec<u8>,
    /// Nothing unless all that lacked is here. **Only then may superseded dots be covered.**
    pub(super) complete: Option<Complete>,
}

/// What a complete answer adds to its dots.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Complete {
    /// Everything the answering node has.
    pub(super) have: Have,
    /// Its floor.
    pub(super) floor: u64,
    /// The dots at or below the floor that it holds, if the asker is below the floor: all others are to go.
    pub(super) kept: Option<Vec<(u64, u64)>>,
}

impl Complete {
    /// Returns whether one that came from elsewhere keeps the bounds: I4, and what is kept is below the floor.
    pub(super) fn is_well_formed(&self) -> bool {
        let kept_is_sane = self.kept.as_deref().is_none_or(|kept| {
            let mut end = 0;
            kept.iter().all(|&(first, last)| {
                let follows = end < first && first <= last && last <= self.floor;
                end = last;
                follows
            })
        });
        self.have.is_well_formed(RANGES_MAX) && self.floor <= self.have.prefix() && kept_is_sane
    }

    /// Returns whether a dot beside it agrees with it: it is had, unless that has been cut at the ranges that others take, and
    /// kept if it is below the floor (I3).
    pub(super) fn tells_of(&self, seq: u64) -> bool {
        let stands = self.kept.as_deref().is_none_or(|kept| {
            let after = kept.partition_point(|range| range.0 <= seq);
            seq > self.floor || (after > 0 && seq <= kept[after - 1].1)
        });
        let is_cut = self.have.ranges().len() == RANGES_MAX && seq > self.have.head();
        (self.have.contains(seq) || is_cut) && stands
    }
}

/// Returns whether ranges that came from elsewhere are few, ascending and not inverted.
pub(super) fn are_sane(ranges: &[(u64, u64)]) -> bool {
    ranges.len() <= RANGES_MAX
        && ranges
            .iter()
            .all(|range| 0 < range.0 && range.0 <= range.1 && range.1 <= SEQ_MAX)
        && ranges.windows(2).all(|pair| pair[0].1 < pair[1].0)
}
