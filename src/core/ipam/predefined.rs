//! The pools that unnamed prefixes come from, unless somebody configures others: libnetwork's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Pool, Space};
use crate::core::model::Prefix;

/// Returns the pools of the local space: 31 prefixes, 15 of length 16 and 16 of length 20.
pub fn local_pools() -> Vec<Pool> {
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
pub fn global_pool() -> Pool {
    v4([10, 0, 0, 0], 8, 24)
}

/// Returns the pool of unique local addresses of a site: fd and 40 bits that others hardly share (RFC 4193 §3.2.1), in /64s.
pub fn site_pool(bits: u64) -> Pool {
    let site = (0xfd << 120) | (u128::from(bits & 0x00ff_ffff_ffff) << 80);
    pool(Ipv6Addr::from_bits(site).into(), 48, 64)
}

/// Returns the pools by address, without those that a pool before them overlaps.
pub fn deduplicated(mut pools: Vec<Pool>) -> Vec<Pool> {
    pools.sort_by_key(|pool| {
        let net = pool.base.0;
        (net.trunc().addr(), net.prefix_len(), pool.length)
    });
    let mut seen = Space::default();
    pools.retain(|pool| seen.take(pool.base).is_ok());
    pools
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

    fn count(pools: &[Pool]) -> u64 {
        pools
            .iter()
            .map(|pool| 1 << (pool.length - pool.base.0.prefix_len()))
            .sum()
    }

    #[test]
    fn there_are_31_local_and_65536_global_prefixes() {
        assert_eq!(count(&local_pools()), 31);
        assert_eq!(count(&[global_pool()]), 65_536);
        assert_eq!(deduplicated(local_pools()), local_pools());
    }

    #[test]
    fn a_pool_that_an_earlier_one_overlaps_is_dropped() {
        let named = |text: &str, length| Pool {
            base: Prefix(text.parse().unwrap()),
            length,
        };
        let pools = vec![
            named("192.168.0.0/24", 24),
            named("10.0.0.0/8", 24),
            named("10.0.0.0/8", 16),
            named("10.10.0.0/8", 24),
            named("10.0.100.0/8", 24),
        ];

        let kept = deduplicated(pools);

        assert_eq!(kept, [named("10.0.0.0/8", 16), named("192.168.0.0/24", 24)]);
    }

    #[test]
    fn a_sites_pool_has_its_forty_bits() {
        let pool = site_pool(0xff01_2345_6789);

        assert_eq!(pool.base.to_string(), "fd01:2345:6789::/48");
        assert_eq!(pool.length, 64);
    }
}
