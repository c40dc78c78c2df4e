//! A row: what the samples of a cell were.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use super::{Cell, Limits, Measure, Part, Sample, limits};

/// What a cell, or one part of it, has shown. What does not apply is null.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub measure: &'static str,
    /// Which part of it; null for the measure as a whole.
    pub case: Option<&'static str>,
    /// How many machines there were.
    pub nodes: usize,
    /// How many entries there were, or were made.
    pub entries: usize,
    /// How many of a hundred datagrams were lost.
    pub loss_pct: f64,
    /// To how many steps along the ring, on either side, and random nodes a new dot was pushed at once.
    pub scheme: String,
    /// Which part of membership was left out; null for none.
    pub without: Option<&'static str>,
    /// How many seeds were run.
    pub seeds: u64,
    /// Half of the samples were seen everywhere within so many milliseconds.
    pub p50_ms: Option<f64>,
    /// Nine of ten were.
    pub p90_ms: Option<f64>,
    /// All were, but for `violations`.
    pub max_ms: Option<f64>,
    /// Bytes that a node sent on average, without headers of UDP, TCP and IP: for a change or a burst beyond what it sends all the
    /// time, and `idle`: in one second.
    pub bytes_per_node: Option<f64>,
    /// Bytes that a node sent in one second while nothing happened, on average.
    pub bytes_per_node_s: Option<f64>,
    /// Half of the samples were seen by a first node within so many milliseconds.
    pub first_ms: Option<f64>,
    /// How often a node that was well was held for down.
    pub false_downs: Option<u64>,
    /// How often a node received each dot that it lacked, on average.
    pub copies_per_node: Option<f64>,
    /// All bytes that were sent, as a multiple of keys and values that each node needed once.
    pub times_content: Option<f64>,
    /// In how many samples nodes that should agree did not.
    pub diverged: Option<u64>,
    /// How many samples were not seen in time, or broke a property.
    pub violations: u64,
    /// What must come true of it and did not.
    pub missed: Vec<String>,
}

impl Row {
    /// Makes the row of all samples, and one of each part if there are several. Where parts are about different things, there
    /// is none of all.
    pub(super) fn all(cell: &Cell, samples: &[Sample]) -> Vec<Self> {
        let cases: BTreeSet<&str> = samples.iter().map(|sample| sample.case).collect();
        let whole = match cell.measure {
            // What is read as the measure itself: until a crash is hidden.
            Measure::Return => Self::of(cell, None, &by_case(samples, "crash hidden")),
            Measure::Change
            | Measure::Burst
            | Measure::Churn
            | Measure::Idle
            | Measure::Crash
            | Measure::FalseDown
            | Measure::Hardship
            | Measure::Join
            | Measure::Conflict => Self::of(cell, None, samples),
        };
        let mut rows = vec![whole];
        if cases.len() > 1 {
            let part = |case| Self::of(cell, Some(case), &by_case(samples, case));
            // In the order in which they were taken.
            let mut seen = BTreeSet::new();
            let cases = samples.iter().map(|sample| sample.case);
            rows.extend(cases.filter(|case| seen.insert(*case)).map(part));
        }
        rows
    }

    fn of(cell: &Cell, case: Option<&'static str>, samples: &[Sample]) -> Self {
        let mut took: Vec<Duration> = samples.iter().filter_map(|sample| sample.took).collect();
        took.sort_unstable();
        let mean = |of: fn(&Sample) -> Option<f64>| {
            let found: Vec<f64> = samples.iter().filter_map(of).collect();
            (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
        };
        let mut first: Vec<Duration> = samples.iter().filter_map(|sample| sample.first).collect();
        first.sort_unstable();
        let diverged = samples.iter().filter_map(|sample| sample.diverged);
        let false_downs = samples.iter().filter_map(|sample| sample.false_downs);
        let is_idle = cell.measure == Measure::Idle;
        let mut row = Self {
            measure: cell.measure.name(),
            case: case.or_else(|| is_idle.then(|| cell.profile.name())),
            nodes: cell.nodes,
            entries: cell.entries,
            loss_pct: cell.loss_pct,
            scheme: format!("{}+{}", cell.scheme.near, cell.scheme.random),
            without: cell.without.map(Part::name),
            seeds: cell.seeds,
            p50_ms: millis(&took, 0.5),
            p90_ms: millis(&took, 0.9),
            max_ms: millis(&took, 1.0),
            bytes_per_node: mean(|sample| sample.bytes_per_node).map(|bytes| rounded(bytes, 1)),
            bytes_per_node_s: mean(|sample| sample.bytes_per_node_s).map(|bytes| rounded(bytes, 1)),
            first_ms: millis(&first, 0.5),
            false_downs: false_downs.fold(None, |sum, more| Some(sum.unwrap_or(0) + more)),
            copies_per_node: mean(|sample| sample.copies_per_node).map(|copies| rounded(copies, 2)),
            times_content: mean(|sample| sample.times_content).map(|times| rounded(times, 2)),
            diverged: diverged.fold(None, |sum, one| Some(sum.unwrap_or(0) + u64::from(one))),
            violations: samples.iter().map(|sample| sample.violations).sum(),
            missed: Vec::new(),
        };
        let limits: Limits = limits(cell, case);
        row.missed = limits.missed_by(&row);
        row
    }

    /// Returns whether all held that must hold.
    pub fn is_good(&self) -> bool {
        self.missed.is_empty() && self.violations == 0 && self.diverged.unwrap_or(0) == 0
    }
}

fn by_case(samples: &[Sample], case: &str) -> Vec<Sample> {
    let of_it = samples.iter().filter(|sample| sample.case == case);
    of_it.copied().collect()
}

/// Returns what a share of the sorted durations do not exceed, in milliseconds.
fn millis(sorted: &[Duration], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    let found = sorted.get(rank - 1)?;
    Some(rounded(found.as_secs_f64() * 1e3, 3))
}

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_samples() {
        let sorted: Vec<Duration> = (1..=10).map(Duration::from_millis).collect();

        let found = [0.0, 0.5, 0.9, 0.91, 1.0].map(|share| millis(&sorted, share));

        assert_eq!(found, [1.0, 5.0, 9.0, 10.0, 10.0].map(Some));
        assert_eq!(millis(&[], 0.5), None);
    }
}
