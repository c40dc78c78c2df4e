//! The Docker engine of this host, kept in step: its networks follow Weft's, its containers' names become names here.
//!
//! ```text
//! networks of Weft ─┐                       ┌─► POST, DELETE /networks
//! events of the engine ├─► one loop ─► a pass ─┼─► names of endpoints (controller)
//! bell of the plugin ──┘                       └─► addresses that nobody uses any more, given back
//! ```
//!
//! Nothing is remembered that a list would not tell: a pass compares what the engine lists with what is wanted, after every
//! event but a container's end, whenever the engine comes back, and on a slow clock. A container's end waits for no pass. Endpoints' calls come through the plugin socket
//! ([`api::docker`](crate::api::docker)) and never wait for a pass.
//!
//! **Invariants:** a network of the engine is touched only if its driver is Weft's and its options name a network of Weft; it is
//! removed only when that network was removed, not while the DB merely does not show it. An address is given back only after
//! the engine's lists have lacked it twice, some seconds apart.

mod events;
mod follow;
mod leaks;
mod listing;
mod names;
mod pass;
mod standing;
mod withdraw;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

pub use self::withdraw::withdraw;
use self::{follow::Follower, names::Containers};
use crate::{
    controller::{Controller, ControllerError, EngineView},
    core::model::{EndpointId, IdError, NetworkId},
    plugin::{Address, CallError, Client},
};

/// How long the engine may take for one answer: it may be asking our plugin meanwhile.
const CALL_MAX: Duration = Duration::from_secs(30);
/// How long to wait for an engine that is not there, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What the loop is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The engine's socket.
    pub socket: PathBuf,
    /// The name under which the engine knows our plugin: that of its socket.
    pub driver: String,
}

/// The networks of each container, by the address that it has on the engine's own bridge: from there it asks for names.
pub type Askers = BTreeMap<IpAddr, BTreeSet<NetworkId>>;

/// Why a pass did not come to its end. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Our own side.
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

/// Rung by the plugin socket: there is news of a network of the engine.
#[derive(Clone, Debug, Default)]
pub struct Bell {
    /// At most one for each network that the engine has told us of.
    networks: Arc<watch::Sender<BTreeSet<String>>>,
}

impl Bell {
    /// Says that there is news of this network, by the engine's id.
    pub fn ring(&self, network: String) {
        self.networks.send_if_modified(|rung| rung.insert(network));
    }

    /// Waits until it was rung, and returns for which networks.
    async fn rung(&self) -> BTreeSet<String> {
        let mut networks = self.networks.subscribe();
        // It cannot close: we hold the sender.
        let _ = networks.wait_for(|rung| !rung.is_empty()).await;
        self.networks.send_replace(BTreeSet::new())
    }
}

/// Returns the endpoint for which an endpoint of the engine stands: the first half of its id.
pub fn endpoint_id(engines: &str) -> Result<EndpointId, IdError> {
    engines.get(..32).unwrap_or(engines).parse()
}

/// Keeps the engine in step until `stop`, through all its restarts.
pub async fn run(
    config: Config,
    controller: Controller,
    (bell, askers): (Bell, watch::Sender<Askers>),
    stop: CancellationToken,
) {
    let socket = config.socket.display().to_string();
    let mut follower = Follower {
        client: Client::new(Address::Unix(config.socket), CALL_MAX),
        driver: config.driver,
        controller,
        bell,
        askers,
        containers: Containers::default(),
        places: Default::default(),
        named: BTreeMap::new(),
        suspects: Default::default(),
        seen: BTreeSet::new(),
        told: Default::default(),
        standing: EngineView::default(),
        looked: None,
    };
    let followed = async {
        let (mut pause, longest) = RETRY;
        let mut told = false;
        loop {
            let followed = follower.follow().await;
            follower.note_gone();
            match followed {
                Ok(()) => {
                    tracing::info!(socket, "the Docker engine has gone; waiting for it");
                    (pause, told) = (RETRY.0, true);
                }
                Err(error) if !told => {
                    tracing::info!(socket, %error, "no Docker engine yet; waiting for it");
                    told = true;
                }
                Err(error) => tracing::debug!(socket, %error, "no Docker engine yet"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    };
    stop.run_until_cancelled(followed).await;
}
