//! Records: what a datagram carries, each with its kind and length, so that a node skips the kinds it does not know.
//!
//! `kind u8 | length u16, big endian | body`. Old and new nodes live together during an upgrade because of this.

use bytes::Bytes;

use super::PAYLOAD_MAX;

/// What a record adds to its body, in bytes.
pub const RECORD_HEADER_LEN: usize = 3;

/// The longest body of a record, in bytes.
pub const BODY_MAX: usize = PAYLOAD_MAX - RECORD_HEADER_LEN;

/// What a record is. Kinds are never reused; a receiver skips and counts those it does not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordKind(pub u8);

impl RecordKind {
    /// A SWIM packet, for `membership`.
    pub const FOCA: Self = Self(1);
    /// Members whose state is news, for `membership`.
    pub const MEMBERS: Self = Self(2);
    /// Dots, for `netdb`.
    pub const PUSH: Self = Self(3);
    /// Which dots the sender has, for `netdb`.
    pub const IHAVE: Self = Self(4);
    /// Which dots the sender wants, for `netdb`.
    pub const PULL: Self = Self(5);
    /// Root hashes, for `netdb`.
    pub const DIGEST: Self = Self(6);
    /// How far the receiver has a log, for `netdb`.
    pub const ASK: Self = Self(7);
    /// How far the sender has a log, for `netdb`.
    pub const REACHED: Self = Self(8);
    /// The newest version of the wire that the sender speaks, one byte, for [`versions`](super::versions).
    pub const VERSION: Self = Self(9);
}

/// A record does not fit into what is left of the datagram. The caller sends the batch and begins another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of {body} bytes does not fit into the {left} that are left of a datagram")]
pub struct Full {
    /// How long the body is, in bytes.
    pub body: usize,
    /// How many bytes are left, a record's header included.
    pub left: usize,
}

/// A record claims more bytes than the payload has. Its sender wrote it; the records before it are sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record is cut off")]
pub struct Truncated;

/// The records of one datagram, collected up to [`PAYLOAD_MAX`] bytes.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// Makes an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record.
    pub fn push(&mut self, kind: RecordKind, body: &[u8]) -> Result<(), Full> {
        let left = PAYLOAD_MAX - self.bytes.len();
        let full = Full {
            body: body.len(),
            left,
        };
        if RECORD_HEADER_LEN + body.len() > left {
            return Err(full);
        }
        let length = u16::try_from(body.len()).map_err(|_longer_than_a_datagram| full)?;
        self.bytes.push(kind.0);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(body);
        Ok(())
    }

    /// Returns whether a record with a body of `body` bytes fits.
    pub fn has_room_for(&self, body: usize) -> bool {
        self.bytes.len() + RECORD_HEADER_LEN + body <= PAYLOAD_MAX
    }

    /// Returns whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns how many bytes the payload has.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the payload.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the records out and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Returns the payload.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}

/// Returns the records of a payload. After one that is cut off nothing follows.
pub fn records(payload: &[u8]) -> impl Iterator<Item = Result<(RecordKind, &[u8]), Truncated>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = split_record(rest);
        rest = record.map_or(&[], |(_, _, after)| after);
        Some(record.map(|(kind, body, _)| (kind, body)))
    })
}

fn split_record(bytes: &[u8]) -> Result<(RecordKind, &[u8], &[u8]), Truncated> {
    let (&[kind, high, low], rest) = bytes.split_first_chunk().ok_or(Truncated)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (body, after) = rest.split_at_checked(length).ok_or(Truncated)?;
    Ok((RecordKind(kind), body, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_has_these_bytes() {
        let mut batch = Batch::new();

        batch.push(RecordKind::FOCA, b"hi").unwrap();
        batch.push(RecordKind::DIGEST, b"").unwrap();

        assert_eq!(batch.as_bytes(), [1, 0, 2, b'h', b'i', 6, 0, 0]);
    }

    #[test]
    fn an_unknown_kind_is_skipped_by_its_length() {
        let mut batch = Batch::new();
        batch.push(RecordKind(200), b"from the future").unwrap();
        batch.push(RecordKind::PUSH, b"known").unwrap();

        let known: Vec<_> = records(batch.as_bytes())
            .map(Result::unwrap)
            .filter(|(kind, _)| *kind == RecordKind::PUSH)
            .collect();

        assert_eq!(known, [(RecordKind::PUSH, &b"known"[..])]);
    }

    #[test]
    fn a_record_that_is_cut_off_ends_the_payload_and_spoils_none_before_it() {
        let mut batch = Batch::new();
        batch.push(RecordKind::FOCA, b"whole").unwrap();
        batch.push(RecordKind::FOCA, b"cut").unwrap();
        let cut = &batch.as_bytes()[..batch.len() - 1];

        let found: Vec<_> = records(cut).collect();

        assert_eq!(
            found,
            [Ok((RecordKind::FOCA, &b"whole"[..])), Err(Truncated)]
        );
    }

    #[test]
    fn a_batch_takes_a_datagram_and_not_a_byte_more() {
        let mut batch = Batch::new();
        assert!(!batch.has_room_for(BODY_MAX + 1));
        assert!(batch.push(RecordKind::PUSH, &[0; BODY_MAX + 1]).is_err());
        assert!(batch.has_room_for(BODY_MAX));

        batch.push(RecordKind::PUSH, &[0; BODY_MAX]).unwrap();

        assert_eq!(batch.len(), PAYLOAD_MAX);
        assert_eq!(
            batch.push(RecordKind::PUSH, &[]),
            Err(Full { body: 0, left: 0 })
        );
    }

    proptest! {
        #[test]
        fn a_batch_survives_its_bytes(bodies in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..100)), 0..13)) {
            let mut batch = Batch::new();
            for (kind, body) in &bodies {
                batch.push(RecordKind(*kind), body).unwrap();
            }

            let payload = batch.into_bytes();

            let found: Vec<_> = records(&payload).map(|record| record.map(|(kind, body)| (kind.0, body.to_vec()))).collect();
            prop_assert_eq!(found, bodies.into_iter().map(Ok).collect::<Vec<_>>());
        }

        #[test]
        fn random_bytes_end_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let found = records(&payload).count();

            prop_assert!(found <= payload.len());
        }
    }
}
