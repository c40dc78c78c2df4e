//! One network on this node, from the moment it is known to the moment it is gone: set up, fed, taken down.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    Controller, ControllerError, Setup,
    asked::Which,
    feed::Feed,
    ipam::{Ipam, for_driver},
};
use crate::{
    core::{
        model::{EndpointRecord, Name, NetworkId, NetworkRecord, Prefix},
        netdb::WriteError,
    },
    driver::{Driver, DriverError, Kind, Registry, Scope, TableInterest},
    runtime::PutError,
    store::{Asked, StoredEndpoint},
};

/// How long a step that failed waits, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Controller {
    /// Keeps a network set up until `removed`, then takes it down. Both are tried until they work.
    pub(super) async fn attend(self, network: NetworkRecord, removed: CancellationToken) {
        let id = network.id;
        let mut used = Used::default();
        tokio::select! {
            () = self.serve(&network, &mut used) => {}
            () = removed.cancelled() => {}
        }
        self.show(id, Setup::Removing);
        self.take_down_at_last(&network).await;
        used.release(&self.parts.registry);
        self.desk.setups.send_modify(|setups| {
            setups.remove(&id);
        });
        self.desk.fed.send_modify(|fed| {
            fed.remove(&id);
        });
        self.desk.driver_tables.send_modify(|of| {
            of.remove(&id);
        });
        self.engine_problem(id, None);
        tracing::info!(network = %network.name, "network is taken down");
    }

    /// Sets the network up and feeds its driver, anew whenever the driver has lost what it was told. It ends with the removal
    /// only.
    async fn serve(&self, network: &NetworkRecord, used: &mut Used) {
        let mut feed = Feed::new(self.parts.handle.clone(), network.id, self.desk.fed.clone());
        loop {
            let ready = self.set_up_at_last(network).await;
            used.acquire(&self.parts.registry, network).await;
            let tables = ready
                .interests
                .iter()
                .map(|interest| interest.table.clone());
            let tables = tables.collect();
            self.desk.driver_tables.send_modify(|of| {
                of.insert(network.id, tables);
            });
            let (told, all_told) = oneshot::channel();
            let fed = async {
                if ready.interests.is_empty() {
                    drop(told);
                } else {
                    // It ends when the node does.
                    let _ = feed.run(&*ready.driver, &ready.interests, told).await;
                }
                std::future::pending::<()>().await;
            };
            let fed = async {
                tokio::select! {
                    () = fed => {}
                    () = ready.life.cancelled() => {}
                    () = ready.driver.watch_over() => {}
                    // It ends when the node does.
                    _stopped = self.tell_nodes(&*ready.driver) => std::future::pending().await,
                }
            };
            let settled = self.settle(&ready, network, all_told);
            let sandboxes = async {
                tokio::select! {
                    () = self.leave_with_sandboxes(&*ready.driver, network) => {}
                    () = ready.life.cancelled() => {}
                }
            };
            tokio::join!(fed, settled, sandboxes);
            let reason = Some("its driver was restarted, or has ended".to_owned());
            self.show(network.id, Setup::Pending { reason });
            tracing::info!(network = %network.name, "network is set up again: its driver has lost what it was told");
        }
    }

    pub(super) fn show(&self, network: NetworkId, setup: Setup) {
        self.desk.setups.send_modify(|setups| {
            setups.insert(network, setup);
        });
    }

    async fn set_up_at_last(&self, network: &NetworkRecord) -> Ready {
        let (mut pause, longest) = RETRY;
        loop {
            match self.set_up(network).await {
                Ok(answer) => return answer,
                Err(error) => {
                    tracing::warn!(network = %network.name, %error, "network is not set up yet");
                    let reason = Some(error.to_string());
                    self.show(network.id, Setup::Pending { reason });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    async fn set_up(&self, network: &NetworkRecord) -> Result<Ready, ControllerError> {
        self.parts.handle.attach(network.id).await?;
        let driver = self.driver(network).await?;
        // Before it is told: what it loses from now on is noticed.
        let life = driver.life();
        if driver.is_older_than_us() {
            let (id, name) = (network.id, network.driver.clone());
            self.disk(move |store| store.intend_network((Asked::SetUp, id), &name))
                .await?;
        }
        let interests = driver.create_network(&for_driver(network.clone())).await?;
        let interests = match driver.capability().connectivity_scope {
            Scope::Global => interests,
            Scope::Local => Vec::new(),
        };
        Ok(Ready {
            driver,
            life,
            interests,
        })
    }

    /// Brings the endpoints on disk back to the driver, and says so once it has heard of all others too. It ends with the
    /// driver's life at the latest.
    async fn settle(
        &self,
        ready: &Ready,
        network: &NetworkRecord,
        all_told: oneshot::Receiver<()>,
    ) {
        self.revive_at_last(ready, network).await;
        let settled = async {
            // A driver without interests has nothing to be told.
            let _ = all_told.await;
            settle_at_last(&*ready.driver, network).await;
        };
        tokio::select! {
            () = settled => {}
            () = ready.life.cancelled() => {}
        }
    }

    /// Brings the endpoints on disk back to the driver; the network is ready after the first try. It ends with the driver's
    /// life at the latest, but never in the middle of a step.
    async fn revive_at_last(&self, ready: &Ready, network: &NetworkRecord) {
        let (mut pause, longest) = RETRY;
        let mut all = self.revive(&*ready.driver, network).await;
        if !ready.life.is_cancelled() {
            self.show(network.id, Setup::Ready);
            tracing::info!(network = %network.name, "network is set up");
        }
        while !all {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = ready.life.cancelled() => return,
            }
            pause = (pause * 2).min(longest);
            all = self.revive(&*ready.driver, network).await;
        }
    }

    /// Tells the driver of every endpoint on disk; returns whether it took all. One that fails keeps no other.
    async fn revive(&self, driver: &dyn Driver, network: &NetworkRecord) -> bool {
        let _hand = self.desk.hands.hold(network.id).await;
        let endpoints = match self.own_endpoints(network.id).await {
            Ok(endpoints) => endpoints,
            Err(error) => {
                tracing::warn!(network = %network.name, %error, "endpoints were not read");
                return false;
            }
        };
        let mut all = match self.forget_intended(Some(driver), network).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(network = %network.name, %error, "what a former run had begun is not taken back yet");
                false
            }
        };
        for endpoint in endpoints {
            let name = endpoint.record.name.clone();
            if let Err(error) = self.revive_one(driver, endpoint).await {
                tracing::warn!(network = %network.name, endpoint = %name, %error, "endpoint is not back yet");
                all = false;
            }
        }
        all
    }

    async fn revive_one(
        &self,
        driver: &dyn Driver,
        endpoint: StoredEndpoint,
    ) -> Result<(), ControllerError> {
        let EndpointRecord { id, network, .. } = endpoint.record;
        if !endpoint.joined && driver.is_older_than_us() {
            // A daemon that died may have had it join, or have it leave yet.
            driver.forget_join(network, id).await?;
        }
        // One that has an address of its driver's keeps it: the driver is told of it.
        driver.create_endpoint(&endpoint.record).await?;
        if endpoint.joined {
            self.join_on_driver(driver, endpoint).await?;
        }
        Ok(())
    }

    /// Takes back the endpoints that a daemon which died had a driver make, and never wrote down.
    async fn forget_intended(
        &self,
        driver: Option<&dyn Driver>,
        network: &NetworkRecord,
    ) -> Result<(), ControllerError> {
        let intended = self.disk(|store| store.intended_endpoints()).await?;
        for record in intended.into_iter().filter(|of| of.network == network.id) {
            let id = record.id;
            if let Some(driver) = driver {
                insist(driver.forget_endpoint(network.id, id).await)?;
            }
            self.disk(move |store| store.drop_intended(id)).await?;
            tracing::info!(network = %network.name, endpoint = %record.name, "an endpoint that a former run had begun is gone");
        }
        self.return_asked(network, Which::All).await
    }

    /// Has the endpoints leave whose sandbox is gone. It does not end.
    async fn leave_with_sandboxes(&self, driver: &dyn Driver, network: &NetworkRecord) {
        loop {
            let endpoint = driver.vanished(network.id).await.to_string();
            let (mut pause, longest) = RETRY;
            while let Err(error) = self.endpoint_leave(network.name.as_str(), &endpoint).await {
                if matches!(
                    error,
                    ControllerError::NoSuchEndpoint { .. } | ControllerError::Stopped
                ) {
                    break;
                }
                tracing::warn!(network = %network.name, %endpoint, %error, "an endpoint has not left with its sandbox yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }

    async fn take_down_at_last(&self, network: &NetworkRecord) {
        let (mut pause, longest) = RETRY;
        while let Err(error) = self.take_down(network).await {
            if matches!(error, ControllerError::Stopped) {
                return;
            }
            tracing::warn!(network = %network.name, %error, "network is not taken down yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Removes this node's endpoints, which a network that is removed under them leaves behind, then the network.
    ///
    /// Others stop hearing of them whatever becomes of the driver, and one that the driver cannot delete keeps no other.
    async fn take_down(&self, network: &NetworkRecord) -> Result<(), ControllerError> {
        let hand = self.desk.hands.hold(network.id).await;
        for endpoint in self.own_endpoints(network.id).await? {
            self.unpublish(endpoint).await?;
        }
        self.forget_entries(network.id).await?;
        let driver = self.driver_if_there(network).await?;
        let mut failed = None;
        for StoredEndpoint { record, .. } in self.own_endpoints(network.id).await? {
            if let Some(driver) = &driver
                && let Err(error) = insist(driver.delete_endpoint(network.id, record.id).await)
            {
                failed = Some(error);
                continue;
            }
            if let Some(ipam) = Ipam::of(network) {
                let leaving: Vec<Prefix> = record.addresses().collect();
                let who = (record.id, Some(record.mac));
                self.note_leaving(&ipam, network, (who, &leaving)).await?;
            }
            self.disk(move |store| store.remove_endpoint(record.id))
                .await?;
        }
        let intended = self.forget_intended(driver.as_deref(), network).await;
        if let Some(error) = failed {
            return Err(error.into());
        }
        intended?;
        if let Some(driver) = &driver {
            insist(driver.delete_network(network.id).await)?;
        }
        let id = network.id;
        self.disk(move |store| store.settle_network(Asked::SetUp, id))
            .await?;
        self.free_allocation(network.id).await?;
        self.detach(network.id).await?;
        drop(hand);
        self.desk.hands.forget(network.id);
        Ok(())
    }

    /// Detaches this node from a network; one that was removed before it was attached to is left as it is.
    pub(super) async fn detach(&self, network: NetworkId) -> Result<(), ControllerError> {
        match self.parts.handle.detach(network).await {
            Ok(()) | Err(PutError::Write(WriteError::NotAttached(_))) => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Takes entries that people wrote by hand, and addresses that an engine holds, off the disk.
    pub(super) async fn forget_entries(&self, network: NetworkId) -> Result<(), ControllerError> {
        self.disk(move |store| {
            for (of, entry) in store.entries()? {
                if of == network {
                    store.remove_entry(network, &entry.table, &entry.key)?;
                }
            }
            for (of, address) in store.held_addresses()? {
                if of == network {
                    store.free_address(network, address)?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// A network that a driver has been told of, and the life of the driver in which it was.
struct Ready {
    driver: Arc<dyn Driver>,
    life: CancellationToken,
    interests: Vec<TableInterest>,
}

/// The drivers that know that a network uses them.
#[derive(Default)]
struct Used(Vec<(Kind, Name)>);

impl Used {
    /// Counts the network as a user of its driver and its IPAM driver, once each.
    async fn acquire(&mut self, registry: &Registry, network: &NetworkRecord) {
        let ipam = Ipam::of(network).map(|ipam| (Kind::Ipam, ipam.driver));
        let all = [Some((Kind::Network, network.driver.clone())), ipam];
        for (kind, name) in all.into_iter().flatten() {
            if self.0.contains(&(kind, name.clone())) {
                continue;
            }
            match registry.acquire(kind, &name).await {
                Ok(()) => self.0.push((kind, name)),
                Err(error) => {
                    tracing::warn!(network = %network.name, driver = %name, %error, "a network is not counted as a user of its driver");
                }
            }
        }
    }

    fn release(self, registry: &Registry) {
        for (kind, name) in self.0 {
            registry.release(kind, &name);
        }
    }
}

/// A network that the cluster has removed is gone, even if its driver says that it will not let go of it.
pub(super) fn insist(outcome: Result<(), DriverError>) -> Result<(), DriverError> {
    match outcome {
        Err(error @ DriverError::Refused { .. }) => {
            tracing::warn!(%error, "a driver would not forget what was removed");
            Ok(())
        }
        other => other,
    }
}

/// Says to a driver that it has heard of all that was there.
async fn settle_at_last(driver: &dyn Driver, network: &NetworkRecord) {
    let (mut pause, longest) = RETRY;
    while let Err(error) = driver.settled(network.id).await {
        tracing::warn!(network = %network.name, %error, "what a former run has left is not cleared away yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
    tracing::debug!(network = %network.name, "the driver has heard of all that was there");
}
