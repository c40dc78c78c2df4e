//! Runs many seeds of chaos, one process a core if you start several, says which fail, and how little it takes.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use cluster_tests::sim::{Chaos, Report, Violation, clock, shrink::shrink};
use tracing::Level;
use tracing_subscriber::{
    filter::Targets,
    fmt::{format::Writer, time::FormatTime},
    prelude::*,
};

/// After how many seeds a terminal shows how far it is.
const PROGRESS_EVERY: u64 = 100;

/// Runs seeds of the simulator's chaos and prints those that violate a property, each with the shortest schedule found
#[derive(Parser)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Only the I-th of N parts, the first is 1, so that N processes can share the seeds
    #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = part)]
    part: (u64, u64),
    /// How many runs may go into making a failing schedule shorter; 0 leaves it as it is
    #[arg(long, default_value_t = 400)]
    shrink: usize,
    /// Print what happens in the shortest schedule of each seed that fails, or of the one seed
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        return one(&args, seed);
    }
    let (part, parts) = args.part;
    let (mut failed, mut ran, mut worst) = (0, 0, Duration::ZERO);
    for seed in (args.from..args.from + args.seeds).filter(|seed| seed % parts == part - 1) {
        ran += 1;
        let chaos = Chaos::new(seed);
        match chaos.run() {
            Ok(report) => worst = worst.max(report.converged_after),
            Err(violation) => {
                failed += 1;
                println!("seed {seed} ({}): {violation}", chaos.faults);
                explain(&args, &chaos);
            }
        }
        if ran % PROGRESS_EVERY == 0 && stderr().is_terminal() {
            eprint!("\r{ran} seeds, {failed} failed ");
        }
    }
    println!(
        "{ran} seeds, {failed} failed, the calm lasted at most {:.1} s",
        worst.as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one seed, and says how it went.
fn one(args: &Args, seed: u64) -> ExitCode {
    let chaos = Chaos::new(seed);
    println!(
        "seed {seed}: {} machines, {} networks, {}",
        chaos.size.machines, chaos.size.networks, chaos.faults
    );
    match chaos.run() {
        Ok(report) => {
            println!("{report:#?}");
            if args.trace {
                drop(traced(&chaos));
            }
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            explain(args, &chaos);
            ExitCode::FAILURE
        }
    }
}

/// Prints the shortest schedule that violates the same property as a run, and what happens in it.
fn explain(args: &Args, chaos: &Chaos) {
    let Some((shortest, violation)) = shrink(chaos, args.shrink) else {
        return;
    };
    println!(
        "  {} of {} actions are enough: {violation}",
        shortest.schedule.len(),
        chaos.schedule.len()
    );
    for (at, action) in &shortest.schedule {
        println!("  {:10.6} {action}", at.as_secs_f64());
    }
    if args.trace {
        drop(traced(&shortest));
    }
}

/// Runs it once more and prints what happens, in virtual time: who says what to whom, who is down, what becomes visible.
fn traced(chaos: &Chaos) -> Result<Report, Violation> {
    let lines = tracing_subscriber::fmt::layer()
        .with_timer(VirtualTime)
        .with_level(false)
        .with_target(false)
        .with_ansi(false);
    let told = Targets::new()
        .with_target("weft::core::netdb", Level::TRACE)
        .with_target("cluster_tests", Level::INFO);
    let printed = tracing_subscriber::registry().with(lines.with_filter(told));
    tracing::subscriber::with_default(printed, || chaos.run())
}

struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{:10.6}", clock::now().as_secs_f64())
    }
}

/// Parses `I/N`.
fn part(text: &str) -> Result<(u64, u64), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    parsed
        .filter(|(part, parts)| (1..=*parts).contains(part))
        .ok_or_else(|| "expected I/N with I from 1 to N".to_owned())
}
