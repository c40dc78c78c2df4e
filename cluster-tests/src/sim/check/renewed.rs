//! No healthy node is told to renew: who returns under a new identity was held for down by somebody; and in a calm nobody is.

use std::collections::BTreeSet;

use weft::core::{membership::Event, model::NodeId};

use super::Violation;

const PROPERTY: &str = "no healthy node is held for down or told that it is";

/// Who was held for down, and who renewed without that.
#[derive(Default, Debug)]
pub struct Renewals {
    down: BTreeSet<NodeId>,
    /// How many nodes returned under a new identity.
    pub renewed: u64,
    is_calm: bool,
    violation: Option<String>,
}

impl Renewals {
    /// Notes what a machine's membership says.
    pub fn note(&mut self, at: usize, event: &Event) {
        match event {
            Event::Down(node) => {
                self.down.insert(*node);
                if self.is_calm {
                    self.violate(format!(
                        "in the calm, machine {at} holds node {node} for down"
                    ));
                }
            }
            Event::Renewed(identity) => {
                self.renewed += 1;
                if !self.down.remove(&identity.node) {
                    self.violate(format!(
                        "machine {at} renewed as {identity:?}, and nobody had held it for down"
                    ));
                }
            }
            Event::Up(_) | Event::Left(_) | Event::Moved(..) | Event::Clash { .. } => {}
        }
    }

    /// From now on all is well, so nobody may be held for down.
    pub fn note_calm(&mut self) {
        self.is_calm = true;
    }

    fn violate(&mut self, seen: String) {
        self.violation.get_or_insert(seen);
    }

    /// Checks the property.
    pub fn check(&self) -> Result<(), Violation> {
        Violation::unless_none(PROPERTY, self.violation.as_ref())
    }
}
