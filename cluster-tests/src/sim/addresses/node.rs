//! One node: what it has on disk, what it hands out of, and what it is doing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft::core::{
    ipam::{Hand, Lease},
    model::{Instant, NetworkId, NetworkRecord, NodeId},
};

use super::operation::Operation;

/// What a node knows of one network's addresses.
#[derive(Default, Debug)]
pub(super) struct Desk {
    pub(super) hand: Hand,
    /// The leases of this life were numbered, and no answer was lost since.
    pub(super) is_sure: bool,
    /// One at a time, as behind the controller's lock.
    pub(super) operation: Option<Operation>,
    /// Leases of one address that go back once everybody has heard.
    pub(super) leaving: Vec<Lease>,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// How often it was started.
    pub(super) life: u64,
    /// Which part of the network it is in, and since when, in milliseconds.
    pub(super) part: (u8, u64),
    /// When it was shut out, and it has not heard of it.
    pub(super) shut_out: Option<Instant>,
    /// On disk.
    pub(super) endpoints: BTreeSet<(NetworkId, IpAddr)>,
    /// The networks it has heard of.
    pub(super) networks: BTreeMap<NetworkId, NetworkRecord>,
    pub(super) desks: BTreeMap<NetworkId, Desk>,
}

impl Node {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            life: 0,
            part: (0, 0),
            shut_out: None,
            endpoints: BTreeSet::new(),
            networks: BTreeMap::new(),
            desks: BTreeMap::new(),
        }
    }

    /// Only the disk is left.
    pub(super) fn restart(&mut self) {
        self.life += 1;
        self.desks.clear();
    }

    /// Returns the addresses of its endpoints in a network.
    pub(super) fn used(&self, network: NetworkId) -> Vec<IpAddr> {
        let used = self.endpoints.iter().filter(|(of, _)| *of == network);
        used.map(|(_, address)| *address).collect()
    }

    /// Returns whether it may take part.
    pub(super) fn is_member(&self) -> bool {
        self.shut_out.is_none()
    }
}
