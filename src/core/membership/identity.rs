//! What names a member and what is known of it.

use std::net::SocketAddr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::core::model::{Boot, Instant, NodeId};

/// One life of a node as a member: which node, where, which start of its program, and how often it had to return.
///
/// Of two identities of one node the one with the greater (boot, rejoin) counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Where its datagrams and streams go.
    pub addr: SocketAddr,
    /// Which start of its program.
    pub boot: Boot,
    /// How often this boot was declared down although it lived, and returned. Its logs keep their names.
    pub rejoin: u16,
}

impl Identity {
    /// Returns whether this is the newer life of the two. The address only breaks ties, so that all decide alike.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.boot, self.rejoin, self.addr) > (other.boot, other.rejoin, other.addr)
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        let rejoin = self.rejoin.checked_add(1)?;
        Some(Self { rejoin, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.is_newer_than(adversary)
    }
}

/// How a member is thought to be.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It answers.
    Alive,
    /// It did not answer a probe and has not refuted that yet (SWIM §4.2). It still counts as alive.
    Suspect,
    /// It did not refute in time.
    Down,
    /// It said that it leaves.
    Left,
}

impl State {
    /// Returns whether the member counts as alive: it is, or is suspected only.
    pub fn is_alive(self) -> bool {
        match self {
            Self::Alive | Self::Suspect => true,
            Self::Down | Self::Left => false,
        }
    }
}

/// What one node tells another of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct MemberState {
    /// Which life of which node.
    pub identity: Identity,
    /// How often the member refuted in this life (SWIM §4.2).
    pub incarnation: u16,
    /// How it is thought to be.
    pub state: State,
}

impl MemberState {
    pub(super) fn to_foca(self) -> foca::Member<Identity> {
        let state = match self.state {
            State::Alive => foca::State::Alive,
            State::Suspect => foca::State::Suspect,
            State::Down | State::Left => foca::State::Down,
        };
        foca::Member::new(self.identity, self.incarnation, state)
    }

    pub(super) fn from_foca(member: &foca::Member<Identity>) -> Self {
        let state = match member.state() {
            foca::State::Alive => State::Alive,
            foca::State::Suspect => State::Suspect,
            foca::State::Down => State::Down,
        };
        Self {
            identity: *member.id(),
            incarnation: member.incarnation(),
            state,
        }
    }
}

/// What this node knows of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which life of which node.
    pub identity: Identity,
    /// How it is thought to be.
    pub state: State,
    /// How often it refuted in this life.
    pub incarnation: u16,
    /// Since when it is in this state.
    pub since: Instant,
}

impl Member {
    /// Returns what to tell others of it.
    pub fn told(&self) -> MemberState {
        MemberState {
            identity: self.identity,
            incarnation: self.incarnation,
            state: self.state,
        }
    }
}
