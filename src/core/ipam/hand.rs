//! What one node hands out of one network's addresses, without asking: the blocks that the leader leased to it.
//!
//! **Invariants:** an address is handed out only from a block whose newest lease this node holds; a block that is being given
//! back hands out nothing, whether or not the leader's answer came. A lease's number is that of its dot in the cluster log,
//! which only grows, so a return that is late is told from a newer lease of the same block: after a start, and whenever an
//! answer was lost, the node has its leases numbered anew before it hands out of them.
//!
//! Without a leader a node may hand out every address of its blocks that is free and has rested. It may not take a static
//! address outside its blocks, lease a further block, give one back, use blocks that it had before it was started again, or
//! hand out an address before it has rested: who is cut off cannot know whether the others heard that its holder is gone.

use std::{collections::BTreeMap, net::IpAddr};

use super::block::{AddressError, Block, COOL_DOWN};
use crate::core::model::{Family, Instant, Prefix, Subnet};

/// How many blocks that were given back are remembered by name; of older ones only the newest number.
const GONE_MAX: usize = 1_024;

/// A block as it was leased to this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Lease {
    /// The block.
    pub prefix: Prefix,
    /// The number of the lease.
    pub number: u64,
}

/// Why no address was handed out without asking the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAddress {
    /// Every address of the node's blocks is in use, or there is no block: the leader must lease another.
    #[error("every address that was leased to this node is in use")]
    AllInUse,
    /// It passes by itself, or the leader leases another block.
    #[error("the {resting} addresses that this node has left were released less than {} s ago", COOL_DOWN.as_secs())]
    Resting {
        /// How many rest.
        resting: u64,
    },
}

/// A block that is held.
#[derive(Clone, Debug)]
struct Held {
    block: Block,
    number: u64,
    adopted: Instant,
}

/// The blocks of one node in one network.
#[derive(Clone, Debug, Default)]
pub struct Hand {
    held: Vec<Held>,
    /// Given back, or being given back: block → the newest number it had, and when it was used last.
    gone: BTreeMap<Prefix, (u64, Instant)>,
    /// Leases up to this number that are not held are gone too.
    gone_before: u64,
}

impl Hand {
    /// Takes over a lease; addresses of `used` are in use from the start. One that is older than what was given back is left.
    ///
    /// `is_new` says that the lease was made just now; otherwise a former run may have released addresses of it a moment ago.
    pub fn adopt(
        &mut self,
        lease: Lease,
        subnet: &Subnet,
        used: impl IntoIterator<Item = IpAddr>,
        fresh: Fresh,
    ) -> bool {
        let Lease { prefix, number } = lease;
        let is_older = self
            .gone
            .get(&prefix)
            .is_some_and(|(gone, _)| number <= *gone);
        let mut held = self.held.iter_mut();
        if let Some(held) = held.find(|held| held.block.prefix() == prefix) {
            held.number = number.max(held.number);
            return false;
        }
        if is_older || number <= self.gone_before {
            return false;
        }
        let mut block = Block::new(prefix, subnet.prefix, Some(subnet.gateway));
        for address in used {
            // Refused when it belongs to another block.
            let _ = block.claim(address);
        }
        let was_ours = self.gone.remove(&prefix).map(|(_, since)| since);
        if let Some(since) = was_ours.max(fresh.used_until()) {
            block.seal(since);
        }
        self.held.push(Held {
            block,
            number,
            adopted: fresh.at(),
        });
        true
    }

    /// Returns whether the block is held.
    pub fn has(&self, prefix: Prefix) -> bool {
        self.held.iter().any(|held| held.block.prefix() == prefix)
    }

    /// Hands out an address that is free and has rested.
    pub fn take(&mut self, family: Family, now: Instant) -> Result<IpAddr, NoAddress> {
        let taken = self
            .of(family)
            .find_map(|held| held.block.take_free(now).ok());
        taken.ok_or_else(|| match self.left(family) {
            0 => NoAddress::AllInUse,
            resting => NoAddress::Resting { resting },
        })
    }

    /// Hands out an address before it has rested: only if the leader said that the network has no other.
    pub fn take_resting(&mut self, family: Family) -> Option<IpAddr> {
        self.of(family)
            .find_map(|held| held.block.take_resting().ok())
    }

    fn of(&mut self, family: Family) -> impl Iterator<Item = &mut Held> {
        let held = self.held.iter_mut();
        held.filter(move |held| held.family() == family)
    }

    /// Takes exactly this address; nothing if it is in none of the blocks.
    pub fn claim(&mut self, address: IpAddr) -> Option<Result<(), AddressError>> {
        let mut blocks = self.held.iter_mut();
        let held = blocks.find(|held| held.block.prefix().0.contains(&address))?;
        Some(held.block.claim(address))
    }

    /// Lets an address rest; returns whether it was in use.
    pub fn release(&mut self, address: IpAddr, now: Instant) -> bool {
        let mut blocks = self.held.iter_mut();
        blocks.any(|held| held.block.release(address, now))
    }

    /// Returns the lease that was made for this address alone.
    pub fn single(&self, address: IpAddr) -> Option<Lease> {
        let mut leases = self.held.iter().map(Held::lease);
        leases.find(|lease| lease.prefix == Prefix(address.into()))
    }

    /// Returns the leases that nobody needs any more: those idle for the cool-down, but for one while others are in use.
    pub fn idle(&mut self, now: Instant) -> Vec<Lease> {
        let is_used = self.held.iter().any(|held| held.block.in_use() > 0);
        let idle = self.held.iter_mut().filter_map(|held| {
            let is_old = now.saturating_duration_since(held.adopted) >= COOL_DOWN;
            (held.block.is_idle(now) && is_old).then(|| held.lease())
        });
        let mut idle: Vec<Lease> = idle.collect();
        if is_used {
            let spare = idle.iter().position(|lease| !is_single(lease.prefix));
            spare.map(|at| idle.remove(at));
        }
        idle
    }

    /// Stops handing out of a block that nobody uses, to give it back; nothing if it is in use, or gone.
    pub fn give_back(&mut self, prefix: Prefix, now: Instant) -> Option<Lease> {
        let is_free = |held: &Held| held.block.prefix() == prefix && held.block.in_use() == 0;
        let at = self.held.iter().position(is_free)?;
        let Held { number, .. } = self.held.remove(at);
        self.gone.insert(prefix, (number, now));
        while self.gone.len() > GONE_MAX {
            let (_, (number, _)) = self.gone.pop_first()?;
            self.gone_before = self.gone_before.max(number);
        }
        Some(Lease { prefix, number })
    }

    /// Returns each block, how many of its addresses are in use, and how many could be.
    pub fn blocks(&self) -> impl Iterator<Item = (Prefix, usize, u128)> {
        let blocks = self.held.iter().map(|held| &held.block);
        blocks.map(|block| (block.prefix(), block.in_use(), block.capacity()))
    }

    /// Returns how many addresses of a family are not in use.
    fn left(&self, family: Family) -> u64 {
        let held = self.held.iter().filter(|held| held.family() == family);
        let left = held.map(|held| &held.block);
        let left = left.map(|block| block.capacity() - block.in_use() as u128);
        left.fold(0, |sum, left| {
            sum.saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
        })
    }
}

impl Held {
    fn family(&self) -> Family {
        Family::of(self.block.prefix().0.addr())
    }

    fn lease(&self) -> Lease {
        Lease {
            prefix: self.block.prefix(),
            number: self.number,
        }
    }
}

/// Whether nobody had an address of the block before, and when it was taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// The leader leased it just now.
    Yes(Instant),
    /// It was leased a while ago, and nobody remembers what was released since: its free addresses rest from now on.
    No(Instant),
}

impl Fresh {
    fn at(self) -> Instant {
        match self {
            Self::Yes(now) | Self::No(now) => now,
        }
    }

    fn used_until(self) -> Option<Instant> {
        match self {
            Self::Yes(_) => None,
            Self::No(now) => Some(now),
        }
    }
}

fn is_single(prefix: Prefix) -> bool {
    prefix.0.prefix_len() == prefix.0.max_prefix_len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_in_use_are_not_handed_out_again() {
        let mut hand = Hand::default();
        hand.adopt(
            lease("10.0.0.8/29", 1),
            &subnet(),
            [ip("10.0.0.8")],
            Fresh::Yes(at(0)),
        );

        assert_eq!(hand.take(Family::V4, at(0)), Ok(ip("10.0.0.9")));
        let refused = hand.claim(ip("10.0.0.8"));
        assert_eq!(refused, Some(Err(AddressError::InUse(ip("10.0.0.8")))));
    }

    #[test]
    fn each_family_is_handed_out_of_blocks_of_its_own() {
        let mut hand = Hand::default();
        hand.adopt(lease("10.0.0.8/29", 1), &subnet(), [], Fresh::Yes(at(0)));
        let v6 = Subnet {
            prefix: prefix("fd00::/64"),
            gateway: ip("fd00::1"),
            vni: None,
        };

        assert_eq!(hand.take(Family::V6, at(0)), Err(NoAddress::AllInUse));
        assert_eq!(hand.take_resting(Family::V6), None);
        hand.adopt(lease("fd00::10/124", 2), &v6, [], Fresh::Yes(at(0)));

        assert_eq!(hand.take(Family::V6, at(0)), Ok(ip("fd00::10")));
        assert_eq!(hand.take(Family::V4, at(0)), Ok(ip("10.0.0.8")));
    }

    #[test]
    fn an_address_of_nobodys_block_must_be_asked_for() {
        let mut hand = Hand::default();
        hand.adopt(lease("10.0.0.8/29", 1), &subnet(), [], Fresh::Yes(at(0)));

        assert_eq!(hand.claim(ip("10.0.0.50")), None);
    }

    #[test]
    fn a_second_block_is_used_up_before_an_address_of_the_first_that_rests() {
        let mut hand = Hand::default();
        hand.adopt(lease("10.0.0.8/30", 1), &subnet(), [], Fresh::Yes(at(0)));
        let first: Vec<IpAddr> = (0..4)
            .map(|_| hand.take(Family::V4, at(0)).unwrap())
            .collect();
        assert!(hand.release(first[0], at(0)));
        assert_eq!(
            hand.take(Family::V4, at(1)),
            Err(NoAddress::Resting { resting: 1 })
        );

        hand.adopt(lease("10.0.0.16/30", 2), &subnet(), [], Fresh::Yes(at(0)));
        let second: Vec<IpAddr> = (0..4)
            .map(|_| hand.take(Family::V4, at(1)).unwrap())
            .collect();

        assert!(!second.contains(&first[0]));
        assert!(hand.take(Family::V4, at(1)).is_err());
        assert_eq!(hand.take_resting(Family::V4), Some(first[0]));
        assert_eq!(hand.take(Family::V4, at(1)), Err(NoAddress::AllInUse));
    }

    #[test]
    fn what_is_given_back_comes_again_only_under_a_newer_lease() {
        let mut hand = Hand::default();
        hand.adopt(lease("10.0.0.50/32", 5), &subnet(), [], Fresh::Yes(at(0)));

        let given = hand.give_back(prefix("10.0.0.50/32"), at(0));

        assert_eq!(given, Some(lease("10.0.0.50/32", 5)));
        for (number, wanted) in [(4, false), (5, false), (6, true)] {
            let lease = lease("10.0.0.50/32", number);
            assert_eq!(
                hand.adopt(lease, &subnet(), [], Fresh::Yes(at(0))),
                wanted,
                "{number}"
            );
        }
    }

    #[test]
    fn what_comes_again_rests_from_when_it_was_given_back() {
        let mut hand = Hand::default();
        hand.adopt(lease("10.0.0.50/32", 5), &subnet(), [], Fresh::Yes(at(0)));
        hand.give_back(prefix("10.0.0.50/32"), at(10));

        hand.adopt(lease("10.0.0.50/32", 6), &subnet(), [], Fresh::Yes(at(0)));

        assert_eq!(
            hand.take(Family::V4, at(309)),
            Err(NoAddress::Resting { resting: 1 })
        );
        assert_eq!(hand.take(Family::V4, at(310)), Ok(ip("10.0.0.50")));
    }

    #[test]
    fn a_lease_that_was_made_anew_is_given_back_under_its_new_number() {
        let mut hand = Hand::default();
        hand.adopt(
            lease("10.0.0.8/29", 5),
            &subnet(),
            [ip("10.0.0.8")],
            Fresh::Yes(at(0)),
        );
        hand.adopt(lease("10.0.0.8/29", 9), &subnet(), [], Fresh::Yes(at(0)));

        assert_eq!(
            hand.give_back(prefix("10.0.0.8/29"), at(0)),
            None,
            "it is in use"
        );
        hand.release(ip("10.0.0.8"), at(0));
        let given = hand.give_back(prefix("10.0.0.8/29"), at(0));

        assert_eq!(given, Some(lease("10.0.0.8/29", 9)));
    }

    #[test]
    fn one_idle_block_is_kept_while_others_are_in_use() {
        let mut hand = Hand::default();
        for (net, number) in [("10.0.0.8/29", 1), ("10.0.0.16/29", 2), ("10.0.0.24/29", 3)] {
            hand.adopt(lease(net, number), &subnet(), [], Fresh::Yes(at(0)));
        }
        let address = hand.take(Family::V4, at(0)).unwrap();

        assert_eq!(hand.idle(at(299)), []);
        assert_eq!(hand.idle(at(300)), [lease("10.0.0.24/29", 3)]);
        hand.release(address, at(301));
        assert_eq!(hand.idle(at(600)).len(), 2);
        assert_eq!(hand.idle(at(601)).len(), 3);
    }

    #[test]
    fn blocks_of_a_former_run_rest_until_the_cool_down_is_over() {
        let mut hand = Hand::default();
        hand.adopt(lease("10.0.0.8/29", 1), &subnet(), [], Fresh::No(at(0)));

        assert_eq!(
            hand.take(Family::V4, at(299)),
            Err(NoAddress::Resting { resting: 8 })
        );
        assert_eq!(hand.take(Family::V4, at(300)), Ok(ip("10.0.0.8")));
    }

    #[test]
    fn more_returns_than_are_remembered_by_name_are_remembered_by_number() {
        let mut hand = Hand::default();
        for n in 0..=GONE_MAX as u64 {
            let prefix = Prefix(IpAddr::from(std::net::Ipv4Addr::from_bits(n as u32)).into());
            let number = n + 1;
            hand.adopt(Lease { prefix, number }, &subnet(), [], Fresh::Yes(at(0)));
            hand.give_back(prefix, at(0));
        }

        assert_eq!(hand.gone.len(), GONE_MAX);
        assert!(!hand.adopt(lease("0.0.0.0/32", 1), &subnet(), [], Fresh::Yes(at(0))));
    }

    fn subnet() -> Subnet {
        Subnet {
            prefix: prefix("10.0.0.0/24"),
            gateway: ip("10.0.0.1"),
            vni: None,
        }
    }

    fn lease(prefix_text: &str, number: u64) -> Lease {
        Lease {
            prefix: prefix(prefix_text),
            number,
        }
    }

    fn prefix(text: &str) -> Prefix {
        Prefix(text.parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }
}
