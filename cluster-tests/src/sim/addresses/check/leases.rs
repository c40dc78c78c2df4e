//! A node hands out only of blocks that the newest state leases to it, and no two of them overlap.

use std::collections::BTreeMap;

use weft::core::{
    allocator::Allocator,
    model::{NetworkId, NodeId, Prefix},
};

use super::Violation;

/// Checks what the nodes hold.
pub fn leases(
    state: &Allocator,
    held: impl Iterator<Item = (NodeId, NetworkId, Prefix)>,
) -> Result<(), Violation> {
    let holder = state
        .blocks()
        .map(|block| ((block.network, block.prefix), block.node));
    let holder: BTreeMap<(NetworkId, Prefix), NodeId> = holder.collect();
    for (node, network, prefix) in held {
        let agreed = holder.get(&(network, prefix));
        if agreed != Some(&node) && state.networks().contains_key(&network) {
            return Err(Violation {
                property: "a node hands out only of what is leased to it",
                seen: format!(
                    "{node} hands out of {prefix} of network {network}: it is leased to {agreed:?}"
                ),
            });
        }
    }
    Ok(())
}
