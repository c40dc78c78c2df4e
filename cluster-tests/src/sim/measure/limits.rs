//! What must come true, by measure, size and loss. A limit holds for its size and all smaller ones.

use super::{Cell, Measure, Profile, Row};

/// Bounds of a row; what is not given is not bounded.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Limits {
    /// Of the median, in milliseconds.
    pub p50_ms: Option<f64>,
    /// Of the longest, in milliseconds.
    pub max_ms: Option<f64>,
    /// Of what a node sends.
    pub bytes_per_node: Option<f64>,
    /// Of what a node sends in one second while nothing happens.
    pub bytes_per_node_s: Option<f64>,
    /// Of all bytes, as a multiple of the content.
    pub times_content: Option<f64>,
}

impl Limits {
    fn max(millis: f64) -> Self {
        Self {
            max_ms: Some(millis),
            ..Self::default()
        }
    }

    /// Returns what a row exceeds, in words.
    pub(super) fn missed_by(&self, row: &Row) -> Vec<String> {
        let bounds = [
            ("p50", "ms", row.p50_ms, self.p50_ms),
            ("max", "ms", row.max_ms, self.max_ms),
            ("sent", "B", row.bytes_per_node, self.bytes_per_node),
            ("sent", "B/s", row.bytes_per_node_s, self.bytes_per_node_s),
            ("sent", "x content", row.times_content, self.times_content),
        ];
        let exceeded = |(what, unit, found, bound): (&str, &str, Option<f64>, Option<f64>)| {
            let bound = bound.filter(|bound| found.is_some_and(|found| found > *bound))?;
            Some(format!("{what} <= {bound} {unit}"))
        };
        bounds.into_iter().filter_map(exceeded).collect()
    }
}

/// Returns the bounds of a cell's row, or of the row of one of its parts.
pub fn limits(cell: &Cell, case: Option<&str>) -> Limits {
    match cell.measure {
        Measure::Change => change(cell),
        Measure::Burst => burst(cell),
        Measure::Churn if cell.nodes <= 25 && cell.loss_pct == 0.0 => Limits::max(50.0),
        Measure::Idle if cell.loss_pct == 0.0 => Limits {
            bytes_per_node: Some(match cell.profile {
                Profile::Lan => 1000.0,
                Profile::Wan => 300.0,
            }),
            ..Limits::default()
        },
        Measure::Return if case.is_none_or(|case| case == "crash hidden") => crash(cell),
        Measure::Crash if cell.loss_pct <= 30.0 => Limits {
            bytes_per_node_s: steady(cell),
            ..crash(cell)
        },
        Measure::Join if cell.nodes <= 1000 && cell.loss_pct == 0.0 => Limits::max(2000.0),
        Measure::Churn
        | Measure::Idle
        | Measure::Return
        | Measure::Crash
        | Measure::FalseDown
        | Measure::Hardship
        | Measure::Join
        | Measure::Conflict => Limits::default(),
    }
}

fn crash(cell: &Cell) -> Limits {
    match (cell.nodes, cell.profile) {
        (0..=100, Profile::Lan) => Limits::max(2500.0),
        (101..=1000, Profile::Lan) => Limits::max(3000.0),
        (_, Profile::Lan | Profile::Wan) => Limits::default(),
    }
}

/// What a node may send all the time; where datagrams are lost, they are sent again.
fn steady(cell: &Cell) -> Option<f64> {
    let bound = match cell.profile {
        Profile::Lan => 1000.0,
        Profile::Wan => 300.0,
    };
    (cell.loss_pct == 0.0).then_some(bound)
}

/// A loss in between is held to what the greater loss is.
fn change(cell: &Cell) -> Limits {
    let is_lossless = cell.loss_pct == 0.0;
    let max_ms = match cell.nodes {
        _ if cell.loss_pct > 30.0 => return Limits::default(),
        0..=1000 if is_lossless => 10.0,
        0..=1000 => 80.0,
        1001..=5000 if is_lossless => 15.0,
        1001..=5000 => 120.0,
        _ => return Limits::default(),
    };
    Limits {
        p50_ms: (cell.nodes <= 25 && is_lossless).then_some(5.0),
        ..Limits::max(max_ms)
    }
}

fn burst(cell: &Cell) -> Limits {
    if cell.nodes > 25 {
        return Limits::default();
    }
    match cell.entries {
        0..=1000 if cell.loss_pct == 0.0 => Limits {
            times_content: Some(4.5),
            ..Limits::max(300.0)
        },
        0..=1000 if cell.loss_pct <= 30.0 => Limits::max(800.0),
        0..=5000 if cell.loss_pct == 0.0 => Limits::max(1500.0),
        _ => Limits::default(),
    }
}
