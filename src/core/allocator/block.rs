//! Address blocks: what a node may hand out without asking.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{Allocator, AllocatorError, Outcome, SubnetWish, blocks_table};
use crate::core::{
    ipam::{COOL_DOWN, Rest, Space, is_usable},
    model::{
        BlockRecord, Family, Hlc, Key, NetworkId, NetworkRecord, NodeId, Prefix, Subnet, Value,
    },
    wire::codec,
};

/// The blocks of one network.
///
/// **Invariant:** `space` holds exactly the prefixes of `holders`, so they never overlap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Blocks {
    space: Space,
    /// [`NodeId::CLUSTER`] holds what is set aside.
    holders: BTreeMap<Prefix, NodeId>,
    /// How many blocks of more than one address a node has: follows from `holders`.
    counts: BTreeMap<NodeId, u32>,
    /// Subnet → the part of it that blocks are cut from.
    pub(super) ranges: BTreeMap<Prefix, Prefix>,
    /// What was given back a moment ago.
    pub(super) rest: Rest,
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
            if !is_single(prefix) {
                *self.counts.entry(node).or_default() += 1;
            }
        }
        is_free
    }

    fn remove(&mut self, prefix: Prefix, node: NodeId) -> bool {
        let is_held = self.holders.get(&prefix) == Some(&node);
        if is_held {
            self.holders.remove(&prefix);
            self.space.release(prefix);
            if let Some(count) = self.counts.get_mut(&node).filter(|_| !is_single(prefix)) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&node);
                }
            }
        }
        is_held
    }

    /// Returns how many bits larger than usual a node's next block is: twice as large with each doubling of what it has.
    fn growth(&self, node: NodeId) -> u8 {
        let count = self.counts.get(&node).copied().unwrap_or(0);
        count.saturating_add(1).ilog2() as u8
    }

    /// Finds a free block: `growth` bits larger than usual in any subnet, else of half, a quarter … of it, down to one
    /// address; of what rests only if nothing else is free, and of what may be in use still not even then.
    fn find(&self, subnets: &[Subnet], growth: u8) -> Option<Prefix> {
        let resting = self.rest.obstacles();
        let found = self.find_clear(subnets, growth, &resting);
        found.or_else(|| self.find_clear(subnets, growth, &self.rest.fences()))
    }

    fn find_clear(&self, subnets: &[Subnet], growth: u8, resting: &Space) -> Option<Prefix> {
        let longest = subnets
            .iter()
            .map(|subnet| subnet.prefix.0.max_prefix_len())
            .max()?;
        (0..=longest).find_map(|shorter_by| {
            subnets.iter().find_map(|subnet| {
                let whole = self.whole(subnet);
                let usual = block_length(whole);
                let largest = usual.min(whole.0.prefix_len().saturating_add(4));
                let first = usual.saturating_sub(growth).max(largest);
                self.find_in(subnet, first.checked_add(shorter_by)?, resting)
            })
        })
    }

    /// Returns what the blocks of a subnet are cut from.
    fn whole(&self, subnet: &Subnet) -> Prefix {
        let range = self.ranges.get(&subnet.prefix);
        range.copied().unwrap_or(subnet.prefix)
    }

    fn find_in(&self, subnet: &Subnet, length: u8, resting: &Space) -> Option<Prefix> {
        let net = self.whole(subnet).0;
        if length > net.max_prefix_len() {
            return None;
        }
        let first = net.network();
        let start = self.next.filter(|next| net.contains(next)).unwrap_or(first);
        let mut obstacles = resting.clone();
        self.find_from(subnet, start, length, &mut obstacles)
            .or_else(|| self.find_from(subnet, first, length, &mut obstacles))
    }

    fn find_from(
        &self,
        subnet: &Subnet,
        start: IpAddr,
        length: u8,
        obstacles: &mut Space,
    ) -> Option<Prefix> {
        loop {
            let whole = self.whole(subnet);
            let found = self.space.first_fit(whole, start, length, obstacles)?;
            if has_usable_address(subnet, found) {
                return Some(found);
            }
            // At most three times: around the network's, the gateway's and the broadcast address.
            obstacles.cover(found);
        }
    }
}

fn is_single(prefix: Prefix) -> bool {
    prefix.0.prefix_len() == prefix.0.max_prefix_len()
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
    /// The block is the larger the more the node has, so that a node of a thousand containers asks a dozen times.
    pub(super) fn grow_blocks(
        &mut self,
        at: Hlc,
        (network, node): (NetworkId, NodeId),
        family: Option<Family>,
    ) -> Result<Outcome, AllocatorError> {
        let mut subnets = self.subnets_for(network, node)?;
        subnets.retain(|subnet| family.is_none_or(|family| Family::of(subnet.gateway) == family));
        let growth = |blocks: &Blocks| blocks.growth(node);
        let (record, lease) = self.lease_next(at, (network, node), (&subnets, growth))?;
        Ok(Outcome::Leased(record, lease))
    }

    pub(super) fn lease_next(
        &mut self,
        at: Hlc,
        (network, node): (NetworkId, NodeId),
        (subnets, growth): (&[Subnet], impl Fn(&Blocks) -> u8),
    ) -> Result<(BlockRecord, u64), AllocatorError> {
        let blocks = self.blocks.entry(network).or_default();
        blocks.rest.wake(at.wall());
        let prefix = blocks
            .find(subnets, growth(blocks))
            .ok_or(AllocatorError::NoFreeAddress(network))?;
        blocks.next = after(prefix);
        let record = BlockRecord {
            network,
            prefix,
            node,
        };
        let lease = self.lease(at, &record);
        Ok((record, lease))
    }

    /// A lease that the node has is numbered anew: a return of it that is still under way is refused when it arrives.
    pub(super) fn hold_address(
        &mut self,
        at: Hlc,
        (network, node): (NetworkId, NodeId),
        address: IpAddr,
    ) -> Result<Outcome, AllocatorError> {
        let (record, _) = self.claimed(at, (network, node), address)?;
        let lease = self.lease(at, &record);
        Ok(Outcome::Leased(record, lease))
    }

    /// Returns the block that the address may be leased with, and whether the node holds it already.
    pub(super) fn claimed(
        &mut self,
        at: Hlc,
        (network, node): (NetworkId, NodeId),
        address: IpAddr,
    ) -> Result<(BlockRecord, bool), AllocatorError> {
        let subnets = self.subnets_for(network, node)?;
        let is_free =
            |subnet: &Subnet| is_usable(subnet.prefix, address) && subnet.gateway != address;
        if !subnets.iter().any(is_free) {
            return Err(AllocatorError::BadAddress { address, network });
        }
        let blocks = self.blocks.entry(network).or_default();
        blocks.rest.wake(at.wall());
        let wanted = Prefix(address.into());
        let record = |prefix| BlockRecord {
            network,
            prefix,
            node,
        };
        let leased = blocks.space.overlap(wanted);
        match leased.and_then(|prefix| Some((prefix, *blocks.holders.get(&prefix)?))) {
            None => match blocks.rest.fenced(wanted) {
                Some(since) => {
                    let waited = at.wall().0.saturating_sub(since.0) / 1_000;
                    let seconds = COOL_DOWN.as_secs().saturating_sub(waited);
                    Err(AllocatorError::AddressResting { address, seconds })
                }
                None => Ok((record(wanted), false)),
            },
            Some((prefix, holder)) if holder == node => Ok((record(prefix), true)),
            Some((_, NodeId::CLUSTER)) => Err(AllocatorError::AddressReserved(address)),
            Some((_, holder)) => Err(AllocatorError::AddressLeased { address, holder }),
        }
    }

    pub(super) fn hold_blocks(
        &mut self,
        at: Hlc,
        network: NetworkId,
        node: NodeId,
    ) -> Result<Outcome, AllocatorError> {
        self.subnets_for(network, node)?;
        for record in self.held_by(network, node) {
            self.lease(at, &record);
        }
        Ok(self.leases(network, node))
    }

    /// Returns the leases of a node in a network, as they are now.
    pub(super) fn leases(&self, network: NetworkId, node: NodeId) -> Outcome {
        let number = |record: BlockRecord| {
            let key = block_key(network, record.prefix);
            Some((record.prefix, self.log.number(blocks_table(), key)?))
        };
        let held = self.held_by(network, node);
        Outcome::Leases {
            network,
            node,
            blocks: held.into_iter().filter_map(number).collect(),
        }
    }

    fn held_by(&self, network: NetworkId, node: NodeId) -> Vec<BlockRecord> {
        let blocks = self.blocks.get(&network);
        let mut records = blocks.map_or_else(Vec::new, |blocks| blocks.records(network));
        records.retain(|record| record.node == node);
        records
    }

    /// Of a return without a number there is only one that can be meant: the lease that is there.
    pub(super) fn return_block(
        &mut self,
        at: Hlc,
        (network, node): (NetworkId, NodeId),
        (prefix, lease): (Prefix, Option<u64>),
    ) -> Result<Outcome, AllocatorError> {
        let key = block_key(network, prefix);
        let blocks = self
            .blocks
            .get_mut(&network)
            .ok_or(AllocatorError::NoSuchNetwork(network))?;
        if blocks.holders.get(&prefix) != Some(&node) {
            return Err(AllocatorError::NoSuchBlock {
                network,
                node,
                prefix,
            });
        }
        let newest = self.log.number(blocks_table(), key.clone());
        if let Some(lease) = lease.filter(|lease| Some(*lease) != newest) {
            return Err(AllocatorError::StaleLease { prefix, lease });
        }
        blocks.remove(prefix, node);
        blocks.rest.add(at.wall(), prefix, false);
        self.log.delete(at, blocks_table(), key);
        Ok(Outcome::Done)
    }

    /// The node may not know that it was shut out: what it had rests, and nobody may ask for it meanwhile.
    pub(super) fn return_blocks_of(&mut self, at: Hlc, node: NodeId) {
        for (network, blocks) in &mut self.blocks {
            for record in blocks
                .records(*network)
                .into_iter()
                .filter(|record| record.node == node)
            {
                blocks.remove(record.prefix, node);
                blocks.rest.add(at.wall(), record.prefix, true);
                self.log
                    .delete(at, blocks_table(), block_key(*network, record.prefix));
            }
        }
    }

    /// Sets aside what a new network's wishes say, which were checked.
    pub(super) fn set_aside(&mut self, at: Hlc, network: &NetworkRecord, wishes: &[SubnetWish]) {
        let subnets = network.subnets.iter().zip(wishes);
        for (subnet, wish) in subnets {
            let blocks = self.blocks.entry(network.id).or_default();
            if let Some(range) = wish.range {
                blocks.ranges.insert(subnet.prefix, range);
            }
            for address in &wish.reserved {
                let record = BlockRecord {
                    network: network.id,
                    prefix: Prefix((*address).into()),
                    node: NodeId::CLUSTER,
                };
                self.lease(at, &record);
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

    pub(super) fn subnets_for(
        &self,
        network: NetworkId,
        node: NodeId,
    ) -> Result<Vec<Subnet>, AllocatorError> {
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

    /// Writes the lease down, for the first time or anew; returns its number.
    pub(super) fn lease(&mut self, at: Hlc, record: &BlockRecord) -> u64 {
        let blocks = self.blocks.entry(record.network).or_default();
        blocks.insert(record.prefix, record.node);
        let value = Value::new(codec::encode(record)).expect("a block's record is small");
        let key = block_key(record.network, record.prefix);
        self.log.put(at, blocks_table(), key, value)
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
