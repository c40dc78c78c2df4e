//! Delays: how many were how long, to a hundredth, in a few kilobytes however many there are.

use std::time::Duration;

/// How many bits of a delay in microseconds are kept: two delays that share a bucket differ by less than a hundredth.
const BITS: u32 = 7;
const WIDTH: usize = 1 << BITS;

/// Delays that were observed, in buckets that grow with the delay.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Delays {
    buckets: Vec<u64>,
    count: u64,
    longest: Duration,
}

impl Delays {
    /// Takes one delay.
    pub fn record(&mut self, delay: Duration) {
        let bucket = bucket_of(delay);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.longest = self.longest.max(delay);
    }

    /// Takes all that another has taken.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += count;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// Returns how many delays there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the longest delay, exactly.
    pub fn longest(&self) -> Option<Duration> {
        (self.count > 0).then_some(self.longest)
    }

    /// Returns the delay that a share of all do not exceed, rounded up by less than a hundredth.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (share * self.count as f64).ceil().max(1.0) as u64;
        self.shares()
            .find(|(below, _)| *below >= rank)
            .map(|(_, up_to)| up_to)
    }

    /// Returns, for each bucket that has any, how many delays are in it or below, and its longest.
    pub fn shares(&self) -> impl Iterator<Item = (u64, Duration)> {
        let mut below = 0;
        let filled = self.buckets.iter().enumerate();
        filled
            .filter(|(_, count)| **count > 0)
            .map(move |(bucket, count)| {
                below += count;
                (below, longest_in(bucket).min(self.longest))
            })
    }
}

fn bucket_of(delay: Duration) -> usize {
    let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
    let octave = (u64::BITS - micros.leading_zeros()).saturating_sub(BITS + 1);
    octave as usize * WIDTH + (micros >> octave) as usize
}

fn longest_in(bucket: usize) -> Duration {
    let octave = (bucket / WIDTH).saturating_sub(1);
    let first = (bucket - octave * WIDTH) as u128;
    let end = (first + 1) << octave;
    // All of the last microsecond belongs to it.
    Duration::from_nanos(u64::try_from(end * 1000 - 1).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_in_a_bucket_that_is_less_than_a_hundredth_longer() {
        for micros in [0, 1, 127, 128, 255, 256, 257, 1_000, 65_537, 10_000_000] {
            let delay = Duration::from_micros(micros);

            let longest = longest_in(bucket_of(delay));

            assert!(longest >= delay, "{delay:?} {longest:?}");
            let most = delay + delay / 100 + Duration::from_micros(1);
            assert!(longest <= most, "{delay:?} {longest:?}");
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let end = |bucket| longest_in(bucket) + Duration::from_nanos(1);

        for bucket in 0..20 * WIDTH {
            assert_eq!(bucket_of(end(bucket)), bucket + 1);
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_delays() {
        let mut delays = Delays::default();
        for millis in 1..=100 {
            delays.record(Duration::from_millis(millis));
        }

        let near = |share: f64, millis: f64| {
            let found = delays.quantile(share).unwrap().as_secs_f64() * 1e3;
            assert!((millis..=millis * 1.01).contains(&found), "{found}");
        };
        near(0.0, 1.0);
        near(0.5, 50.0);
        near(0.9, 90.0);
        assert_eq!(delays.quantile(1.0), Some(Duration::from_millis(100)));
        assert_eq!(Delays::default().quantile(0.5), None);
    }

    #[test]
    fn what_two_threads_took_is_put_together() {
        let of = |millis: &[u64]| {
            let mut delays = Delays::default();
            for &millis in millis {
                delays.record(Duration::from_millis(millis));
            }
            delays
        };

        let mut merged = of(&[1, 900]);
        merged.merge(&of(&[2, 3]));

        assert_eq!(merged, of(&[1, 2, 3, 900]));
    }
}
