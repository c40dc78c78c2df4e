//! Overlay: what this node's kernel should hold for one network, computed from its own endpoints and everybody's peer records.
//!
//! Pure and level-triggered: news only changes what is known, [`Overlay::desired`] is computed from the whole of it, and
//! the data plane applies the difference. So the order of news does not matter, and neither does hearing it twice.
//!
//! **Invariant:** nothing is desired while no endpoint of this node has joined. The first join makes all of it desired,
//! peers that were heard of long before included; the last leave makes none of it. The one exception is what a former run
//! has left in the kernel ([`Overlay::adopt`]): it stays, and carries packets, until all has been told again.

mod compare;
mod plane;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

pub use compare::{Compared, Kind, compare};
pub use plane::{Guard, Link, LinkId, Plane};

use super::model::{EndpointId, Mac, PeerRecord, Prefix, Subnet, Vni, Vtep};

/// How a network's tunnels are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The UDP port of VXLAN on the underlay.
    pub port: u16,
    /// The MTU of every link inside the network.
    pub mtu: u32,
    /// The address that tunnelled packets come from; unspecified: the kernel chooses.
    pub source: IpAddr,
}

impl Settings {
    /// IANA's port for VXLAN.
    pub const PORT: u16 = 4789;
    /// What VXLAN adds to a packet over IPv4: inner Ethernet, IP, UDP and VXLAN headers (RFC 7348 §5).
    pub const OVERHEAD: u32 = 50;
    /// The same over IPv6, whose header is 20 bytes longer.
    pub const OVERHEAD_V6: u32 = 70;
    /// The smallest MTU every IPv6 link must carry (RFC 8200 §5).
    pub const MTU_MIN: u32 = 1280;
    /// The largest MTU of an Ethernet-like link.
    pub const MTU_MAX: u32 = 65_535 - Self::OVERHEAD;
    /// The ports that a user may choose: none that needs root, none that a host gives to whoever asks for any (RFC 6335 §6).
    const PORTS: RangeInclusive<u16> = 1_024..=49_151;

    /// Reads the port of VXLAN that a user chose, as Docker does: 0 is IANA's. Nothing: it cannot be one.
    pub fn read_port(text: &str) -> Option<u16> {
        match text.parse().ok()? {
            0 => Some(Self::PORT),
            port => Self::PORTS.contains(&port).then_some(port),
        }
    }
}

impl Default for Settings {
    /// IANA's VXLAN port, and an underlay of 1,500 bytes.
    fn default() -> Self {
        Self {
            port: Self::PORT,
            mtu: Underlay::MTU - Self::OVERHEAD,
            source: Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// What carries the tunnels: this node's address among the others', and the interface that has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Underlay {
    /// Where tunnels to this node end.
    pub vtep: Vtep,
    /// Whether an interface of this node has that address. It has not behind a translator of addresses.
    pub is_own: bool,
    /// The MTU of that interface.
    pub mtu: u32,
}

impl Underlay {
    /// Ethernet's MTU.
    pub const MTU: u32 = 1500;

    /// Returns an underlay of which only the address is known.
    pub fn assumed(vtep: Vtep) -> Self {
        Self {
            vtep,
            is_own: false,
            mtu: Self::MTU,
        }
    }

    /// Returns how tunnels are made over it.
    pub fn settings(&self) -> Settings {
        let (overhead, any) = match self.vtep.0 {
            IpAddr::V4(_) => (Settings::OVERHEAD, Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => (Settings::OVERHEAD_V6, Ipv6Addr::UNSPECIFIED.into()),
        };
        Settings {
            port: Settings::PORT,
            mtu: self.mtu.saturating_sub(overhead).min(Settings::MTU_MAX),
            source: if self.is_own { self.vtep.0 } else { any },
        }
    }
}

/// An endpoint of this node that has joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// Its addresses, of either family, each with its subnet's prefix length.
    pub addresses: Vec<Prefix>,
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
    match peer.addresses().find(|ip| !one(*ip)) {
        Some(ip) => Err(PeerError::Address(ip)),
        None => Ok(()),
    }
}

/// Addresses of endpoints that nobody else gets.
struct Taken {
    addresses: BTreeSet<IpAddr>,
    macs: BTreeSet<Mac>,
}

/// One network on one node.
#[derive(Clone, Debug)]
pub struct Overlay {
    vtep: Vtep,
    settings: Settings,
    subnets: Vec<Subnet>,
    peers: BTreeMap<EndpointId, PeerRecord>,
    locals: BTreeMap<EndpointId, Local>,
    /// What a former run has left, without what has been told of since.
    adopted: Plane,
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
            adopted: Plane::default(),
        }
    }

    /// Takes what a former run of this node has left in the kernel. It is desired until [`Self::settle`], or until what
    /// was told since says otherwise: a node that starts again must not cut off whom it has not heard of yet.
    pub fn adopt(&mut self, left: Plane) {
        self.adopted = left;
        self.adopted.amiss.clear();
        for endpoint in self.locals.keys() {
            self.adopted.links.remove(&LinkId::Endpoint(*endpoint));
        }
        for peer in self.peers.values().cloned().collect::<Vec<_>>() {
            self.supersede(&peer);
        }
    }

    /// Takes that all has been told: what a former run has left and nobody spoke of is stale.
    pub fn settle(&mut self) {
        self.adopted = Plane::default();
    }

    /// Takes what another node says of its endpoint; nothing when it is gone.
    pub fn handle_peer(&mut self, endpoint: EndpointId, peer: Option<PeerRecord>) {
        let before = match &peer {
            Some(peer) => self.peers.insert(endpoint, peer.clone()),
            None => self.peers.remove(&endpoint),
        };
        for told in before.iter().chain(&peer) {
            self.supersede(told);
        }
    }

    /// Takes that an endpoint of this node has joined.
    pub fn handle_join(&mut self, endpoint: EndpointId, local: Local) {
        self.locals.insert(endpoint, local);
        self.adopted.links.remove(&LinkId::Endpoint(endpoint));
    }

    /// Takes that an endpoint of this node has left.
    pub fn handle_leave(&mut self, endpoint: EndpointId) {
        self.locals.remove(&endpoint);
        self.adopted.links.remove(&LinkId::Endpoint(endpoint));
    }

    /// Forgets what was adopted of a peer that has been told of: from now on its record counts.
    fn supersede(&mut self, peer: &PeerRecord) {
        for vni in self.subnets.iter().filter_map(|subnet| subnet.vni) {
            self.adopted.fdb.remove(&(vni, peer.mac));
            for address in peer.addresses() {
                self.adopted.neighbours.remove(&(vni, address));
            }
        }
    }

    /// Takes that tunnels are made another way from now on: the underlay has changed.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
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
    /// that one goes; an endpoint of this node comes before every peer. All that there is of a peer is in one tunnel, that
    /// of its first address: the bridge knows one way to a MAC address.
    pub fn desired(&self) -> Plane {
        let mut plane = self.remaining();
        if self.locals.is_empty() && plane.links.is_empty() {
            return plane;
        }
        let Some(bridge) = self.add_tunnels(&mut plane) else {
            return plane;
        };
        self.add_locals(bridge, &mut plane);
        let mut taken = self.taken(&plane);
        for (vni, peer) in self.reachable() {
            if taken.macs.contains(&peer.mac) {
                continue;
            }
            let in_network = peer.addresses().filter(|ip| self.vni_of(*ip).is_some());
            for address in in_network {
                if taken.addresses.insert(address) {
                    plane.neighbours.insert((vni, address), peer.mac);
                    plane.fdb.insert((vni, peer.mac), peer.vtep);
                    taken.macs.insert(peer.mac);
                }
            }
        }
        self.add_guards(&mut plane);
        plane
    }

    /// Whose addresses are settled before any peer is looked at: ours, and those that a former run has left.
    fn taken(&self, plane: &Plane) -> Taken {
        let own = self.locals.values().flat_map(|local| &local.addresses);
        let own = own.map(|prefix| prefix.0.addr());
        let left = plane.neighbours.keys().map(|(_, address)| *address);
        let macs = self.locals.values().map(|local| local.mac);
        Taken {
            addresses: own.chain(left).collect(),
            macs: macs.chain(plane.fdb.keys().map(|(_, mac)| *mac)).collect(),
        }
    }

    /// What was adopted and is still of use: nothing once it has no endpoint left.
    fn remaining(&self) -> Plane {
        let is_endpoint = |id: &LinkId| matches!(id, LinkId::Endpoint(_));
        let has_endpoint = self.adopted.links.keys().any(is_endpoint);
        if !has_endpoint && self.locals.is_empty() {
            return Plane::default();
        }
        let mut plane = self.adopted.clone();
        plane.guards.clear();
        let own = self.locals.values().flat_map(|local| &local.addresses);
        let own: BTreeSet<IpAddr> = own.map(|prefix| prefix.0.addr()).collect();
        plane.neighbours.retain(|(_, of), _| !own.contains(of));
        plane
    }

    /// Who is sent packets may send some, through every tunnel of the network: between its subnets, the sender's node
    /// routes. A network of which nobody else is known takes none.
    fn add_guards(&self, plane: &mut Plane) {
        let members: BTreeSet<Vtep> = plane.fdb.values().copied().collect();
        let tunnels = plane
            .links
            .iter()
            .filter_map(|(id, link)| match (id, link) {
                (LinkId::Vxlan(vni), Link::Vxlan { port, .. }) => Some((*vni, *port)),
                (LinkId::Bridge(_) | LinkId::Vxlan(_) | LinkId::Endpoint(_), _) => None,
            });
        let guards = tunnels.map(|(vni, port)| {
            let members = members.clone();
            (vni, Guard { port, members })
        });
        plane.guards = guards.collect();
    }

    /// Adds the bridge and the tunnels, and returns which bridge.
    fn add_tunnels(&self, plane: &mut Plane) -> Option<Vni> {
        let Settings { port, mtu, source } = self.settings;
        let with_tunnel = self.subnets.iter().filter(|subnet| subnet.vni.is_some());
        let gateways = with_tunnel.map(gateway_of).collect();
        let bridge = self.subnets.iter().find_map(|subnet| subnet.vni)?;
        let whole = Link::Bridge { gateways, mtu };
        plane.links.insert(LinkId::Bridge(bridge), whole);
        let tunnel = Link::Vxlan {
            bridge,
            port,
            source,
            mtu,
        };
        for vni in self.subnets.iter().filter_map(|subnet| subnet.vni) {
            plane.links.insert(LinkId::Vxlan(vni), tunnel.clone());
        }
        Some(bridge)
    }

    fn add_locals(&self, bridge: Vni, plane: &mut Plane) {
        for (endpoint, local) in &self.locals {
            let link = Link::Endpoint {
                bridge,
                mac: local.mac,
                addresses: local.addresses.clone(),
                mtu: self.settings.mtu,
            };
            plane.links.insert(LinkId::Endpoint(*endpoint), link);
        }
    }

    /// The peers on other nodes whose subnet has a tunnel, by endpoint id. A tunnel has ends of one family.
    fn reachable(&self) -> impl Iterator<Item = (Vni, &PeerRecord)> {
        let same_family = |peer: &PeerRecord| peer.vtep.0.is_ipv4() == self.vtep.0.is_ipv4();
        self.peers
            .iter()
            .filter(|(id, peer)| peer.vtep != self.vtep && !self.locals.contains_key(id))
            .filter(move |(_, peer)| same_family(peer))
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
