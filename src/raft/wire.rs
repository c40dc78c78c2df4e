//! Raft's messages and log entries as bytes, natively in our codec: small, and bounded when decoded.
//!
//! A message begins with a version; kinds and variants are only ever added at the end.

use std::collections::BTreeSet;

use bincode::{Decode, Encode};
use bytes::Bytes;
use openraft::{
    EntryPayload, Membership, SnapshotSegmentId,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest,
        VoteResponse,
    },
};

use super::autopilot::VotersReport;
use super::transport::Service;
use super::types::{Entry, LogId, SnapshotMeta, StoredMembership, Types, Vote};
use crate::core::{
    allocator::{AllocatorError, Command, Outcome},
    model::NodeId,
    wire::codec::{self, CodecError},
};

/// The version of what follows it.
const VERSION: u8 = 1;

/// Why bytes are no message of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("version {0} is not known")]
    Version(u8),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Writes the version and the value.
pub(super) fn seal<T: Encode>(value: &T) -> Bytes {
    codec::encode(&(VERSION, value)).into()
}

/// Reads what [`seal`] wrote.
pub(super) fn open<T: Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(codec::decode(rest)?),
        Some((version, _)) => Err(WireError::Version(*version)),
        None => Err(WireError::Version(0)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct WireVote {
    pub(super) term: u64,
    pub(super) node: u64,
    pub(super) committed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct WireLogId {
    term: u64,
    node: u64,
    index: u64,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct WireMembership {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeSet<u64>,
}

#[derive(Encode, Decode)]
pub(super) struct WireEntry {
    pub(super) id: WireLogId,
    payload: WirePayload,
}

#[derive(Encode, Decode)]
enum WirePayload {
    Blank,
    Command(Command),
    Membership(WireMembership),
}

#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct WireMeta {
    pub(super) last: Option<WireLogId>,
    membership_at: Option<WireLogId>,
    membership: WireMembership,
    id: String,
}

/// A request between voters and learners.
#[derive(Encode, Decode)]
pub(super) enum Message {
    Append {
        vote: WireVote,
        prev: Option<WireLogId>,
        commit: Option<WireLogId>,
        entries: Vec<WireEntry>,
    },
    Vote {
        vote: WireVote,
        last: Option<WireLogId>,
    },
    Snapshot {
        vote: WireVote,
        meta: WireMeta,
        offset: u64,
        data: Vec<u8>,
        done: bool,
    },
    /// The leader is about to stop: another one should stand for election as soon as it may.
    Resign,
    /// Any member asks the leader who votes and why.
    Voters,
    /// The leader of this term hands over: the next one is promised to that node.
    Transfer { term: u64, to: NodeId },
    /// Would the node vote for this one, whose log ends there? It is asked before anybody stands.
    PreVote {
        vote: WireVote,
        last: Option<WireLogId>,
    },
    /// Any member asks the leader how far the cluster log goes.
    Confirm,
    /// Any member asks the leader to have another voter lead: it is about to be removed.
    StepAside,
}

/// The answer to a [`Message`].
#[derive(Debug, Encode, Decode)]
pub(super) enum Reply {
    Appended,
    AppendedUpTo(Option<WireLogId>),
    Conflict,
    HigherVote(WireVote),
    Vote {
        vote: WireVote,
        granted: bool,
        last: Option<WireLogId>,
    },
    Snapshot(WireVote),
    /// A chunk of a snapshot that does not follow the last one: expected, got.
    SnapshotMismatch((String, u64), (String, u64)),
    Noted,
    /// The node takes no part any more.
    Stopped,
    /// The node cannot read the message, or the sender is not who the message says.
    Refused(String),
    Voters(VotersReport),
    PreVote {
        granted: bool,
    },
    Confirmed(u64),
}

/// The answer to a forwarded proposal.
#[derive(Debug, Encode, Decode)]
pub(super) enum Proposed {
    Done(Outcome),
    Refused(AllocatorError),
    NotLeader(Option<NodeId>),
    TimedOut,
    Stopped,
    Malformed(String),
}

impl From<&Vote> for WireVote {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<WireVote> for Vote {
    fn from(vote: WireVote) -> Self {
        let mut ours = Self::new(vote.term, vote.node);
        ours.committed = vote.committed;
        ours
    }
}

impl From<&LogId> for WireLogId {
    fn from(id: &LogId) -> Self {
        Self {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<WireLogId> for LogId {
    fn from(id: WireLogId) -> Self {
        Self::new(openraft::LeaderId::new(id.term, id.node), id.index)
    }
}

type OpenMembership = Membership<u64, openraft::EmptyNode>;

impl From<&OpenMembership> for WireMembership {
    fn from(membership: &OpenMembership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, _)| *id).collect(),
        }
    }
}

impl From<WireMembership> for OpenMembership {
    fn from(membership: WireMembership) -> Self {
        Self::new(membership.configs, membership.nodes)
    }
}

impl From<Entry> for WireEntry {
    fn from(entry: Entry) -> Self {
        Self {
            id: (&entry.log_id).into(),
            payload: match entry.payload {
                EntryPayload::Blank => WirePayload::Blank,
                EntryPayload::Normal(command) => WirePayload::Command(command),
                EntryPayload::Membership(membership) => {
                    WirePayload::Membership((&membership).into())
                }
            },
        }
    }
}

impl From<WireEntry> for Entry {
    fn from(entry: WireEntry) -> Self {
        Self {
            log_id: entry.id.into(),
            payload: match entry.payload {
                WirePayload::Blank => EntryPayload::Blank,
                WirePayload::Command(command) => EntryPayload::Normal(command),
                WirePayload::Membership(membership) => EntryPayload::Membership(membership.into()),
            },
        }
    }
}

impl From<&SnapshotMeta> for WireMeta {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last: meta.last_log_id.as_ref().map(Into::into),
            membership_at: meta.last_membership.log_id().as_ref().map(Into::into),
            membership: meta.last_membership.membership().into(),
            id: meta.snapshot_id.clone(),
        }
    }
}

impl From<WireMeta> for SnapshotMeta {
    fn from(meta: WireMeta) -> Self {
        let at = meta.membership_at.map(Into::into);
        Self {
            last_log_id: meta.last.map(Into::into),
            last_membership: StoredMembership::new(at, meta.membership.into()),
            snapshot_id: meta.id,
        }
    }
}

impl Message {
    pub(super) fn append(request: AppendEntriesRequest<Types>) -> Self {
        Self::Append {
            vote: (&request.vote).into(),
            prev: request.prev_log_id.as_ref().map(Into::into),
            commit: request.leader_commit.as_ref().map(Into::into),
            entries: request.entries.into_iter().map(Into::into).collect(),
        }
    }

    pub(super) fn vote(request: &VoteRequest<u64>) -> Self {
        Self::Vote {
            vote: (&request.vote).into(),
            last: request.last_log_id.as_ref().map(Into::into),
        }
    }

    pub(super) fn snapshot(request: InstallSnapshotRequest<Types>) -> Self {
        Self::Snapshot {
            vote: (&request.vote).into(),
            meta: (&request.meta).into(),
            offset: request.offset,
            data: request.data,
            done: request.done,
        }
    }
}

impl Message {
    /// Brings entries and snapshots into the form that Raft takes them in, and back.
    fn through_raft(mut self) -> Self {
        if let Self::Append { entries, .. } = &mut self {
            let taken = std::mem::take(entries).into_iter().map(Entry::from);
            *entries = taken.map(Into::into).collect();
        }
        if let Self::Snapshot { meta, .. } = &mut self {
            *meta = (&SnapshotMeta::from(meta.clone())).into();
        }
        self
    }
}

impl Reply {
    pub(super) fn appended(response: &AppendEntriesResponse<u64>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Appended,
            AppendEntriesResponse::PartialSuccess(matching) => {
                Self::AppendedUpTo(matching.as_ref().map(Into::into))
            }
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }

    pub(super) fn voted(response: &VoteResponse<u64>) -> Self {
        Self::Vote {
            vote: (&response.vote).into(),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(Into::into),
        }
    }

    pub(super) fn confirmed(self) -> Option<u64> {
        if let Self::Confirmed(last) = self {
            return Some(last);
        }
        None
    }

    pub(super) fn voters(self) -> Option<VotersReport> {
        if let Self::Voters(report) = self {
            return Some(report);
        }
        None
    }
}

/// Reads a request, or an answer, and writes it again as this version would; nothing if it is none. Nothing of it is done.
pub fn reread(service: Service, is_request: bool, bytes: &[u8]) -> Option<Bytes> {
    fn again<T: Encode + Decode<()>>(bytes: &[u8]) -> Option<Bytes> {
        Some(seal(&open::<T>(bytes).ok()?))
    }
    match (service, is_request) {
        (Service::Raft, true) => Some(seal(&open::<Message>(bytes).ok()?.through_raft())),
        (Service::Raft, false) => again::<Reply>(bytes),
        (Service::Propose, true) => again::<Command>(bytes),
        (Service::Propose, false) => again::<Proposed>(bytes),
    }
}

/// Returns a chunk's place as openraft names it.
pub(super) fn segment((id, offset): (String, u64)) -> SnapshotSegmentId {
    SnapshotSegmentId { id, offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_heartbeat_and_its_answer_are_small() {
        let leader = u64::MAX;
        let id = WireLogId {
            term: 200,
            node: leader,
            index: 60_000,
        };
        let heartbeat = Message::Append {
            vote: WireVote {
                term: 200,
                node: leader,
                committed: true,
            },
            prev: Some(id),
            commit: Some(id),
            entries: Vec::new(),
        };

        assert!(seal(&heartbeat).len() <= 48, "{}", seal(&heartbeat).len());
        assert_eq!(seal(&Reply::Appended).len(), 2);
    }

    #[test]
    fn an_entry_survives_its_bytes() {
        let membership = Membership::new(vec![BTreeSet::from([1, 2])], BTreeSet::from([1, 2, 3]));
        let entry = Entry {
            log_id: LogId::new(openraft::LeaderId::new(3, 9), 7),
            payload: EntryPayload::Membership(membership),
        };

        let bytes = codec::encode(&WireEntry::from(entry.clone()));
        let back: Entry = codec::decode::<WireEntry>(&bytes).unwrap().into();

        assert_eq!(back, entry);
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_whatever_they_are() {
        assert!(matches!(open::<Message>(&[]), Err(WireError::Version(0))));
        assert!(matches!(
            open::<Message>(&[9, 0]),
            Err(WireError::Version(9))
        ));
        assert!(matches!(
            open::<Message>(&[VERSION, 200]),
            Err(WireError::Codec(_))
        ));
        let hostile = [
            VERSION, 0, 0, 0, 0, 0, 0, 253, 255, 255, 255, 255, 255, 255, 255, 0,
        ];
        assert!(matches!(
            open::<Message>(&hostile),
            Err(WireError::Codec(_))
        ));
    }
}
