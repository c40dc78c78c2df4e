//! Second copies, told from first ones.

use std::{collections::VecDeque, time::Duration};

use super::table::hash;
use crate::core::model::{Instant, NodeId};

/// How many records are remembered. At the bound the oldest is forgotten; a copy that is not told is handled twice, which
/// costs an answer and breaks nothing.
const RECENT_MAX: usize = 512;

/// The records of the last moments, by sender and hash.
#[derive(Debug)]
pub(super) struct RecentRecords {
    recent: VecDeque<(Instant, NodeId, u64)>,
    memory: Duration,
}

impl RecentRecords {
    /// Remembers each record for `memory`: longer than copies are apart, shorter than anything is repeated on purpose.
    pub(super) fn new(memory: Duration) -> Self {
        Self {
            recent: VecDeque::new(),
            memory,
        }
    }

    /// Returns whether the same record came from the same node a moment ago, and remembers it.
    pub(super) fn is_copy(&mut self, now: Instant, from: NodeId, body: &[u8]) -> bool {
        while let Some((at, ..)) = self.recent.front()
            && (self.recent.len() >= RECENT_MAX || now.saturating_duration_since(*at) > self.memory)
        {
            self.recent.pop_front();
        }
        let digest = digest(body);
        let known = self
            .recent
            .iter()
            .any(|(_, node, seen)| *node == from && *seen == digest);
        if !known {
            self.recent.push_back((now, from, digest));
        }
        known
    }
}

fn digest(body: &[u8]) -> u64 {
    body.chunks(8).fold(body.len() as u64, |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash(state ^ u64::from_le_bytes(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_copy_is_told_from_a_repetition() {
        let mut recent = RecentRecords::new(Duration::from_millis(30));

        assert!(!recent.is_copy(at(0), NodeId(1), b"ping"));
        assert!(recent.is_copy(at(10), NodeId(1), b"ping"));
        assert!(!recent.is_copy(at(10), NodeId(2), b"ping"));
        assert!(!recent.is_copy(at(10), NodeId(1), b"pong"));
        assert!(!recent.is_copy(at(31), NodeId(1), b"ping"));
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut recent = RecentRecords::new(Duration::from_millis(30));

        for number in 0..10_000u32 {
            recent.is_copy(at(0), NodeId(1), &number.to_be_bytes());
        }

        assert_eq!(recent.recent.len(), RECENT_MAX);
    }
}
