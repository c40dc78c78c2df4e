//! A block of addresses that one node hands out by itself.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use super::{add, is_usable, offset, offsets::Offsets};
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
///
/// **Invariant:** an address is in use, or rests, or is free; what the subnet reserves and the gateway has is none of these.
#[derive(Clone, Debug)]
pub struct Block {
    prefix: Prefix,
    subnet: Prefix,
    /// In use, resting or reserved.
    held: Offsets,
    /// Those of `held` that nobody may have.
    reserved: Offsets,
    /// Those of `held` that were released less than [`COOL_DOWN`] ago.
    resting: Offsets,
    /// When each of `resting` was released, the longest rested first: at most the block's addresses.
    queue: VecDeque<(Instant, [u64; 2])>,
    /// Until then nobody knows which of the free addresses rest: the block was in use before this program started.
    sealed_until: Option<Instant>,
    /// How far into the block the search for the next address begins.
    next: u128,
}

impl Block {
    /// Makes the block `prefix` of `subnet`, all free but what the subnet reserves and the gateway has.
    pub fn new(prefix: Prefix, subnet: Prefix, gateway: Option<IpAddr>) -> Self {
        let mut block = Self {
            prefix: Prefix(prefix.0.trunc()),
            subnet: Prefix(subnet.0.trunc()),
            held: Offsets::default(),
            reserved: Offsets::default(),
            resting: Offsets::default(),
            queue: VecDeque::new(),
            sealed_until: None,
            next: 0,
        };
        for edge in [block.prefix.0.network(), block.prefix.0.broadcast()] {
            if !is_usable(block.subnet, edge) {
                block.reserve(edge);
            }
        }
        gateway.map(|gateway| block.reserve(gateway));
        block
    }

    /// Sets an address aside that nobody may have; returns whether it was free.
    pub fn reserve(&mut self, address: IpAddr) -> bool {
        let Some(offset) = self.offset(address) else {
            return false;
        };
        self.reserved.insert(offset);
        self.held.insert(offset)
    }

    /// Says that the block was in use until then, and nobody remembers what was released: its free addresses rest.
    pub fn seal(&mut self, since: Instant) {
        self.sealed_until = Some(since + COOL_DOWN);
    }

    /// Returns the block's addresses.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// Returns how many addresses are in use.
    pub fn in_use(&self) -> usize {
        self.held.len() - self.resting.len() - self.reserved.len()
    }

    /// Returns how many addresses could be in use at a time.
    pub fn capacity(&self) -> u128 {
        self.last().saturating_add(1) - self.reserved.len() as u128
    }

    /// Returns whether every address is free and has rested.
    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.wake(now);
        self.sealed_until.is_none() && self.held.len() == self.reserved.len()
    }

    /// Hands out the next address: one that is free, else the one that rested longest.
    pub fn take(&mut self, now: Instant) -> Result<IpAddr, AddressError> {
        self.take_free(now).or_else(|_none| self.take_resting())
    }

    /// Hands out the next address that never was in use or has rested.
    pub fn take_free(&mut self, now: Instant) -> Result<IpAddr, AddressError> {
        self.wake(now);
        if self.sealed_until.is_some() {
            return Err(AddressError::Exhausted(self.prefix));
        }
        self.take_unheld()
    }

    /// Hands out an address before it has rested: of those that were released the first, then any.
    pub fn take_resting(&mut self) -> Result<IpAddr, AddressError> {
        let Some((_, offset)) = self.queue.pop_front() else {
            return self.take_unheld();
        };
        let offset = joined(offset);
        self.resting.remove(offset);
        self.hand_out(offset)
    }

    /// Takes exactly `address`, rested or not.
    pub fn claim(&mut self, address: IpAddr) -> Result<(), AddressError> {
        let block = self.prefix;
        let offset = self
            .offset(address)
            .filter(|_| self.is_assignable(address))
            .ok_or(AddressError::OutOfRange { address, block })?;
        if self.resting.remove(offset) {
            self.queue.retain(|(_, resting)| joined(*resting) != offset);
        } else if !self.held.insert(offset) {
            return Err(AddressError::InUse(address));
        }
        Ok(())
    }

    /// Gives `address` back; returns whether it was in use.
    pub fn release(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(offset) = self.offset(address).filter(|_| self.is_in_use(address)) else {
            return false;
        };
        self.resting.insert(offset);
        self.queue.push_back((now, parted(offset)));
        true
    }

    /// Returns whether `address` was handed out or claimed, and not released since.
    pub fn is_in_use(&self, address: IpAddr) -> bool {
        self.offset(address).is_some_and(|offset| {
            self.held.contains(offset)
                && !self.resting.contains(offset)
                && !self.reserved.contains(offset)
        })
    }

    /// Returns whether the block has `address` and may hand it out.
    pub fn is_assignable(&self, address: IpAddr) -> bool {
        let offset = self.offset(address);
        offset.is_some_and(|offset| !self.reserved.contains(offset))
    }

    fn take_unheld(&mut self) -> Result<IpAddr, AddressError> {
        let last = self.last();
        if self.held.len() as u128 > last {
            return Err(AddressError::Exhausted(self.prefix));
        }
        let (start, end) = (self.next.min(last), last);
        let found = self.held.first_absent(start, end);
        let found = found.or_else(|| self.held.first_absent(0, start));
        let offset = found.ok_or(AddressError::Exhausted(self.prefix))?;
        self.held.insert(offset);
        self.hand_out(offset)
    }

    fn hand_out(&mut self, offset: u128) -> Result<IpAddr, AddressError> {
        self.next = offset
            .checked_add(1)
            .filter(|next| *next <= self.last())
            .unwrap_or(0);
        let address = add(self.prefix.0.network(), offset);
        address.ok_or(AddressError::Exhausted(self.prefix))
    }

    /// Frees what has rested.
    fn wake(&mut self, now: Instant) {
        let rested = |released: Instant| now.saturating_duration_since(released) >= COOL_DOWN;
        while let Some((_, offset)) = self.queue.pop_front_if(|(at, _)| rested(*at)) {
            self.resting.remove(joined(offset));
            self.held.remove(joined(offset));
        }
        self.sealed_until = self.sealed_until.filter(|until| now < *until);
    }

    fn offset(&self, address: IpAddr) -> Option<u128> {
        let net = self.prefix.0;
        net.contains(&address)
            .then(|| offset(net.network(), address))?
    }

    /// Returns the offset of the last address.
    fn last(&self) -> u128 {
        let net = self.prefix.0;
        offset(net.network(), net.broadcast()).unwrap_or(0)
    }
}

/// An offset in two halves: a queue of them has no gaps between its elements.
fn parted(offset: u128) -> [u64; 2] {
    [(offset >> 64) as u64, offset as u64]
}

fn joined([high, low]: [u64; 2]) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
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

    #[test]
    fn a_block_of_a_former_run_rests_whole_and_is_used_only_where_nothing_else_is() {
        let mut block = whole("10.0.0.0/29");
        block.claim(address("10.0.0.3")).unwrap();
        block.seal(at(10));

        assert!(block.take_free(at(309)).is_err());
        assert!(!block.is_idle(at(309)));
        assert_eq!(block.take_resting(), Ok(address("10.0.0.1")));
        assert_eq!(block.take_free(at(310)), Ok(address("10.0.0.2")));
        assert_eq!(block.take_free(at(310)), Ok(address("10.0.0.4")));
    }

    #[test]
    fn a_block_is_idle_when_all_it_had_has_rested_and_counts_what_it_could_hold() {
        let net = prefix("10.0.0.0/28");
        let mut block = Block::new(net, net, Some(address("10.0.0.1")));
        assert_eq!(block.capacity(), 13);
        assert!(block.is_idle(at(0)));

        let first = block.take(at(0)).unwrap();
        assert!(!block.is_idle(at(1)));
        block.release(first, at(1));

        assert!(!block.is_idle(at(300)));
        assert!(block.is_idle(at(301)));
    }

    #[test]
    fn a_reserved_address_is_handed_out_to_nobody() {
        let mut block = whole("10.0.0.0/29");

        assert!(block.reserve(address("10.0.0.2")));
        let all: Vec<IpAddr> = std::iter::from_fn(|| block.take(at(0)).ok()).collect();

        assert_eq!(all.len(), 5);
        assert!(!all.contains(&address("10.0.0.2")));
        assert!(block.claim(address("10.0.0.2")).is_err());
        assert!(!block.release(address("10.0.0.2"), at(0)));
    }

    #[test]
    fn the_whole_of_ipv6_is_a_block_too() {
        let mut block = whole("::/0");

        assert_eq!(block.take(at(0)), Ok(address("::1")));
        assert_eq!(block.claim(address("ffff::ffff")), Ok(()));
        assert_eq!(block.in_use(), 2);
    }
}
