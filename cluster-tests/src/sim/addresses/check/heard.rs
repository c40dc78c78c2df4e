//! A node that takes an address of another has had time to hear that the other one's endpoint is gone, and so has everybody
//! who reaches it: nobody within reach still shows another holder.

use std::net::IpAddr;

use weft::core::model::{NetworkId, NodeId};

use super::Violation;

/// Checks an address that `node` takes against who within its reach shows whom as its holder.
pub fn heard(
    at: (NetworkId, IpAddr),
    node: NodeId,
    shown: impl Iterator<Item = (NodeId, NodeId)>,
) -> Result<(), Violation> {
    let mut others = shown.filter(|(_, holder)| *holder != node);
    match others.next() {
        None => Ok(()),
        Some((viewer, holder)) => Err(Violation {
            property: "an address changes hands when everybody within reach has heard",
            seen: format!(
                "{node} takes {} of network {}, and {viewer} still shows it on {holder}",
                at.1, at.0
            ),
        }),
    }
}
