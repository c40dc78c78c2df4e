//! The story beside Docker Swarm: Weft and Swarm on the same three engines, measured in turn in one run.
//!
//! ```console
//! # cargo run --release -p cluster-tests --bin docker-bench
//! # cargo run --release -p cluster-tests --bin docker-bench -- --rows gone,traffic --json
//! ```
//!
//! Three hosts as in the tests. What a container sees is seen by this program itself, run in the container's network namespace.
//! Where it helps, a third is measured in the same run: a local bridge, or a VXLAN made by hand. Root is needed.

#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

mod appear;
mod entries;
mod gone;
mod hand;
mod joins;
mod memory;
mod net;
mod probe;
mod report;
mod traffic;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::ensure;
use clap::Parser;
use cluster_tests::cluster::Engines;
use tokio::process::Command;

use self::report::{Report, Row};

/// Measures Weft beside Swarm
#[derive(Debug, Parser)]
struct Args {
    /// What to measure, in this order [default: everything]
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// How many containers of each system appear and go
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// How often a host is cut off and comes back
    #[arg(long, default_value_t = 5)]
    cuts: usize,
    /// How many endpoints are made and joined by the plugin socket alone
    #[arg(long, default_value_t = 200)]
    joins: usize,
    /// How many endpoints the daemon has while it is weighed
    #[arg(long, default_value_t = 200)]
    endpoints: usize,
    /// How many short measurements of the traffic of each system
    #[arg(long, default_value_t = 30)]
    flows: usize,
    /// Answer in JSON: one object for each line of the table
    #[arg(long)]
    json: bool,
    /// Exit 1 if a goal is missed
    #[arg(long)]
    check: bool,
    /// The program to measure; without it, it is built
    #[arg(long)]
    program: Option<PathBuf>,
    #[command(flatten)]
    part: Part,
}

/// What this program is when it runs inside a namespace.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Part {
    /// Be the probe for this name
    #[arg(long, hide = true)]
    probe: Option<String>,
    /// Be who answers traffic
    #[arg(long, hide = true)]
    answer: bool,
    /// Measure throughput to this address
    #[arg(long, hide = true)]
    stream: Option<SocketAddr>,
    /// Measure round trips to this address
    #[arg(long, hide = true)]
    ping: Option<SocketAddr>,
    /// Measure entries in this namespace
    #[arg(long, hide = true)]
    entries: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.part.run().await? {
        return Ok(());
    }
    ensure!(Engines::can_be()?, "no engines can be started here");
    let rows = match args.rows.is_empty() {
        true => Row::ALL.to_vec(),
        false => args.rows.clone(),
    };
    let mut report = Report::new(args.json);
    let (on_engines, alone): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| row.needs_engines());
    if !on_engines.is_empty() {
        on_three_engines(&args, &on_engines, &mut report).await?;
    }
    for row in alone {
        report.begin(row);
        entries::measure(&mut report).await?;
    }
    report.end(args.check)
}

async fn on_three_engines(args: &Args, rows: &[Row], report: &mut Report) -> anyhow::Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build().await?,
    };
    let mut engines = Engines::start(&program.to_string_lossy(), 3).await?;
    engines.start_weft().await?;
    net::make(engines.hosts()).await?;
    for row in rows {
        report.begin(*row);
        match row {
            Row::Appear => appear::measure(engines.hosts(), args.rounds, report).await?,
            Row::Gone => gone::measure(&engines, args.cuts, report).await?,
            Row::Traffic => traffic::measure(engines.hosts(), args.flows, report).await?,
            Row::Joins => joins::measure(&engines.hosts()[0], args.joins, report).await?,
            Row::Memory => memory::measure(&engines.hosts()[0], args.endpoints, report).await?,
            Row::Entries => {}
        }
    }
    engines.end()
}

impl Part {
    /// Is what it is to be; returns whether it is anything.
    async fn run(&self) -> anyhow::Result<bool> {
        if let Some(name) = &self.probe {
            probe::look_for(name)?;
        } else if self.answer {
            traffic::answer()?;
        } else if let Some(to) = self.stream {
            traffic::stream(to)?;
        } else if let Some(to) = self.ping {
            traffic::ping(to)?;
        } else if self.entries {
            entries::in_this_namespace().await?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

/// Builds the program as users get it, but for its static libraries.
async fn build() -> anyhow::Result<PathBuf> {
    let built = Command::new("cargo")
        .args(["build", "--release", "--package", "weft", "--bin", "weft"])
        .status();
    ensure!(built.await?.success(), "the program cannot be built");
    let ours = std::env::current_exe()?;
    Ok(ours.with_file_name("weft"))
}
