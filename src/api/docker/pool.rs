//! A pool as the engine holds it: the subnet of a network of Weft. All is in its id, so nothing must be remembered.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::call::{NETWORK_OPTION, Refusal};
use crate::{
    controller::Controller,
    core::model::{Family, NetworkId, NetworkRecord, Prefix, Subnet},
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

/// Returns the subnet of a network that an engine asks for: the one named, else the first of the family.
pub(super) fn subnet_of<'a>(
    network: &'a NetworkRecord,
    family: Family,
    asked: &str,
) -> Result<&'a Subnet, Refusal> {
    let of_family = |subnet: &&Subnet| Family::of(subnet.gateway) == family;
    let mut subnets = network.subnets.iter().filter(of_family).peekable();
    if subnets.peek().is_none() {
        let name = network.name.clone();
        return Err(match family {
            Family::V4 => Refusal::NoIpv4(name),
            Family::V6 => Refusal::NoIpv6(name),
        });
    }
    let wanted = asked.parse::<IpNet>().ok();
    let found = subnets.find(|subnet| asked.is_empty() || Some(subnet.prefix.0) == wanted);
    found.ok_or_else(|| Refusal::OtherSubnet {
        network: network.name.clone(),
        has: network.subnets.iter().map(|subnet| subnet.prefix).collect(),
        asked: asked.to_owned(),
    })
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
    let mut subnets = network.subnets.iter();
    let subnet = subnets.find(|subnet| subnet.prefix == pool.prefix);
    let gateway = subnet.ok_or_else(|| Refusal::BadPool(pool.to_string()))?;
    let gateway = gateway.gateway;
    Ok((network, gateway))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::Name;

    #[test]
    fn the_engine_gets_the_subnet_it_names_or_the_first_of_the_family() {
        let subnet = |prefix: &str, gateway: &str| Subnet {
            prefix: Prefix(prefix.parse().unwrap()),
            gateway: gateway.parse().unwrap(),
            vni: None,
        };
        let mut network = NetworkRecord {
            id: NetworkId(3),
            name: Name::new("app").unwrap(),
            driver: Name::new("overlay").unwrap(),
            options: BTreeMap::new(),
            subnets: vec![
                subnet("fd00::/64", "fd00::1"),
                subnet("10.0.0.0/24", "10.0.0.1"),
                subnet("10.0.1.0/24", "10.0.1.1"),
            ],
        };
        let gateway = |network: &NetworkRecord, family, asked: &str| {
            let found = subnet_of(network, family, asked);
            found.map(|subnet| subnet.gateway.to_string())
        };

        let first = gateway(&network, Family::V4, "").unwrap();
        let named = gateway(&network, Family::V4, "10.0.1.0/24").unwrap();
        let v6 = gateway(&network, Family::V6, "").unwrap();
        let other = gateway(&network, Family::V4, "10.0.2.0/24");
        network.subnets.truncate(1);
        let none = gateway(&network, Family::V4, "");

        assert_eq!([first, named, v6], ["10.0.0.1", "10.0.1.1", "fd00::1"]);
        assert!(matches!(other, Err(Refusal::OtherSubnet { .. })));
        assert!(matches!(none, Err(Refusal::NoIpv4(_))));
    }

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
