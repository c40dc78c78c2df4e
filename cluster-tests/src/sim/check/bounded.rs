//! Queues and memory stay within bounds: nothing waits where nothing happens, and what nobody owns any more is forgotten.

use std::collections::BTreeSet;

use weft::core::model::NodeId;

use super::Violation;
use crate::sim::World;

const PROPERTY: &str = "queues and memory stay within bounds";

/// How much may wait for each other node at a time of chaos. All the work of a run is less than the bound of one queue, so a
/// queue that comes near it is one that grows by itself.
const WAITING_A_NODE: u64 = 1024;

/// Checks at one machine, if it runs, that its queues are short.
pub fn queues_are_short(world: &World, at: usize) -> Result<(), Violation> {
    let Some(node) = &world.machines[at].node else {
        return Ok(());
    };
    let waiting = node.stats().netdb.queued;
    if waiting > WAITING_A_NODE * world.machines.len() as u64 {
        return Err(violation(at, format!("{waiting} dots and messages wait")));
    }
    Ok(())
}

/// Checks, once nothing has happened for as long as things are kept, that every machine holds what stands and no more: no
/// tombstone, no log that is over, nothing of the dead.
pub fn only_what_stands_is_held(world: &World) -> Result<(), Violation> {
    let living: BTreeSet<NodeId> = world.machines.iter().map(|machine| machine.id).collect();
    // In the cluster scope every node has a key for each network it is attached to, and one that says that it is ready.
    let kept = world.machines.iter();
    let scope: usize = kept.map(|machine| machine.disk.attached.len() + 1).sum();
    for at in world.running() {
        let machine = &world.machines[at];
        let node = machine.node.as_ref().expect("it runs");
        if let Some((log, ..)) = node.logs().find(|(log, ..)| !living.contains(&log.owner)) {
            return Err(violation(at, format!("{log:?} is held, its owner is gone")));
        }
        let entries = world.machines.iter().flat_map(|other| &other.disk.entries);
        let carried = entries.filter(|((network, ..), _)| machine.disk.attached.contains(network));
        let keys: BTreeSet<_> = carried.map(|(address, _)| address).collect();
        let expected = keys.len() + scope;
        if node.held() != expected {
            let held: Vec<_> = node
                .view_logs()
                .into_iter()
                .filter(|view| !view.dots.is_empty())
                .collect();
            return Err(violation(
                at,
                format!("{} keys are held, {expected} stand: {held:?}", node.held()),
            ));
        }
        let waiting = node.stats().netdb.queued;
        if waiting > 0 {
            return Err(violation(
                at,
                format!("{waiting} dots and messages wait in the calm"),
            ));
        }
    }
    Ok(())
}

fn violation(at: usize, seen: String) -> Violation {
    Violation {
        property: PROPERTY,
        seen: format!("machine {at}: {seen}"),
    }
}
