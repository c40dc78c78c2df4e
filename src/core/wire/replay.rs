//! The replay window: which counters of one sender were seen, so that no datagram is taken twice.

/// How many datagrams a sender may be ahead of one that is still accepted.
///
/// **Invariant:** at least what a node sends to one receiver while one datagram is late, or honest ones are refused.
/// RFC 6479 gives the window in words of 64 bits.
pub(super) const REPLAY_WINDOW: u64 = 1024;

const WORD: u64 = u64::BITS as u64;

const _: () = assert!(REPLAY_WINDOW.is_multiple_of(WORD));

/// The counters of one sender: the newest, and which of the [`REPLAY_WINDOW`] up to it were seen (RFC 6479).
#[derive(Debug, Default)]
pub(super) struct ReplayWindow {
    newest: u64,
    seen: [u64; (REPLAY_WINDOW / WORD) as usize],
}

impl ReplayWindow {
    /// Returns whether `counter` was neither seen nor left behind.
    pub(super) fn is_fresh(&self, counter: u64) -> bool {
        if counter > self.newest {
            return true;
        }
        let (word, bit) = place(counter);
        self.newest - counter < REPLAY_WINDOW && self.seen[word] & bit == 0
    }

    /// Marks `counter` as seen. Only for datagrams that are authentic, or anybody could move the window.
    pub(super) fn mark(&mut self, counter: u64) {
        if counter > self.newest {
            self.advance(counter);
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
    }

    fn advance(&mut self, newest: u64) {
        if newest - self.newest >= REPLAY_WINDOW {
            self.seen = Default::default();
        } else {
            for skipped in self.newest + 1..=newest {
                let (word, bit) = place(skipped);
                self.seen[word] &= !bit;
            }
        }
        self.newest = newest;
    }
}

fn place(counter: u64) -> (usize, u64) {
    let position = counter % REPLAY_WINDOW;
    ((position / WORD) as usize, 1 << (position % WORD))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_is_taken_once() {
        let mut window = ReplayWindow::default();

        window.mark(5);

        assert!(!window.is_fresh(5));
        assert!(window.is_fresh(4));
        assert!(window.is_fresh(6));
    }

    #[test]
    fn the_last_of_the_window_is_taken_and_the_one_behind_it_is_not() {
        let mut window = ReplayWindow::default();

        window.mark(10_000);

        assert!(window.is_fresh(10_000 - REPLAY_WINDOW + 1));
        assert!(!window.is_fresh(10_000 - REPLAY_WINDOW));
    }

    #[test]
    fn the_greatest_counter_does_not_overflow() {
        let mut window = ReplayWindow::default();

        window.mark(u64::MAX);

        assert!(!window.is_fresh(u64::MAX));
        assert!(window.is_fresh(u64::MAX - 1));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_counters(counters in proptest::collection::vec(1u64..5_000, 1..400)) {
            let mut window = ReplayWindow::default();
            let mut all = BTreeSet::new();
            for counter in counters {
                let newest = all.last().copied().unwrap_or(0);
                let expected = counter + REPLAY_WINDOW > newest && !all.contains(&counter);

                prop_assert_eq!(window.is_fresh(counter), expected);

                if expected {
                    window.mark(counter);
                    all.insert(counter);
                }
            }
        }
    }
}
