//! Weft as the engine's IPAM driver.

use axum::{Router, routing::post};
use serde::Serialize;

use super::Answer;

/// Calls of the protocol that are refused so far.
pub(super) const NOT_YET: &[&str] = &[
    "RequestPool",
    "ReleasePool",
    "RequestAddress",
    "ReleaseAddress",
];

#[derive(Serialize)]
struct Capabilities {
    #[serde(rename = "RequiresMACAddress")]
    requires_mac_address: bool,
    #[serde(rename = "RequiresRequestReplay")]
    requires_request_replay: bool,
}

impl Capabilities {
    /// Addresses do not follow from MACs, and what was handed out is kept on disk, so nothing has to be asked again.
    const OURS: Self = Self {
        requires_mac_address: false,
        requires_request_replay: false,
    };
}

#[derive(Serialize)]
struct AddressSpaces {
    #[serde(rename = "LocalDefaultAddressSpace")]
    local: &'static str,
    #[serde(rename = "GlobalDefaultAddressSpace")]
    global: &'static str,
}

impl AddressSpaces {
    /// Two names, or the engine could not tell a pool of one from a pool of the other.
    const OURS: Self = Self {
        local: "weft-local",
        global: "weft",
    };
}

pub(super) fn router() -> Router {
    Router::new()
        .route(
            "/IpamDriver.GetCapabilities",
            post(async || Answer(Capabilities::OURS)),
        )
        .route(
            "/IpamDriver.GetDefaultAddressSpaces",
            post(async || Answer(AddressSpaces::OURS)),
        )
}
