//! Which version of the wire each node speaks, so that old and new nodes live together during an upgrade.
//!
//! A node opens all versions from [`OLDEST`] to its newest. It seals for another with the highest that both speak, and with the oldest
//! until it knows better: a record says how far a node can read, and goes along until the other one shows, by what it seals, that it
//! has heard. A node of a version before that record skips it, and is spoken to as before.
//!
//! **Invariant:** nothing is sealed in a version that its receiver has not said, in this start of its program, that it opens.

use std::collections::BTreeMap;

use crate::core::model::{Boot, NodeId};

/// The oldest version that this program speaks.
pub const OLDEST: u8 = 1;

/// The newest one. It differs from the first in the label under which keys are derived.
pub const NEWEST: u8 = 2;

/// How many nodes are remembered; who comes beyond that is spoken to in the oldest version.
const PEERS_MAX: usize = 16_384;

/// What this node speaks, and what others do.
#[derive(Clone, Debug)]
pub struct Versions {
    newest: u8,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    boot: Boot,
    /// The highest version that both speak.
    common: u8,
    /// Whether it knows how far we can read.
    has_heard: bool,
}

impl Versions {
    /// Makes the versions of a node that speaks none newer than that.
    pub fn new(newest: u8) -> Self {
        Self {
            newest: newest.clamp(OLDEST, NEWEST),
            peers: BTreeMap::new(),
        }
    }

    /// Returns the newest version that this node speaks.
    pub fn newest(&self) -> u8 {
        self.newest
    }

    /// Notes in which version an authentic datagram was sealed.
    pub fn handle_sealed(&mut self, from: NodeId, boot: Boot, version: u8) {
        let newest = self.newest;
        let Some(peer) = self.peer(from, boot) else {
            return;
        };
        peer.common = peer.common.max(version.min(newest));
        peer.has_heard |= version >= newest;
    }

    /// Notes how far a node can read, as a record of it says.
    pub fn handle_said(&mut self, from: NodeId, boot: Boot, theirs: u8) {
        let newest = self.newest;
        if let Some(peer) = self.peer(from, boot) {
            peer.common = theirs.clamp(OLDEST, newest);
            peer.has_heard |= theirs < newest;
        }
    }

    /// Returns the version to seal in for a node.
    pub fn common_with(&self, node: NodeId) -> u8 {
        self.peers.get(&node).map_or(OLDEST, |peer| peer.common)
    }

    /// Returns what to say to a node of how far we can read, unless it is the oldest version or it knows.
    pub fn to_say(&self, node: NodeId) -> Option<u8> {
        let has_heard = self.peers.get(&node).is_some_and(|peer| peer.has_heard);
        (self.newest > OLDEST && !has_heard).then_some(self.newest)
    }

    /// Returns how many nodes are spoken to in each version, of those that were heard.
    pub fn spoken(&self) -> BTreeMap<u8, usize> {
        let mut spoken = BTreeMap::new();
        for peer in self.peers.values() {
            *spoken.entry(peer.common).or_default() += 1;
        }
        spoken
    }

    /// A node that was started anew may be of another version.
    fn peer(&mut self, node: NodeId, boot: Boot) -> Option<&mut Peer> {
        if !self.peers.contains_key(&node) && self.peers.len() >= PEERS_MAX {
            return None;
        }
        let fresh = Peer {
            boot,
            common: OLDEST,
            has_heard: false,
        };
        let peer = self.peers.entry(node).or_insert(fresh);
        if peer.boot < boot {
            *peer = fresh;
        }
        (peer.boot == boot).then_some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);

    /// Sends one datagram, and returns in which version it was sealed.
    fn say(from: &Versions, to: &mut Versions) -> u8 {
        let version = from.common_with(PEER);
        to.handle_sealed(PEER, Boot(1), version);
        if let Some(said) = from.to_say(PEER) {
            to.handle_said(PEER, Boot(1), said);
        }
        version
    }

    /// Has two nodes say something to each other in turn, and returns in which versions it was sealed.
    fn talk(one: &mut Versions, other: &mut Versions, rounds: usize) -> Vec<u8> {
        let both = (0..rounds).map(|_| [say(one, other), say(other, one)]);
        both.flatten().collect()
    }

    #[test]
    fn two_that_speak_the_newest_come_to_it_at_the_second_datagram_and_then_say_no_more_of_it() {
        let (mut one, mut other) = (Versions::new(NEWEST), Versions::new(NEWEST));

        let sealed = talk(&mut one, &mut other, 3);

        assert_eq!(sealed[0], OLDEST);
        assert_eq!(sealed[1..], [NEWEST; 5]);
        assert_eq!((one.to_say(PEER), other.to_say(PEER)), (None, None));
    }

    #[test]
    fn one_that_speaks_the_oldest_is_spoken_to_in_it() {
        let (mut new, mut old) = (Versions::new(NEWEST), Versions::new(OLDEST));

        let sealed = talk(&mut new, &mut old, 5);

        assert_eq!(sealed, [OLDEST; 10]);
        assert_eq!(old.to_say(PEER), None);
    }

    #[test]
    fn one_that_was_started_anew_may_be_of_an_older_version_again() {
        let mut ours = Versions::new(NEWEST);
        ours.handle_said(PEER, Boot(1), NEWEST);
        assert_eq!(ours.common_with(PEER), NEWEST);

        ours.handle_sealed(PEER, Boot(2), OLDEST);
        ours.handle_said(PEER, Boot(1), NEWEST);

        assert_eq!(ours.common_with(PEER), OLDEST);
    }

    #[test]
    fn versions_beyond_ours_are_no_versions_of_ours() {
        let mut ours = Versions::new(NEWEST);

        ours.handle_said(PEER, Boot(1), u8::MAX);
        assert_eq!(ours.common_with(PEER), NEWEST);
        ours.handle_said(PEER, Boot(1), 0);
        assert_eq!(ours.common_with(PEER), OLDEST);
        assert_eq!(Versions::new(u8::MAX).newest(), NEWEST);
        assert_eq!(Versions::new(0).newest(), OLDEST);
    }
}
