//! Tells a driver which nodes the cluster has.

use std::time::Duration;

use super::Controller;
use crate::{
    driver::{Driver, NodePlace, Scope},
    runtime::Stopped,
};

/// How long to wait after a driver was not told.
const TELL_AGAIN: Duration = Duration::from_secs(5);

impl Controller {
    /// Tells a driver whose endpoints reach other nodes of every node that comes or goes. It ends with the node only.
    pub(super) async fn tell_nodes(&self, driver: &dyn Driver) -> Result<(), Stopped> {
        if driver.capability().connectivity_scope == Scope::Local {
            std::future::pending::<()>().await;
        }
        let mut changed = self.parts.handle.members_changed();
        loop {
            // What comes after the look wakes us again.
            changed.mark_unchanged();
            let members = self.parts.handle.members().await?;
            let there = members.iter().filter(|member| member.state.is_alive());
            let nodes: Vec<NodePlace> = there
                .map(|member| NodePlace {
                    address: member.addr.ip(),
                    is_self: member.ours,
                })
                .collect();
            if let Err(error) = driver.nodes(&nodes).await {
                tracing::warn!(%error, "a driver was not told of all nodes yet");
                tokio::time::sleep(TELL_AGAIN).await;
                continue;
            }
            changed.changed().await.map_err(|_gone| Stopped)?;
        }
    }
}
