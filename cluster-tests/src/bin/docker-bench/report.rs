//! What was measured: a table beside the goals, or JSON.

use std::{fmt, fs, time::Duration};

use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Row {
    /// A container appears on another host, and goes
    Appear,
    /// A host is cut off, and comes back
    Gone,
    /// Throughput and round trips between containers
    Traffic,
    /// The plugin socket alone
    Joins,
    /// What the daemon weighs
    Memory,
    /// Entries into the kernel
    Entries,
}

impl Row {
    pub(crate) const ALL: [Self; 6] = [
        Self::Appear,
        Self::Gone,
        Self::Traffic,
        Self::Joins,
        Self::Memory,
        Self::Entries,
    ];

    pub(crate) fn needs_engines(self) -> bool {
        self != Self::Entries
    }
}

/// Many measurements of one thing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    least: f64,
    most: f64,
    p99: f64,
    count: usize,
}

impl Spread {
    /// Sorts values; nothing if there are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let place = (values.len() * 99 / 100).min(values.len().checked_sub(1)?);
        Some(Self {
            median: values[values.len() / 2],
            least: values[0],
            most: values[values.len() - 1],
            p99: values[place],
            count: values.len(),
        })
    }

    /// The same of times, in milliseconds.
    pub(crate) fn of_times(times: &[Duration]) -> Option<Self> {
        Self::of(
            times
                .iter()
                .map(|time| time.as_secs_f64() * 1_000.0)
                .collect(),
        )
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median.abs() {
            small if small < 10.0 => 2,
            middle if middle < 1_000.0 => 1,
            _ => 0,
        };
        let Self {
            median,
            least,
            most,
            ..
        } = self;
        write!(f, "{median:.digits$} [{least:.digits$}–{most:.digits$}]")
    }
}

/// Which of many measurements a goal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Of {
    Median,
    P99,
    Every,
}

/// What must come true.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Goal {
    of: Of,
    limit: f64,
    is_least: bool,
}

impl Goal {
    pub(crate) fn at_most(of: Of, limit: f64) -> Option<Self> {
        Some(Self {
            of,
            limit,
            is_least: false,
        })
    }

    pub(crate) fn at_least(of: Of, limit: f64) -> Option<Self> {
        Some(Self {
            of,
            limit,
            is_least: true,
        })
    }

    fn is_met(self, by: &Spread) -> bool {
        match (self.of, self.is_least) {
            (Of::Median, false) => by.median <= self.limit,
            (Of::P99, false) => by.p99 <= self.limit,
            (Of::Every, false) => by.most <= self.limit,
            (Of::Median, true) => by.median >= self.limit,
            (Of::P99 | Of::Every, true) => by.least >= self.limit,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            Of::Median => "",
            Of::P99 => "p99 ",
            Of::Every => "each ",
        };
        let sign = if self.is_least { "≥" } else { "≤" };
        let digits = if self.limit < 10.0 { 2 } else { 0 };
        write!(f, "{of}{sign} {:.digits$}", self.limit)
    }
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) weft: Option<Spread>,
    pub(crate) swarm: Option<Spread>,
    /// What is measured beside both: a local bridge, a VXLAN made by hand.
    pub(crate) beside: Option<Spread>,
    pub(crate) goal: Option<Goal>,
}

/// What is said as it is measured.
pub(crate) struct Report {
    is_json: bool,
    row: Option<Row>,
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn new(is_json: bool) -> Self {
        Self {
            is_json,
            row: None,
            missed: Vec::new(),
        }
    }

    pub(crate) fn begin(&mut self, row: Row) {
        self.row = Some(row);
        if self.is_json {
            return;
        }
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        let name = row.to_possible_value();
        let name = name.as_ref().map_or("", |name| name.get_name());
        println!("\n{name} (load {load}): median [least–most]\n");
        println!("| | unit | Weft | Swarm | beside | goal | |");
        println!("|---|---|---:|---:|---:|---:|---|");
    }

    pub(crate) fn add(&mut self, line: Line) {
        let met = line.goal.zip(line.weft.as_ref());
        let met = met.map(|(goal, weft)| goal.is_met(weft));
        if met == Some(false) {
            self.missed.push(line.what.clone());
        }
        if self.is_json {
            println!(
                "{}",
                serde_json::json!({ "row": self.row, "line": line, "met": met })
            );
            return;
        }
        let shown = |spread: &Option<Spread>| match spread {
            Some(spread) => spread.to_string(),
            None => "–".to_owned(),
        };
        let goal = line.goal.map_or_else(String::new, |goal| goal.to_string());
        let met = match met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        println!(
            "| {} | {} | {} | {} | {} | {goal} | {met} |",
            line.what,
            line.unit,
            shown(&line.weft),
            shown(&line.swarm),
            shown(&line.beside),
        );
    }

    /// Ends; if that is asked for, badly where a goal was missed.
    pub(crate) fn end(self, check: bool) -> anyhow::Result<()> {
        match check && !self.missed.is_empty() {
            true => bail!("missed: {}", self.missed.join("; ")),
            false => Ok(()),
        }
    }
}
