//! Waiting until others know: what this node has written in a network is on every live member of it.

use std::time::Duration;

use super::{AppliedView, Controller, ControllerError};
use crate::core::{
    model::{NetworkId, NodeId},
    netdb::Applied,
};

impl Controller {
    /// Waits until every live member of a network has all that this node has written in it, at most for `limit`.
    pub async fn applied(
        &self,
        network: &str,
        limit: Duration,
    ) -> Result<AppliedView, ControllerError> {
        let network = self.network(network).await?;
        self.barrier(network.id, limit).await
    }

    /// Waits for what is written now. An entry that is still to be taken back has been taken back nowhere.
    pub(super) async fn barrier(
        &self,
        network: NetworkId,
        limit: Duration,
    ) -> Result<AppliedView, ControllerError> {
        let began = self.now();
        let settled = self.desk.removals.settled(network);
        let settled = tokio::time::timeout(limit, settled).await.is_ok();
        let left = limit.saturating_sub(self.now().saturating_duration_since(began));
        let (version, applied) = self.parts.handle.applied(network, left).await?;
        let lacking: Vec<NodeId> = match applied {
            Applied::Everywhere if settled => Vec::new(),
            Applied::Everywhere => self.other_members(network).await?,
            Applied::NotBy(nodes) => nodes.into_iter().collect(),
        };
        let mut names = self.node_names().await?;
        let lacking = lacking.into_iter();
        Ok(AppliedView {
            network,
            version,
            lacking: lacking.map(|node| (node, names.remove(&node))).collect(),
        })
    }

    async fn other_members(&self, network: NetworkId) -> Result<Vec<NodeId>, ControllerError> {
        let mut members = self.parts.handle.attached(network).await?;
        members.retain(|member| *member != self.parts.node);
        Ok(members)
    }
}
