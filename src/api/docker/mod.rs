//! The Docker engine's door: the plugin socket, with Weft as network driver and as IPAM driver.
//!
//! A network of the engine stands for a network of Weft, which its options name (`weft.network`); it is made and removed with
//! it ([`engine`](crate::engine)), or by hand. Every call is answered from this node alone and its disk, but for the first
//! address of a new block and a static one, which the leader gives. A method that is in neither protocol is a 404, which is
//! how the engine tells it from a failure.
//!
//! **Invariants:** an error is sent under both keys: the engine reads `Err` from a network driver and `Error` from an IPAM
//! driver, and takes the other one for success. What the engine gave (address, MAC) is never answered back.

mod call;
mod goodbye;
mod ipam;
mod network;
mod pool;

use axum::{Router, routing::post};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::call::Answer;
pub use self::goodbye::serve_goodbye;
use super::http::{self, Door};
use crate::{controller::Controller, engine::Bell};

/// What the calls need.
#[derive(Clone)]
struct Desk {
    controller: Controller,
    bell: Bell,
}

/// Serves the plugin socket until `stop`; then calls that are under way have a moment to end. The socket is gone afterwards.
///
/// `bell` is rung for each network of the engine of which there is news.
pub async fn serve(door: Door, controller: Controller, bell: Bell, stop: CancellationToken) {
    http::serve_as_is(door, router(controller, bell), stop).await;
}

/// Returns the calls of the plugin socket. The engine sends no content type, and no body where there is nothing to say.
pub fn router(controller: Controller, bell: Bell) -> Router {
    introduction()
        .merge(network::router())
        .merge(ipam::router())
        .with_state(Desk { controller, bell })
}

/// Returns the calls by which an engine gets to know the plugin, once in its life.
fn introduction<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/Plugin.Activate", post(async || Answer(Activation::OURS)))
        .merge(network::introduction())
        .merge(ipam::introduction())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Activation {
    implements: &'static [&'static str],
}

impl Activation {
    const OURS: Self = Self {
        implements: &["NetworkDriver", "IpamDriver"],
    };
}
