//! The links that plugins make, in sandboxes that users name. As in libnetwork the plugin makes and removes its link in the host's
//! namespace, and whoever asks it moves the link in and out.

use super::{LOOK_EVERY, Remote};
use crate::{
    core::model::{EndpointId, EndpointRecord, NetworkId},
    dataplane::{Placed, is_there},
    driver::{DriverError, Joined, SandboxPlace, sandbox},
};

impl Remote {
    pub(super) async fn enter_now(
        &self,
        endpoint: &EndpointRecord,
        joined: &Joined,
        place: &SandboxPlace,
    ) -> Result<String, DriverError> {
        let made = joined.interface.as_ref();
        let link = made.filter(|made| !made.source.is_empty());
        let link = link.ok_or(DriverError::NoInterface(endpoint.network))?;
        let entered = sandbox::enter(&*self.links, (endpoint, joined), (&link.source, place));
        let (name, placed) = entered.await?;
        if let Some(placed) = placed
            && let Err(error) = self.links.remember(endpoint.network, &placed)
        {
            tracing::warn!(network = %endpoint.network, %error, "an endpoint will not leave with its sandbox");
        }
        Ok(name)
    }

    /// Moves an endpoint's link back to where the plugin made it. That it fails keeps nobody from leaving.
    pub(super) async fn withdraw(&self, network: NetworkId, endpoint: EndpointId) {
        let Some(placed) = self.placed(network, endpoint) else {
            return;
        };
        if let Err(error) = self.links.withdraw(&placed).await {
            tracing::warn!(%network, %endpoint, %error, "a plugin's link stays in the sandbox");
        }
    }

    pub(super) fn placed(&self, network: NetworkId, endpoint: EndpointId) -> Option<Placed> {
        let mut all = self.links.remembered(network).into_iter();
        all.find(|placed| placed.placement.endpoint == endpoint)
    }

    /// Waits until a sandbox is gone with an endpoint in it.
    pub(super) async fn next_vanished(&self, network: NetworkId) -> EndpointId {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let all = self.links.remembered(network);
            let mut gone = all.iter().filter(|placed| !is_there(&*self.links, placed));
            if let Some(placed) = gone.next() {
                let endpoint = placed.placement.endpoint;
                tracing::info!(%network, %endpoint, "an endpoint's sandbox is gone");
                return endpoint;
            }
        }
    }
}
