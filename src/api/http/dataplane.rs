//! What this node's kernel should hold beside what it does hold: `GET /v1/dataplane`, `GET /v1/networks/{network}/dataplane`.

use axum::{Json, Router, extract::State, routing::get};
use serde::{Deserialize, Serialize};

use super::{error::Failure, extract::At};
use crate::{
    controller::Controller,
    core::{
        model::{Name, NetworkId, NetworkRecord},
        overlay::{Compared, Kind},
    },
    driver::{DataplaneView, Reconciled},
};

/// The data plane of one network on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataplane {
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub name: Name,
    /// Whether packets flow through it; a node without a data plane keeps in memory what it would program.
    pub carries_packets: bool,
    /// Whether all is as it should be.
    pub as_desired: bool,
    /// Why the kernel could not be looked at; what is shown as actual is then nothing.
    pub problem: Option<String>,
    /// All that should be there or is, sorted by kind and name.
    pub items: Vec<Item>,
    /// The last reconciliation.
    pub last: Option<LastReconciliation>,
    /// How many there were since the daemon started.
    pub reconciliations: u64,
    /// How many steps they took.
    pub steps: u64,
    /// How many of them failed.
    pub failures: u64,
}

/// One thing as it should be and as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What kind of thing.
    pub kind: ItemKind,
    /// Which of that kind.
    pub name: String,
    /// As it should be; nothing: it should not be there.
    pub desired: Option<String>,
    /// As it is; nothing: it is not there.
    pub actual: Option<String>,
    /// Whether the two differ.
    pub differs: bool,
}

/// What kind of thing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// A bridge, a tunnel, an endpoint's pair.
    Link,
    /// A gateway's address on the bridge.
    Address,
    /// A forwarding entry.
    Fdb,
    /// A neighbour.
    Neighbour,
    /// Whose packets a tunnel takes: a set of nftables.
    Guard,
}

impl ItemKind {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Fdb => "fdb",
            Self::Neighbour => "neighbour",
            Self::Guard => "guard",
        }
    }
}

/// What came of the last reconciliation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReconciliation {
    /// How many milliseconds ago it began.
    pub ago_ms: u64,
    /// How many microseconds it took.
    pub took_us: u64,
    /// Why it was done: `join`, `leave`, `event`, `settled`, `changed`, `underlay`, `clock`, `removal`.
    pub why: String,
    /// How many steps were taken; nothing if it failed.
    pub steps: Option<u64>,
    /// What was refused, if anything.
    pub error: Option<String>,
}

pub(super) fn routes() -> Router<Controller> {
    Router::new()
        .route("/dataplane", get(all))
        .route("/networks/{network}/dataplane", get(one))
}

async fn all(State(controller): State<Controller>) -> Result<Json<Vec<Dataplane>>, Failure> {
    let views = controller.dataplane(None).await?;
    Ok(Json(views.into_iter().map(show).collect()))
}

async fn one(
    State(controller): State<Controller>,
    At(network): At<String>,
) -> Result<Json<Vec<Dataplane>>, Failure> {
    let views = controller.dataplane(Some(&network)).await?;
    Ok(Json(views.into_iter().map(show).collect()))
}

fn show((network, view): (NetworkRecord, DataplaneView)) -> Dataplane {
    Dataplane {
        network: network.id,
        name: network.name,
        carries_packets: view.carries_packets,
        as_desired: view.is_as_desired(),
        problem: view.problem,
        items: view.compared.into_iter().map(item).collect(),
        last: view.last.map(last),
        reconciliations: view.reconciliations,
        steps: view.steps,
        failures: view.failures,
    }
}

fn item(compared: Compared) -> Item {
    Item {
        kind: match compared.kind {
            Kind::Link => ItemKind::Link,
            Kind::Address => ItemKind::Address,
            Kind::Fdb => ItemKind::Fdb,
            Kind::Neighbour => ItemKind::Neighbour,
            Kind::Guard => ItemKind::Guard,
        },
        differs: compared.differs(),
        name: compared.name,
        desired: compared.desired,
        actual: compared.actual,
    }
}

fn last(last: Reconciled) -> LastReconciliation {
    LastReconciliation {
        ago_ms: u64::try_from(last.ago.as_millis()).unwrap_or(u64::MAX),
        took_us: u64::try_from(last.took.as_micros()).unwrap_or(u64::MAX),
        why: last.why.as_str().to_owned(),
        steps: last.outcome.as_ref().ok().map(|steps| *steps as u64),
        error: last.outcome.err(),
    }
}
