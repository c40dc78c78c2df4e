//! The default pools: what prefixes come from that nobody named. libnetwork's, unless somebody configures others.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use bincode::{Decode, Encode};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Overlap, Pool, PoolRefusal, Space, checked};
use crate::core::model::Prefix;

/// How many default pools of one space may be configured.
pub const POOLS_MAX: usize = 64;

/// Whose networks a default pool is for.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum SpaceName {
    /// Those whose driver carries no data from node to node.
    Local,
    /// Those that reach all nodes.
    #[default]
    Global,
}

impl SpaceName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Local, Self::Global];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SpaceName {
    type Err = PoolRefusal;

    fn from_str(text: &str) -> Result<Self, PoolRefusal> {
        let named = Self::ALL.into_iter().find(|space| space.as_str() == text);
        named.ok_or_else(|| PoolRefusal::NoSuchSpace(text.chars().take(64).collect()))
    }
}

/// The default pools that somebody configured. A space and a family of which none are has those that are built in.
///
/// **Invariant:** once checked, each pool is a prefix as it is meant that can be cut as it says, and none of a space overlaps
/// another one of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct DefaultPools {
    /// Of networks whose driver carries no data from node to node.
    pub local: Vec<Pool>,
    /// Of networks that reach all nodes.
    pub global: Vec<Pool>,
}

impl DefaultPools {
    /// Returns the pools if they can be: nothing is mended in silence.
    pub fn check(&self) -> Result<(), PoolRefusal> {
        for space in SpaceName::ALL {
            check(self.configured(space))?;
        }
        Ok(())
    }

    /// Returns what was configured for a space, of both families.
    pub fn configured(&self, space: SpaceName) -> &[Pool] {
        match space {
            SpaceName::Local => &self.local,
            SpaceName::Global => &self.global,
        }
    }

    /// Adds a pool, after those there are.
    pub fn add(&mut self, space: SpaceName, pool: Pool) {
        match space {
            SpaceName::Local => self.local.push(pool),
            SpaceName::Global => self.global.push(pool),
        }
    }

    /// Returns the pools that prefixes of a space and a family come from, in their order, and whether they were configured.
    pub fn of(&self, space: SpaceName, v6: bool, site: Pool) -> (Vec<Pool>, bool) {
        let of_family = |pool: &&Pool| pool.base.0.addr().is_ipv6() == v6;
        let configured = self.configured(space).iter().filter(of_family);
        let configured: Vec<Pool> = configured.copied().collect();
        if !configured.is_empty() {
            return (configured, true);
        }
        let built_in = match (v6, space) {
            (true, _) => vec![site],
            (false, SpaceName::Local) => local_pools(),
            (false, SpaceName::Global) => vec![global_pool()],
        };
        (built_in, false)
    }
}

fn check(pools: &[Pool]) -> Result<(), PoolRefusal> {
    if pools.len() > POOLS_MAX {
        return Err(PoolRefusal::TooManyPools {
            asked: pools.len() as u64,
            limit: POOLS_MAX as u64,
        });
    }
    let mut space = Space::default();
    for Pool { base, length } in pools.iter().copied() {
        checked(base)?;
        // A piece holds a gateway and an endpoint.
        let longest = base.0.max_prefix_len() - 1;
        if !(base.0.prefix_len()..=longest).contains(&length) {
            return Err(PoolRefusal::BadPieces {
                base,
                length,
                longest,
            });
        }
        let taken = space.take(base);
        taken.map_err(|Overlap { existing }| PoolRefusal::Overlap {
            requested: base,
            existing,
        })?;
    }
    Ok(())
}

/// Returns the pools of the local space: 31 prefixes, 15 of length 16 and 16 of length 20.
fn local_pools() -> Vec<Pool> {
    vec![
        v4([172, 17, 0, 0], 16, 16),
        v4([172, 18, 0, 0], 16, 16),
        v4([172, 19, 0, 0], 16, 16),
        v4([172, 20, 0, 0], 14, 16),
        v4([172, 24, 0, 0], 14, 16),
        v4([172, 28, 0, 0], 14, 16),
        v4([192, 168, 0, 0], 16, 20),
    ]
}

/// Returns the pool of the global space: 65,536 prefixes of length 24.
fn global_pool() -> Pool {
    v4([10, 0, 0, 0], 8, 24)
}

/// Returns the pool of unique local addresses of a site: fd and 40 bits that others hardly share (RFC 4193 §3.2.1), in /64s.
pub fn site_pool(bits: u64) -> Pool {
    let site = (0xfd << 120) | (u128::from(bits & 0x00ff_ffff_ffff) << 80);
    pool(Ipv6Addr::from_bits(site).into(), 48, 64)
}

fn v4(octets: [u8; 4], base: u8, length: u8) -> Pool {
    pool(Ipv4Addr::from(octets).into(), base, length)
}

fn pool(address: IpAddr, base: u8, length: u8) -> Pool {
    let net = IpNet::new(address, base).expect("a constant within the family's length");
    Pool {
        base: Prefix(net),
        length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, length: u8) -> Pool {
        Pool {
            base: Prefix(text.parse().unwrap()),
            length,
        }
    }

    fn count(pools: &[Pool]) -> u64 {
        pools
            .iter()
            .map(|pool| 1 << (pool.length - pool.base.0.prefix_len()))
            .sum()
    }

    #[test]
    fn there_are_31_local_and_65536_global_prefixes() {
        let (pools, site) = (DefaultPools::default(), site_pool(1));

        let (local, global) = (
            pools.of(SpaceName::Local, false, site),
            pools.of(SpaceName::Global, false, site),
        );

        assert_eq!((count(&local.0), local.1), (31, false));
        assert_eq!((count(&global.0), global.1), (65_536, false));
        let all = DefaultPools {
            local: local.0,
            global: global.0,
        };
        assert_eq!(all.check(), Ok(()));
    }

    #[test]
    fn what_is_configured_of_a_family_replaces_what_is_built_in_of_it_and_nothing_else() {
        let site = site_pool(1);
        let mut pools = DefaultPools::default();
        pools.add(SpaceName::Global, named("10.10.0.0/16", 25));

        assert_eq!(
            pools.of(SpaceName::Global, false, site),
            (vec![named("10.10.0.0/16", 25)], true)
        );
        assert_eq!(pools.of(SpaceName::Global, true, site), (vec![site], false));
        let local = pools.of(SpaceName::Local, false, site);
        assert_eq!((count(&local.0), local.1), (31, false));
    }

    #[test]
    fn pools_that_cannot_be_are_refused_for_what_is_wrong_with_them() {
        let prefix = |text: &str| Prefix(text.parse().unwrap());
        let pieces = |base: &str, length, longest| PoolRefusal::BadPieces {
            base: prefix(base),
            length,
            longest,
        };
        let one = |base: &str, length| vec![named(base, length)];
        let cases = [
            (one("10.0.0.0/16", 15), pieces("10.0.0.0/16", 15, 31)),
            (one("10.0.0.0/16", 32), pieces("10.0.0.0/16", 32, 31)),
            (one("fd00::/48", 128), pieces("fd00::/48", 128, 127)),
            (
                one("10.0.0.1/16", 24),
                PoolRefusal::HostBits {
                    asked: prefix("10.0.0.1/16"),
                    meant: prefix("10.0.0.0/16"),
                },
            ),
            (
                one("0.0.0.0/0", 24),
                PoolRefusal::ZeroLength(prefix("0.0.0.0/0")),
            ),
            (
                one("::ffff:10.0.0.0/112", 120),
                PoolRefusal::Mapped(prefix("::ffff:10.0.0.0/112")),
            ),
            (
                vec![
                    named("192.168.0.0/16", 24),
                    named("10.0.0.0/8", 24),
                    named("10.9.0.0/16", 24),
                ],
                PoolRefusal::Overlap {
                    requested: prefix("10.9.0.0/16"),
                    existing: prefix("10.0.0.0/8"),
                },
            ),
            (
                vec![named("10.0.0.0/8", 24); POOLS_MAX + 1],
                PoolRefusal::TooManyPools {
                    asked: 65,
                    limit: 64,
                },
            ),
        ];
        for (pools, wanted) in cases {
            let mut both = DefaultPools::default();
            both.local.clone_from(&pools);
            assert_eq!(both.check(), Err(wanted.clone()), "{pools:?}");
            both.global = std::mem::take(&mut both.local);
            assert_eq!(both.check(), Err(wanted), "{pools:?}");
        }
        let spaces_apart = DefaultPools {
            local: one("10.0.0.0/8", 16),
            global: one("10.9.0.0/16", 31),
        };
        assert_eq!(spaces_apart.check(), Ok(()));
    }

    #[test]
    fn a_space_survives_its_word() {
        for space in SpaceName::ALL {
            assert_eq!(space.to_string().parse(), Ok(space));
        }
        let refused = "default".parse::<SpaceName>();
        assert_eq!(refused, Err(PoolRefusal::NoSuchSpace("default".to_owned())));
    }

    #[test]
    fn a_sites_pool_has_its_forty_bits() {
        let pool = site_pool(0xff01_2345_6789);

        assert_eq!(pool.base.to_string(), "fd01:2345:6789::/48");
        assert_eq!(pool.length, 64);
    }
}
