//! Pools and addresses, pure: which prefix is free in a space, which address in a block.
//!
//! **Invariants:** the prefixes of a [`Space`] never overlap; an address is handed out once until it is released; a block that
//! was given back is used again only under a newer lease. Source: libnetwork's default IPAM and its test vectors, but for:
//!
//! - a pool of length 0 is refused, where libnetwork takes `::/0` for a wish of that size: nothing else would fit beside it;
//! - a subnet is one network's, with at most one range to hand out from, where libnetwork lets several networks share it by
//!   ranges;
//! - default pools that overlap are refused, where libnetwork drops one of them in silence;
//! - a released address rests, where libnetwork may hand it out at once.

mod block;
mod hand;
mod offsets;
mod pools;
mod predefined;
mod rest;
mod space;

pub use block::{AddressError, Block, COOL_DOWN};
pub use hand::{Fresh, Hand, Lease, NoAddress};
pub use pools::{LOW_FROM, PoolRefusal, Utilisation, checked};
pub use predefined::{DefaultPools, POOLS_MAX, SpaceName, site_pool};
pub use rest::{RESTING_MAX, Rest};
pub use space::{Overlap, Pool, PoolError, Space};

use std::net::IpAddr;

use ipnet::IpNet;

use super::model::Prefix;

/// Returns whether `address` is one an endpoint or a gateway may have in `subnet`.
///
/// A subnet's first address (network, or subnet-router anycast: RFC 4291 §2.6.1) and, of IPv4, its last one (broadcast)
/// are not; a /31 has neither (RFC 3021), and so has a prefix of one address.
pub fn is_usable(subnet: Prefix, address: IpAddr) -> bool {
    let net = subnet.0;
    if !net.contains(&address) {
        return false;
    }
    match net {
        IpNet::V4(v4) => {
            v4.prefix_len() >= 31 || (address != v4.network() && address != v4.broadcast())
        }
        IpNet::V6(v6) => v6.prefix_len() == 128 || address != v6.network(),
    }
}

/// Returns the first usable address of `subnet`: the gateway, unless somebody names another.
pub fn first_usable(subnet: Prefix) -> IpAddr {
    let net = subnet.0.trunc();
    let first = net.network();
    if is_usable(subnet, first) {
        first
    } else {
        add(first, 1).unwrap_or(first)
    }
}

/// Returns the address `step` after `address`, in its family.
fn add(address: IpAddr, step: u128) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let step = u32::try_from(step).ok()?;
            Some(IpAddr::V4(v4.to_bits().checked_add(step)?.into()))
        }
        IpAddr::V6(v6) => Some(IpAddr::V6(v6.to_bits().checked_add(step)?.into())),
    }
}

/// Returns how far `address` is after `base`, which is of the same family and not after it.
fn offset(base: IpAddr, address: IpAddr) -> Option<u128> {
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            Some(u128::from(address.to_bits().checked_sub(base.to_bits())?))
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => address.to_bits().checked_sub(base.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}
