//! Who votes and why, for people: what the leader saw, and how far behind each log is now.

use std::time::Duration;

use bincode::{Decode, Encode};
use tokio::time::Instant;

use super::{
    Look, Metrics,
    decide::{Members, Standing, View, Wait, standing},
};
use crate::core::model::NodeId;

/// What a node is in the agreement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum VoterRole {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It gets the log and has no vote.
    Learner,
    /// It gets nothing.
    None,
}

/// Who votes, and why.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct VotersReport {
    /// The leader, which made the report; nothing: there is none, and a node says what it knows by itself.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: u64,
    /// How many shall vote.
    pub wanted: usize,
    /// What the leader waits for.
    pub wait: Wait,
    /// All members, and those that vote still.
    pub nodes: Vec<VoterReport>,
}

/// One node among the voters, or beside them.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct VoterReport {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub role: VoterRole,
    /// For how long at least, in milliseconds: a leader knows no more than it has seen itself.
    pub role_for_ms: Option<u64>,
    /// Whether it is up.
    pub up: bool,
    /// For how long at least it has been up or down, in milliseconds.
    pub state_for_ms: Option<u64>,
    /// How many entries of the log it lacks; nothing if it has answered nothing yet, or gets no log.
    pub behind: Option<u64>,
    /// What it fails together with.
    pub zone: Option<String>,
    /// Why it votes, or does not.
    pub standing: Standing,
}

/// Returns what a node is to who leads.
pub(super) fn role(view: &View, node: u64) -> VoterRole {
    if node == view.us {
        VoterRole::Leader
    } else if view.voters.contains(&node) {
        VoterRole::Voter
    } else if view.learners.contains(&node) {
        VoterRole::Learner
    } else {
        VoterRole::None
    }
}

/// Returns what the leader says.
pub(in crate::raft) fn of_leader(look: &Look, metrics: &Metrics, now: Instant) -> VotersReport {
    let view = &look.view;
    let for_ms = |since: Instant| millis(now.saturating_duration_since(since));
    let last = metrics.last_log_index.unwrap_or(0);
    let behind = |id: u64| {
        if id == view.us {
            return Some(0);
        }
        let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?;
        Some(last.saturating_sub(matched.index))
    };
    let report = |id: &u64| VoterReport {
        node: NodeId(*id),
        role: role(view, *id),
        role_for_ms: look.roles.get(id).map(|(_, since)| for_ms(*since)),
        up: *id == view.us || view.members.alive.contains(id),
        state_for_ms: look.since.get(id).map(|(_, since)| for_ms(*since)),
        behind: behind(*id),
        zone: view.members.zones.get(id).cloned(),
        standing: standing(view, &look.decision, *id),
    };
    let nodes = view.members.all.union(&view.voters);
    VotersReport {
        leader: Some(NodeId(view.us)),
        term: metrics.current_term,
        wanted: view.target,
        wait: look.decision.wait,
        nodes: nodes.map(report).collect(),
    }
}

/// Returns what a node knows by itself while nobody leads.
pub(in crate::raft) fn unled(members: &Members, metrics: &Metrics, target: usize) -> VotersReport {
    let membership = metrics.membership_config.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let learners: Vec<u64> = membership.learner_ids().collect();
    let nodes = voters.iter().chain(&learners);
    let report = |id: &u64| VoterReport {
        node: NodeId(*id),
        role: if voters.contains(id) {
            VoterRole::Voter
        } else {
            VoterRole::Learner
        },
        role_for_ms: None,
        up: *id == metrics.id || members.alive.contains(id),
        state_for_ms: None,
        behind: None,
        zone: members.zones.get(id).cloned(),
        standing: Standing::Unknown,
    };
    VotersReport {
        leader: None,
        term: metrics.current_term,
        wanted: target,
        wait: Wait::Leader,
        nodes: nodes.map(report).collect(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
