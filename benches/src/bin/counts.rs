//! How many instructions and allocations each piece of work takes, against the report in `counts.md`.
//!
//! Both are the same on every run of one build, however busy the machine is. Allocations are counted here, instructions by
//! Callgrind, under which this program runs itself. Another compiler or C library makes other counts; so does a processor that
//! seals and opens with other instructions, in the rows that do so.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::{alloc::System, collections::BTreeMap, fmt::Write, fs, path::PathBuf, process::Command};

use anyhow::{Context, ensure};
use benches::work::{Left, Ready, Work};
use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How much more than the report says is a regression.
const TOLERANCE: f64 = 0.05;
/// What stands in the report where nothing was counted.
const NOTHING: &str = "-";

/// Counts instructions and allocations, and compares them with the report
#[derive(Debug, Parser)]
struct Args {
    /// Write the report anew instead of comparing with it
    #[arg(long)]
    write: bool,
    /// Count allocations alone: needs no Valgrind
    #[arg(long, conflicts_with = "write")]
    allocations: bool,
    /// Do this work once: what the program starts itself for, under Callgrind
    #[arg(long, hide = true)]
    work: Option<String>,
}

/// What the report begins with.
const HEAD: &str = "\
# What the work of a dot takes, counted

`cargo run --release -p benches --bin counts` compares with this table and exits 1 where a count is above it by more than 5 %;
`-- --write` writes it anew. Instructions are counted by Callgrind (`apt-get install valgrind`); `-- --allocations` leaves them out.

| work | of each | instructions | allocations |
|---|---|---:|---:|
";

/// What one unit of a piece of work takes.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Counts {
    instructions: Option<f64>,
    allocations: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(id) = args.work {
        let work = Work::ALL.into_iter().find(|work| work.id() == id);
        drop(measured(work.context("no such work")?.prepare()));
        return Ok(());
    }
    let mut counted = Vec::new();
    for work in Work::ALL {
        counted.push(Counts {
            instructions: (!args.allocations)
                .then(|| instructions(work))
                .transpose()?,
            allocations: allocations(work),
        });
    }
    if args.write {
        let report = render(&counted);
        fs::write(report_path(), &report)?;
        print!("{report}");
        return Ok(());
    }
    let worse = compare(&counted, &read_report()?);
    ensure!(
        worse == 0,
        "{worse} counts are above the report's by more than 5 %"
    );
    Ok(())
}

/// Counts how often one unit of a piece of work asks the allocator for memory, for more of it included.
fn allocations(work: Work) -> f64 {
    let (_, _, units) = work.describe();
    let ready = work.prepare();
    let region = Region::new(ALLOCATOR);
    let left = ready();
    let change = region.change();
    drop(left);
    (change.allocations + change.reallocations) as f64 / units as f64
}

/// Counts the instructions of one unit of a piece of work: this program is run under Callgrind, to do that work alone.
fn instructions(work: Work) -> anyhow::Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*counts::measured*")
        .arg(std::env::current_exe()?)
        .args(["--work", work.id()])
        .output()
        .context("valgrind: apt-get install valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = collected.with_context(|| format!("callgrind counted nothing: {said}"))?;
    let count: f64 = count.trim().parse()?;
    let (_, _, units) = work.describe();
    Ok(count / units as f64)
}

/// What Callgrind counts: not the preparation, and not what is dropped after it.
#[inline(never)]
fn measured(ready: Ready) -> Left {
    ready()
}

fn report_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("counts.md")
}

fn render(counted: &[Counts]) -> String {
    let mut report = String::from(HEAD);
    for (work, counts) in Work::ALL.iter().zip(counted) {
        let (what, unit, _) = work.describe();
        let instructions = counts
            .instructions
            .map_or(NOTHING.to_owned(), |count| format!("{count:.0}"));
        writeln!(
            report,
            "| {what} | {unit} | {instructions} | {:.2} |",
            counts.allocations
        )
        .expect("writing to memory cannot fail");
    }
    report
}

/// Reads the report's rows, by what they are of.
fn read_report() -> anyhow::Result<BTreeMap<String, Counts>> {
    let path = report_path();
    let report = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut rows = BTreeMap::new();
    for line in report.lines().filter(|line| line.starts_with("| ")) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, what, _, instructions, allocations, _] = columns[..] else {
            continue;
        };
        // The table's own head has no numbers.
        if let Ok(allocations) = allocations.parse() {
            let instructions = instructions.parse().ok();
            rows.insert(
                what.to_owned(),
                Counts {
                    instructions,
                    allocations,
                },
            );
        }
    }
    Ok(rows)
}

/// Prints what was counted beside the report, and returns how many counts are regressions.
fn compare(counted: &[Counts], report: &BTreeMap<String, Counts>) -> usize {
    let mut worse = 0;
    let mut column = |now: Option<f64>, then: Option<f64>| match (now, then) {
        (None, _) => NOTHING.to_owned(),
        (Some(now), None) => format!("{now:.2} (new)"),
        (Some(now), Some(then)) => {
            let is_worse = is_regression(now, then);
            worse += usize::from(is_worse);
            let mark = if is_worse { " !" } else { "" };
            format!(
                "{now:.2} ({:+.1} %){mark}",
                (now - then) / then.max(1.0) * 100.0
            )
        }
    };
    println!("{:42} {:>28} {:>24}", "", "instructions", "allocations");
    for (work, counts) in Work::ALL.iter().zip(counted) {
        let (what, unit, _) = work.describe();
        let then = report.get(what);
        let instructions = column(counts.instructions, then.and_then(|row| row.instructions));
        let allocations = column(Some(counts.allocations), then.map(|row| row.allocations));
        println!("{what:42} {instructions:>28} {allocations:>24}  a {unit}");
    }
    worse
}

/// Returns whether a count is above the report's by more than it may be, and by more than the report rounds.
fn is_regression(now: f64, then: f64) -> bool {
    now > then * (1.0 + TOLERANCE) + 0.02
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test: the allocator counts for all threads of the process.
    #[test]
    fn no_work_allocates_more_than_the_report_says() {
        let report = read_report().unwrap();

        for work in Work::ALL {
            let (what, unit, _) = work.describe();
            let (now, then) = (allocations(work), report[what].allocations);
            assert!(
                !is_regression(now, then),
                "{what}: {now:.2} allocations a {unit}, and {then:.2} in the report"
            );
        }
    }
}
