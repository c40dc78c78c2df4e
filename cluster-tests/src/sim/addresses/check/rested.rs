//! An address that nobody names has rested for the cool-down, unless the leader said that nothing else is free.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use weft::core::{
    ipam::COOL_DOWN,
    model::{Instant, NetworkId, Prefix},
};

use super::Violation;

/// When an address was given up last.
#[derive(Default, Debug)]
pub struct Rested {
    released: BTreeMap<(NetworkId, IpAddr), Instant>,
}

impl Rested {
    /// An address was given up.
    pub fn release(&mut self, at: (NetworkId, IpAddr), now: Instant) {
        self.released.insert(at, now);
    }

    /// An address is handed out; returns how long ago it was given up, if it ever was.
    pub fn take(&mut self, at: (NetworkId, IpAddr), now: Instant) -> Option<Duration> {
        let released = self.released.remove(&at);
        released.map(|released| now.saturating_duration_since(released))
    }

    /// The leader leased these before they had rested, since nothing else was free.
    pub fn excuse(&mut self, network: NetworkId, prefix: Prefix) {
        self.released
            .retain(|(of, address), _| *of != network || !prefix.0.contains(address));
    }

    /// Checks one that nobody named.
    pub fn check(at: (NetworkId, IpAddr), rested: Option<Duration>) -> Result<(), Violation> {
        match rested.filter(|rested| *rested < COOL_DOWN) {
            None => Ok(()),
            Some(rested) => Err(Violation {
                property: "an address rests before it is used again",
                seen: format!("{} of network {} rested {rested:?}", at.1, at.0),
            }),
        }
    }
}
