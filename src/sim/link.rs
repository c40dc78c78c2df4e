//! Links between nodes: delay, loss, duplicates, and cuts in one direction or both.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use rand::{Rng, RngExt};

use crate::core::model::Instant;

/// How long a stream waits for an acknowledgement at first, and how long it waits no more.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(200);
const RETRANSMIT_AT_MOST: Duration = Duration::from_secs(60);

/// How the links of a run behave. Each delay is drawn anew, so datagrams overtake each other.
#[derive(Clone, Debug)]
pub struct Links {
    /// How long a datagram or a frame is under way.
    pub delay: Range<Duration>,
    /// The share of datagrams that are lost. Streams lose as many segments and send them again, which takes time.
    pub loss: f64,
    /// The share of datagrams that arrive twice.
    pub duplicates: f64,
    /// How many bytes a second a machine sends at most, and receives.
    pub bytes_per_second: u32,
    /// How many bytes may wait to be received; datagrams that find no room are lost.
    pub receive_buffer: u32,
    /// Pairs (from, to) between which nothing passes.
    cut: BTreeSet<(usize, usize)>,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(200)..Duration::from_millis(1),
            loss: 0.0,
            duplicates: 0.0,
            bytes_per_second: 125_000_000,
            receive_buffer: 1024 * 1024,
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

    /// Returns how long that many bytes take.
    fn transfer(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_second))
    }

    /// Returns how long that many bytes on a stream are under way. Streams have the line to themselves.
    ///
    /// Of what is lost the last segment costs most: nothing that follows tells of the loss, so it waits for the timer of
    /// retransmission, which doubles (RFC 6298; Linux begins with 200 ms). What is lost before it is told at once.
    pub fn draw_call_delay(&self, rng: &mut impl Rng, bytes: usize) -> Duration {
        let mut delay = self.draw_delay(rng) + self.transfer(bytes);
        let mut timer = RETRANSMIT_AFTER;
        while timer < RETRANSMIT_AT_MOST && rng.random_bool(self.loss) {
            delay += timer;
            timer *= 2;
        }
        delay
    }

    /// Lets a datagram out of a machine whose line is free from `free` on; returns when it has left.
    pub fn depart(&self, now: Instant, free: Instant, bytes: usize) -> Instant {
        now.max(free) + self.transfer(bytes)
    }

    /// Lets a datagram into a machine whose line is free from `free` on; returns when it is there, unless the buffer is full.
    pub fn arrive(&self, at: Instant, free: Instant, bytes: usize) -> Option<Instant> {
        let full = self.transfer(self.receive_buffer as usize);
        (free.saturating_duration_since(at) <= full).then(|| at.max(free) + self.transfer(bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_carries_one_datagram_after_another() {
        let links = Links::default();
        let start = Instant::default();

        let first = links.depart(start, start, 125_000);
        let second = links.depart(start, first, 125_000);

        assert_eq!(first, start + Duration::from_millis(1));
        assert_eq!(second, start + Duration::from_millis(2));
    }

    #[test]
    fn what_finds_the_receive_buffer_full_is_lost() {
        let links = Links::default();
        let start = Instant::default();
        let behind = |millis| links.arrive(start, start + Duration::from_millis(millis), 100);

        assert!(behind(8).is_some());
        assert!(behind(9).is_none());
    }
}
