//! Endpoints whose network was removed while this node was down: nobody told it, so it asks.

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use super::{Controller, ControllerError, attachment::insist};
use crate::{
    core::{
        allocator::Action,
        model::{EndpointId, NetworkId, Prefix},
    },
    driver::RegistryError,
    runtime::Stopped,
    store::Asked,
};

/// How often to look. A network that is there is known long before.
const EVERY: Duration = Duration::from_secs(30);
/// How long drivers may take to forget the networks of a node that is no member any more.
const WITHDRAW_MAX: Duration = Duration::from_secs(5);

impl Controller {
    /// Looks for such endpoints from time to time, and takes them off the disk.
    pub(super) async fn sweep(self) -> Result<(), Stopped> {
        loop {
            tokio::time::sleep(EVERY).await;
            let swept = async {
                self.sweep_now().await?;
                self.return_all_asked().await
            };
            match swept.await {
                Ok(()) => {}
                Err(ControllerError::Stopped) => return Err(Stopped),
                Err(error) => tracing::warn!(%error, "leftover endpoints were not looked for"),
            }
        }
    }

    pub(super) async fn sweep_now(&self) -> Result<(), ControllerError> {
        let of_networks = self.disk(|store| {
            let endpoints = store.endpoints()?.into_iter();
            let intended = store.intended_endpoints()?.into_iter();
            let set_up = store.intended_networks(Asked::SetUp)?.into_iter();
            let allocated = store.intended_networks(Asked::Allocate)?.into_iter();
            let asked = set_up.chain(allocated).map(|(network, _)| network);
            let addresses = store.intended_addresses()?.into_iter();
            let asked = asked.chain(addresses.map(|address| address.network));
            let of_endpoints = endpoints.map(|endpoint| endpoint.record).chain(intended);
            let networks = of_endpoints.map(|endpoint| endpoint.network).chain(asked);
            Ok(networks.collect::<BTreeSet<NetworkId>>())
        });
        let networks: BTreeSet<NetworkId> = of_networks
            .await?
            .into_iter()
            .filter(|network| !self.desk.setups.borrow().contains_key(network))
            .collect();
        for network in networks {
            if self.was_removed(network).await {
                self.forget_network(network).await?;
            }
        }
        Ok(())
    }

    /// Asks the leader: that the DB does not show a network may only mean that it has not come yet.
    ///
    /// The question is to give back a block that no node can hold, which changes nothing.
    pub async fn was_removed(&self, network: NetworkId) -> bool {
        let question = Action::ReturnBlock {
            network,
            node: self.parts.node,
            prefix: Prefix(ipnet::Ipv4Net::default().into()),
        };
        let answer = self.propose(question).await;
        matches!(answer, Err(ControllerError::NoSuchNetwork(_)))
    }

    /// Has the drivers that outlive this daemon forget its networks: it is no member any more, whether these go on or not.
    pub async fn withdraw_from_drivers(&self) {
        match tokio::time::timeout(WITHDRAW_MAX, self.withdraw_now()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "a driver was not told that this node is no member any more");
            }
            Err(_late) => tracing::warn!(
                "a driver is slow to hear that this node is no member any more: it may keep what it had"
            ),
        }
    }

    async fn withdraw_now(&self) -> Result<(), ControllerError> {
        let set_up = self.disk(|store| store.intended_networks(Asked::SetUp));
        for (network, _) in set_up.await? {
            let _hand = self.desk.hands.hold(network).await;
            let endpoints = self.known_to_drivers(network).await?;
            self.forget_set_up(network, &endpoints).await?;
        }
        Ok(())
    }

    /// Returns the endpoints that a driver may have been told of.
    async fn known_to_drivers(
        &self,
        network: NetworkId,
    ) -> Result<Vec<EndpointId>, ControllerError> {
        let mut known = self.disk(|store| store.intended_endpoints()).await?;
        known.retain(|endpoint| endpoint.network == network);
        let own = self.own_records(network).await?;
        Ok(own.iter().chain(&known).map(|of| of.id).collect())
    }

    /// A driver that may be older than this daemon is known by name, and made to forget what it was told before.
    async fn forget_set_up(
        &self,
        network: NetworkId,
        endpoints: &[EndpointId],
    ) -> Result<(), ControllerError> {
        if let Some(name) = self.asked(Asked::SetUp, network).await? {
            let driver = self.parts.registry.get(&name, self.now()).await;
            match driver {
                Ok(driver) => {
                    for endpoint in endpoints {
                        insist(driver.forget_join(network, *endpoint).await)?;
                        insist(driver.forget_endpoint(network, *endpoint).await)?;
                    }
                    insist(driver.forget_network(network).await)?;
                }
                // It is not installed any more, and what it had is gone with it.
                Err(RegistryError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
            self.disk(move |store| store.settle_network(Asked::SetUp, network))
                .await?;
        }
        Ok(())
    }

    /// The drivers that are no older than this daemon have heard of the network in this life of ours, if at all.
    async fn forget_in_drivers(
        &self,
        network: NetworkId,
        endpoints: &[EndpointId],
    ) -> Result<(), ControllerError> {
        self.forget_set_up(network, endpoints).await?;
        self.free_allocation(network).await?;
        let mut drivers = Vec::new();
        self.parts.registry.walk(|_, driver| {
            drivers.push(driver.clone());
            ControlFlow::Continue(())
        });
        for driver in drivers {
            if let Err(error) = driver.delete_network(network).await {
                tracing::debug!(%network, %error, "a driver has not forgotten a network that is gone");
            }
        }
        Ok(())
    }

    async fn forget_network(&self, network: NetworkId) -> Result<(), ControllerError> {
        let _hand = self.desk.hands.hold(network).await;
        let mut intended = self.disk(|store| store.intended_endpoints()).await?;
        intended.retain(|endpoint| endpoint.network == network);
        let all = self.known_to_drivers(network).await?;
        for endpoint in self.own_endpoints(network).await? {
            tracing::info!(endpoint = %endpoint.record.name, %network, "endpoint is gone with its network");
            let stored = self.unpublish(endpoint).await?;
            let id = stored.record.id;
            self.disk(move |store| store.remove_endpoint(id)).await?;
        }
        self.forget_entries(network).await?;
        self.forget_in_drivers(network, &all).await?;
        for endpoint in intended {
            self.disk(move |store| store.drop_intended(endpoint.id))
                .await?;
        }
        // They went back with their pools.
        for asked in self.disk(|store| store.intended_addresses()).await? {
            if asked.network == network {
                self.forget_asked(asked).await?;
            }
        }
        self.detach(network).await
    }
}
