//! `GET /v1/ipam`: the addresses of each subnet, how many are leased and in use.

use std::collections::BTreeMap;

use metrics::gauge;
use serde::{Deserialize, Serialize};

use crate::{
    controller::PoolView,
    core::{
        ipam::Utilisation,
        model::{Name, NetworkId, NodeId, Prefix},
    },
};

/// The addresses of one subnet. Counts beyond 2⁶⁴ are told as the greatest number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The network's number.
    pub network: NetworkId,
    /// Its name.
    pub name: Name,
    /// The subnet.
    pub subnet: Prefix,
    /// How many addresses endpoints could have.
    pub capacity: u64,
    /// How many of them are leased to nodes, or set aside.
    pub leased: u64,
    /// How many endpoints have, as far as the asked node has heard.
    pub in_use: u64,
    /// The share in use, in percent, rounded up.
    pub percent: u8,
    /// Whether that is so much that somebody should act.
    #[serde(default)]
    pub low: bool,
    /// The blocks that are leased.
    pub blocks: Vec<LeasedBlock>,
}

/// A block of addresses that is leased to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedBlock {
    /// The block.
    pub prefix: Prefix,
    /// Who hands out its addresses; nobody if they are set aside.
    pub node: Option<NodeId>,
    /// Its name, if it is known.
    pub node_name: Option<Name>,
    /// How many addresses it has for endpoints.
    pub capacity: u64,
    /// How many of them endpoints have.
    pub in_use: u64,
}

pub(super) fn pools(views: Vec<PoolView>, names: &BTreeMap<NodeId, Name>) -> Vec<Pool> {
    views.into_iter().map(|view| pool(view, names)).collect()
}

fn pool(view: PoolView, names: &BTreeMap<NodeId, Name>) -> Pool {
    let block = |(prefix, node, of): (Prefix, NodeId, Utilisation)| LeasedBlock {
        prefix,
        node: (node != NodeId::CLUSTER).then_some(node),
        node_name: names.get(&node).cloned(),
        capacity: told(of.capacity),
        in_use: told(of.in_use),
    };
    Pool {
        network: view.network.id,
        name: view.network.name,
        subnet: view.subnet,
        capacity: told(view.in_use.capacity),
        leased: told(view.leased),
        in_use: told(view.in_use.in_use),
        percent: view.in_use.percent(),
        low: view.in_use.is_low(),
        blocks: view.blocks.into_iter().map(block).collect(),
    }
}

fn told(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Writes the counts into the recorder of a scrape.
#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float, and what is in use stays below 2^53"
)]
pub(super) fn record(pools: &[Pool]) {
    for pool in pools {
        let counts = [
            ("capacity", pool.capacity),
            ("leased", pool.leased),
            ("in_use", pool.in_use),
        ];
        for (state, count) in counts {
            gauge!(
                "weft_ipam_addresses",
                "network" => pool.name.to_string(), "subnet" => pool.subnet.to_string(), "state" => state
            )
            .set(count as f64);
        }
        gauge!(
            "weft_ipam_low",
            "network" => pool.name.to_string(), "subnet" => pool.subnet.to_string()
        )
        .set(f64::from(u8::from(pool.low)));
    }
}
