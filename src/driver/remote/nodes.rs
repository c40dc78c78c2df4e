//! Which nodes there are, as libnetwork tells plugins: one call for each that comes or goes.

use std::collections::BTreeSet;

use super::{
    Remote,
    message::{Discovery, Nothing},
};
use crate::{
    driver::{DriverError, NodePlace},
    plugin::CallError,
};

impl Remote {
    /// Tells the plugin what has changed since it was told last. What it refuses is not said again: the protocol gives its answer
    /// no meaning.
    pub(super) async fn tell_nodes(&self, nodes: &[NodePlace]) -> Result<(), DriverError> {
        let mut told = self.told.lock().await;
        let now: BTreeSet<NodePlace> = nodes.iter().copied().collect();
        let gone: Vec<NodePlace> = told.difference(&now).copied().collect();
        for node in gone {
            self.tell_node("DiscoverDelete", node).await?;
            told.remove(&node);
        }
        for node in now {
            if !told.contains(&node) {
                self.tell_node("DiscoverNew", node).await?;
                told.insert(node);
            }
        }
        Ok(())
    }

    async fn tell_node(&self, method: &str, node: NodePlace) -> Result<(), DriverError> {
        match self
            .link
            .ask::<Nothing>(method, &Discovery::of(node))
            .await?
        {
            Ok(Nothing {}) | Err(CallError::NotImplemented { .. }) => Ok(()),
            Err(refused @ CallError::Failed { .. }) => {
                tracing::warn!(driver = self.link.name(), method, address = %node.address, %refused, "a plugin would not hear of a node");
                Ok(())
            }
            Err(error) => Err(self.link.failure(&error)),
        }
    }
}
