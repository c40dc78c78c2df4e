//! After the calm every node takes exactly the nodes that run for alive.

use std::collections::BTreeSet;

use weft::core::model::NodeId;

use super::Violation;
use crate::sim::World;

/// Checks the property at every running machine.
pub fn members_agree(world: &World) -> Result<(), Violation> {
    let running = world.running();
    let ids: BTreeSet<NodeId> = running.iter().map(|at| world.machines[*at].id).collect();
    for at in running {
        let node = world.machines[at].node.as_ref().expect("it runs");
        let me = world.machines[at].id;
        let alive: BTreeSet<NodeId> = node.membership().alive().chain([me]).collect();
        if alive != ids {
            return Err(Violation {
                property: "every node knows who is alive",
                seen: format!("machine {at} takes {alive:?} for alive, {ids:?} run"),
            });
        }
    }
    Ok(())
}
