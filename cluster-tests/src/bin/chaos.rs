//! Real daemons, real faults, and whether every allocation can be explained.
//!
//! ```console
//! # cargo run -p cluster-tests --bin chaos -- --minutes 60
//! ```
//!
//! Root is needed, for network namespaces. What is checked, and how, is said in `cluster_tests::chaos`.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::ensure;
use clap::Parser;
use cluster_tests::chaos::{Limit, Plan, Report, run};
use tokio::process::Command;

/// Runs a cluster of real daemons under faults, and checks that allocation was linearizable
///
/// Exits 1 if it was not, or if the cluster was not whole soon after a fault had passed.
#[derive(Parser)]
struct Args {
    /// How long
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Not by time: how many calls the clients make, in all
    #[arg(long, requires = "episodes", conflicts_with = "minutes")]
    calls: Option<u64>,
    /// Not by time: in how many episodes something is done to the nodes
    #[arg(long, requires = "calls")]
    episodes: Option<u64>,
    /// How long anything that is done to a node lasts at most, in seconds
    #[arg(long, default_value_t = 20.0)]
    longest: f64,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many nodes; three of them vote
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=7))]
    nodes: u8,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write down every call and its outcome, one JSON object a line
    #[arg(long)]
    history: Option<PathBuf>,
    /// The daemon; without it, it is built as this program was
    #[arg(long)]
    program: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let program = match args.program {
        Some(program) => program,
        None => build().await?,
    };
    let limit = match (args.calls, args.episodes) {
        (Some(calls), Some(episodes)) => Limit::Count { calls, episodes },
        _ => Limit::Time(Duration::from_secs(60 * args.minutes)),
    };
    let plan = Plan {
        program,
        nodes: args.nodes,
        seed: args.seed,
        limit,
        longest: Duration::from_secs_f64(args.longest),
        history: args.history,
    };
    let report = run(&plan).await?;
    let Some(report) = report else {
        return Ok(ExitCode::FAILURE);
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => show(&report),
    }
    Ok(match report.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--package",
        "cluster-tests",
        "--bin",
        "weft-under-test",
    ]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    ensure!(
        cargo.status().await?.success(),
        "the daemon cannot be built"
    );
    Ok(std::env::current_exe()?.with_file_name("weft-under-test"))
}

fn show(report: &Report) {
    println!(
        "seed {}, {} nodes, {:.0} s, {} episodes",
        report.seed, report.nodes, report.seconds, report.episodes
    );
    println!("\n| call | outcome | times |\n|---|---|---:|");
    for (call, outcomes) in &report.calls {
        for (outcome, times) in outcomes {
            println!("| {call} | {outcome} | {times} |");
        }
    }
    println!("\n| fault | times |\n|---|---:|");
    for (fault, times) in &report.faults {
        println!("| {fault} | {times} |");
    }
    let (median, most) = report.whole_ms;
    println!("\nwhole again after a fault had passed: median {median} ms, most {most} ms");
    println!(
        "{} names, VNIs, subnets and addresses were checked",
        report.locks
    );
    for violation in &report.violations {
        println!("VIOLATION: {violation}");
    }
    println!("{} violations", report.violations.len());
}
