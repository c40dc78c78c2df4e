//! The default pools, as they were configured last.

use super::{Allocator, AllocatorError, Outcome, POOLS_TABLE};
use crate::core::{
    ipam::{DefaultPools, Pool, site_pool},
    model::{ClusterId, Hlc, Key, TableName, Value},
    wire::codec,
};

impl Allocator {
    /// Returns the default pools that were configured.
    pub fn pools(&self) -> &DefaultPools {
        &self.pools
    }

    pub(super) fn set_pools(
        &mut self,
        at: Hlc,
        pools: &DefaultPools,
    ) -> Result<Outcome, AllocatorError> {
        pools.check()?;
        self.pools.clone_from(pools);
        self.log.put(at, table(), key(), value(pools));
        Ok(Outcome::Done)
    }
}

/// Returns the cluster's own /48, by the first bits of its id: where IPv6 subnets come from unless pools of IPv6 are configured.
pub fn site_of(cluster: ClusterId) -> Pool {
    site_pool((cluster.0 >> 88) as u64)
}

fn value(pools: &DefaultPools) -> Value {
    Value::new(codec::encode(pools)).expect("so few pools are short")
}

fn table() -> TableName {
    TableName::new(POOLS_TABLE).expect("a constant within the limits")
}

fn key() -> Key {
    Key::new(b"default".to_vec()).expect("a constant within the limits")
}
