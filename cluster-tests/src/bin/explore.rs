//! Runs many seeds of chaos, one process a core if you start several, and says which fail.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use cluster_tests::sim::Chaos;

/// Runs seeds of the simulator's chaos and prints those that violate a property
#[derive(Parser)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut failed = 0;
    let mut worst = Duration::ZERO;
    for seed in args.from..args.from + args.seeds {
        match Chaos::new(seed).run() {
            Ok(report) => worst = worst.max(report.converged_after),
            Err(violation) => {
                failed += 1;
                println!("seed {seed}: {violation}");
            }
        }
    }
    println!(
        "{} seeds, {failed} failed, the calm lasted at most {:.1} s",
        args.seeds,
        worst.as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
