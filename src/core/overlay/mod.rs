//! Overlay: what this node's kernel should hold for one network, computed from its own endpoints and everybody's peer records.
//!
//! Pure and level-triggered: news only changes what is known, [`Overlay::desired`] is computed from the whole of it, and
//! the data plane applies the difference. So the order of news does not matter, and neither does hearing it twice.
//!
//! **Invariant:** nothing is desired while no endpoint of this node has joined. The first join makes all of it desired,
//! peers that were heard of long before included; the last leave makes none of it.

mod plane;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use plane::{Link, LinkId, Plane};

use super::model::{EndpointId, Mac, PeerRecord, Prefix, Subnet, Vni, Vtep};

/// How a network's tunnels are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The UDP port of VXLAN on the underlay.
    pub port: u16,
    /// The MTU of every link inside the network.
    pub mtu: u32,
}

impl Settings {
    /// What VXLAN adds to a packet over IPv4: outer Ethernet, IP, UDP and VXLAN headers (RFC 7348 §5).
    pub const OVERHEAD: u32 = 50;
    /// The smallest MTU every IPv6 link must carry (RFC 8200 §5).
    pub const MTU_MIN: u32 = 1280;
    /// The largest MTU of an Ethernet-like link.
    pub const MTU_MAX: u32 = 65_535 - Self::OVERHEAD;
}

impl Default for Settings {
    /// IANA's VXLAN port, and an underlay of 1,500 bytes.
    fn default() -> Self {
        Self {
            port: 4789,
            mtu: 1500 - Self::OVERHEAD,
        }
    }
}

/// An endpoint of this node that has joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// Its address with the subnet's prefix length.
    pub address: Prefix,
    /// Its MAC address.
    pub mac: Mac,
}

/// Why a peer record cannot be programmed. Its owner wrote it; the others are not touched by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerError {
    /// Packets cannot be sent to the tunnel end.
    #[error("{0} cannot be the end of a tunnel")]
    Vtep(IpAddr),
    /// The MAC address names a group or nobody.
    #[error("{0} is not the MAC address of one endpoint")]
    Mac(Mac),
    /// The address names a group or nobody.
    #[error("{0} is not the address of one endpoint")]
    Address(IpAddr),
}

/// Checks that a record names one endpoint behind one node.
pub fn check_peer(peer: &PeerRecord) -> Result<(), PeerError> {
    let one = |ip: IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    let [first, ..] = peer.mac.0;
    if !one(peer.vtep.0) {
        return Err(PeerError::Vtep(peer.vtep.0));
    }
    if peer.mac.0 == [0; 6] || first & 1 == 1 {
        return Err(PeerError::Mac(peer.mac));
    }
    if !one(peer.address.0.addr()) {
        return Err(PeerError::Address(peer.address.0.addr()));
    }
    Ok(())
}

/// One network on one node.
#[derive(Clone, Debug)]
pub struct Overlay {
    vtep: Vtep,
    settings: Settings,
    subnets: Vec<Subnet>,
    peers: BTreeMap<EndpointId, PeerRecord>,
    locals: BTreeMap<EndpointId, Local>,
}

impl Overlay {
    /// Starts with neither peers nor endpoints. `vtep` is this node's own tunnel end.
    pub fn new(vtep: Vtep, settings: Settings, subnets: Vec<Subnet>) -> Self {
        Self {
            vtep,
            settings,
            subnets,
            peers: BTreeMap::new(),
            locals: BTreeMap::new(),
        }
    }

    /// Takes what another node says of its endpoint; nothing when it is gone.
    pub fn handle_peer(&mut self, endpoint: EndpointId, peer: Option<PeerRecord>) {
        match peer {
            Some(peer) => self.peers.insert(endpoint, peer),
            None => self.peers.remove(&endpoint),
        };
    }

    /// Takes that an endpoint of this node has joined.
    pub fn handle_join(&mut self, endpoint: EndpointId, local: Local) {
        self.locals.insert(endpoint, local);
    }

    /// Takes that an endpoint of this node has left.
    pub fn handle_leave(&mut self, endpoint: EndpointId) {
        self.locals.remove(&endpoint);
    }

    /// Returns whether the endpoint is this node's and has joined.
    pub fn has_joined(&self, endpoint: EndpointId) -> bool {
        self.locals.contains_key(&endpoint)
    }

    /// Returns this node's tunnel end.
    pub fn vtep(&self) -> Vtep {
        self.vtep
    }

    /// Returns the other nodes' endpoints.
    pub fn peers(&self) -> impl Iterator<Item = (EndpointId, &PeerRecord)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }

    /// Returns the subnet an address belongs to.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets
            .iter()
            .find(|subnet| subnet.prefix.0.contains(&address))
    }

    /// Returns what the kernel should hold.
    ///
    /// An address or a MAC that two endpoints claim belongs to the smaller endpoint id, the same on every node, until
    /// that one goes; an endpoint of this node comes before every peer.
    pub fn desired(&self) -> Plane {
        let mut plane = Plane::default();
        if self.locals.is_empty() {
            return plane;
        }
        self.add_tunnels(&mut plane);
        let taken = self.add_locals(&mut plane);
        for (vni, peer) in self.reachable() {
            let place = (vni, peer.address.0.addr());
            let port = (vni, peer.mac);
            let held = taken.contains(&peer.address.0.addr())
                || plane.neighbours.contains_key(&place)
                || plane.fdb.contains_key(&port);
            if !held {
                plane.neighbours.insert(place, peer.mac);
                plane.fdb.insert(port, peer.vtep);
            }
        }
        plane
    }

    fn add_tunnels(&self, plane: &mut Plane) {
        let Settings { port, mtu } = self.settings;
        for subnet in &self.subnets {
            let Some(vni) = subnet.vni else { continue };
            let gateway = gateway_of(subnet);
            plane
                .links
                .insert(LinkId::Bridge(vni), Link::Bridge { gateway, mtu });
            plane
                .links
                .insert(LinkId::Vxlan(vni), Link::Vxlan { port, mtu });
        }
    }

    fn add_locals(&self, plane: &mut Plane) -> BTreeSet<IpAddr> {
        for (endpoint, local) in &self.locals {
            let Some(vni) = self.vni_of(local.address.0.addr()) else {
                continue;
            };
            let link = Link::Endpoint {
                vni,
                mac: local.mac,
                address: local.address,
                mtu: self.settings.mtu,
            };
            plane.links.insert(LinkId::Endpoint(*endpoint), link);
        }
        let addresses = self.locals.values().map(|local| local.address.0.addr());
        addresses.collect()
    }

    /// The peers on other nodes whose subnet has a tunnel, by endpoint id.
    fn reachable(&self) -> impl Iterator<Item = (Vni, &PeerRecord)> {
        self.peers
            .iter()
            .filter(|(id, peer)| peer.vtep != self.vtep && !self.locals.contains_key(id))
            .filter_map(|(_, peer)| Some((self.vni_of(peer.address.0.addr())?, peer)))
    }

    fn vni_of(&self, address: IpAddr) -> Option<Vni> {
        self.subnet_of(address)?.vni
    }
}

fn gateway_of(subnet: &Subnet) -> Prefix {
    let length = subnet.prefix.0.prefix_len();
    let gateway = ipnet::IpNet::new(subnet.gateway, length).unwrap_or(subnet.prefix.0);
    Prefix(gateway)
}

#[cfg(test)]
mod tests;
