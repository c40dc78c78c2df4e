//! A pool as the engine holds it: the subnet of a network of Weft. All is in its id, so nothing must be remembered.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use super::call::{NETWORK_OPTION, Refusal};
use crate::{
    controller::Controller,
    core::model::{NetworkId, NetworkRecord, Prefix, Subnet},
};

/// The address space of all pools: one that the engine outside a swarm asks for.
pub(super) const ADDRESS_SPACE: &str = "weft-local";

/// The id of a pool, written as `weft/3/10.0.0.0/24`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PoolId {
    pub(super) network: NetworkId,
    pub(super) prefix: Prefix,
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weft/{}/{}", self.network, self.prefix)
    }
}

impl FromStr for PoolId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let parts = || {
            let (network, prefix) = text.strip_prefix("weft/")?.split_once('/')?;
            Some(Self {
                network: NetworkId(network.parse().ok()?),
                prefix: Prefix(prefix.parse().ok()?),
            })
        };
        parts().ok_or_else(|| Refusal::BadPool(text.to_owned()))
    }
}

/// Returns the only subnet of a network, if an engine can use it.
pub(super) fn subnet_of(network: &NetworkRecord) -> Result<&Subnet, Refusal> {
    match &network.subnets[..] {
        [] => Err(Refusal::NoIpv4(network.name.clone())),
        [subnet] if subnet.gateway.is_ipv4() => Ok(subnet),
        [_] => Err(Refusal::NoIpv4(network.name.clone())),
        _ => Err(Refusal::ManySubnets(network.name.clone())),
    }
}

/// Finds the network that the options name.
pub(super) async fn named(
    controller: &Controller,
    options: &BTreeMap<String, String>,
) -> Result<NetworkRecord, Refusal> {
    let name = options
        .get(NETWORK_OPTION)
        .ok_or(Refusal::NoNetworkOption)?;
    Ok(controller.network(name).await?)
}

/// Finds the network of a pool, and its gateway.
pub(super) async fn gateway(
    controller: &Controller,
    pool: PoolId,
) -> Result<(NetworkRecord, IpAddr), Refusal> {
    let network = controller.network_by_id(pool.network).await?;
    let gateway = subnet_of(&network)?.gateway;
    Ok((network, gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_says_itself_what_it_is() {
        let pool = PoolId {
            network: NetworkId(3),
            prefix: Prefix("10.0.0.0/24".parse().unwrap()),
        };

        assert_eq!(pool.to_string(), "weft/3/10.0.0.0/24");
        assert_eq!(pool.to_string().parse::<PoolId>().unwrap(), pool);
        for foreign in [
            "",
            "weft/3",
            "weft/x/10.0.0.0/24",
            "xlocal/10.0.0.0/24#0",
            "weft/3/10.0.0.0",
        ] {
            assert!(foreign.parse::<PoolId>().is_err(), "{foreign}");
        }
    }
}
