//! No nonce is used twice under one key: (key id, sender, boot, counter) is sent in one datagram only.

use std::collections::BTreeMap;

use super::Violation;
use crate::sim::trace::Trace;

/// Where the counter ends in the head of a datagram: version, key id, sender, boot, counter.
const HEAD: usize = 1 + 1 + 8 + 4 + 8;

/// The heads of the datagrams that were sent, each with the hash of its datagram.
#[derive(Default, Debug)]
pub struct Nonces {
    seen: BTreeMap<[u8; HEAD], Trace>,
    twice: Option<[u8; HEAD]>,
}

impl Nonces {
    /// Notes a datagram as it is sent.
    pub fn note(&mut self, datagram: &[u8]) {
        let Some(head) = datagram.first_chunk::<HEAD>() else {
            return;
        };
        let mut trace = Trace::default();
        trace.note(datagram);
        if self
            .seen
            .insert(*head, trace)
            .is_some_and(|former| former != trace)
        {
            self.twice = Some(*head);
        }
    }

    /// Checks the property.
    pub fn check(&self) -> Result<(), Violation> {
        let twice = |head| format!("two datagrams begin with {head:02x?}");
        Violation::unless_none("no nonce is used twice", self.twice.map(twice).as_ref())
    }

    /// Returns how many datagrams were noted.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Returns whether none was noted.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}
