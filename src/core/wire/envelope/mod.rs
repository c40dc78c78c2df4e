//! The sealed datagram: who sent it, and a payload that only the receiver's cluster can read.
//!
//! ```text
//! version u8 | key id u8 | sender u64 | boot u32 | counter u64 | payload | tag (16)      all big endian
//! └────────────────────── header ──────────────────────┘
//! ```
//!
//! AES-256-GCM. The associated data are the header, the cluster's id and the receiver's, so a datagram for another cluster
//! or another node is as good as forged. The key is derived for each sender and boot (HKDF-SHA256, RFC 5869) and the
//! nonce is the counter, so no nonce is ever used twice: boots never repeat, and counters only grow within one.
//!
//! **Invariant:** [`Opener`] changes nothing but its counts before a datagram has proved authentic.
//!
//! What it does not give: an opener that starts anew has no windows, so what was recorded before can be played to it once.
//! Membership packets name the boot of the receiver and are harmless then; every other record is idempotent.

use std::collections::BTreeMap;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use bytes::{BufMut, Bytes, BytesMut};

use super::{
    DATAGRAM_MAX, OVERHEAD, PAYLOAD_MAX,
    keyring::{ClusterKey, KEYS_MAX, KeyId, Keyring},
    replay::ReplayWindow,
    versions::{NEWEST, OLDEST},
};
use crate::core::model::{Boot, ClusterId, NodeId};

/// How long the header is, in bytes.
pub const HEADER_LEN: usize = 1 + 1 + 8 + 4 + 8;

/// How long the tag is, in bytes.
pub const TAG_LEN: usize = 16;

/// How many senders an opener remembers. At the bound the one that was silent longest is forgotten, and with it its
/// newest boot and its window.
pub const SENDERS_MAX: usize = 16_384;

const AAD_LEN: usize = HEADER_LEN + 16 + 8;

/// How much memory is taken at once for payloads and datagrams; they share it.
const CHUNK_LEN: usize = 16 * 1024;

/// What keys are derived under, by version: what one version sealed is opened as no other.
const DERIVATION_SALTS: [&[u8]; VERSIONS] = [b"weft datagram 1", b"weft datagram 2"];

const VERSIONS: usize = (NEWEST - OLDEST + 1) as usize;

/// Why a payload was not sealed. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The caller must send less at once.
    #[error("a payload of {len} bytes is too long: at most {PAYLOAD_MAX} fit into a datagram")]
    TooLong {
        /// How long the payload is, in bytes.
        len: usize,
    },
    /// All counters of this boot are used; the program must start again.
    #[error("all counters of this boot are used")]
    Exhausted,
}

/// Why a datagram was dropped. Only counts were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It has no room for an envelope.
    #[error("too short for a datagram")]
    TooShort,
    /// It is longer than [`DATAGRAM_MAX`].
    #[error("longer than a datagram may be")]
    TooLong,
    /// It has a version that this program does not speak: the operator must upgrade one of the nodes.
    #[error("sealed by version {0}; this program speaks {OLDEST} to {NEWEST}")]
    Version(u8),
    /// It names a key that is not on the ring: the caller may ask another node for the current ring.
    #[error("sealed with key {}, which is not on the ring", .0.0)]
    UnknownKey(KeyId),
    /// It is not from a holder of the key, not for this cluster, not for this node, or was changed on its way.
    #[error("not authentic")]
    Forged,
    /// It was received before, or is older than the replay window.
    #[error("received before")]
    Replayed,
    /// Its sender has started again since.
    #[error("from an earlier boot of its sender")]
    OldBoot,
    /// It claims to come from this node: a reflection, or another node with the same id.
    #[error("claims to come from this node itself")]
    FromOurselves,
}

/// How many datagrams were dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejections {
    /// [`Rejected::TooShort`].
    pub too_short: u64,
    /// [`Rejected::TooLong`].
    pub too_long: u64,
    /// [`Rejected::Version`].
    pub version: u64,
    /// [`Rejected::UnknownKey`].
    pub unknown_key: u64,
    /// [`Rejected::Forged`].
    pub forged: u64,
    /// [`Rejected::Replayed`].
    pub replayed: u64,
    /// [`Rejected::OldBoot`].
    pub old_boot: u64,
    /// [`Rejected::FromOurselves`].
    pub from_ourselves: u64,
}

impl Rejections {
    /// Returns the sum.
    pub fn total(&self) -> u64 {
        self.too_short
            + self.too_long
            + self.version
            + self.unknown_key
            + self.forged
            + self.replayed
            + self.old_boot
            + self.from_ourselves
    }

    fn count(&mut self, rejected: Rejected) {
        let reason = match rejected {
            Rejected::TooShort => &mut self.too_short,
            Rejected::TooLong => &mut self.too_long,
            Rejected::Version(_) => &mut self.version,
            Rejected::UnknownKey(_) => &mut self.unknown_key,
            Rejected::Forged => &mut self.forged,
            Rejected::Replayed => &mut self.replayed,
            Rejected::OldBoot => &mut self.old_boot,
            Rejected::FromOurselves => &mut self.from_ourselves,
        };
        *reason += 1;
    }
}

/// The clear part of a datagram.
#[derive(Clone, Copy)]
struct Header {
    version: u8,
    key: KeyId,
    sender: NodeId,
    boot: Boot,
    counter: u64,
}

impl Header {
    fn write(&self, mut out: impl BufMut) {
        out.put_u8(self.version);
        out.put_u8(self.key.0);
        out.put_u64(self.sender.0);
        out.put_u32(self.boot.0);
        out.put_u64(self.counter);
    }

    fn read(bytes: &[u8; HEADER_LEN], newest: u8) -> Result<Self, Rejected> {
        let [version, key, rest @ ..] = *bytes;
        if !(OLDEST..=newest).contains(&version) {
            return Err(Rejected::Version(version));
        }
        let number = |range: std::ops::Range<usize>| {
            rest[range]
                .iter()
                .fold(0u64, |number, byte| (number << 8) | u64::from(*byte))
        };
        Ok(Self {
            version,
            key: KeyId(key),
            sender: NodeId(number(0..8)),
            boot: Boot(number(8..12) as u32),
            counter: number(12..20),
        })
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.counter.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

fn associated_data(header: &[u8], cluster: ClusterId, receiver: NodeId) -> Aad<[u8; AAD_LEN]> {
    let mut data = [0; AAD_LEN];
    data[..HEADER_LEN].copy_from_slice(header);
    data[HEADER_LEN..HEADER_LEN + 16].copy_from_slice(&cluster.0.to_be_bytes());
    data[HEADER_LEN + 16..].copy_from_slice(&receiver.0.to_be_bytes());
    Aad::from(data)
}

/// Derives the key of a sender for one of the versions that this program speaks.
fn derive(version: u8, key: &ClusterKey, (sender, boot): (NodeId, Boot)) -> LessSafeKey {
    let salt = DERIVATION_SALTS[usize::from(version - OLDEST)];
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&key.0);
    let context: [&[u8]; 2] = [&sender.0.to_be_bytes(), &boot.0.to_be_bytes()];
    let derived = secret
        .expand(&context, &AES_256_GCM)
        .expect("one key is shorter than HKDF's longest output");
    LessSafeKey::new(UnboundKey::from(derived))
}

/// Returns `len` zeroes at the end of `chunk`, which must be empty, from memory that is taken [`CHUNK_LEN`] at a time.
fn zeroes(chunk: &mut BytesMut, len: usize) -> &mut [u8] {
    if chunk.capacity() < len {
        chunk.reserve(CHUNK_LEN.max(len));
    }
    chunk.resize(len, 0);
    chunk
}

/// Seals what this node sends.
///
/// **Invariant:** there is one sealer for a node and boot, or a nonce would be used twice.
pub struct Sealer {
    cluster: ClusterId,
    node: NodeId,
    boot: Boot,
    key_id: KeyId,
    /// One a version.
    keys: [LessSafeKey; VERSIONS],
    counter: u64,
    chunk: BytesMut,
}

/// Derives the keys of a sender for all versions.
fn derive_all(key: &ClusterKey, sender: (NodeId, Boot)) -> [LessSafeKey; VERSIONS] {
    std::array::from_fn(|at| derive(OLDEST + at as u8, key, sender))
}

impl Sealer {
    /// Makes the sealer of `node` for this boot. It seals with the ring's primary key.
    pub fn new(cluster: ClusterId, node: NodeId, boot: Boot, keyring: &Keyring) -> Self {
        let (key_id, key) = keyring.primary();
        Self {
            cluster,
            node,
            boot,
            key_id,
            keys: derive_all(key, (node, boot)),
            counter: 0,
            chunk: BytesMut::new(),
        }
    }

    /// Seals with another ring's primary key from now on. The counter goes on: a ring may come back.
    pub fn set_keyring(&mut self, keyring: &Keyring) {
        let (key_id, key) = keyring.primary();
        self.key_id = key_id;
        self.keys = derive_all(key, (self.node, self.boot));
    }

    /// Returns the datagram that only `to` will open, in the oldest version.
    pub fn seal(&mut self, to: NodeId, payload: &[u8]) -> Result<Bytes, SealError> {
        self.seal_in(OLDEST, to, payload)
    }

    /// Returns the datagram that only `to` will open, in one of the versions that this program speaks.
    pub fn seal_in(&mut self, version: u8, to: NodeId, payload: &[u8]) -> Result<Bytes, SealError> {
        if payload.len() > PAYLOAD_MAX {
            return Err(SealError::TooLong { len: payload.len() });
        }
        let counter = self.counter.checked_add(1).ok_or(SealError::Exhausted)?;
        self.counter = counter;
        let header = Header {
            version: version.clamp(OLDEST, NEWEST),
            key: self.key_id,
            sender: self.node,
            boot: self.boot,
            counter,
        };

        Ok(self.seal_with(header, to, payload))
    }

    fn seal_with(&mut self, header: Header, to: NodeId, payload: &[u8]) -> Bytes {
        let datagram = zeroes(&mut self.chunk, OVERHEAD + payload.len());
        let (clear, sealed) = datagram.split_at_mut(HEADER_LEN);
        header.write(&mut *clear);
        let associated = associated_data(clear, self.cluster, to);
        let (text, tag) = sealed.split_at_mut(payload.len());
        self.keys[usize::from(header.version - OLDEST)]
            .seal_out_of_place_scatter(header.nonce(), associated, payload, text, &[], tag)
            .expect("a datagram is shorter than what AES-GCM can seal");
        self.chunk.split().freeze()
    }
}

/// What an authentic datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Who sealed it.
    pub from: NodeId,
    /// Which start of the sender's program sealed it.
    pub boot: Boot,
    /// In which version.
    pub version: u8,
    /// What it carries.
    pub payload: Bytes,
}

/// One sender that has sent an authentic datagram.
struct Sender {
    boot: Boot,
    /// The keys derived for this boot, of the versions and the ring's keys that the sender has used.
    keys: Vec<(u8, KeyId, LessSafeKey)>,
    window: ReplayWindow,
    /// When it was last heard, in datagrams opened.
    heard: u64,
}

/// Opens what is sent to this node.
pub struct Opener {
    cluster: ClusterId,
    node: NodeId,
    newest: u8,
    keyring: Keyring,
    senders: BTreeMap<NodeId, Sender>,
    senders_max: usize,
    opened: u64,
    rejections: Rejections,
    chunk: BytesMut,
}

impl Opener {
    /// Makes the opener of `node`.
    pub fn new(cluster: ClusterId, node: NodeId, keyring: Keyring) -> Self {
        Self {
            cluster,
            node,
            newest: NEWEST,
            keyring,
            senders: BTreeMap::new(),
            senders_max: SENDERS_MAX,
            opened: 0,
            rejections: Rejections::default(),
            chunk: BytesMut::new(),
        }
    }

    /// Opens no version that is newer than that.
    pub fn reading_up_to(self, newest: u8) -> Self {
        Self {
            newest: newest.clamp(OLDEST, NEWEST),
            ..self
        }
    }

    /// Opens with another ring from now on. Boots and windows stay.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        for sender in self.senders.values_mut() {
            sender.keys.retain(|(_, id, _)| {
                keyring
                    .get(*id)
                    .is_some_and(|key| self.keyring.get(*id) == Some(key))
            });
        }
        self.keyring = keyring;
    }

    /// Returns how many datagrams were dropped, by reason.
    pub fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// Returns how many datagrams were opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Opens a datagram, or says why it is dropped.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Opened, Rejected> {
        let opened = self.try_open(datagram);
        match &opened {
            Ok(_) => self.opened += 1,
            Err(rejected) => self.rejections.count(*rejected),
        }
        opened
    }

    fn try_open(&mut self, datagram: &[u8]) -> Result<Opened, Rejected> {
        if datagram.len() < OVERHEAD {
            return Err(Rejected::TooShort);
        }
        if datagram.len() > DATAGRAM_MAX {
            return Err(Rejected::TooLong);
        }
        let (clear, sealed) = datagram
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(Rejected::TooShort)?;
        let header = Header::read(clear, self.newest)?;
        if header.sender == self.node {
            return Err(Rejected::FromOurselves);
        }
        let cluster_key = self
            .keyring
            .get(header.key)
            .ok_or(Rejected::UnknownKey(header.key))?;

        let known = self.senders.get(&header.sender);
        if known.is_some_and(|sender| header.boot < sender.boot) {
            return Err(Rejected::OldBoot);
        }
        let current = known.filter(|sender| header.boot == sender.boot);
        if current.is_some_and(|sender| !sender.window.is_fresh(header.counter)) {
            return Err(Rejected::Replayed);
        }
        let cached = current.and_then(|sender| sender.key(header.version, header.key));
        let derived = match cached {
            Some(_) => None,
            None => {
                let sender = (header.sender, header.boot);
                Some(derive(header.version, cluster_key, sender))
            }
        };
        let key = cached.or(derived.as_ref()).ok_or(Rejected::Forged)?;

        let associated = associated_data(clear, self.cluster, self.node);
        let (text, tag) = sealed.split_at(sealed.len() - TAG_LEN);
        let plain = zeroes(&mut self.chunk, text.len());
        if key
            .open_separate_gather(header.nonce(), associated, text, tag, plain)
            .is_err()
        {
            self.chunk.clear();
            return Err(Rejected::Forged);
        }
        let payload = self.chunk.split().freeze();
        self.remember(header, derived);
        Ok(Opened {
            from: header.sender,
            boot: header.boot,
            version: header.version,
            payload,
        })
    }

    /// Notes that an authentic datagram came, and keeps the key that was derived for it.
    fn remember(&mut self, header: Header, derived: Option<LessSafeKey>) {
        if !self.senders.contains_key(&header.sender) && self.senders.len() >= self.senders_max {
            self.forget_the_longest_silent();
        }
        let sender = self
            .senders
            .entry(header.sender)
            .or_insert_with(|| Sender::new(header.boot));
        if sender.boot < header.boot {
            *sender = Sender::new(header.boot);
        }
        sender.heard = self.opened;
        sender.window.mark(header.counter);
        if let Some(key) = derived
            && sender.keys.len() < KEYS_MAX * VERSIONS
        {
            sender.keys.push((header.version, header.key, key));
        }
    }

    fn forget_the_longest_silent(&mut self) {
        let silent = self
            .senders
            .iter()
            .min_by_key(|(_, sender)| sender.heard)
            .map(|(node, _)| *node);
        if let Some(node) = silent {
            self.senders.remove(&node);
        }
    }
}

impl Sender {
    fn new(boot: Boot) -> Self {
        Self {
            boot,
            keys: Vec::new(),
            window: ReplayWindow::default(),
            heard: 0,
        }
    }

    fn key(&self, version: u8, id: KeyId) -> Option<&LessSafeKey> {
        self.keys
            .iter()
            .find(|(of, known, _)| (*of, *known) == (version, id))
            .map(|(_, _, key)| key)
    }
}

#[cfg(test)]
mod tests;
