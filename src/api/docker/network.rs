//! Weft as the engine's network driver.

use axum::{Router, routing::post};
use serde::Serialize;

use super::Answer;

/// Calls of the protocol that are refused so far.
pub(super) const NOT_YET: &[&str] = &[
    "AllocateNetwork",
    "FreeNetwork",
    "CreateNetwork",
    "DeleteNetwork",
    "CreateEndpoint",
    "DeleteEndpoint",
    "EndpointOperInfo",
    "Join",
    "Leave",
    "ProgramExternalConnectivity",
    "RevokeExternalConnectivity",
    "DiscoverNew",
    "DiscoverDelete",
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Capabilities {
    scope: &'static str,
    connectivity_scope: &'static str,
}

impl Capabilities {
    /// Networks are known to each engine by itself, since an engine outside a swarm refuses any other scope; what they
    /// connect spans the cluster.
    const OURS: Self = Self {
        scope: "local",
        connectivity_scope: "global",
    };
}

pub(super) fn router() -> Router {
    Router::new().route(
        "/NetworkDriver.GetCapabilities",
        post(async || Answer(Capabilities::OURS)),
    )
}
