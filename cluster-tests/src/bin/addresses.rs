//! Runs many seeds of the addresses' simulation, and says what happened in them and which fail.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::process::ExitCode;

use clap::Parser;
use cluster_tests::sim::addresses::{RUN_SECONDS, Tally, run};

/// Runs seeds of an hour each of nodes that hand out addresses, and prints those that violate a property
#[derive(Parser)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (mut total, mut failed) = (Tally::default(), 0);
    for seed in args.from..args.from + args.seeds {
        match run(seed, None) {
            Ok(tally) => total += &tally,
            Err(violation) => {
                failed += 1;
                println!("seed {seed}: {violation}");
            }
        }
    }
    println!("{total:#?}");
    println!("{} seeds of {RUN_SECONDS} s, {failed} failed", args.seeds);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
