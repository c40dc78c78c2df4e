//! Links between nodes: delay, loss, duplicates, and cuts in one direction or both.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use rand::{Rng, RngExt};

/// How the links of a run behave. Each delay is drawn anew, so datagrams overtake each other.
#[derive(Clone, Debug)]
pub struct Links {
    /// How long a datagram or a frame is under way.
    pub delay: Range<Duration>,
    /// The share of datagrams that are lost; streams retransmit, so they lose nothing.
    pub loss: f64,
    /// The share of datagrams that arrive twice.
    pub duplicates: f64,
    /// Pairs (from, to) between which nothing passes.
    cut: BTreeSet<(usize, usize)>,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(200)..Duration::from_millis(1),
            loss: 0.0,
            duplicates: 0.0,
            cut: BTreeSet::new(),
        }
    }
}

impl Links {
    /// Returns whether anything passes from one node to another.
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Cuts every node of `side` from every other of `nodes`, in both directions.
    pub fn partition(&mut self, side: &BTreeSet<usize>, nodes: usize) {
        for &inside in side {
            for outside in (0..nodes).filter(|node| !side.contains(node)) {
                self.cut(inside, outside);
                self.cut(outside, inside);
            }
        }
    }

    /// Opens all that was cut.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Returns how long one message is under way.
    pub fn draw_delay(&self, rng: &mut impl Rng) -> Duration {
        rng.random_range(self.delay.clone())
    }

    /// Returns the delays of the copies of one datagram that arrive: none if it is lost.
    pub fn draw_arrivals(&self, rng: &mut impl Rng) -> Vec<Duration> {
        if rng.random_bool(self.loss) {
            return Vec::new();
        }
        let copies = if rng.random_bool(self.duplicates) {
            2
        } else {
            1
        };
        (0..copies).map(|_| self.draw_delay(rng)).collect()
    }
}
