//! The members, what they say of themselves, and by which figures they are probed: `/v1/members`, `/v1/labels`,
//! `/v1/membership`.

use std::{net::SocketAddr, time::Duration};

use axum::{Json, Router, extract::State, routing::get};
use serde::{Deserialize, Serialize};

use super::{
    error::Failure,
    extract::{At, Body},
    transitions::{self, Transition},
};
use crate::{
    controller::{Controller, MemberView},
    core::{
        membership::{self, Config, FIGURES, Profile, State as CoreState},
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
    /// Since when it is in that state, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: u64,
    /// What became of it last, and why: who suspects it, or holds it for down.
    #[serde(default)]
    pub last: Option<Transition>,
    /// How long it takes to be probed and to acknowledge, smoothed, in microseconds; nothing before the first time.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    /// How it answers the probes of the node that answers.
    #[serde(default)]
    pub health: Health,
    /// Which start of its program.
    #[serde(default)]
    pub boot: u32,
    /// How often that was held for down although it lived.
    #[serde(default)]
    pub rejoin: u16,
    /// How often it has refuted a suspicion since.
    #[serde(default)]
    pub incarnation: u16,
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

/// How a member answers the last probes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// How many of the probes were acknowledged directly, in percent; nothing before the first.
    pub percent: Option<u8>,
    /// How much the round trip varies, in microseconds.
    pub rtt_variation_us: u64,
    /// How many probes.
    pub probes: u8,
    /// Of them, how many were acknowledged directly,
    pub direct: u8,
    /// how many only through others,
    pub through: u8,
    /// how many only on a stream,
    pub stream: u8,
    /// and how many not at all.
    pub missed: u8,
}

/// `GET /v1/members/{member}`: a member and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDetail {
    /// The member.
    #[serde(flatten)]
    pub member: Member,
    /// What became of it, oldest first.
    pub history: Vec<Transition>,
    /// How many earlier transitions are not kept any more.
    pub dropped: u64,
}

/// `GET /v1/membership`: how members are probed, and changes spread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Where the figures come from that nobody has set.
    pub profile: Profile,
    /// How many nodes are alive, the one that answers included.
    pub nodes: u64,
    /// How often one change rides along among so many.
    pub rides: u8,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// A figure of membership, each value as `weft up --membership` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// What it is.
    pub value: String,
    /// What it is in the profile.
    pub default: String,
    /// The least that it may be.
    pub least: String,
    /// The most that it may be.
    pub most: String,
    /// What it says.
    pub what: String,
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
        .route("/members/{member}", get(inspect))
        .route("/membership", get(figures))
        .route("/labels", get(labels).patch(change_labels))
}

async fn members(State(controller): State<Controller>) -> Result<Json<Vec<Member>>, Failure> {
    let views = controller.members().await?.into_iter();
    Ok(Json(views.map(member).collect()))
}

async fn inspect(
    State(controller): State<Controller>,
    At(which): At<String>,
) -> Result<Json<MemberDetail>, Failure> {
    let found = controller.member_history(&which).await?;
    let history = found.transitions.into_iter();
    Ok(Json(MemberDetail {
        member: member(found.member),
        history: history.map(transitions::transition).collect(),
        dropped: found.dropped,
    }))
}

async fn figures(State(controller): State<Controller>) -> Result<Json<Membership>, Failure> {
    let view = controller.membership().await?;
    let profile = Config::of(view.config.profile);
    let figure = |figure: &membership::Figure| Figure {
        name: figure.name.to_owned(),
        value: figure.value(&view.config).to_string(),
        default: figure.value(&profile).to_string(),
        least: figure.least.to_string(),
        most: figure.most.to_string(),
        what: figure.what.to_owned(),
    };
    Ok(Json(Membership {
        profile: profile.profile,
        nodes: view.tuned.nodes as u64,
        rides: view.tuned.rides,
        figures: FIGURES.iter().map(figure).collect(),
    }))
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

pub(super) fn member(view: MemberView) -> Member {
    let health = view.member.health;
    Member {
        node: view.member.node,
        name: view.name,
        address: view.member.addr,
        state: view.member.state.into(),
        since_ms: view.member.since.0,
        last: view.last.map(transitions::transition),
        rtt_us: health.rtt.map(micros),
        health: Health {
            percent: health.percent(),
            rtt_variation_us: micros(health.rtt_variation),
            probes: health.probes,
            direct: health.direct,
            through: health.through,
            stream: health.stream,
            missed: health.missed,
        },
        boot: view.member.boot.0,
        rejoin: view.member.rejoin,
        incarnation: view.member.incarnation,
        version: view.version,
        leader: view.leads,
        voter: view.votes,
        ours: view.member.ours,
        labels: view.labels,
        capabilities: view.capabilities,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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
