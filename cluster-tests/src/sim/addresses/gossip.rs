//! What nodes have heard of each other's endpoints: each owner's writes in their order, as the network DB spreads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft::core::model::{NetworkId, NodeId};

/// One write of an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Write {
    pub(super) at: (NetworkId, IpAddr),
    pub(super) is_live: bool,
}

/// The logs of all owners, and how much of each every node has.
#[derive(Default, Debug)]
pub(super) struct Gossip {
    logs: BTreeMap<NodeId, Vec<Write>>,
    have: BTreeMap<(NodeId, NodeId), usize>,
    shown: BTreeMap<NodeId, BTreeSet<(NetworkId, IpAddr, NodeId)>>,
}

impl Gossip {
    /// An owner writes.
    pub(super) fn write(&mut self, owner: NodeId, write: Write) {
        self.logs.entry(owner).or_default().push(write);
        self.sync(owner, owner);
    }

    /// `to` hears all that `owner` has written.
    pub(super) fn sync(&mut self, to: NodeId, owner: NodeId) {
        let Some(log) = self.logs.get(&owner) else {
            return;
        };
        let have = self.have.entry((to, owner)).or_default();
        let shown = self.shown.entry(to).or_default();
        for write in log.iter().skip(*have) {
            let (network, address) = write.at;
            let entry = (network, address, owner);
            if write.is_live {
                shown.insert(entry);
            } else {
                shown.remove(&entry);
            }
        }
        *have = log.len();
    }

    /// Returns whether `to` has heard all that `owner` has written.
    pub(super) fn has_all(&self, to: NodeId, owner: NodeId) -> bool {
        let written = self.logs.get(&owner).map_or(0, Vec::len);
        self.have.get(&(to, owner)).copied().unwrap_or(0) == written
    }

    /// An owner was shut out: nobody shows anything of it.
    pub(super) fn forget(&mut self, owner: NodeId) {
        self.logs.remove(&owner);
        self.shown.remove(&owner);
        for shown in self.shown.values_mut() {
            shown.retain(|(.., of)| *of != owner);
        }
    }

    /// Returns whom a node shows as holders of an address.
    pub(super) fn holders(
        &self,
        viewer: NodeId,
        at: (NetworkId, IpAddr),
    ) -> impl Iterator<Item = (NodeId, NodeId)> {
        let first = (at.0, at.1, NodeId(0));
        let last = (at.0, at.1, NodeId(u64::MAX));
        let shown = self.shown.get(&viewer).into_iter();
        let shown = shown.flat_map(move |shown| shown.range(first..=last));
        shown.map(move |(.., holder)| (viewer, *holder))
    }
}
