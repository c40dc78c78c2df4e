//! Hashes that every node must agree on without a word: who neighbours whom, and whether two hold the same.
//!
//! The same everywhere and for ever: rings and roots depend on it.

use super::{NetworkId, NodeId};

/// Scatters the bits of a number: the finaliser of SplitMix64 (Steele et al., 2014).
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Where a node stands on the ring of a network: the nodes of a ring are sorted by this.
pub(crate) fn place(network: NetworkId, node: NodeId) -> (u64, NodeId) {
    (mix(u64::from(network.0) ^ mix(node.0)), node)
}
