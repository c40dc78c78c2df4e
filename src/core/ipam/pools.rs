//! What makes a prefix a pool, why one is refused, and how much of it is in use.

use std::net::IpAddr;

use bincode::{Decode, Encode};

use crate::core::model::Prefix;

/// Why a pool or an address of it was refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, thiserror::Error)]
pub enum PoolRefusal {
    /// The caller wrote the name of no space.
    #[error("{0:?} is no address space: `local` and `global` are")]
    NoSuchSpace(String),
    /// The caller wrote no pool's id. Nobody says so any more: it keeps the place of those behind it, in replies that
    /// are written down.
    #[error("{0:?} is no pool's id: `global/10.0.0.0/16` is one")]
    BadId(String),
    /// The caller named a pool that is not there, or no longer. Nobody says so any more: it keeps the place of those behind it, in
    /// replies that are written down.
    #[error("there is no pool {0}")]
    NoSuchPool(String),
    /// The caller must name a longer prefix.
    #[error("{0} is every address of its family: name a prefix of length 1 or more")]
    ZeroLength(Prefix),
    /// The caller must write the prefix as it is meant.
    #[error("prefix {asked} is not aligned: bits are set behind its length, it should be {meant}")]
    HostBits {
        /// What was written.
        asked: Prefix,
        /// What it probably means.
        meant: Prefix,
    },
    /// The caller must write IPv4 as IPv4.
    #[error("prefix {0} is one of IPv4 written as IPv6: write it as IPv4")]
    Mapped(Prefix),
    /// The caller must choose another prefix.
    #[error("{requested} overlaps {existing}")]
    Overlap {
        /// What was asked for.
        requested: Prefix,
        /// What is there.
        existing: Prefix,
    },
    /// The caller must name the pool, too.
    #[error("range {0} is of no pool: name the pool, too")]
    RangeAlone(Prefix),
    /// The caller must choose another range.
    #[error("range {range} is not inside {pool}")]
    RangeOutside {
        /// What was asked for.
        range: Prefix,
        /// What it should be inside.
        pool: Prefix,
    },
    /// No pool can be cut into pieces of that size.
    #[error("no pool can be cut into prefixes of length {0}")]
    BadLength(u8),
    /// Every pool is in use: the caller must name one, or give others back. Nobody says so any more: it keeps the place of those
    /// behind it, in replies that are written down.
    #[error("no prefix of length {0} is free: name one, or configure more pools")]
    NoMorePools(u8),
    /// The caller must choose another address.
    #[error("address {address} is no usable address of {pool}")]
    AddressOutside {
        /// What was asked for.
        address: IpAddr,
        /// What it should be inside.
        pool: Prefix,
    },
    /// The caller must choose another address.
    #[error("address {0} is in use")]
    AddressInUse(IpAddr),
    /// Every address is in use. Nobody says so any more: it keeps the place of those behind it, in replies that
    /// are written down.
    #[error("no address of {0} is free")]
    NoMoreAddresses(Prefix),
    /// The caller must give a length that the pool can be cut into.
    #[error("pool {base} cannot be cut into prefixes of length {length}: give one from {} to {longest}", base.0.prefix_len())]
    BadPieces {
        /// The pool.
        base: Prefix,
        /// How long the prefixes should be.
        length: u8,
        /// How long they can be.
        longest: u8,
    },
    /// The caller must configure fewer.
    #[error("{asked} default pools are more than the {limit} that there may be")]
    TooManyPools {
        /// How many were given.
        asked: u64,
        /// How many there may be.
        limit: u64,
    },
}

/// Returns the prefix if it can be a pool: it has a length, is aligned, and is no IPv4 in the guise of IPv6.
pub fn checked(prefix: Prefix) -> Result<Prefix, PoolRefusal> {
    let net = prefix.0;
    if net.prefix_len() == 0 {
        return Err(PoolRefusal::ZeroLength(prefix));
    }
    if let IpAddr::V6(address) = net.addr()
        && address.to_ipv4_mapped().is_some()
    {
        return Err(PoolRefusal::Mapped(prefix));
    }
    let meant = Prefix(net.trunc());
    if meant != prefix {
        let asked = prefix;
        return Err(PoolRefusal::HostBits { asked, meant });
    }
    Ok(prefix)
}

/// How much of a pool is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Utilisation {
    /// How many addresses are in use.
    pub in_use: u128,
    /// How many could be.
    pub capacity: u128,
}

/// From which share in use, in percent, a subnet runs low.
pub const LOW_FROM: u8 = 80;

impl Utilisation {
    /// Returns whether so much is in use that somebody should act.
    pub fn is_low(self) -> bool {
        self.percent() >= LOW_FROM
    }

    /// Returns the share in use in percent, rounded up.
    pub fn percent(self) -> u8 {
        let share = self.in_use.min(self.capacity) as f64 / self.capacity.max(1) as f64;
        (share * 100.0).ceil() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_runs_low_from_four_fifths_on_rounded_up() {
        let of = |in_use, capacity| Utilisation { in_use, capacity };

        assert_eq!(of(203, 254).percent(), 80);
        assert!(of(203, 254).is_low());
        assert_eq!(of(200, 254).percent(), 79);
        assert!(!of(200, 254).is_low());
        assert_eq!(of(0, 0).percent(), 0);
    }
}
