//! The keyring: up to three cluster keys, each with an id that the datagram names, one of them primary.

use std::fmt;

use bincode::{Decode, Encode};
use rand::Rng;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// How many keys a ring holds: the one before, the one in use, the next.
pub const KEYS_MAX: usize = 3;

/// Which key sealed a datagram; the datagram carries it, so nothing is tried in turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct KeyId(pub u8);

impl KeyId {
    /// Returns whether a key with this id was added later than one with the other, as serial numbers compare (RFC 1982 §3.2):
    /// ids are given out in turn, and those of one ring are close together.
    pub fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }
}

/// The secret that every datagram key is derived from. Zeroized when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct ClusterKey(pub(super) [u8; 32]);

impl ClusterKey {
    /// Draws a new one; `rng` must be fit for secrets.
    pub fn random(rng: &mut impl Rng) -> Self {
        Self(rand::RngExt::random(rng))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// The keys a node opens datagrams with; the primary also seals.
///
/// A rotation adds a key, waits until every node opens with it, and promotes it; the former key goes on opening until the
/// next rotation, or until it is retired.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Keyring {
    primary: (KeyId, ClusterKey),
    /// In the order in which they were added, or put back.
    others: Vec<(KeyId, ClusterKey)>,
}

/// The ring that the cluster agreed on, and how often it was changed: of two the greater is the newer.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct AgreedRing {
    /// The changes since the founding.
    pub version: u64,
    /// The keys.
    pub keys: Keyring,
}

impl Keyring {
    /// Makes a ring of one key.
    pub fn new(id: KeyId, key: ClusterKey) -> Self {
        Self {
            primary: (id, key),
            others: Vec::new(),
        }
    }

    /// Returns an id that no key of the ring has: the next one.
    pub fn free_id(&self) -> KeyId {
        let is_free = |id: &KeyId| self.get(*id).is_none();
        let newest = self.newest().0;
        let after = (1..=u8::MAX).map(|step| KeyId(newest.wrapping_add(step)));
        after
            .into_iter()
            .find(is_free)
            .expect("a ring has fewer keys than there are ids")
    }

    /// Adds a key that opens; it seals once it is [promoted](Self::promote). A key of that id is replaced.
    ///
    /// A full ring loses the key that was added first, except the primary.
    pub fn add(&mut self, id: KeyId, key: ClusterKey) {
        if id == self.primary.0 {
            self.primary.1 = key;
            return;
        }
        self.others.retain(|(known, _)| *known != id);
        if self.others.len() + 1 >= KEYS_MAX {
            self.others.remove(0);
        }
        self.others.push((id, key));
    }

    /// Makes the key of that id the one that seals, and says whether there is one.
    pub fn promote(&mut self, id: KeyId) -> bool {
        let Some(place) = self.others.iter().position(|(known, _)| *known == id) else {
            return id == self.primary.0;
        };
        let promoted = self.others.remove(place);
        let former = std::mem::replace(&mut self.primary, promoted);
        self.others.push(former);
        true
    }

    /// Drops all keys but the primary: what is sealed with them is opened no longer.
    pub fn retire(&mut self) {
        self.others.clear();
    }

    /// Returns the key that seals.
    pub fn primary(&self) -> (KeyId, &ClusterKey) {
        (self.primary.0, &self.primary.1)
    }

    /// Returns the id of the key that was added last: the primary's, unless a key was added that seals nothing yet.
    pub fn newest(&self) -> KeyId {
        let ids = self.keys().map(|(id, _)| id);
        ids.fold(self.primary.0, |newest, id| {
            if id.is_after(newest) { id } else { newest }
        })
    }

    /// Returns the key of that id.
    pub fn get(&self, id: KeyId) -> Option<&ClusterKey> {
        self.keys()
            .find(|(known, _)| *known == id)
            .map(|(_, key)| key)
    }

    /// Returns all keys, the primary first.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, &ClusterKey)> {
        std::iter::once(&self.primary)
            .chain(&self.others)
            .take(KEYS_MAX)
            .map(|(id, key)| (*id, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::wire::codec;

    fn ring() -> Keyring {
        Keyring::new(KeyId(1), ClusterKey([1; 32]))
    }

    #[test]
    fn an_added_key_opens_and_a_promoted_one_seals() {
        let mut ring = ring();

        ring.add(KeyId(2), ClusterKey([2; 32]));
        assert_eq!(ring.primary().0, KeyId(1));
        assert!(ring.promote(KeyId(2)));

        assert_eq!(ring.primary(), (KeyId(2), &ClusterKey([2; 32])));
        assert_eq!(ring.get(KeyId(1)), Some(&ClusterKey([1; 32])));
        assert!(!ring.promote(KeyId(9)));
    }

    #[test]
    fn a_full_ring_loses_its_oldest_key_and_never_its_primary() {
        let mut ring = ring();

        for id in 2..=4 {
            ring.add(KeyId(id), ClusterKey([id; 32]));
        }

        let ids: Vec<u8> = ring.keys().map(|(id, _)| id.0).collect();
        assert_eq!(ids, [1, 3, 4]);
    }

    #[test]
    fn the_newest_key_is_the_one_that_was_added_last_wherever_its_id_is() {
        let mut ring = Keyring::new(KeyId(254), ClusterKey([1; 32]));

        for id in [255, 0, 1] {
            assert_eq!(ring.newest(), ring.primary().0);
            ring.add(ring.free_id(), ClusterKey([id; 32]));
            assert_eq!(ring.newest(), KeyId(id));
            assert!(ring.promote(KeyId(id)));
        }
    }

    #[test]
    fn ids_are_used_again_and_never_twice_at_a_time() {
        let mut ring = ring();

        for _ in 0..600 {
            let id = ring.free_id();
            assert_eq!(ring.get(id), None);
            ring.add(id, ClusterKey([id.0; 32]));
            assert!(ring.promote(id));
        }
        ring.retire();

        assert_eq!(ring.keys().count(), 1);
    }

    #[test]
    fn a_ring_survives_its_bytes_and_prints_no_key() {
        let ring = ring();

        let decoded: Keyring = codec::decode(&codec::encode(&ring)).unwrap();

        assert_eq!(decoded, ring);
        assert!(!format!("{ring:?}").contains("1, 1"));
    }
}
