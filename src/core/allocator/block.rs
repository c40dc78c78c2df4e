//! Address blocks: what a node may hand out without asking.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{Allocator, AllocatorError, Outcome, blocks_table};
use crate::core::{
    ipam::{Space, is_usable},
    model::{BlockRecord, Hlc, Key, NetworkId, NodeId, Prefix, Subnet, Value},
    wire::codec,
};

/// The blocks of one network.
///
/// **Invariant:** `space` holds exactly the prefixes of `holders`, so they never overlap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Blocks {
    space: Space,
    holders: BTreeMap<Prefix, NodeId>,
    /// The first address after the last block that was leased, so that one just returned is leased last.
    pub(super) next: Option<IpAddr>,
}

impl Blocks {
    pub(super) fn records(&self, network: NetworkId) -> Vec<BlockRecord> {
        let record = |(prefix, node): (&Prefix, &NodeId)| BlockRecord {
            network,
            prefix: *prefix,
            node: *node,
        };
        self.holders.iter().map(record).collect()
    }

    /// Takes the block; returns whether it was free.
    pub(super) fn insert(&mut self, prefix: Prefix, node: NodeId) -> bool {
        let is_free = self.space.take(prefix).is_ok();
        if is_free {
            self.holders.insert(prefix, node);
        }
        is_free
    }

    fn remove(&mut self, prefix: Prefix, node: NodeId) -> bool {
        let is_held = self.holders.get(&prefix) == Some(&node);
        if is_held {
            self.holders.remove(&prefix);
            self.space.release(prefix);
        }
        is_held
    }

    /// Finds a free block: of the usual size in any subnet, else of half, a quarter … of it, down to one address.
    fn find(&self, subnets: &[Subnet]) -> Option<Prefix> {
        let longest = subnets
            .iter()
            .map(|subnet| subnet.prefix.0.max_prefix_len())
            .max()?;
        (0..=longest).find_map(|shorter_by| {
            subnets.iter().find_map(|subnet| {
                let length = block_length(subnet.prefix).checked_add(shorter_by)?;
                self.find_in(subnet, length)
            })
        })
    }

    fn find_in(&self, subnet: &Subnet, length: u8) -> Option<Prefix> {
        let net = subnet.prefix.0;
        if length > net.max_prefix_len() {
            return None;
        }
        let first = net.network();
        let start = self.next.filter(|next| net.contains(next)).unwrap_or(first);
        self.find_from(subnet, start, length)
            .or_else(|| self.find_from(subnet, first, length))
    }

    fn find_from(&self, subnet: &Subnet, start: IpAddr, length: u8) -> Option<Prefix> {
        let mut unusable = Space::default();
        loop {
            let found = self
                .space
                .first_fit(subnet.prefix, start, length, &unusable)?;
            if has_usable_address(subnet, found) {
                return Some(found);
            }
            // At most three times: around the network's, the gateway's and the broadcast address.
            unusable.take(found).ok()?;
        }
    }
}

/// Returns how long the prefix of a subnet's blocks is: /28 for a subnet of /16 to /24, larger blocks for a larger subnet, and
/// a sixteenth of a smaller one; an IPv6 subnet has at least 4,096 blocks if it can.
pub fn block_length(subnet: Prefix) -> u8 {
    let (length, most) = (subnet.0.prefix_len(), subnet.0.max_prefix_len());
    (length.saturating_add(12).min(most - 4)).max(length.saturating_add(4).min(most))
}

/// Returns whether a block has an address for an endpoint; only a tiny one may have none.
fn has_usable_address(subnet: &Subnet, block: Prefix) -> bool {
    let is_free = |address| is_usable(subnet.prefix, address) && address != subnet.gateway;
    match block.0 {
        IpNet::V4(net) if net.prefix_len() >= 30 => {
            let mut all = net.network().to_bits()..=net.broadcast().to_bits();
            all.any(|bits| is_free(IpAddr::V4(bits.into())))
        }
        IpNet::V6(net) if net.prefix_len() >= 126 => {
            let mut all = net.network().to_bits()..=net.broadcast().to_bits();
            all.any(|bits| is_free(IpAddr::V6(bits.into())))
        }
        IpNet::V4(_) | IpNet::V6(_) => true,
    }
}

impl Allocator {
    pub(super) fn lease_block(
        &mut self,
        at: Hlc,
        network: NetworkId,
        node: NodeId,
    ) -> Result<Outcome, AllocatorError> {
        let subnets = self.subnets_for(network, node)?;
        let blocks = self.blocks.entry(network).or_default();
        let prefix = blocks
            .find(&subnets)
            .ok_or(AllocatorError::NoFreeAddress(network))?;
        blocks.next = after(prefix);
        Ok(self.lease(
            at,
            BlockRecord {
                network,
                prefix,
                node,
            },
        ))
    }

    /// The node asks for its own address twice only when an answer got lost, so that is no error.
    pub(super) fn claim_address(
        &mut self,
        at: Hlc,
        (network, node): (NetworkId, NodeId),
        address: IpAddr,
    ) -> Result<Outcome, AllocatorError> {
        let subnets = self.subnets_for(network, node)?;
        let is_free =
            |subnet: &Subnet| is_usable(subnet.prefix, address) && subnet.gateway != address;
        if !subnets.iter().any(is_free) {
            return Err(AllocatorError::BadAddress { address, network });
        }
        let blocks = self.blocks.entry(network).or_default();
        let wanted = Prefix(address.into());
        let leased = blocks.space.overlap(wanted);
        let holder = leased.and_then(|prefix| Some((prefix, *blocks.holders.get(&prefix)?)));
        match holder {
            None => Ok(self.lease(
                at,
                BlockRecord {
                    network,
                    prefix: wanted,
                    node,
                },
            )),
            Some((prefix, holder)) if holder == node => Ok(Outcome::Block(BlockRecord {
                network,
                prefix,
                node,
            })),
            Some((_, holder)) => Err(AllocatorError::AddressLeased { address, holder }),
        }
    }

    pub(super) fn return_block(
        &mut self,
        at: Hlc,
        (network, node): (NetworkId, NodeId),
        prefix: Prefix,
    ) -> Result<Outcome, AllocatorError> {
        let blocks = self
            .blocks
            .get_mut(&network)
            .ok_or(AllocatorError::NoSuchNetwork(network))?;
        if !blocks.remove(prefix, node) {
            return Err(AllocatorError::NoSuchBlock {
                network,
                node,
                prefix,
            });
        }
        self.log
            .delete(at, blocks_table(), block_key(network, prefix));
        Ok(Outcome::Done)
    }

    pub(super) fn return_blocks_of(&mut self, at: Hlc, node: NodeId) {
        for (network, blocks) in &mut self.blocks {
            for record in blocks
                .records(*network)
                .into_iter()
                .filter(|record| record.node == node)
            {
                blocks.remove(record.prefix, node);
                self.log
                    .delete(at, blocks_table(), block_key(*network, record.prefix));
            }
        }
    }

    pub(super) fn drop_blocks_of_network(&mut self, at: Hlc, network: NetworkId) {
        let blocks = self.blocks.remove(&network).unwrap_or_default();
        for record in blocks.records(network) {
            self.log
                .delete(at, blocks_table(), block_key(network, record.prefix));
        }
    }

    fn subnets_for(&self, network: NetworkId, node: NodeId) -> Result<Vec<Subnet>, AllocatorError> {
        if !self.members.contains_key(&node) {
            return Err(AllocatorError::NotMember(node));
        }
        let record = self
            .networks
            .get(&network)
            .ok_or(AllocatorError::NoSuchNetwork(network))?;
        if record.subnets.is_empty() {
            return Err(AllocatorError::NoSubnet(network));
        }
        Ok(record.subnets.clone())
    }

    fn lease(&mut self, at: Hlc, record: BlockRecord) -> Outcome {
        let blocks = self.blocks.entry(record.network).or_default();
        blocks.insert(record.prefix, record.node);
        let value = Value::new(codec::encode(&record)).expect("a block's record is small");
        let key = block_key(record.network, record.prefix);
        self.log.put(at, blocks_table(), key, value);
        Outcome::Block(record)
    }
}

/// Returns the address after the prefix; nothing at the end of the family's addresses.
fn after(prefix: Prefix) -> Option<IpAddr> {
    match prefix.0.broadcast() {
        IpAddr::V4(last) => last
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(last) => last
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    }
}

/// Returns the key of a block in table `blocks`: the network's number, then the prefix.
fn block_key(network: NetworkId, prefix: Prefix) -> Key {
    let mut bytes = network.0.to_be_bytes().to_vec();
    bytes.extend(codec::encode(&prefix));
    Key::new(bytes).expect("a few bytes are within the limits")
}
