//! The plugin socket of a node that is no member any more: the engine gives back what it has, and gets nothing.

use axum::{Router, routing::post};
use tokio_util::sync::CancellationToken;

use super::{
    call::{Answer, Done, Refusal},
    introduction,
};
use crate::api::http::{self, Door};

/// What an engine calls to give something back.
const GIVES_BACK: [&str; 6] = [
    "/NetworkDriver.Leave",
    "/NetworkDriver.RevokeExternalConnectivity",
    "/NetworkDriver.DeleteEndpoint",
    "/NetworkDriver.DeleteNetwork",
    "/IpamDriver.ReleaseAddress",
    "/IpamDriver.ReleasePool",
];

/// Serves the plugin socket until `stop`, for an engine that is being rid of the networks of Weft. Nothing is remembered: what is
/// given back is no member's any more.
pub async fn serve_goodbye(door: Door, stop: CancellationToken) {
    let taken = || post(async || Answer(Done {}));
    let calls = GIVES_BACK
        .into_iter()
        .fold(introduction(), |calls, call| calls.route(call, taken()));
    let calls: Router = calls.fallback(async || Refusal::NoMember);
    http::serve_as_is(door, calls, stop).await;
}
