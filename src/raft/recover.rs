//! The last resort: one node's log becomes the whole agreement, after most voters are lost for ever.
//!
//! All that the node's disk has of the log is applied, agreed by a majority or not: what was answered may be anywhere in it. The
//! outcome is a snapshot with this node as the only voter, and no log.
//!
//! **Invariant:** its term and its index are beyond all that the lost voters can have reached: the upper half of a term counts
//! recoveries, and elections only ever add to the lower half. So a voter of before that hears of it takes the snapshot in place
//! of whatever it had, and its own votes count for nothing.

use std::collections::BTreeSet;

use super::{
    log_store::{self, COMMITTED, LOG, PURGED, STATE, VOTE},
    machine::{LoadError, SNAPSHOT, SNAPSHOT_META, State},
    types::{LogId, SnapshotMeta, StoredMembership},
    wire::{WireEntry, WireLogId, WireMeta, WireVote},
};
use crate::{
    core::{
        allocator::Allocator,
        model::{Hlc, NodeId},
        wire::codec,
    },
    store::{Fault, Store, StoreError},
};

/// Where in a term the count of recoveries begins.
const EPOCH_BITS: u32 = 32;

/// How far the index jumps: more entries than the lost voters can have agreed on without this node.
const INDEX_SKIPPED: u64 = 1 << 32;

/// Why the agreement was not recovered. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The data file failed; it says who must act.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is on the disk cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The operator must choose another node.
    #[error(
        "this node never voted and has no log: recover on a node that voted, which `weft cluster voters` listed as a voter or a learner"
    )]
    NoLog,
    /// The operator must choose another node.
    #[error("this node votes no longer, and its log is old: recover on one of {}", list(.0))]
    NoVoter(Vec<NodeId>),
    /// The operator must choose another node.
    #[error("this node was removed from the cluster: recover on another one")]
    Removed,
    /// The operator named a node that does not vote.
    #[error("{0} is none of the other voters")]
    NotVoting(NodeId),
    /// The log has a hole: the disk, or somebody, changed the file.
    #[error("the log on the disk lacks entry {0}: recover on another node, or restore a backup")]
    Hole(u64),
}

fn list(nodes: &[NodeId]) -> String {
    let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    nodes.join(", ")
}

/// What is on one node's disk, and what a recovery makes of it.
#[derive(Debug)]
pub struct Recovery {
    node: NodeId,
    others: BTreeSet<NodeId>,
    vote_term: u64,
    last: LogId,
    allocator: Allocator,
}

impl Recovery {
    /// Looks at what is on the disk.
    pub fn look(store: &Store, node: NodeId) -> Result<Self, RecoverError> {
        log_store::create_tables(store)?;
        let state = whole_state(store)?;
        let vote: Option<WireVote> = store.read(|transaction| {
            let vote = transaction.open_table(STATE)?.get(VOTE)?;
            Ok(vote.map(|bytes| codec::decode(bytes.value())).transpose()?)
        })?;
        let last = state.last.ok_or(RecoverError::NoLog)?;
        let membership = state.membership.membership();
        let nodes: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| NodeId(*id)).collect();
        if state.allocator.cluster().is_none() {
            return Err(RecoverError::NoLog);
        }
        if state.allocator.is_removed(node) {
            return Err(RecoverError::Removed);
        }
        if !nodes.contains(&node) {
            return Err(RecoverError::NoVoter(nodes.into_iter().collect()));
        }
        Ok(Self {
            node,
            others: nodes.into_iter().filter(|other| *other != node).collect(),
            vote_term: vote.map_or(0, |vote| vote.term),
            last,
            allocator: state.allocator,
        })
    }

    /// Returns whether there is nothing to recover from: this node alone votes.
    pub fn is_done(&self) -> bool {
        self.others.is_empty()
    }

    /// Returns the node whose disk it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns the other nodes that vote or have the log.
    pub fn others(&self) -> &BTreeSet<NodeId> {
        &self.others
    }

    /// Returns what is agreed, as far as this node's log goes.
    pub fn state(&self) -> &Allocator {
        &self.allocator
    }

    /// Returns how far this node's log goes: of several nodes the one with the greatest term, then the greatest index, has most.
    pub fn reach(&self) -> (u64, u64) {
        (self.last.leader_id.term, self.last.index)
    }

    /// Makes this node the only voter. The others are removed from the cluster, but for those that are kept.
    ///
    /// `at` dates the removals, `request` names them. All of it is written, or nothing.
    pub fn perform(
        mut self,
        store: &Store,
        keep: &BTreeSet<NodeId>,
        (at, request): (Hlc, u128),
    ) -> Result<Vec<NodeId>, RecoverError> {
        if let Some(stranger) = keep.difference(&self.others).next() {
            return Err(RecoverError::NotVoting(*stranger));
        }
        let lost: Vec<NodeId> = self.others.difference(keep).copied().collect();
        self.allocator.recover(at, request, &lost);
        let term = next_epoch(self.vote_term.max(self.last.leader_id.term));
        let id = LogId::new(
            openraft::LeaderId::new(term, self.node.0),
            self.last.index.saturating_add(INDEX_SKIPPED),
        );
        let us = BTreeSet::from([self.node.0]);
        let membership = openraft::Membership::new(vec![us.clone()], us);
        let meta = SnapshotMeta {
            last_log_id: Some(id),
            last_membership: StoredMembership::new(Some(id), membership),
            snapshot_id: format!("recovered-{term}-{}", id.index),
        };
        let vote = WireVote {
            term,
            node: self.node.0,
            committed: false,
        };
        let snapshot = self.allocator.snapshot();
        store.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            log.retain(|_, _| false)?;
            let mut state = transaction.open_table(STATE)?;
            let purged = codec::encode(&WireLogId::from(&id));
            state.insert(PURGED, purged.as_slice())?;
            state.remove(COMMITTED)?;
            state.insert(VOTE, codec::encode(&vote).as_slice())?;
            state.insert(
                SNAPSHOT_META,
                codec::encode(&WireMeta::from(&meta)).as_slice(),
            )?;
            state.insert(SNAPSHOT, snapshot.as_slice())?;
            Ok(())
        })?;
        Ok(lost)
    }
}

/// Returns how many recoveries a term comes after.
pub(super) fn epoch(term: u64) -> u64 {
    term >> EPOCH_BITS
}

/// Returns the first term after the next recovery.
fn next_epoch(term: u64) -> u64 {
    (epoch(term) + 1) << EPOCH_BITS
}

/// Returns the state with the whole log applied.
fn whole_state(store: &Store) -> Result<State, RecoverError> {
    let mut state = State::load(store)?;
    let from = state.last.map_or(0, |last| last.index + 1);
    let entries = store.read(|transaction| {
        let log = transaction.open_table(LOG)?;
        let mut entries = Vec::new();
        for row in log.range(from..)? {
            let (index, bytes) = row?;
            let entry: WireEntry = codec::decode(bytes.value()).map_err(Fault::from)?;
            entries.push((index.value(), entry));
        }
        Ok(entries)
    })?;
    for (expected, (index, entry)) in (from..).zip(entries) {
        if expected != index {
            return Err(RecoverError::Hole(expected));
        }
        // What it came to was told to whoever asked.
        let _ = state.apply(entry.into());
    }
    Ok(state)
}
