//! The cluster's authority: `/v1/cluster/authority`.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::{error::Failure, extract::Body, trust::hex};
use crate::{
    controller::{AuthorityChange, Controller},
    core::model::Name,
    runtime::clock,
};

/// `GET /v1/cluster/authority`: who signs certificates, and how a change of that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The SHA-256 of the authority that signs, as a join token pins it.
    pub signs: String,
    /// The one that will, once all live members trust it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The one that did, and is trusted still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
    /// How long ago that signed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_for_ms: Option<u64>,
    /// Who is waited for: live members that have not answered yet, then those that are away with a certificate of the former one.
    pub waits_for: Vec<Name>,
}

/// `POST /v1/cluster/authority/rotate`: replaces it, or goes on with a change that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateAuthority {
    /// Whether the former one is dropped at once: members that do not answer must join again.
    #[serde(default)]
    pub now: bool,
}

impl From<AuthorityChange> for Authority {
    fn from(change: AuthorityChange) -> Self {
        let ago = |since: u64| Duration::from_millis(clock::wall().0.saturating_sub(since));
        let millis = |ago: Duration| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        Self {
            signs: hex(&change.signs),
            next: change.next.map(|digest| hex(&digest)),
            former: change.former.map(|(digest, _)| hex(&digest)),
            former_for_ms: change.former.map(|(_, since)| millis(ago(since.0))),
            waits_for: change.waits_for.into_iter().collect(),
        }
    }
}

pub(super) fn routes() -> Router<Controller> {
    Router::new()
        .route("/cluster/authority", get(authority))
        .route("/cluster/authority/rotate", post(rotate))
}

async fn authority(State(controller): State<Controller>) -> Result<Json<Authority>, Failure> {
    Ok(Json(controller.authority_change().await?.into()))
}

async fn rotate(
    State(controller): State<Controller>,
    Body(wish): Body<RotateAuthority>,
) -> Result<Json<Authority>, Failure> {
    Ok(Json(controller.rotate_authority(wish.now).await?.into()))
}
