//! What shows is owned by a member that the node holds for alive, and that is attached to the network.

use weft::core::{model::NodeId, watch::Filter};

use super::Violation;
use crate::sim::World;

const PROPERTY: &str = "only what living, attached nodes own shows";

/// Checks the property at every running machine; it must hold at any time.
pub fn only_the_living_show(world: &World) -> Result<(), Violation> {
    for at in world.running() {
        let node = world.machines[at].node.as_ref().expect("it runs");
        let alive: Vec<NodeId> = node.membership().alive().collect();
        let ours = world.machines[at].id;
        for entry in node.list(&Filter::default()).0 {
            let lives = entry.owner == ours
                || entry.owner == NodeId::CLUSTER
                || alive.contains(&entry.owner);
            let attached = entry.owner == NodeId::CLUSTER
                || node
                    .attached(entry.network)
                    .any(|attached| attached == entry.owner);
            if !lives || !attached {
                let seen = format!(
                    "machine {at} shows {:?} of node {}, alive: {lives}, attached: {attached}",
                    entry.key, entry.owner
                );
                return Err(Violation {
                    property: PROPERTY,
                    seen,
                });
            }
        }
    }
    Ok(())
}
