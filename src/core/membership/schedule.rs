//! What is to be done later, by deadline.

use std::{collections::BTreeMap, time::Duration};

use crate::core::model::Instant;

/// Things to do, in the order of their deadlines; those of one instant in the order they were added.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    due: BTreeMap<(Instant, u64), T>,
    added: u64,
}

impl<T> Schedule<T> {
    pub(super) fn new() -> Self {
        Self {
            due: BTreeMap::new(),
            added: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    pub(super) fn add(&mut self, at: Instant, thing: T) {
        self.added += 1;
        self.due.insert((at, self.added), thing);
    }

    /// Returns the first deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the first thing that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Puts everything off by `delay`. The order stays.
    pub(super) fn postpone(&mut self, delay: Duration) {
        let due = std::mem::take(&mut self.due);
        self.due = due
            .into_iter()
            .map(|((at, added), thing)| ((at + delay, added), thing))
            .collect();
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn things_come_in_the_order_of_their_deadlines_then_as_they_were_added() {
        let mut schedule = Schedule::new();
        schedule.add(at(2), 'c');
        schedule.add(at(1), 'a');
        schedule.add(at(1), 'b');
        schedule.add(at(9), 'd');

        let due: String = std::iter::from_fn(|| schedule.take(at(2))).collect();

        assert_eq!(due, "abc");
        assert_eq!(schedule.next(), Some(at(9)));
    }

    #[test]
    fn what_is_postponed_keeps_its_order() {
        let mut schedule = Schedule::new();
        schedule.add(at(1), 'a');
        schedule.add(at(2), 'b');

        schedule.postpone(Duration::from_millis(10));

        assert_eq!(schedule.take(at(10)), None);
        assert_eq!(schedule.take(at(12)), Some('a'));
        assert_eq!(schedule.take(at(12)), Some('b'));
    }
}
