//! Address spaces as container engines know them: pools by name, by size or of any kind, with ranges inside, and addresses.
//!
//! **Invariants:** pools of one space do not overlap, and neither do the ranges of one pool; a pool that is there for its
//! ranges goes with the last of them. The spaces know nothing of each other.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use bincode::{Decode, Encode};

use super::{AddressError, Block, Overlap, Pool, PoolError, Space};
use crate::core::model::{Instant, Prefix};

/// Whose addresses a space has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SpaceName {
    /// One host's: other hosts may have the same.
    Local,
    /// The cluster's.
    Global,
}

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Global => "global",
        })
    }
}

impl FromStr for SpaceName {
    type Err = PoolRefusal;

    fn from_str(text: &str) -> Result<Self, PoolRefusal> {
        match text {
            "local" => Ok(Self::Local),
            "global" => Ok(Self::Global),
            other => Err(PoolRefusal::NoSuchSpace(other.chars().take(64).collect())),
        }
    }
}

/// A pool, or the range of it that somebody asked for. Written as `global/10.0.0.0/16` or `global/10.0.0.0/16/10.0.3.0/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PoolId {
    /// The space.
    pub space: SpaceName,
    /// The pool.
    pub pool: Prefix,
    /// The range of it.
    pub range: Option<Prefix>,
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.space, self.pool)?;
        match self.range {
            Some(range) => write!(f, "/{range}"),
            None => Ok(()),
        }
    }
}

impl FromStr for PoolId {
    type Err = PoolRefusal;

    fn from_str(text: &str) -> Result<Self, PoolRefusal> {
        let bad = || PoolRefusal::BadId(text.chars().take(128).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let prefix = |address: &str, length: &str| {
            let parsed = format!("{address}/{length}").parse().map(Prefix);
            parsed.map_err(|_no_prefix| bad())
        };
        let (space, pool, range) = match parts[..] {
            [space, address, length] => (space, prefix(address, length)?, None),
            [space, address, length, of, size] => {
                (space, prefix(address, length)?, Some(prefix(of, size)?))
            }
            _ => return Err(bad()),
        };
        let space = space.parse()?;
        Ok(Self { space, pool, range })
    }
}

/// Which pool is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolRequest {
    /// The prefix; nothing: any; `0.0.0.0/N` or `::/N`: any of that size.
    pub pool: Option<Prefix>,
    /// Only this part of it.
    pub range: Option<Prefix>,
    /// Whether any pool shall be one of IPv6.
    pub v6: bool,
}

/// Why a pool or an address of it was refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, thiserror::Error)]
pub enum PoolRefusal {
    /// The caller wrote the name of no space.
    #[error("{0:?} is no address space: `local` and `global` are")]
    NoSuchSpace(String),
    /// The caller wrote no pool's id.
    #[error("{0:?} is no pool's id: `global/10.0.0.0/16` is one")]
    BadId(String),
    /// The caller named a pool that is not there, or no longer.
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
    /// Every pool is in use: the caller must name one, or give others back.
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
    /// Every address is in use.
    #[error("no address of {0} is free")]
    NoMoreAddresses(Prefix),
}

impl From<AddressError> for PoolRefusal {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::InUse(address) => Self::AddressInUse(address),
            AddressError::OutOfRange { address, block } => Self::AddressOutside {
                address,
                pool: block,
            },
            AddressError::Exhausted(pool) => Self::NoMoreAddresses(pool),
        }
    }
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

/// One pool: whole, or in ranges.
#[derive(Clone, Debug, Default)]
struct Held {
    whole: Option<Block>,
    ranges: BTreeMap<Prefix, Block>,
    /// The ranges: follows from `ranges`.
    space: Space,
}

/// One space.
#[derive(Clone, Debug)]
pub struct AddressSpace {
    name: SpaceName,
    predefined: Vec<Pool>,
    taken: Space,
    pools: BTreeMap<Prefix, Held>,
}

impl AddressSpace {
    /// Makes a space whose unnamed pools come from `predefined`.
    pub fn new(name: SpaceName, predefined: Vec<Pool>) -> Self {
        let predefined = super::deduplicated(predefined);
        Self {
            name,
            predefined,
            taken: Space::default(),
            pools: BTreeMap::new(),
        }
    }

    /// Takes a pool. A named one is checked against this space only, an unnamed one avoids `reserved` too.
    pub fn request_pool(
        &mut self,
        request: PoolRequest,
        reserved: &Space,
    ) -> Result<PoolId, PoolRefusal> {
        let named = request.pool.filter(|pool| !pool.0.addr().is_unspecified());
        let id = |pool, range| PoolId {
            space: self.name,
            pool,
            range,
        };
        match (named, request.range) {
            (None, Some(range)) => Err(PoolRefusal::RangeAlone(range)),
            (Some(pool), Some(range)) if range.0.prefix_len() > pool.0.prefix_len() => {
                let (pool, range) = (checked(pool)?, checked(range)?);
                let id = id(pool, Some(range));
                self.take_range(pool, range)?;
                Ok(id)
            }
            // A range that is no smaller is the pool.
            (Some(pool), range) => {
                let pool = checked(range.unwrap_or(pool))?;
                let id = id(pool, None);
                self.taken
                    .take(pool)
                    .map_err(|Overlap { existing }| PoolRefusal::Overlap {
                        requested: pool,
                        existing,
                    })?;
                Ok(self.hold(id))
            }
            (None, None) => {
                let is_v6 = request
                    .pool
                    .map_or(request.v6, |pool| pool.0.addr().is_ipv6());
                let length = request.pool.map(|pool| pool.0.prefix_len());
                let mut pools = self.predefined.clone();
                pools.retain(|pool| pool.base.0.addr().is_ipv6() == is_v6);
                let found = self.taken.take_from(&pools, length, reserved);
                let pool = found.map_err(|error| match error {
                    PoolError::BadLength(length) => PoolRefusal::BadLength(length),
                    PoolError::Exhausted(length) => PoolRefusal::NoMorePools(length),
                })?;
                let id = PoolId {
                    space: self.name,
                    pool,
                    range: None,
                };
                Ok(self.hold(id))
            }
        }
    }

    /// Gives a pool back, with all addresses.
    pub fn release_pool(&mut self, id: PoolId) -> Result<(), PoolRefusal> {
        let missing = || PoolRefusal::NoSuchPool(id.to_string());
        self.block(id)?;
        let held = self.pools.get_mut(&id.pool).ok_or_else(missing)?;
        match id.range {
            None => held.whole = None,
            Some(range) => {
                held.ranges.remove(&range);
                held.space.release(range);
            }
        }
        if held.whole.is_none() && held.ranges.is_empty() {
            self.pools.remove(&id.pool);
            self.taken.release(id.pool);
        }
        Ok(())
    }

    /// Hands out an address: the one asked for, or the next.
    pub fn request_address(
        &mut self,
        id: PoolId,
        wanted: Option<IpAddr>,
        now: Instant,
    ) -> Result<Prefix, PoolRefusal> {
        let block = self.block(id)?;
        let address = match wanted {
            None => block.take(now)?,
            Some(address) => {
                block.claim(address)?;
                address
            }
        };
        let net = ipnet::IpNet::new(address, id.pool.0.prefix_len());
        net.map(Prefix)
            .map_err(|_too_long| PoolRefusal::AddressOutside {
                address,
                pool: id.pool,
            })
    }

    /// Gives an address back; returns whether it was in use.
    pub fn release_address(
        &mut self,
        id: PoolId,
        address: IpAddr,
        now: Instant,
    ) -> Result<bool, PoolRefusal> {
        Ok(self.block(id)?.release(address, now))
    }

    /// Sets an address aside that no endpoint may have: a gateway's, or one that something outside has.
    pub fn reserve(&mut self, id: PoolId, address: IpAddr) -> Result<(), PoolRefusal> {
        let block = self.block(id)?;
        if block.is_in_use(address) {
            return Err(PoolRefusal::AddressInUse(address));
        }
        if block.reserve(address) {
            return Ok(());
        }
        let pool = block.prefix();
        Err(PoolRefusal::AddressOutside { address, pool })
    }

    /// Returns how much of a pool is in use.
    pub fn utilisation(&mut self, id: PoolId) -> Result<Utilisation, PoolRefusal> {
        let block = self.block(id)?;
        Ok(Utilisation {
            in_use: block.in_use() as u128,
            capacity: block.capacity(),
        })
    }

    fn take_range(&mut self, pool: Prefix, range: Prefix) -> Result<(), PoolRefusal> {
        if !pool.0.contains(&range.0) {
            return Err(PoolRefusal::RangeOutside { range, pool });
        }
        let overlap = |requested| {
            move |Overlap { existing }| PoolRefusal::Overlap {
                requested,
                existing,
            }
        };
        if !self.pools.contains_key(&pool) {
            self.taken.take(pool).map_err(overlap(pool))?;
        }
        let held = self.pools.entry(pool).or_default();
        if held.whole.is_some() {
            return Err(overlap(range)(Overlap { existing: pool }));
        }
        held.space.take(range).map_err(overlap(range))?;
        held.ranges.insert(range, Block::new(range, pool, None));
        Ok(())
    }

    fn hold(&mut self, id: PoolId) -> PoolId {
        let held = self.pools.entry(id.pool).or_default();
        held.whole = Some(Block::new(id.pool, id.pool, None));
        id
    }

    fn block(&mut self, id: PoolId) -> Result<&mut Block, PoolRefusal> {
        let missing = || PoolRefusal::NoSuchPool(id.to_string());
        if id.space != self.name {
            return Err(missing());
        }
        let held = self.pools.get_mut(&id.pool).ok_or_else(missing)?;
        let block = match id.range {
            None => held.whole.as_mut(),
            Some(range) => held.ranges.get_mut(&range),
        };
        block.ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests;
