//! No two live endpoints of a network have one address, wherever they are and whoever can reach whom.

use std::{collections::BTreeMap, net::IpAddr};

use weft::core::model::{NetworkId, NodeId};

use super::Violation;

/// Who has which address.
#[derive(Default, Debug)]
pub struct Holders {
    live: BTreeMap<(NetworkId, IpAddr), NodeId>,
}

impl Holders {
    /// An endpoint has come.
    pub fn take(&mut self, at: (NetworkId, IpAddr), node: NodeId) -> Result<(), Violation> {
        match self.live.insert(at, node) {
            None => Ok(()),
            Some(other) => Err(Violation {
                property: "no two live endpoints have one address",
                seen: format!("{} of network {} is on {other} and on {node}", at.1, at.0),
            }),
        }
    }

    /// An endpoint has gone.
    pub fn release(&mut self, at: (NetworkId, IpAddr)) {
        self.live.remove(&at);
    }
}
