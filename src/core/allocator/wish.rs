//! A network as somebody wants it: all that `weft network create` can say.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use bincode::{Decode, Encode};
use ipnet::IpNet;

use super::{AllocatorError, SubnetRequest};
use crate::core::{
    ipam::{PoolRefusal, checked, is_usable},
    model::{Name, Prefix, Subnet},
};

/// How many prefixes that nodes route a proposal may name: those of a thousand nodes, or the widest of more.
pub const AVOIDED_MAX: usize = 4_096;

/// How many addresses of a subnet may be set aside.
pub const RESERVED_MAX: usize = 256;

/// A network that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct NetworkWish {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// Its driver.
    pub driver: Name,
    /// Options, passed to the driver unchanged; [`VXLANID_LIST`](super::VXLANID_LIST) is read here too.
    pub options: BTreeMap<String, String>,
    /// The subnets it shall have. None: one of the default pools with `vxlan`, else a network without addresses.
    pub subnets: Vec<SubnetWish>,
    /// Whether each subnet needs a VNI.
    pub vxlan: bool,
    /// Whether one of the subnets must be of IPv6.
    pub v6: bool,
    /// The prefixes that nodes route already: an unnamed subnet keeps clear of them, a named one may overlap them.
    pub avoid: Vec<Prefix>,
}

/// One subnet that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct SubnetWish {
    /// Which addresses, and whose is the gateway's.
    pub subnet: SubnetRequest,
    /// The part of it that addresses are handed out from; one that somebody names may be outside. Nothing: all of it.
    pub range: Option<Prefix>,
    /// Addresses that something outside has.
    pub reserved: Vec<IpAddr>,
}

impl From<SubnetRequest> for SubnetWish {
    fn from(subnet: SubnetRequest) -> Self {
        Self {
            subnet,
            ..Self::default()
        }
    }
}

impl NetworkWish {
    /// Returns the subnets to look for: what was asked for, and what goes without saying. One of IPv6 is of `usual` size then.
    pub(super) fn all_subnets(&self, usual: u8) -> Vec<SubnetWish> {
        let mut subnets = self.subnets.clone();
        if subnets.is_empty() && self.vxlan {
            subnets.push(SubnetWish::default());
        }
        let is_v6 = |wish: &SubnetWish| {
            let prefix = wish.subnet.prefix;
            prefix.is_some_and(|prefix| prefix.0.addr().is_ipv6())
        };
        if self.v6 && !subnets.iter().any(is_v6) {
            let any = IpNet::new(Ipv6Addr::UNSPECIFIED.into(), usual);
            subnets.push(SubnetWish::from(SubnetRequest {
                prefix: any.map(Prefix).ok(),
                gateway: None,
            }));
        }
        subnets
    }
}

impl SubnetWish {
    /// Returns whether the wish names a prefix, not only a size.
    pub(super) fn is_named(&self) -> bool {
        let prefix = self.subnet.prefix;
        prefix.is_some_and(|prefix| !prefix.0.addr().is_unspecified())
    }

    /// Checks that the range and the addresses set aside belong to the subnet that was found.
    pub(super) fn check(&self, found: &Subnet) -> Result<(), AllocatorError> {
        let pool = found.prefix;
        if let Some(range) = self.range {
            checked(range)?;
            if !pool.0.contains(&range.0) {
                return Err(PoolRefusal::RangeOutside { range, pool }.into());
            }
        }
        if self.reserved.len() > RESERVED_MAX {
            return Err(AllocatorError::TooLarge {
                len: self.reserved.len() as u64,
                limit: RESERVED_MAX as u64,
            });
        }
        let mut seen = vec![found.gateway];
        for address in self.reserved.iter().copied() {
            if !is_usable(pool, address) {
                return Err(PoolRefusal::AddressOutside { address, pool }.into());
            }
            if seen.contains(&address) {
                return Err(PoolRefusal::AddressInUse(address).into());
            }
            seen.push(address);
        }
        Ok(())
    }
}
