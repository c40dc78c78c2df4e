//! Measures Weft, chitchat and memberlist side by side, and prints what came out.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints what it measured, and how far it has come"
)]

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Parser;
use peers::{
    figures::Figures,
    measure::{Plan, Sample, sample},
    plot, report,
    systems::contenders,
};

/// Measures Weft, chitchat and memberlist side by side: from one write at one node until all nodes have it
#[derive(Debug, Parser)]
struct Args {
    /// How many nodes; more numbers, more measurements
    #[arg(long, value_delimiter = ',', default_value = "16,64", value_parser = clap::value_parser!(u16).range(2..=200))]
    nodes: Vec<u16>,
    /// How many writes are measured for each system
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How many turns the systems take; each makes its part of the rounds in each turn
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    turns: u16,
    /// How long to look at the idle nodes in each turn, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    idle: u64,
    /// After how many seconds a write counts as lost
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Only systems whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Print a line of JSON for each row of the table
    #[arg(long)]
    json: bool,
    /// Draw the figures into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut rows = Vec::new();
    for nodes in &args.nodes {
        rows.extend(measure(&args, usize::from(*nodes)).await?);
    }
    ensure!(!rows.is_empty(), "no system has a name like that");
    if args.json {
        for row in &rows {
            println!("{}", serde_json::to_string(row)?);
        }
    } else {
        println!("{}", report::table(&rows));
    }
    if let Some(path) = &args.svg {
        plot::draw(&rows, path)?;
    }
    Ok(())
}

async fn measure(args: &Args, nodes: usize) -> anyhow::Result<Vec<Figures>> {
    let is_wanted = |name: String| args.only.as_ref().is_none_or(|only| name.contains(only));
    let mut contenders: Vec<_> = contenders(nodes)
        .into_iter()
        .filter(|contender| is_wanted(contender.to_string()))
        .map(|contender| (contender, Vec::<Sample>::new()))
        .collect();
    let limit = Duration::from_secs(args.limit);
    let turns = args.turns.min(args.rounds);
    for turn in 0..turns {
        let rounds = args.rounds / turns + u16::from(turn < args.rounds % turns);
        let plan = Plan {
            nodes,
            rounds: usize::from(rounds),
            idle: Duration::from_secs(args.idle),
            limit,
            seed: u64::from(turn),
        };
        for (contender, samples) in &mut contenders {
            eprintln!("{nodes} nodes, turn {} of {turns}: {contender}", turn + 1);
            samples.push(sample(*contender, plan).await?);
        }
    }
    let figures = contenders
        .iter()
        .map(|(contender, samples)| Figures::of(*contender, nodes, samples, limit));
    Ok(figures.collect())
}
