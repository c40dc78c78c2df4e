//! A trace: the hash of everything that happened, and in what order.

use std::fmt;

/// FNV-1a (Fowler, Noll, Vo), 64 bits: small, and enough to tell two runs apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Takes what happened into the hash.
    pub fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Takes a number into the hash.
    pub fn note_number(&mut self, number: u64) {
        self.note(&number.to_le_bytes());
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:016x})", self.0)
    }
}
