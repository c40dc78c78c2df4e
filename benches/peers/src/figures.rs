//! What comes out of the samples of one contender.

use std::time::Duration;

use serde::Serialize;

use crate::{
    measure::{Sample, Used},
    systems::Contender,
};

/// The figures of one contender at one number of nodes. Times are in milliseconds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// The system and its settings.
    pub system: String,
    /// How many nodes.
    pub nodes: usize,
    /// How many writes.
    pub rounds: usize,
    /// How many of them were not at all nodes within the limit. They count as if they had taken that long.
    pub lost: usize,
    /// The shortest time until all nodes had a write.
    pub min_ms: f64,
    /// The median.
    pub median_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// What a node sends for one write, on the average, beyond what it sends anyway in the same time.
    pub bytes_per_update: f64,
    /// How far the turns were apart in that: half of the way from the least to the most.
    pub bytes_per_update_spread: f64,
    /// What a node sends a second while nothing is written.
    pub idle_bytes_per_second: f64,
    /// How much of one core all nodes together need while nothing is written, in per cent.
    pub idle_cpu_percent: f64,
}

impl Figures {
    /// Works them out.
    pub fn of(contender: Contender, nodes: usize, samples: &[Sample], limit: Duration) -> Self {
        let rounds: Vec<_> = samples.iter().flat_map(|sample| &sample.rounds).collect();
        let mut times: Vec<Duration> = rounds.iter().map(|round| round.unwrap_or(limit)).collect();
        times.sort_unstable();
        let at = |quantile| 1e3 * percentile(&times, quantile).as_secs_f64();
        let idle = sum(samples.iter().map(|sample| sample.idle));
        let busy = sum(samples.iter().map(|sample| sample.busy));
        let turns = samples.iter().map(|sample| {
            let writes = sample.rounds.len() * nodes;
            beyond_idle(sample.idle, sample.busy) / writes as f64
        });
        let (least, most) = turns.fold((f64::MAX, f64::MIN), |(least, most), bytes| {
            (bytes.min(least), bytes.max(most))
        });
        Self {
            system: contender.to_string(),
            nodes,
            rounds: rounds.len(),
            lost: rounds.iter().filter(|round| round.is_none()).count(),
            min_ms: at(0.0),
            median_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            bytes_per_update: beyond_idle(idle, busy) / (rounds.len() * nodes) as f64,
            bytes_per_update_spread: (most - least) / 2.0,
            idle_bytes_per_second: per_second(idle) / nodes as f64,
            idle_cpu_percent: 100.0 * idle.processor.as_secs_f64() / idle.time.as_secs_f64(),
        }
    }
}

fn per_second(used: Used) -> f64 {
    used.bytes as f64 / used.time.as_secs_f64()
}

/// Returns how many bytes were sent beyond what idle nodes would have sent in that time.
fn beyond_idle(idle: Used, busy: Used) -> f64 {
    busy.bytes as f64 - per_second(idle) * busy.time.as_secs_f64()
}

fn sum(used: impl Iterator<Item = Used>) -> Used {
    used.fold(Used::default(), |sum, used| sum + used)
}

/// Returns the smallest of the sorted times that at least this part of them does not exceed (nearest rank); zero if there is none.
pub fn percentile(sorted: &[Duration], quantile: f64) -> Duration {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    let place = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::{Settings, System};

    const WEFT: Contender = Contender {
        system: System::Weft,
        settings: Settings::Default,
    };

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times: Vec<_> = (1..=20).map(Duration::from_millis).collect();

        let at = |quantile| percentile(&times, quantile).as_millis();

        assert_eq!([at(0.0), at(0.5), at(0.99), at(1.0)], [1, 10, 20, 20]);
        assert_eq!(percentile(&times[..1], 0.5).as_millis(), 1);
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn what_is_sent_anyway_is_not_counted_for_a_write() {
        let used = |seconds, bytes| Used {
            time: Duration::from_secs(seconds),
            processor: Duration::from_millis(10 * seconds),
            bytes,
        };
        let turn = |bytes_per_update: u64| Sample {
            rounds: vec![Some(Duration::from_millis(3)); 5],
            idle: used(2, 2_000),
            busy: used(10, 10_000 + 5 * 4 * bytes_per_update),
        };

        let figures = Figures::of(WEFT, 4, &[turn(600), turn(800)], Duration::from_secs(1));

        assert_eq!(figures.bytes_per_update, 700.0);
        assert_eq!(figures.bytes_per_update_spread, 100.0);
        assert_eq!(figures.idle_bytes_per_second, 250.0);
        assert_eq!(figures.idle_cpu_percent, 1.0);
        assert_eq!(figures.rounds, 10);
    }

    #[test]
    fn a_lost_write_counts_as_the_limit() {
        let sample = Sample {
            rounds: vec![Some(Duration::from_millis(3)), None],
            idle: Used::default(),
            busy: Used::default(),
        };

        let figures = Figures::of(WEFT, 4, &[sample], Duration::from_secs(9));

        assert_eq!((figures.lost, figures.max_ms), (1, 9_000.0));
    }
}
