//! No two networks have one VNI or share an address, in any state.

use std::collections::BTreeMap;

use weft::core::{
    allocator::Allocator,
    model::{NetworkId, Prefix, Vni},
};

use super::Violation;

/// Checks a state.
pub fn vnis(state: &Allocator) -> Result<(), Violation> {
    let mut seen: BTreeMap<Vni, NetworkId> = BTreeMap::new();
    let mut subnets: Vec<(NetworkId, Prefix)> = Vec::new();
    for network in state.networks().values() {
        for subnet in &network.subnets {
            let vni = subnet
                .vni
                .and_then(|vni| Some((vni, seen.insert(vni, network.id)?)));
            let net = subnet.prefix.0;
            let overlaps = |(_, other): &&(NetworkId, Prefix)| {
                other.0.contains(&net) || net.contains(&other.0)
            };
            let overlap = subnets.iter().find(overlaps);
            if vni.is_some() || overlap.is_some() {
                return Err(Violation {
                    property: "no two networks share a VNI or an address",
                    seen: format!("network {} beside {vni:?}, {overlap:?}", network.id),
                });
            }
            subnets.push((network.id, subnet.prefix));
        }
    }
    Ok(())
}
