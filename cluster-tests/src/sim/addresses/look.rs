//! Who has heard what, and what the checks are shown of it.

use std::net::IpAddr;

use weft::core::model::{NetworkId, NodeId};

use super::{Violation, check, node::Node, world::World};

/// How long after two nodes reach each other they have heard all that the other wrote.
const SYNC_MILLIS: u64 = 5_000;

/// After how long a node that is cut off is down for the others.
const DOWN_MILLIS: u64 = 3_000;

impl World {
    /// Returns whether everybody who is not down has heard all that a node wrote: the barrier.
    pub(super) fn is_heard(&self, id: NodeId) -> bool {
        let mut others = self.nodes.values();
        others.all(|other| self.gossip.has_all(other.id, id) || self.is_down(other.id, id))
    }

    /// Returns whether two nodes have been apart for long enough that one is down for the other.
    fn is_down(&self, a: NodeId, b: NodeId) -> bool {
        let (Some(a), Some(b)) = (self.nodes.get(&a), self.nodes.get(&b)) else {
            return true;
        };
        let since = a.part.1.max(b.part.1);
        a.part.0 != b.part.0 && self.now - since > DOWN_MILLIS
    }

    /// Looks whom those show as holder of an address who have had time to hear from that holder.
    pub(super) fn check_heard(&self, id: NodeId, at: (NetworkId, IpAddr)) -> Result<(), Violation> {
        let viewers = self.nodes.keys().copied();
        let viewers = viewers.filter(|viewer| *viewer == id || self.is_together(*viewer, id));
        let shown = viewers.flat_map(|viewer| self.gossip.holders(viewer, at));
        let is_member = |id: &NodeId| self.nodes.get(id).is_some_and(Node::is_member);
        let counts = |(viewer, holder): &(NodeId, NodeId)| {
            is_member(holder) && self.is_together(*viewer, *holder)
        };
        check::heard(at, id, shown.filter(counts))
    }

    pub(super) fn check_leases(&self) -> Result<(), Violation> {
        let members = self.nodes.values().filter(|node| node.is_member());
        let held = members.flat_map(|node| {
            node.desks.iter().flat_map(|(network, desk)| {
                let blocks = desk.hand.blocks();
                blocks.map(|(prefix, ..)| (node.id, *network, prefix))
            })
        });
        check::leases(&self.log.state, held)
    }

    fn is_together(&self, a: NodeId, b: NodeId) -> bool {
        let is_settled = |id| {
            let node = self.nodes.get(&id);
            node.is_some_and(|node| self.now - node.part.1 > SYNC_MILLIS)
        };
        self.reach(a, b) && is_settled(a) && is_settled(b)
    }
}
