//! The ring of a network: its attached live nodes sorted by a hash, the same everywhere without talking.

use crate::core::model::{self, NetworkId, NodeId, place};

/// The nodes of one network in ring order.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    network: NetworkId,
    me: NodeId,
    /// By hash.
    nodes: Vec<(u64, NodeId)>,
    ours: Option<usize>,
}

impl Ring {
    /// Sorts the nodes of `network`; `me` is among them if this node is attached.
    pub(super) fn new(network: NetworkId, me: NodeId, nodes: impl Iterator<Item = NodeId>) -> Self {
        let mut nodes: Vec<_> = nodes.map(|node| place(network, node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let ours = nodes.binary_search(&place(network, me)).ok();
        Self {
            network,
            me,
            nodes,
            ours,
        }
    }

    /// Puts a node on the ring, or takes it off.
    pub(super) fn set(&mut self, node: NodeId, is_on: bool) {
        let place = place(self.network, node);
        match self.nodes.binary_search(&place) {
            Ok(at) if !is_on => drop(self.nodes.remove(at)),
            Err(at) if is_on => self.nodes.insert(at, place),
            Ok(_) | Err(_) => return,
        }
        self.ours = self
            .nodes
            .binary_search(&model::place(self.network, self.me))
            .ok();
    }

    /// Returns every node of the ring but ourselves.
    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> {
        let nodes = self.nodes.iter().map(|(_, node)| *node);
        nodes.filter(|node| *node != self.me)
    }

    /// Returns whether a node is within `distance` steps of us.
    pub(super) fn is_near(&self, node: NodeId, distance: usize) -> bool {
        (1..=distance).any(|distance| self.at_distance(distance).any(|near| near == node))
    }

    /// Returns the nodes `distance` steps before and after us; one if they are the same, none if we are not on the ring.
    pub(super) fn at_distance(&self, distance: usize) -> impl Iterator<Item = NodeId> {
        let len = self.nodes.len();
        let pair = self.ours.filter(|_| len > 1).map(|at| {
            let after = (at + distance) % len;
            let before = (at + len - distance % len) % len;
            (at, after, before)
        });
        pair.into_iter()
            .flat_map(|(at, after, before)| {
                let second = (before != after).then_some(before);
                std::iter::once(after)
                    .chain(second)
                    .filter(move |&found| found != at)
            })
            .map(|at| self.nodes[at].1)
    }

    /// Returns how many nodes are on the ring, ourselves included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the node at a place of the ring.
    pub(super) fn get(&self, place: usize) -> NodeId {
        self.nodes[place].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(me: u64, nodes: u64) -> Ring {
        Ring::new(NetworkId(1), NodeId(me), (1..=nodes).map(NodeId))
    }

    #[test]
    fn neighbours_agree_on_being_neighbours() {
        for me in 1..=7 {
            for neighbour in ring(me, 7).at_distance(1) {
                assert!(
                    ring(neighbour.0, 7)
                        .at_distance(1)
                        .any(|back| back == NodeId(me))
                );
            }
        }
    }

    #[test]
    fn a_ring_that_nodes_come_to_and_go_from_is_the_ring_of_those_that_are_on_it() {
        let mut changed = ring(4, 3);
        for (node, is_on) in [(9, true), (2, false), (4, true), (4, true), (7, false)] {
            changed.set(NodeId(node), is_on);
        }

        let made = Ring::new(
            NetworkId(1),
            NodeId(4),
            [1, 3, 4, 9].map(NodeId).into_iter(),
        );
        assert_eq!(changed.nodes, made.nodes);
        assert_eq!(changed.ours, made.ours);
    }

    #[test]
    fn a_ring_of_two_has_one_neighbour_and_a_ring_of_one_has_none() {
        assert_eq!(ring(1, 2).at_distance(1).collect::<Vec<_>>(), [NodeId(2)]);
        assert_eq!(ring(1, 2).at_distance(2).count(), 0);
        assert_eq!(ring(1, 1).at_distance(1).count(), 0);
    }

    #[test]
    fn who_is_not_on_the_ring_has_no_neighbours() {
        assert_eq!(ring(9, 3).at_distance(1).count(), 0);
        assert_eq!(ring(9, 3).others().count(), 3);
    }
}
