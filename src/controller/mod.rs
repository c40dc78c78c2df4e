//! Use cases: what a person, a container engine or another node asks of this node, from the question to the answer.
//!
//! The controller decides nothing that others must agree on and keeps nothing that must survive: it asks the leader
//! ([`raft`](crate::raft)), the drivers, the disk ([`store`](crate::store)) and the DB ([`runtime`](crate::runtime)), in the
//! order that leaves nothing behind when one of them refuses. What it holds are ways to ask, and per network a lock, so that
//! the steps of two endpoints do not mix.
//!
//! **Invariant:** an endpoint is on disk before anybody hears of it, and a change once begun is carried to its end even if
//! the one who asked has gone.

mod address;
mod admit;
mod allocation;
mod applied;
mod asked;
mod attachment;
mod authority;
mod certificate;
mod confirm;
mod default_pools;
mod endpoint;
mod engine;
mod error;
mod expel;
mod feed;
mod inspect;
mod ipam;
mod keys;
mod labels;
mod members;
mod network;
mod node;
mod peers;
mod pools;
mod publish;
mod removal;
mod reread;
mod routes;
mod run;
mod services;
mod sweep;
mod table;
mod view;
mod voters;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use authority::AuthorityChange;
pub use certificate::{CertificateView, Lives};
pub use confirm::Freshness;
pub use default_pools::DefaultPoolView;
pub use error::{ControllerError, Owner};
pub use expel::Expelled;
pub use keys::{KeysView, Rotated};
pub use members::{MemberHistory, MemberNews, MemberWatch, TransitionView};
pub use reread::{Said, reread};
pub use services::{Streams, says_removed};
pub use view::{
    AppliedView, DriverCapability, DriverView, EndpointDetail, EndpointState, EndpointView,
    EngineView, EntryDetail, Held, HeldEndpoint, IpamRequest, ListedNetwork, MemberView,
    NetworkRequest, NetworkView, PluginView, PoolView, Sandbox, Setup, StatusView, SubnetRequest,
    TableView,
};
pub use voters::{Standing, VoterReport, VoterRole, VotersReport, Wait};

use self::{address::Hands, feed::Fed, removal::Removals};
use crate::{
    core::{
        allocator::{Action, AllocatorError, Outcome},
        model::{ClusterId, Instant, Labels, Name, NetworkId, NodeId, TableName},
    },
    driver::Registry,
    raft::{ProposeError, Raft},
    runtime::{
        Handle,
        clock::{self, Clock},
        streams::{Dialer, Tls},
    },
    store::{Store, StoreError},
};

/// What the controller asks.
#[derive(Clone)]
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// The labels that it was started with.
    pub labels: Labels,
    /// What it can do that others may lack.
    pub capabilities: Vec<Name>,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The node's loop.
    pub handle: Handle,
    /// The agreement.
    pub raft: Raft,
    /// The disk.
    pub store: Store,
    /// The drivers.
    pub registry: Arc<Registry>,
    /// The way to other nodes.
    pub dialer: Dialer,
    /// This node's side of TLS, whose certificate is renewed.
    pub tls: Tls,
    /// How long what the leader makes is valid.
    pub lives: Lives,
    /// The clocks.
    pub clock: Clock,
}

/// The use cases of one node.
#[derive(Clone)]
pub struct Controller {
    parts: Parts,
    desk: Arc<Desk>,
}

/// What calls that run at the same time share; all of it can be made anew from the disk and the DB.
struct Desk {
    hands: Hands,
    removals: Removals,
    setups: watch::Sender<BTreeMap<NetworkId, Setup>>,
    /// How far each network's driver has come.
    fed: Fed,
    /// The tables that each network's driver asked for: only endpoints write there.
    driver_tables: watch::Sender<BTreeMap<NetworkId, Vec<TableName>>>,
    /// Why a network is not in this host's container engine, of those that should be.
    engine_problems: watch::Sender<BTreeMap<NetworkId, String>>,
    /// That engine, once it was looked for.
    engine: watch::Sender<Option<EngineView>>,
    tasks: TaskTracker,
    left: CancellationToken,
    /// Whom the cluster removed, as far as this node has heard.
    removed: watch::Sender<BTreeSet<NodeId>>,
    /// One rotation of keys at a time, and one adoption of a ring.
    rotating: Mutex<()>,
    adopting: Mutex<()>,
    /// One renewal of the certificate at a time, and whether another authority signs now than signed it.
    renewing: Mutex<()>,
    superseded: watch::Sender<bool>,
    /// Whom this node waits for while it leads a change of the authority.
    lacking: watch::Sender<BTreeSet<NodeId>>,
    /// This node's labels, once they were read from disk; who changes them holds them.
    labels: Mutex<Option<Labels>>,
    /// This node is about to be removed at its own wish.
    leaving: CancellationToken,
    /// Others have removed this node.
    expelled: CancellationToken,
}

impl Controller {
    /// Makes the use cases; [`Self::run`] must run beside them.
    pub fn new(parts: Parts) -> Self {
        let desk = Desk {
            hands: Hands::default(),
            removals: Removals::default(),
            setups: watch::Sender::default(),
            fed: Fed::default(),
            driver_tables: watch::Sender::default(),
            engine_problems: watch::Sender::default(),
            engine: watch::Sender::default(),
            tasks: TaskTracker::new(),
            left: CancellationToken::new(),
            removed: watch::Sender::default(),
            rotating: Mutex::default(),
            adopting: Mutex::default(),
            renewing: Mutex::default(),
            superseded: watch::Sender::default(),
            lacking: watch::Sender::default(),
            labels: Mutex::default(),
            leaving: CancellationToken::new(),
            expelled: CancellationToken::new(),
        };
        Self {
            parts,
            desk: Arc::new(desk),
        }
    }

    /// Reads the monotonic clock.
    fn now(&self) -> Instant {
        self.parts.clock.now().instant
    }

    /// Runs `work` to its end even if the caller stops waiting.
    async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ControllerError>> + Send + 'static,
    ) -> Result<T, ControllerError> {
        match self.desk.tasks.spawn(work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refused)) => Err(self.name_owner(refused).await),
            Err(panicked) if panicked.is_panic() => {
                Err(ControllerError::Broken("a use case panicked"))
            }
            Err(_cancelled) => Err(ControllerError::Stopped),
        }
    }

    /// Works on the disk, on a thread that may block.
    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ControllerError> {
        let store = self.parts.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(outcome) => Ok(outcome?),
            Err(panicked) if panicked.is_panic() => {
                Err(ControllerError::Broken("the store panicked"))
            }
            Err(_cancelled) => Err(ControllerError::Stopped),
        }
    }

    /// Asks the cluster to agree.
    async fn propose(&self, action: Action) -> Result<Outcome, ControllerError> {
        let proposed = self.parts.raft.propose(action).await;
        proposed.map_err(|refused| match refused {
            ProposeError::NoLeader => ControllerError::NoLeader,
            late @ ProposeError::Timeout => ControllerError::Timeout(late),
            ProposeError::Stopped => ControllerError::Stopped,
            ProposeError::Refused(AllocatorError::NetworkExists { name, .. }) => {
                ControllerError::NetworkExists(name)
            }
            ProposeError::Refused(AllocatorError::NoSuchNetwork(id)) => {
                ControllerError::NoSuchNetwork(id.to_string())
            }
            ProposeError::Refused(AllocatorError::AddressLeased { address, .. }) => {
                ControllerError::AddressInUse { address }
            }
            ProposeError::Refused(other) => ControllerError::Refused(other),
        })
    }
}

/// Makes a generator fit for secrets, seeded by the operating system.
fn entropy() -> StdRng {
    let mut seed = [0; 32];
    for part in seed.chunks_exact_mut(size_of::<u64>()) {
        part.copy_from_slice(&clock::seed().to_le_bytes());
    }
    StdRng::from_seed(seed)
}
