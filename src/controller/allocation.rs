//! What the allocator of a network's driver hands out for it, beyond what is agreed with the network.
//!
//! A network that needs it is agreed with the option `weft.allocation=wanted`, and no node sets it up. The node that leads asks its
//! own allocator: one asks at a time, so a plugin that keeps what it hands out in memory hands nothing out twice, and it was told
//! of all that others were given before ([`NetworkAllocator::restore`]). The answer
//! becomes options of the network by compare-and-set, so of two that lead for a moment one is first, and every node sets the network
//! up with the same options. A node has on disk what it asked for, and takes it back when the network is gone, whoever leads then.

use std::{collections::BTreeMap, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Controller, ControllerError, Setup, attachment::insist, ipam::for_driver};
use crate::{
    core::{
        allocator::Action,
        model::{Name, NetworkId, NetworkRecord},
    },
    driver::{DriverError, NetworkAllocator, RegistryError},
    store::Asked,
};

const STAGE: &str = "weft.allocation";
const WANTED: &str = "wanted";
const MADE: &str = "made";
const REASON: &str = "weft.allocation.reason";

/// How long a network may wait for its allocator before whoever wants it is refused: longer than an allocator may take.
const ALLOCATED_WITHIN: Duration = Duration::from_secs(20);
/// How long a step that failed waits, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How much of why an allocator did not do it is agreed, in bytes.
const REASON_MAX: usize = 1_000;

/// Returns whether an option is for this room alone.
pub(super) fn is_own(name: &str) -> bool {
    name == STAGE || name == REASON
}

/// Has a network wait for its allocator.
pub(super) fn want(options: &mut BTreeMap<String, String>) {
    options.insert(STAGE.to_owned(), WANTED.to_owned());
}

/// Returns whether a network waits for its allocator.
pub(super) fn is_wanted(network: &NetworkRecord) -> bool {
    network.options.get(STAGE).is_some_and(|at| at == WANTED)
}

fn is_made(network: &NetworkRecord) -> bool {
    network.options.get(STAGE).is_some_and(|at| at == MADE)
}

fn reason(network: &NetworkRecord) -> Option<&String> {
    network.options.get(REASON)
}

impl Controller {
    /// Waits until a network's allocator has answered. One that did not do it has left nothing.
    pub(super) async fn until_allocated(
        &self,
        network: NetworkRecord,
    ) -> Result<NetworkRecord, ControllerError> {
        let mut revision = self.parts.handle.revision();
        let answered = async {
            loop {
                revision.borrow_and_update();
                match self.network_by_id(network.id).await {
                    Ok(now) if is_made(&now) => return Ok(now),
                    Ok(now) => {
                        if let Some(reason) = reason(&now) {
                            return Err(not_allocated(&network, reason.clone()));
                        }
                    }
                    // It has not come here yet.
                    Err(ControllerError::NoSuchNetwork(_)) => {}
                    Err(error) => return Err(error),
                }
                if revision.changed().await.is_err() {
                    return Err(ControllerError::Stopped);
                }
            }
        };
        let late = || {
            let driver = &network.driver;
            let reason = format!(
                "the leader has no answer of {driver} to AllocateNetwork after {ALLOCATED_WITHIN:?}"
            );
            Err(not_allocated(&network, reason))
        };
        let answered = tokio::time::timeout(ALLOCATED_WITHIN, answered).await;
        answered.unwrap_or_else(|_elapsed| late())
    }

    /// Has the allocator do what a network needs, whenever this node leads, until the network is another one.
    pub(super) async fn allocate_at_last(self, network: NetworkRecord, changed: CancellationToken) {
        let reason = reason(&network).cloned();
        let reason = reason.or_else(|| Some("its driver's allocator is being asked".to_owned()));
        self.show(network.id, Setup::Pending { reason });
        let (mut pause, longest) = RETRY;
        loop {
            tokio::select! {
                () = changed.cancelled() => return,
                () = self.until_leading() => {}
            }
            {
                // Who takes back what was allocated waits for this.
                let _hand = self.desk.hands.hold(network.id).await;
                if changed.is_cancelled() {
                    return;
                }
                match self.allocate(&network).await {
                    Ok(()) => tracing::info!(network = %network.name, "network is allocated"),
                    Err(ControllerError::Stopped) => return,
                    // The registry has another one by now.
                    Err(ControllerError::Driver(DriverError::Restarted { .. })) => {}
                    Err(error) => {
                        tracing::warn!(network = %network.name, %error, "network is not allocated yet");
                        self.say_why_not(&network, &error).await;
                    }
                }
            }
            // Agreed or not, what comes of it comes as another record.
            tokio::select! {
                () = changed.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(longest),
            }
        }
    }

    async fn until_leading(&self) {
        let mut leadership = self.parts.raft.leadership();
        let us = Some(self.parts.node);
        if leadership.wait_for(|now| now.leader == us).await.is_err() {
            // The node stops.
            std::future::pending::<()>().await;
        }
    }

    /// Asks the allocator of this node, and has its answer agreed.
    async fn allocate(&self, network: &NetworkRecord) -> Result<(), ControllerError> {
        let allocator = self.allocator(&network.driver).await?;
        let answered = match &allocator {
            Some(allocator) => self.ask_allocator(&**allocator, network).await?,
            // It was one when the network was wanted.
            None => BTreeMap::new(),
        };
        let mut options = network.options.clone();
        options.extend(answered);
        options.insert(STAGE.to_owned(), MADE.to_owned());
        options.remove(REASON);
        self.replace_options(network, options).await
    }

    async fn ask_allocator(
        &self,
        allocator: &dyn NetworkAllocator,
        network: &NetworkRecord,
    ) -> Result<BTreeMap<String, String>, ControllerError> {
        let raft = &self.parts.raft;
        let others: Vec<NetworkRecord> = raft.read(|state| {
            let all = state.networks().values();
            let of_it = all.filter(|other| other.driver == network.driver && is_made(other));
            of_it.cloned().collect()
        });
        for other in others
            .into_iter()
            .filter(|other| !allocator.holds(other.id))
        {
            self.intend_allocation(&other).await?;
            allocator.restore(&for_driver(other)).await?;
        }
        self.intend_allocation(network).await?;
        let answered = allocator.allocate(&for_driver(network.clone())).await;
        Ok(answered?)
    }

    async fn intend_allocation(&self, network: &NetworkRecord) -> Result<(), ControllerError> {
        let (id, driver) = (network.id, network.driver.clone());
        self.disk(move |store| store.intend_network((Asked::Allocate, id), &driver))
            .await
    }

    /// Has the first reason agreed, so that every node can tell it; later ones are in the log.
    async fn say_why_not(&self, network: &NetworkRecord, error: &ControllerError) {
        if reason(network).is_some() {
            return;
        }
        let mut text = error.to_string();
        let end = text.floor_char_boundary(REASON_MAX);
        text.truncate(end);
        let mut options = network.options.clone();
        options.insert(REASON.to_owned(), text);
        if let Err(error) = self.replace_options(network, options).await {
            tracing::debug!(network = %network.name, %error, "why a network is not allocated was not agreed");
        }
    }

    async fn replace_options(
        &self,
        network: &NetworkRecord,
        options: BTreeMap<String, String>,
    ) -> Result<(), ControllerError> {
        let (id, was) = (network.id, network.options.clone());
        let action = Action::ReplaceOptions { id, was, options };
        self.propose(action).await.map(drop)
    }

    /// Takes back what this node's allocator was asked for a network that is gone, until it has.
    pub(super) async fn give_up_at_last(self, network: NetworkId) {
        let (mut pause, longest) = RETRY;
        loop {
            let hand = self.desk.hands.hold(network).await;
            let freed = self.free_allocation(network).await;
            drop(hand);
            match freed {
                Ok(()) | Err(ControllerError::Stopped) => break,
                Err(error) => {
                    tracing::warn!(%network, %error, "what was allocated is not taken back yet");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        self.desk.hands.forget(network);
        self.desk.setups.send_modify(|setups| {
            setups.remove(&network);
        });
    }

    /// Takes back what this node's allocator was asked for a network, if it was.
    pub(super) async fn free_allocation(&self, network: NetworkId) -> Result<(), ControllerError> {
        let asked = self.asked(Asked::Allocate, network).await?;
        let Some(driver) = asked else {
            return Ok(());
        };
        match self.allocator(&driver).await {
            Ok(Some(allocator)) => insist(allocator.free(network).await)?,
            // It is not installed any more, and what it had is gone with it.
            Ok(None) | Err(ControllerError::Registry(RegistryError::NotFound(_))) => {}
            Err(error) => return Err(error),
        }
        self.disk(move |store| store.settle_network(Asked::Allocate, network))
            .await
    }

    /// Returns which driver was asked this for a network.
    pub(super) async fn asked(
        &self,
        asked: Asked,
        network: NetworkId,
    ) -> Result<Option<Name>, ControllerError> {
        let all = self
            .disk(move |store| store.intended_networks(asked))
            .await?;
        let mut of_it = all.into_iter().filter(|(of, _)| *of == network);
        Ok(of_it.next().map(|(_, driver)| driver))
    }

    async fn allocator(
        &self,
        driver: &Name,
    ) -> Result<Option<std::sync::Arc<dyn NetworkAllocator>>, ControllerError> {
        let registry = &self.parts.registry;
        Ok(registry.get_allocator(driver, self.now()).await?)
    }
}

fn not_allocated(network: &NetworkRecord, reason: String) -> ControllerError {
    ControllerError::NotAllocated {
        network: network.name.clone(),
        reason,
    }
}
