//! A node that crashes is hidden everywhere within a time that follows from the figures its members are set up with.

use std::time::Duration;

use weft::core::{membership, model::NodeId};

use super::Violation;
use crate::sim::World;

/// Returns how long it takes at most until all have noticed that a node has crashed.
///
/// Its neighbours on the ring miss it, and ask it once more in every way; then it is a suspect; then it is down, and before the
/// next round of gossip all have been told. Not who probes it by chance, which may be nobody for a while.
pub fn hidden_within(config: &membership::Config) -> Duration {
    config.neighbour_silence + config.probe_period + config.suspect_for + config.gossip_every
}

/// Checks that no running machine takes a node for alive, nor shows anything of it.
pub fn is_hidden(world: &World, gone: NodeId) -> Result<(), Violation> {
    let violation = |at: usize, what: &str| Violation {
        property: "a node that crashes is hidden everywhere in time",
        seen: format!(
            "machine {at} {what} node {gone}, {:?} after its end",
            hidden_within(&world.settings.membership)
        ),
    };
    for at in world.running() {
        let node = world.machines[at].node.as_ref().expect("it runs");
        if node.membership().is_alive(gone) {
            return Err(violation(at, "takes for alive"));
        }
        let (entries, _) = node.list(&weft::core::watch::Filter::default());
        if entries.iter().any(|entry| entry.owner == gone) {
            return Err(violation(at, "shows entries of"));
        }
    }
    Ok(())
}
