//! The properties that a run must have, one file each.

mod converged;
mod mirrored;
mod nonces;
mod visible;

use std::{collections::BTreeMap, fmt};

use weft::{
    core::{model::Instant, node::Node},
    sim::Observer,
};

pub use converged::converged;
pub use mirrored::{Mirror, mirrored};
pub use nonces::Nonces;
pub use visible::only_the_living_show;

/// A property did not hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Violation {
    /// Which property.
    pub property: &'static str,
    /// Where, and what was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.seen)
    }
}

/// What the checkers note while a world goes on.
#[derive(Default, Debug)]
pub struct Checkers {
    mirrors: BTreeMap<usize, Mirror>,
    /// Every nonce that was used.
    pub nonces: Nonces,
}

impl Checkers {
    /// Returns what a watcher of everything on a machine has been told.
    fn mirror(&self, at: usize) -> &Mirror {
        self.mirrors.get(&at).expect("every machine has started")
    }
}

impl Observer for Checkers {
    fn started(&mut self, at: usize, _node: &Node) {
        self.mirrors.insert(at, Mirror::default());
    }

    fn datagram_sent(&mut self, _from: usize, datagram: &[u8]) {
        self.nonces.note(datagram);
    }

    fn changed(&mut self, at: usize, _now: Instant, node: &Node) {
        self.mirrors.entry(at).or_default().follow(node);
    }
}
