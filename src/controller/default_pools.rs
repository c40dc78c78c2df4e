//! The default pools: where subnets come from that nobody names, the same on every node.

use super::{Controller, ControllerError};
use crate::core::{
    allocator::{Action, POOLS_TABLE, site_of},
    ipam::{DefaultPools, Pool, SpaceName},
    model::{NetworkId, Prefix, TableName},
    wire::codec,
};

/// One default pool, as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefaultPoolView {
    /// Whose networks it is for.
    pub space: SpaceName,
    /// The pool, and how long its subnets' prefixes are.
    pub pool: Pool,
    /// Whether somebody configured it; else it is built in.
    pub configured: bool,
    /// How many networks' subnets lie in it, whether they were named or not.
    pub in_use: u64,
}

impl Controller {
    /// Lists the default pools, in the order in which they are used. It needs no leader.
    pub async fn default_pools(&self) -> Result<Vec<DefaultPoolView>, ControllerError> {
        let configured = self.configured_pools().await?;
        let networks = self.network_list().await?;
        let subnets = networks.iter().flat_map(|network| &network.subnets);
        let subnets: Vec<Prefix> = subnets.map(|subnet| subnet.prefix).collect();
        let site = site_of(self.parts.cluster);
        let of_space = |space| [false, true].map(|v6| (space, configured.of(space, v6, site)));
        let mut views = Vec::new();
        for (space, (pools, configured)) in SpaceName::ALL.into_iter().flat_map(of_space) {
            views.extend(pools.into_iter().map(|pool| {
                let inside = |subnet: &&Prefix| pool.base.0.contains(&subnet.0);
                DefaultPoolView {
                    space,
                    pool,
                    configured,
                    in_use: subnets.iter().filter(inside).count() as u64,
                }
            }));
        }
        Ok(views)
    }

    async fn configured_pools(&self) -> Result<DefaultPools, ControllerError> {
        let table = TableName::new(POOLS_TABLE).expect("letters are a table name");
        let listed = self.parts.handle.list(NetworkId::CLUSTER, Some(table));
        let listed = listed.await?;
        let newest = listed.first();
        let pools = newest.and_then(|entry| codec::decode(entry.value.as_bytes()).ok());
        Ok(pools.unwrap_or_default())
    }

    /// Has the cluster agree on other default pools; of a space and a family of which none are given, those that are built in
    /// are used again. Subnets that networks have stay.
    pub async fn set_default_pools(&self, pools: DefaultPools) -> Result<(), ControllerError> {
        self.propose(Action::SetPools(pools)).await.map(drop)
    }
}
