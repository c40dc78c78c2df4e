//! The cluster's agreement: `/v1/cluster/voters` and `/v1/cluster/confirm`.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::{error::Failure, extract::Ask, routes::limit, types::WaitQuery};
use crate::{
    controller::{self, Controller, Standing, VoterReport, VotersReport, Wait},
    core::model::{Name, NodeId},
};

/// How long a confirmation waits unless it is told otherwise.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

/// `GET /v1/cluster/voters`: who votes and why, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voters {
    /// The leader, which knows; nothing: there is none, and the node that was asked says what it knows by itself.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: u64,
    /// How many shall vote.
    pub wanted: u64,
    /// What keeps the leader from changing who votes.
    pub waits: Waits,
    /// All members, and those that vote still.
    pub nodes: Vec<Voter>,
}

/// What the leader waits for: a word, and the node it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// What for.
    #[serde(rename = "for")]
    pub what: WaitsFor,
    /// Which node it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Its name, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

/// What a leader waits for before it changes who votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// As many vote as shall.
    Nothing,
    /// A change is being made.
    Change,
    /// Until the node has the log.
    Log,
    /// Until the node has been up for a while.
    Settled,
    /// Until a majority of the voters is up.
    Majority,
    /// Whether the node, a voter that is down, comes back.
    Return,
    /// Until some node can take the place of the node, a voter that is lost.
    Replacement,
    /// Until there are enough nodes.
    Nodes,
    /// Until a leader is elected.
    Leader,
    /// A newer program knows.
    #[serde(other)]
    Other,
}

/// What a node is in the agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoterRole {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It gets the log and has no vote.
    Learner,
    /// Neither.
    #[serde(other)]
    None,
}

/// Why a node votes, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It leads.
    Leads,
    /// It votes.
    Votes,
    /// It votes, and is down: it keeps its vote for a while.
    Down,
    /// It votes, and has been down for too long: another takes its place as soon as one can.
    Gone,
    /// It votes, and was removed from the cluster: it loses its vote as soon as that is safe.
    Removed,
    /// It votes, and another node shall in its place.
    Leaving,
    /// It is to vote, once it has the log.
    CatchingUp,
    /// It is to vote, once it has been up for a while.
    Settling,
    /// It is to vote, once the change is safe.
    Chosen,
    /// It has the log, and would make the number of votes even.
    Standby,
    /// Enough others vote.
    Spare,
    /// It does not vote, and is down.
    Absent,
    /// There is no leader to say.
    #[serde(other)]
    Unknown,
}

/// One node among the voters, or beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// The node.
    pub node: NodeId,
    /// Its name, if it is known.
    pub name: Option<Name>,
    /// What it is.
    pub role: VoterRole,
    /// For how long at least: a leader knows no more than it has seen itself.
    pub role_for_ms: Option<u64>,
    /// Whether it is up.
    pub up: bool,
    /// For how long at least it has been up or down.
    pub state_for_ms: Option<u64>,
    /// How many entries of the log it lacks; nothing if it gets no log, or has answered nothing yet.
    pub behind: Option<u64>,
    /// What it fails together with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Why it votes, or does not.
    pub why: Why,
}

/// `POST /v1/cluster/confirm`: how fresh reads of this node are, once it has heard of all that the leader says was agreed before,
/// or after `wait_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// Who confirmed it; nothing: there is no leader to say.
    pub leader: Option<NodeId>,
    /// How many changes of what is agreed this node has heard of.
    pub here: u64,
    /// How many there are; nothing: there is no leader to say.
    pub agreed: Option<u64>,
}

impl Freshness {
    /// Returns whether this node has all that was agreed when it was asked.
    pub fn is_confirmed(&self) -> bool {
        self.agreed.is_some_and(|agreed| self.here >= agreed)
    }
}

pub(super) fn routes() -> Router<Controller> {
    Router::new()
        .route("/cluster/voters", get(voters))
        .route("/cluster/confirm", post(confirm))
}

async fn confirm(
    State(controller): State<Controller>,
    Ask(query): Ask<WaitQuery>,
) -> Result<Json<Freshness>, Failure> {
    let wait = limit(query)?.unwrap_or(CONFIRM_WITHIN);
    let controller::Freshness {
        leader,
        here,
        agreed,
    } = controller.confirm(wait).await?;
    Ok(Json(Freshness {
        leader,
        here,
        agreed,
    }))
}

async fn voters(State(controller): State<Controller>) -> Result<Json<Voters>, Failure> {
    let (report, names) = controller.voters().await?;
    Ok(Json(show(report, &names)))
}

fn show(report: VotersReport, names: &BTreeMap<NodeId, Name>) -> Voters {
    let nodes = report.nodes.into_iter();
    Voters {
        leader: report.leader,
        term: report.term,
        wanted: report.wanted as u64,
        waits: waits(report.wait, names),
        nodes: nodes.map(|node| voter(node, names)).collect(),
    }
}

pub(super) fn waits(wait: Wait, names: &BTreeMap<NodeId, Name>) -> Waits {
    let (what, node) = match wait {
        Wait::Nothing => (WaitsFor::Nothing, None),
        Wait::Change => (WaitsFor::Change, None),
        Wait::Log(node) => (WaitsFor::Log, Some(node)),
        Wait::Settled(node) => (WaitsFor::Settled, Some(node)),
        Wait::Majority => (WaitsFor::Majority, None),
        Wait::Return(node) => (WaitsFor::Return, Some(node)),
        Wait::Replacement(node) => (WaitsFor::Replacement, Some(node)),
        Wait::Nodes => (WaitsFor::Nodes, None),
        Wait::Leader => (WaitsFor::Leader, None),
    };
    let name = node.and_then(|node| names.get(&node).cloned());
    Waits { what, node, name }
}

fn voter(report: VoterReport, names: &BTreeMap<NodeId, Name>) -> Voter {
    Voter {
        node: report.node,
        name: names.get(&report.node).cloned(),
        role: match report.role {
            controller::VoterRole::Leader => VoterRole::Leader,
            controller::VoterRole::Voter => VoterRole::Voter,
            controller::VoterRole::Learner => VoterRole::Learner,
            controller::VoterRole::None => VoterRole::None,
        },
        role_for_ms: report.role_for_ms,
        up: report.up,
        state_for_ms: report.state_for_ms,
        behind: report.behind,
        zone: report.zone,
        why: why(report.standing),
    }
}

fn why(standing: Standing) -> Why {
    match standing {
        Standing::Leads => Why::Leads,
        Standing::Votes => Why::Votes,
        Standing::Down => Why::Down,
        Standing::Gone => Why::Gone,
        Standing::Removed => Why::Removed,
        Standing::Leaving => Why::Leaving,
        Standing::CatchingUp => Why::CatchingUp,
        Standing::Settling => Why::Settling,
        Standing::Chosen => Why::Chosen,
        Standing::Standby => Why::Standby,
        Standing::Spare => Why::Spare,
        Standing::Absent => Why::Absent,
        Standing::Unknown => Why::Unknown,
    }
}
