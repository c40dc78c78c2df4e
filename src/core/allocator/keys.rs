//! The keys of the datagrams: added, promoted, retired. Who learns of a newer ring asks a voter for it.

use super::{Allocator, AllocatorError, KEYS_TABLE, Outcome};
use crate::core::{
    model::{Hlc, Key, TableName, Value},
    wire::keyring::{AgreedRing, ClusterKey, KeyId, Keyring},
};

impl Allocator {
    /// Returns the ring, once the cluster is founded.
    pub fn ring(&self) -> Option<AgreedRing> {
        let founding = self.founding.as_ref()?;
        Some(AgreedRing {
            version: self.ring_version,
            keys: founding.keyring.clone(),
        })
    }

    /// Returns when a key was added last, so that the leader knows when the next is due.
    pub fn rotated(&self) -> Option<Hlc> {
        self.rotated
    }

    pub(super) fn add_key(&mut self, at: Hlc, key: &ClusterKey) -> Result<Outcome, AllocatorError> {
        self.rotated = Some(at);
        self.change_ring(at, |ring| {
            let id = ring.free_id();
            ring.add(id, key.clone());
            Ok(Outcome::Key(id))
        })
    }

    pub(super) fn promote_key(&mut self, at: Hlc, id: KeyId) -> Result<Outcome, AllocatorError> {
        self.change_ring(at, |ring| {
            // An older key would seal again that others have replaced meanwhile.
            if !ring.primary().0.is_after(id) && ring.promote(id) {
                Ok(Outcome::Done)
            } else {
                Err(AllocatorError::NoSuchKey(id.0))
            }
        })
    }

    pub(super) fn retire_keys(&mut self, at: Hlc) -> Result<Outcome, AllocatorError> {
        self.change_ring(at, |ring| {
            ring.retire();
            Ok(Outcome::Done)
        })
    }

    fn change_ring(
        &mut self,
        at: Hlc,
        change: impl FnOnce(&mut Keyring) -> Result<Outcome, AllocatorError>,
    ) -> Result<Outcome, AllocatorError> {
        let founding = self.founding.as_mut().ok_or(AllocatorError::NotFounded)?;
        let before = founding.keyring.clone();
        let outcome = change(&mut founding.keyring)?;
        if founding.keyring != before {
            self.renumber_ring(at, 1);
        }
        Ok(outcome)
    }

    /// Moves the version of the ring on, and tells.
    pub(super) fn renumber_ring(&mut self, at: Hlc, by: u64) {
        self.ring_version += by;
        let version = version_value(self.ring_version);
        self.log.put(at, table(), ring_key(), version);
    }
}

pub(super) fn table() -> TableName {
    TableName::new(KEYS_TABLE).expect("a constant within the limits")
}

fn ring_key() -> Key {
    Key::new(b"ring".to_vec()).expect("a constant within the limits")
}

pub(super) fn version_value(version: u64) -> Value {
    Value::new(version.to_be_bytes().to_vec()).expect("eight bytes are short")
}
