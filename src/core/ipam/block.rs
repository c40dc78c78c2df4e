//! A block of addresses that one node hands out by itself.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use super::{add, is_usable, offset};
use crate::core::model::{Instant, Prefix};

/// How long a released address rests, so that nobody's cache still leads to its last holder.
pub const COOL_DOWN: Duration = Duration::from_secs(300);

/// Why no address was handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// The caller must choose another address.
    #[error("address {0} is in use")]
    InUse(IpAddr),
    /// The caller must choose an address of the block.
    #[error("address {address} is no usable address of {block}")]
    OutOfRange {
        /// What was asked for.
        address: IpAddr,
        /// The block.
        block: Prefix,
    },
    /// Every address is in use: another block is needed.
    #[error("no address of {0} is free")]
    Exhausted(Prefix),
}

/// Who has which address of a block. Hands out in serial order, so that an address just released is used last.
#[derive(Clone, Debug)]
pub struct Block {
    prefix: Prefix,
    subnet: Prefix,
    gateway: Option<IpAddr>,
    /// In use or resting.
    held: BTreeSet<IpAddr>,
    /// Released less than [`COOL_DOWN`] ago, the longest rested first: at most the block's addresses.
    resting: VecDeque<(Instant, IpAddr)>,
    /// How far into the block the search for the next address begins.
    next: u128,
}

impl Block {
    /// Makes the block `prefix` of `subnet`, all free but what the subnet reserves and the gateway has.
    pub fn new(prefix: Prefix, subnet: Prefix, gateway: Option<IpAddr>) -> Self {
        Self {
            prefix: Prefix(prefix.0.trunc()),
            subnet: Prefix(subnet.0.trunc()),
            gateway,
            held: BTreeSet::new(),
            resting: VecDeque::new(),
            next: 0,
        }
    }

    /// Returns the block's addresses.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// Returns how many addresses are in use.
    pub fn in_use(&self) -> usize {
        self.held.len() - self.resting.len()
    }

    /// Hands out the next address: one that never was in use or has rested, else the one that rested longest.
    pub fn take(&mut self, now: Instant) -> Result<IpAddr, AddressError> {
        let rested = |released: Instant| now.saturating_duration_since(released) >= COOL_DOWN;
        while let Some((_, address)) = self.resting.pop_front_if(|(at, _)| rested(*at)) {
            self.held.remove(&address);
        }
        let address = match self.next_free() {
            Some(address) => address,
            None => {
                let oldest = self.resting.pop_front();
                oldest.ok_or(AddressError::Exhausted(self.prefix))?.1
            }
        };
        self.held.insert(address);
        let base = self.prefix.0.network();
        self.next = offset(base, address).map_or(0, |at| at + 1);
        Ok(address)
    }

    /// Takes exactly `address`.
    pub fn claim(&mut self, address: IpAddr) -> Result<(), AddressError> {
        if !self.is_assignable(address) {
            let block = self.prefix;
            return Err(AddressError::OutOfRange { address, block });
        }
        if self.is_in_use(address) {
            return Err(AddressError::InUse(address));
        }
        self.held.insert(address);
        self.resting.retain(|(_, resting)| *resting != address);
        Ok(())
    }

    /// Gives `address` back; returns whether it was in use.
    pub fn release(&mut self, address: IpAddr, now: Instant) -> bool {
        let was_used = self.is_in_use(address);
        if was_used {
            self.resting.push_back((now, address));
        }
        was_used
    }

    /// Returns whether `address` was handed out or claimed, and not released since.
    pub fn is_in_use(&self, address: IpAddr) -> bool {
        self.held.contains(&address) && !self.resting.iter().any(|(_, resting)| *resting == address)
    }

    /// Returns whether the block has `address` and may hand it out.
    pub fn is_assignable(&self, address: IpAddr) -> bool {
        self.prefix.0.contains(&address)
            && is_usable(self.subnet, address)
            && Some(address) != self.gateway
    }

    fn next_free(&self) -> Option<IpAddr> {
        self.free_from(self.next).or_else(|| self.free_from(0))
    }

    /// Every step but the last meets an address that is taken, so it costs as much as there are addresses held.
    fn free_from(&self, start: u128) -> Option<IpAddr> {
        let mut address = add(self.prefix.0.network(), start)?;
        while self.prefix.0.contains(&address) {
            if self.is_assignable(address) && !self.held.contains(&address) {
                return Some(address);
            }
            address = add(address, 1)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix(text.parse().unwrap())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn whole(text: &str) -> Block {
        Block::new(prefix(text), prefix(text), None)
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn addresses_come_in_order_without_the_network_and_the_broadcast_address() {
        let cases = [
            ("192.168.59.0/24", 254, "192.168.59.254"),
            ("192.168.240.0/20", 255, "192.168.240.255"),
            ("192.168.0.0/16", 255, "192.168.0.255"),
            ("192.168.0.0/16", 256, "192.168.1.0"),
            ("10.16.0.0/16", 255, "10.16.0.255"),
            ("10.128.0.0/12", 255, "10.128.0.255"),
            ("10.0.0.0/8", 256, "10.0.1.0"),
            ("192.168.128.0/18", 1_023, "192.168.131.255"),
        ];
        for (pool, count, last) in cases {
            let mut block = whole(pool);

            let taken = (0..count).map(|_| block.take(at(0)).unwrap()).last();

            assert_eq!(taken, Some(address(last)), "{pool} × {count}");
        }
    }

    #[test]
    fn a_pair_of_addresses_has_two() {
        let mut block = whole("192.168.0.2/31");

        assert_eq!(block.take(at(0)), Ok(address("192.168.0.2")));
        assert_eq!(block.take(at(0)), Ok(address("192.168.0.3")));
        assert_eq!(
            block.take(at(0)),
            Err(AddressError::Exhausted(prefix("192.168.0.2/31")))
        );
        for outside in ["192.168.0.1", "192.168.0.4", "192.168.0.100"] {
            let refused = block.claim(address(outside));
            assert!(
                matches!(refused, Err(AddressError::OutOfRange { .. })),
                "{outside}"
            );
        }
    }

    #[test]
    fn the_last_block_of_a_larger_subnet_has_all_its_addresses() {
        let mut block = Block::new(prefix("172.28.30.0/24"), prefix("172.28.0.0/16"), None);

        let all: Vec<IpAddr> = (0..256).map(|_| block.take(at(0)).unwrap()).collect();
        let none = block.take(at(0));
        block.release(address("172.28.30.97"), at(0));

        assert_eq!(all.last(), Some(&address("172.28.30.255")));
        assert!(none.is_err());
        assert_eq!(block.take(at(0)), Ok(address("172.28.30.97")));
    }

    #[test]
    fn an_address_in_use_is_not_claimed_and_the_gateway_never_is() {
        let net = prefix("10.0.0.0/28");
        let mut block = Block::new(net, net, Some(address("10.0.0.1")));

        let first = block.take(at(0)).unwrap();

        assert_eq!(first, address("10.0.0.2"));
        assert_eq!(block.claim(first), Err(AddressError::InUse(first)));
        assert!(matches!(
            block.claim(address("10.0.0.1")),
            Err(AddressError::OutOfRange { .. })
        ));
        assert_eq!(block.claim(address("10.0.0.3")), Ok(()));
        assert_eq!(block.take(at(0)), Ok(address("10.0.0.4")));
    }

    #[test]
    fn a_released_address_rests_and_is_cut_short_only_when_nothing_else_is_free() {
        let mut block = whole("10.0.0.0/29");
        let first = block.take(at(0)).unwrap();
        let second = block.take(at(0)).unwrap();
        block.release(first, at(1));
        block.release(second, at(2));

        let others: Vec<IpAddr> = (0..4).map(|_| block.take(at(3)).unwrap()).collect();

        assert!(!others.contains(&first) && !others.contains(&second));
        assert_eq!(block.take(at(3)), Ok(first));
        assert_eq!(block.take(at(3)), Ok(second));
        assert!(block.take(at(3)).is_err());
        assert_eq!(block.in_use(), 6);
    }

    #[test]
    fn a_rested_address_is_as_good_as_new() {
        let mut block = whole("10.0.0.0/30");
        let first = block.take(at(0)).unwrap();
        block.release(first, at(0));

        let second = block.take(at(0) + COOL_DOWN).unwrap();
        let third = block.take(at(0) + COOL_DOWN).unwrap();

        assert_ne!(second, first);
        assert_eq!(third, first);
    }

    #[test]
    fn an_address_is_released_once_and_may_be_claimed_while_it_rests() {
        let mut block = whole("10.0.0.0/29");
        let first = block.take(at(0)).unwrap();

        assert!(block.release(first, at(0)));
        assert!(!block.release(first, at(0)));
        assert_eq!(block.claim(first), Ok(()));
        assert_eq!(block.in_use(), 1);
    }

    #[test]
    fn a_huge_block_costs_what_is_in_use() {
        let mut block = whole("fd00::/64");

        assert_eq!(block.take(at(0)), Ok(address("fd00::1")));
        assert_eq!(block.take(at(0)), Ok(address("fd00::2")));
    }
}
