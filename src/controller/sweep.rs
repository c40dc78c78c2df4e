//! Endpoints whose network was removed while this node was down: nobody told it, so it asks.

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use super::{Controller, ControllerError};
use crate::{
    core::{
        allocator::Action,
        model::{NetworkId, Prefix},
    },
    runtime::Stopped,
};

/// How often to look. A network that is there is known long before.
const EVERY: Duration = Duration::from_secs(30);

impl Controller {
    /// Looks for such endpoints from time to time, and takes them off the disk.
    pub(super) async fn sweep(self) -> Result<(), Stopped> {
        loop {
            tokio::time::sleep(EVERY).await;
            match self.sweep_now().await {
                Ok(()) => {}
                Err(ControllerError::Stopped) => return Err(Stopped),
                Err(error) => tracing::warn!(%error, "leftover endpoints were not looked for"),
            }
        }
    }

    pub(super) async fn sweep_now(&self) -> Result<(), ControllerError> {
        let endpoints = self.disk(|store| store.endpoints()).await?;
        let networks: BTreeSet<NetworkId> = endpoints
            .iter()
            .map(|endpoint| endpoint.record.network)
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

    /// Which driver the network had is not known any more.
    async fn forget_in_drivers(&self, network: NetworkId) {
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
    }

    async fn forget_network(&self, network: NetworkId) -> Result<(), ControllerError> {
        let _hand = self.desk.hands.hold(network).await;
        for endpoint in self.own_endpoints(network).await? {
            tracing::info!(endpoint = %endpoint.record.name, %network, "endpoint is gone with its network");
            let stored = self.unpublish(endpoint).await?;
            let id = stored.record.id;
            self.disk(move |store| store.remove_endpoint(id)).await?;
        }
        self.forget_entries(network).await?;
        self.forget_in_drivers(network).await;
        self.detach(network).await
    }
}
