//! What a kernel holds for one network: links, forwarding entries, neighbours, guards. Desired and actual have one shape.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::core::model::{EndpointId, Mac, Prefix, Vni, Vtep};

/// Which link it is; the data plane makes the name that the kernel sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LinkId {
    /// The bridge of a network, named after the network's first tunnel.
    Bridge(Vni),
    /// The tunnel of a subnet, a port of the network's bridge.
    Vxlan(Vni),
    /// The pair of an endpoint, one side a port of the network's bridge.
    Endpoint(EndpointId),
}

/// What a link is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Link {
    /// A bridge that carries the gateway's address of every subnet, the same on every node.
    Bridge {
        /// The gateways' addresses with their subnets' prefix lengths.
        gateways: BTreeSet<Prefix>,
        /// Its MTU.
        mtu: u32,
    },
    /// A VXLAN link that learns nothing: its forwarding entries and neighbours are all static.
    Vxlan {
        /// The bridge that it is a port of.
        bridge: Vni,
        /// The UDP port on the underlay.
        port: u16,
        /// The address that its packets come from; unspecified: the kernel chooses one of that family.
        source: IpAddr,
        /// Its MTU.
        mtu: u32,
    },
    /// The pair that ends in a sandbox.
    Endpoint {
        /// The bridge that it is a port of.
        bridge: Vni,
        /// The MAC address inside the sandbox.
        mac: Mac,
        /// The addresses inside the sandbox with their subnets' prefix lengths.
        addresses: Vec<Prefix>,
        /// Its MTU.
        mtu: u32,
    },
}

impl Link {
    /// Returns its MTU.
    pub fn mtu(&self) -> u32 {
        match self {
            Self::Bridge { mtu, .. } | Self::Vxlan { mtu, .. } | Self::Endpoint { mtu, .. } => *mtu,
        }
    }

    /// Returns the same link with another MTU.
    #[must_use]
    pub fn with_mtu(mut self, wanted: u32) -> Self {
        match &mut self {
            Self::Bridge { mtu, .. } | Self::Vxlan { mtu, .. } | Self::Endpoint { mtu, .. } => {
                *mtu = wanted;
            }
        }
        self
    }

    /// Returns whether it can be turned into `other` where it is: a sandbox keeps the link that it has.
    pub fn can_become(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bridge { .. }, Self::Bridge { .. }) => true,
            (
                Self::Vxlan { port, source, .. },
                Self::Vxlan {
                    port: to,
                    source: from,
                    ..
                },
            ) => (port, source) == (to, from),
            (
                Self::Endpoint { mac, addresses, .. },
                Self::Endpoint {
                    mac: as_mac,
                    addresses: at,
                    ..
                },
            ) => (mac, addresses) == (as_mac, at),
            (Self::Bridge { .. } | Self::Vxlan { .. } | Self::Endpoint { .. }, _) => false,
        }
    }

    /// Returns the bridge that it must be a port of.
    pub fn port_of(&self) -> Option<Vni> {
        match self {
            Self::Endpoint { bridge, .. } | Self::Vxlan { bridge, .. } => Some(*bridge),
            Self::Bridge { .. } => None,
        }
    }
}

/// Who may send a subnet's packets through the tunnel: anybody else's are dropped before they are unwrapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// The UDP port on the underlay.
    pub port: u16,
    /// The nodes that carry endpoints of the network.
    pub members: BTreeSet<Vtep>,
}

/// The links, forwarding entries, neighbours and guards of one network on one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plane {
    /// The links.
    pub links: BTreeMap<LinkId, Link>,
    /// The links that are there and not as they were made: down, in no bridge, without their address. None is desired.
    pub amiss: BTreeSet<LinkId>,
    /// The FDB: behind which node a MAC address is.
    pub fdb: BTreeMap<(Vni, Mac), Vtep>,
    /// The neighbours: which MAC address an address has.
    pub neighbours: BTreeMap<(Vni, IpAddr), Mac>,
    /// Whose packets each tunnel takes.
    pub guards: BTreeMap<Vni, Guard>,
}
