//! Second copies, told from first ones; and how many never come, which is how much is lost on the way.

use std::{collections::VecDeque, time::Duration};

use crate::core::model::{Instant, NodeId, mix};

/// How many records are remembered. At the bound the oldest is forgotten; a copy that is not told is handled twice, which
/// costs an answer and breaks nothing.
const RECENT_MAX: usize = 512;

/// Of about how many records it is counted whether their copies come: a handful of seconds.
const COUNTED: f64 = 50.0;
/// How many must have been counted before anything is said of them.
const COUNTED_MIN: f64 = 8.0;
/// Fewer copies than this a record mean loss: where a share p of all datagrams is lost, (1 - p) / (1 + p) of the records that
/// come at all come twice.
const COPIES_A_RECORD: f64 = 0.97;

/// The records of the last moments, by sender and hash.
#[derive(Debug)]
pub(super) struct RecentRecords {
    /// When each came first, from whom, its digest, and whether a copy has come too.
    recent: VecDeque<(Instant, NodeId, u64, bool)>,
    memory: Duration,
    /// How many records came lately whose copies would have come by now, and how many of those have; the older count less.
    firsts: f64,
    copies: f64,
}

impl RecentRecords {
    /// Remembers each record for `memory`: longer than copies are apart, shorter than anything is repeated on purpose.
    pub(super) fn new(memory: Duration) -> Self {
        Self {
            recent: VecDeque::new(),
            memory,
            firsts: 0.0,
            copies: 0.0,
        }
    }

    /// Returns whether the same record came from the same node a moment ago, and remembers it.
    pub(super) fn is_copy(&mut self, now: Instant, from: NodeId, body: &[u8]) -> bool {
        self.forget_old(now);
        let digest = digest(body);
        let known = self
            .recent
            .iter_mut()
            .find(|(_, node, seen, _)| *node == from && *seen == digest);
        let Some((.., has_copy)) = known else {
            self.recent.push_back((now, from, digest, false));
            return false;
        };
        // What is said again and again looks like many copies, and tells no more than one.
        *has_copy = true;
        true
    }

    /// Forgets the records whose copies have come or never will, and counts them; those that there is no room for are not.
    fn forget_old(&mut self, now: Instant) {
        let memory = self.memory;
        let is_over = |at: Instant| now.saturating_duration_since(at) > memory;
        while let Some((.., has_copy)) = self.recent.pop_front_if(|(at, ..)| is_over(*at)) {
            let kept = 1.0 - 1.0 / COUNTED;
            self.firsts = self.firsts * kept + 1.0;
            self.copies = self.copies * kept + f64::from(u8::from(has_copy));
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// Returns whether copies are missing: about one datagram in fifty is lost, or more. Only where copies are sent.
    pub(super) fn lacks_copies(&self) -> bool {
        self.firsts > COUNTED_MIN && self.copies < self.firsts * COPIES_A_RECORD
    }
}

fn digest(body: &[u8]) -> u64 {
    body.chunks(8).fold(body.len() as u64, |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(state ^ u64::from_le_bytes(word))
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
    fn where_records_are_lost_copies_are_lacking() {
        let lacks = |arrives: fn(u64) -> bool| {
            let mut recent = RecentRecords::new(Duration::from_millis(30));
            for number in 0..200u64 {
                for copy in [0, 1] {
                    if arrives(2 * number + copy) {
                        recent.is_copy(at(100 * number), NodeId(1), &number.to_be_bytes());
                    }
                }
            }
            recent.lacks_copies()
        };

        assert!(!lacks(|_| true));
        assert!(!lacks(|sent| sent % 200 != 0));
        assert!(lacks(|sent| sent % 20 != 0));
        assert!(lacks(|sent| sent % 3 != 0));
    }

    #[test]
    fn a_copy_that_may_still_come_is_not_lacking() {
        let mut recent = RecentRecords::new(Duration::from_millis(30));

        for number in 0..100u64 {
            for copy in [0, 10] {
                recent.is_copy(at(100 * number + copy), NodeId(1), &number.to_be_bytes());
            }
        }
        for number in 100..200u64 {
            recent.is_copy(at(10_000), NodeId(1), &number.to_be_bytes());
        }

        assert!(!recent.lacks_copies());
        recent.is_copy(at(10_031), NodeId(1), b"later");
        assert!(recent.lacks_copies());
    }

    #[test]
    fn what_is_said_again_and_again_does_not_hide_a_loss() {
        let mut recent = RecentRecords::new(Duration::from_millis(30));

        for number in 0..200u64 {
            let times = if number % 2 == 0 { 1 } else { 8 };
            for _ in 0..times {
                recent.is_copy(at(100 * number), NodeId(1), &number.to_be_bytes());
            }
        }

        assert!(recent.lacks_copies());
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
