//! Who has the write of the round already, and since when.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// The arrivals of one write after another, of which each is told by its node.
#[derive(Debug)]
pub struct Arrivals {
    round: Mutex<Round>,
    complete: Notify,
}

#[derive(Debug)]
struct Round {
    number: u64,
    begun: Instant,
    /// When it arrived at each node.
    at: Vec<Option<Duration>>,
}

impl Round {
    /// Returns how long the last node had to wait, if there is none that still does.
    fn last(&self) -> Option<Duration> {
        let at: Option<Vec<Duration>> = self.at.iter().copied().collect();
        at?.into_iter().max()
    }
}

impl Arrivals {
    /// Makes it for `nodes` nodes, none of which waits for anything.
    pub fn new(nodes: usize) -> Self {
        Self {
            round: Mutex::new(Round {
                number: 0,
                begun: Instant::now(),
                at: vec![None; nodes],
            }),
            complete: Notify::new(),
        }
    }

    /// Begins a round: from now on the time runs.
    pub fn begin(&self, number: u64) {
        self.with(|round| {
            round.number = number;
            round.at.fill(None);
            round.begun = Instant::now();
        });
    }

    /// The write of a round has arrived at a node. Copies, and those of another round, count for nothing.
    pub fn arrived(&self, node: usize, number: u64) {
        let is_last = self.with(|round| {
            let after = round.begun.elapsed();
            match round.at.get_mut(node) {
                Some(at @ None) if round.number == number => {
                    *at = Some(after);
                    round.last().is_some()
                }
                Some(_) | None => false,
            }
        });
        if is_last {
            self.complete.notify_one();
        }
    }

    /// Waits until all nodes have it and returns how long the last one had to wait; nothing if one still does after `limit`.
    pub async fn last(&self, limit: Duration) -> Option<Duration> {
        let complete = async {
            loop {
                if let Some(last) = self.with(|round| round.last()) {
                    return last;
                }
                self.complete.notified().await;
            }
        };
        timeout(limit, complete).await.ok()
    }

    /// Nothing in here waits or can panic halfway, so a poisoned lock is as good as any.
    fn with<T>(&self, work: impl FnOnce(&mut Round) -> T) -> T {
        work(&mut self.round.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_round_ends_with_the_last_node() {
        let arrivals = Arrivals::new(2);
        arrivals.begin(7);
        arrivals.arrived(1, 7);
        assert_eq!(arrivals.last(SHORT).await, None);

        arrivals.arrived(0, 7);

        assert!(arrivals.last(SHORT).await.is_some());
    }

    #[tokio::test]
    async fn copies_and_late_arrivals_of_the_round_before_do_not_count() {
        let arrivals = Arrivals::new(2);
        arrivals.begin(8);

        arrivals.arrived(0, 8);
        arrivals.arrived(0, 8);
        arrivals.arrived(1, 7);

        assert_eq!(arrivals.last(SHORT).await, None);
    }
}
