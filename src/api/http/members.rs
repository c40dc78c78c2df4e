//! The members and what they say of themselves: `/v1/members`, `/v1/labels`.

use std::net::SocketAddr;

use axum::{Json, Router, extract::State, routing::get};
use serde::{Deserialize, Serialize};

use super::{error::Failure, extract::Body};
use crate::{
    controller::{Controller, MemberView},
    core::{
        membership::State as CoreState,
        model::{LabelChange, Labels, Name, NodeId},
    },
};

/// How many members are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberCounts {
    /// Answering, this node included.
    pub alive: u64,
    /// Not answering, not yet given up.
    pub suspect: u64,
    /// Given up.
    pub down: u64,
}

/// The state of a member, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer a probe and may refute that.
    Suspect,
    /// It was given up.
    Down,
    /// It said that it leaves.
    Left,
}

impl MemberState {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }
}

impl From<CoreState> for MemberState {
    fn from(state: CoreState) -> Self {
        match state {
            CoreState::Alive => Self::Alive,
            CoreState::Suspect => Self::Suspect,
            CoreState::Down => Self::Down,
            CoreState::Left => Self::Left,
        }
    }
}

/// One member of `GET /v1/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its name; nothing while it has not told us.
    pub name: Option<Name>,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its state.
    pub state: MemberState,
    /// The version of its program, if it has told us.
    pub version: Option<String>,
    /// Whether it is the leader.
    pub leader: bool,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it is the node that answers.
    pub ours: bool,
    /// What its operator says of it; hidden while it is down.
    #[serde(default)]
    pub labels: Labels,
    /// What it can do that others may lack, in its own words; hidden while it is down.
    #[serde(default)]
    pub capabilities: Vec<Name>,
}

/// `PATCH /v1/labels`: which labels of this node to change, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeLabels {
    /// Each `KEY=VALUE`, which sets a label, or `KEY-`, which removes one.
    pub changes: Vec<LabelChange>,
}

pub(super) fn routes() -> Router<Controller> {
    Router::new()
        .route("/members", get(members))
        .route("/labels", get(labels).patch(change_labels))
}

async fn members(State(controller): State<Controller>) -> Result<Json<Vec<Member>>, Failure> {
    let voters = controller.status().await?.raft.voters;
    let views = controller.members().await?.into_iter();
    Ok(Json(views.map(|view| member(view, &voters)).collect()))
}

async fn labels(State(controller): State<Controller>) -> Result<Json<Labels>, Failure> {
    Ok(Json(controller.labels().await?))
}

async fn change_labels(
    State(controller): State<Controller>,
    Body(wish): Body<ChangeLabels>,
) -> Result<Json<Labels>, Failure> {
    Ok(Json(controller.change_labels(wish.changes).await?))
}

fn member(view: MemberView, voters: &[NodeId]) -> Member {
    Member {
        node: view.member.node,
        name: view.name,
        address: view.member.addr,
        state: view.member.state.into(),
        version: view.version,
        leader: view.leads,
        voter: voters.contains(&view.member.node),
        ours: view.member.ours,
        labels: view.labels,
        capabilities: view.capabilities,
    }
}

pub(super) fn counts(members: &[MemberView]) -> MemberCounts {
    let mut counts = MemberCounts::default();
    for view in members {
        match view.member.state {
            CoreState::Alive => counts.alive += 1,
            CoreState::Suspect => counts.suspect += 1,
            CoreState::Down => counts.down += 1,
            CoreState::Left => {}
        }
    }
    counts
}
