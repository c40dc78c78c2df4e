//! How much of each network's addresses is leased and in use, and a word before they run out.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::time::MissedTickBehavior;

use super::{Controller, ControllerError, PoolView};
use crate::{
    core::{
        allocator::BLOCKS_TABLE,
        ipam::{Block, Utilisation},
        model::{BlockRecord, NetworkId, NetworkRecord, NodeId, Prefix, Subnet, TableName},
        wire::codec,
    },
    runtime::Stopped,
};

/// How often the leader looks whether addresses run out.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Controller {
    /// Shows each subnet's addresses: how many there are, are leased, and are in use as far as this node has heard.
    pub async fn ipam(&self) -> Result<Vec<PoolView>, ControllerError> {
        let handle = &self.parts.handle;
        let blocks = handle
            .list(NetworkId::CLUSTER, Some(blocks_table()))
            .await?;
        let blocks = blocks
            .iter()
            .filter_map(|entry| codec::decode(entry.value.as_bytes()).ok());
        let blocks: Vec<BlockRecord> = blocks.collect();
        let mut pools = Vec::new();
        for network in self.network_list().await? {
            let endpoints = self.endpoints_of(network.id).await?.into_iter();
            let used = endpoints.flat_map(|endpoint| endpoint.record.addresses());
            let used: Vec<IpAddr> = used.map(|address| address.0.addr()).collect();
            let of_it = |block: &&BlockRecord| block.network == network.id;
            let leased: Vec<&BlockRecord> = blocks.iter().filter(of_it).collect();
            let pool = |subnet: &Subnet| pool(&network, subnet, (&leased, &used));
            pools.extend(network.subnets.iter().map(pool));
        }
        Ok(pools)
    }

    /// Has the leader warn of each subnet that runs out, once until it has room again.
    pub(super) async fn watch_pools(self) -> Result<(), Stopped> {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned = BTreeSet::new();
        loop {
            ticks.tick().await;
            if self.parts.raft.leader() != Some(self.parts.node) {
                warned.clear();
                continue;
            }
            let pools = match self.ipam().await {
                Ok(pools) => pools,
                Err(ControllerError::Stopped) => return Err(Stopped),
                Err(error) => {
                    tracing::debug!(%error, "the use of addresses is not known");
                    continue;
                }
            };
            for pool in newly_low(&mut warned, &pools) {
                tracing::warn!(
                    network = %pool.network.name, subnet = %pool.subnet, percent = pool.in_use.percent(),
                    "addresses run out: add a network or a larger subnet"
                );
            }
        }
    }
}

/// Returns the pools that have come to run low since the last look; one that has had room again in between counts anew.
fn newly_low<'a>(warned: &mut BTreeSet<Prefix>, pools: &'a [PoolView]) -> Vec<&'a PoolView> {
    let low = pools.iter().filter(|pool| pool.in_use.is_low());
    let before = std::mem::replace(warned, low.clone().map(|pool| pool.subnet).collect());
    low.filter(|pool| !before.contains(&pool.subnet)).collect()
}

fn pool(
    network: &NetworkRecord,
    subnet: &Subnet,
    (leased, used): (&[&BlockRecord], &[IpAddr]),
) -> PoolView {
    let whole = Block::new(subnet.prefix, subnet.prefix, Some(subnet.gateway));
    let use_of = |prefix: Prefix| {
        let block = Block::new(prefix, subnet.prefix, Some(subnet.gateway));
        let inside = used.iter().filter(|address| block.is_assignable(**address));
        Utilisation {
            in_use: inside.count() as u128,
            capacity: block.capacity(),
        }
    };
    let inside = |block: &&&BlockRecord| subnet.prefix.0.contains(&block.prefix.0);
    let blocks = leased.iter().filter(inside);
    let blocks: Vec<(Prefix, NodeId, Utilisation)> = blocks
        .map(|block| (block.prefix, block.node, use_of(block.prefix)))
        .collect();
    PoolView {
        network: network.clone(),
        subnet: subnet.prefix,
        in_use: Utilisation {
            capacity: whole.capacity(),
            ..use_of(subnet.prefix)
        },
        leased: blocks.iter().map(|(.., of)| of.capacity).sum(),
        blocks,
    }
}

fn blocks_table() -> TableName {
    TableName::new(BLOCKS_TABLE).expect("letters are a table name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::Name;

    #[test]
    fn a_subnet_that_runs_low_is_told_of_once_until_it_has_had_room_again() {
        let mut warned = BTreeSet::new();
        let mut told = Vec::new();

        for in_use in [79, 80, 95, 100, 79, 79, 81, 80] {
            let pools = [view(in_use)];
            let newly = newly_low(&mut warned, &pools);
            told.extend(newly.iter().map(|_| in_use));
        }

        assert_eq!(told, [80, 81]);
    }

    fn view(in_use: u128) -> PoolView {
        let name = |text: &str| Name::new(text).unwrap();
        PoolView {
            network: NetworkRecord {
                id: NetworkId(1),
                name: name("app"),
                driver: name("overlay"),
                options: Default::default(),
                subnets: Vec::new(),
            },
            subnet: Prefix("10.0.0.0/24".parse().unwrap()),
            in_use: Utilisation {
                in_use,
                capacity: 100,
            },
            leased: 100,
            blocks: Vec::new(),
        }
    }
}
