//! What a kernel holds for one network: links, forwarding entries, neighbours. Desired and actual have one shape.

use std::{collections::BTreeMap, net::IpAddr};

use crate::core::model::{EndpointId, Mac, Prefix, Vni, Vtep};

/// Which link it is; the data plane makes the name that the kernel sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LinkId {
    /// The bridge of a subnet.
    Bridge(Vni),
    /// The tunnel of a subnet, a port of its bridge.
    Vxlan(Vni),
    /// The pair of an endpoint, one side a port of its subnet's bridge.
    Endpoint(EndpointId),
}

/// What a link is like. A link that differs is made anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// A bridge that carries the gateway's address, the same on every node.
    Bridge {
        /// The gateway's address with the subnet's prefix length.
        gateway: Prefix,
        /// Its MTU.
        mtu: u32,
    },
    /// A VXLAN link that learns nothing: its forwarding entries and neighbours are all static.
    Vxlan {
        /// The UDP port on the underlay.
        port: u16,
        /// Its MTU.
        mtu: u32,
    },
    /// The pair that ends in a sandbox.
    Endpoint {
        /// The subnet's VNI.
        vni: Vni,
        /// The MAC address inside the sandbox.
        mac: Mac,
        /// The address inside the sandbox with the subnet's prefix length.
        address: Prefix,
        /// Its MTU.
        mtu: u32,
    },
}

/// The links, forwarding entries and neighbours of one network on one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plane {
    /// The links.
    pub links: BTreeMap<LinkId, Link>,
    /// The FDB: behind which node a MAC address is.
    pub fdb: BTreeMap<(Vni, Mac), Vtep>,
    /// The neighbours: which MAC address an address has.
    pub neighbours: BTreeMap<(Vni, IpAddr), Mac>,
}
