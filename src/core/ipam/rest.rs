//! Prefixes that were given back a moment ago, and are used again last.

use std::collections::VecDeque;

use super::{Space, block::COOL_DOWN};
use crate::core::model::{Prefix, UnixMillis};

/// How many prefixes may rest at a time; with more, the one that rested longest is as good as new.
pub const RESTING_MAX: usize = 4_096;

/// What rests, and since when. Time is the one that the commands carry, so that every voter comes to the same state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rest {
    /// The longest rested first. They may lie in each other: one is given back, a part of it leased and given back too.
    queue: VecDeque<(UnixMillis, Prefix, bool)>,
}

impl Rest {
    /// Lets a prefix rest. One that is `fenced` may be in use still, by a node that was shut out.
    pub fn add(&mut self, since: UnixMillis, prefix: Prefix, fenced: bool) {
        self.queue.push_back((since, prefix, fenced));
        if self.queue.len() > RESTING_MAX {
            self.queue.pop_front();
        }
    }

    /// Forgets what has rested.
    pub fn wake(&mut self, now: UnixMillis) {
        self.queue.retain(|(since, ..)| !is_over(*since, now));
    }

    /// Returns what rests, as obstacles.
    pub fn obstacles(&self) -> Space {
        let mut space = Space::default();
        for (_, prefix, _) in &self.queue {
            space.cover(*prefix);
        }
        space
    }

    /// Returns what may be in use still, as obstacles.
    pub fn fences(&self) -> Space {
        let mut space = Space::default();
        for (_, prefix, _) in self.queue.iter().filter(|(.., fenced)| *fenced) {
            space.cover(*prefix);
        }
        space
    }

    /// Returns since when the part of `prefix` rests that may be in use still, if there is one.
    pub fn fenced(&self, prefix: Prefix) -> Option<UnixMillis> {
        let overlaps = |other: Prefix| {
            other.0.contains(&prefix.0.network()) || prefix.0.contains(&other.0.network())
        };
        let fenced = self.queue.iter().rev();
        let mut fenced = fenced.filter(|(_, other, fenced)| *fenced && overlaps(*other));
        fenced.next().map(|(since, ..)| *since)
    }

    /// Returns what rests, the longest rested first: since when, what, and whether it may be in use still.
    pub fn iter(&self) -> impl Iterator<Item = (UnixMillis, Prefix, bool)> {
        self.queue.iter().copied()
    }

    /// Returns whether nothing rests.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

fn is_over(since: UnixMillis, now: UnixMillis) -> bool {
    u128::from(now.0.saturating_sub(since.0)) >= COOL_DOWN.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix(text.parse().unwrap())
    }

    #[test]
    fn what_was_given_back_is_in_the_way_for_five_minutes() {
        let mut rest = Rest::default();
        rest.add(UnixMillis(1_000), prefix("10.0.0.0/28"), false);
        rest.add(UnixMillis(2_000), prefix("10.0.0.3/32"), true);

        assert_eq!(
            rest.fences().iter().collect::<Vec<_>>(),
            [prefix("10.0.0.3/32")]
        );
        rest.wake(UnixMillis(300_999));
        assert_eq!(
            rest.obstacles().iter().collect::<Vec<_>>(),
            [prefix("10.0.0.0/28")]
        );
        assert_eq!(rest.fenced(prefix("10.0.0.0/24")), Some(UnixMillis(2_000)));
        assert_eq!(rest.fenced(prefix("10.0.0.4/32")), None);
        rest.wake(UnixMillis(301_000));
        assert_eq!(
            rest.obstacles().iter().collect::<Vec<_>>(),
            [prefix("10.0.0.3/32")]
        );
        rest.wake(UnixMillis(302_000));
        assert!(rest.is_empty());
    }

    #[test]
    fn a_clock_that_went_back_wakes_nothing() {
        let mut rest = Rest::default();
        rest.add(UnixMillis(1_000_000), prefix("10.0.0.0/28"), false);

        rest.wake(UnixMillis(5));

        assert!(!rest.is_empty());
    }

    #[test]
    fn only_so_many_rest() {
        let mut rest = Rest::default();
        for n in 0..=RESTING_MAX as u64 {
            rest.add(UnixMillis(n), prefix("10.0.0.0/28"), false);
        }

        assert_eq!(rest.iter().count(), RESTING_MAX);
        assert_eq!(
            rest.iter().next().map(|(since, ..)| since),
            Some(UnixMillis(1))
        );
    }
}
