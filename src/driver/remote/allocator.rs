//! Remote network allocators: plugins that say that their data reaches the whole cluster (`Scope` global) are asked to allocate,
//! by `/NetworkDriver.AllocateNetwork` and `FreeNetwork`. One that answers 404 to that allocates nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{
    link::{Link, says_it_is_there},
    message::{AllocateNetwork, AllocateReply, NetworkCall, Nothing},
};
use crate::{
    core::model::{NetworkId, NetworkRecord},
    driver::{Allocation, DriverError, NetworkAllocator, Options},
    plugin::CallError,
};

/// How long a plugin may take to allocate: less than whoever wants the network waits.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many options a plugin may answer.
const OPTIONS_MAX: usize = 256;
/// What the names of Weft's own options begin with.
const OWN: &str = "weft.";

/// An allocator in another process, for one life of it.
pub(super) struct RemoteAllocator {
    link: Arc<Link>,
    /// What it has answered for each network; nothing for one that it was only told of.
    done: Mutex<BTreeMap<NetworkId, Option<Options>>>,
    /// One call at a time: what is freed while it is being allocated is freed after that.
    turn: tokio::sync::Mutex<()>,
}

impl RemoteAllocator {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            done: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    async fn allocate_now(&self, network: &NetworkRecord) -> Result<Options, DriverError> {
        let _turn = self.turn.lock().await;
        let held = self.done().get(&network.id).cloned();
        if let Some(Some(answered)) = held {
            return Ok(answered);
        }
        let undo = NetworkCall::of(network.id);
        self.link.settle("FreeNetwork", &undo).await?;
        let mut answer = self.ask(network).await?;
        if let Err(CallError::Failed { message, .. }) = &answer
            && says_it_is_there(message)
        {
            // By a leader that did not live to have its answer agreed. It is needed, so it is asked for anew.
            self.link.undo("FreeNetwork", &undo).await;
            answer = self.ask(network).await?;
        }
        let options = match answer {
            Ok(reply) => reply.options,
            // Case 1.5: it allocates nothing.
            Err(CallError::NotImplemented { .. }) => Options::new(),
            Err(error) => {
                let failure = self.link.failure(&error);
                if error.is_doubtful() {
                    self.link.undo("FreeNetwork", &undo).await;
                }
                return Err(failure);
            }
        };
        if let Err(wrong) = check(&options) {
            self.link.undo("FreeNetwork", &undo).await;
            return Err(self.link.broke("AllocateNetwork", &wrong));
        }
        self.done().insert(network.id, Some(options.clone()));
        Ok(options)
    }

    async fn restore_now(&self, network: &NetworkRecord) -> Result<(), DriverError> {
        let _turn = self.turn.lock().await;
        if self.holds(network.id) {
            return Ok(());
        }
        match self.ask(network).await? {
            Ok(reply) => {
                let options = &network.options;
                let mut answered = reply.options.iter();
                if answered.any(|(name, value)| options.get(name) != Some(value)) {
                    tracing::warn!(driver = self.link.name(), network = %network.name, answered = ?reply.options,
                        "an allocator would give a network something else than it has; it keeps what it has");
                }
            }
            Err(CallError::NotImplemented { .. }) => {}
            Err(CallError::Failed { message, .. }) if says_it_is_there(&message) => {}
            Err(error) => return Err(self.link.failure(&error)),
        }
        self.done().insert(network.id, None);
        Ok(())
    }

    async fn ask(
        &self,
        network: &NetworkRecord,
    ) -> Result<Result<AllocateReply, CallError>, DriverError> {
        let request = AllocateNetwork::of(network);
        self.link
            .ask_within("AllocateNetwork", &request, DEADLINE)
            .await
    }

    async fn free_now(&self, network: NetworkId) -> Result<(), DriverError> {
        let _turn = self.turn.lock().await;
        let request = NetworkCall::of(network);
        let freed = self
            .link
            .ask_within::<Nothing>("FreeNetwork", &request, DEADLINE);
        match freed.await? {
            Ok(Nothing {}) | Err(CallError::NotImplemented { .. }) => {}
            Err(error) => return Err(self.link.failure(&error)),
        }
        self.done().remove(&network);
        Ok(())
    }

    fn done(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Option<Options>>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(options: &Options) -> Result<(), String> {
    if options.len() > OPTIONS_MAX {
        let count = options.len();
        return Err(format!(
            "{count} options: at most {OPTIONS_MAX} are allowed"
        ));
    }
    match options.keys().find(|name| name.starts_with(OWN)) {
        Some(own) => Err(format!("option {own:?} is Weft's own")),
        None => Ok(()),
    }
}

impl NetworkAllocator for RemoteAllocator {
    fn needs(&self) -> Allocation {
        Allocation {
            subnets: true,
            vxlan: false,
        }
    }

    fn address(&self) -> Option<String> {
        Some(self.link.address())
    }

    fn is_asked(&self) -> bool {
        true
    }

    fn allocate<'a>(
        &'a self,
        network: &'a NetworkRecord,
    ) -> BoxFuture<'a, Result<Options, DriverError>> {
        Box::pin(self.allocate_now(network))
    }

    fn restore<'a>(&'a self, network: &'a NetworkRecord) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.restore_now(network))
    }

    fn free(&self, network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(self.free_now(network))
    }

    fn holds(&self, network: NetworkId) -> bool {
        self.done().contains_key(&network)
    }

    fn life(&self) -> CancellationToken {
        self.link.life()
    }
}
