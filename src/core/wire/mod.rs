//! Bytes ⇄ messages: sealed datagrams, the records inside them, the keyring, the replay window, the limits.
//!
//! **Invariant:** bytes that are not authentic are counted and dropped. They change no state, cause no answer and never
//! reach a decoder: [`envelope::Opener`] stands before everything else.

pub mod codec;
pub mod envelope;
pub mod keyring;
pub mod lifetime;
pub mod record;
mod replay;
pub mod rotation;
pub mod succession;
pub mod versions;

/// The longest sealed datagram, in bytes: fits an Ethernet frame with room for tunnels below it.
pub const DATAGRAM_MAX: usize = 1400;

/// What the envelope adds to a payload, in bytes.
pub const OVERHEAD: usize = envelope::HEADER_LEN + envelope::TAG_LEN;

/// The longest payload of a datagram, in bytes.
pub const PAYLOAD_MAX: usize = DATAGRAM_MAX - OVERHEAD;
