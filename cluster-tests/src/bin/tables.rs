//! Prints the tables: how long changes take to all nodes in virtual time, and what they cost.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::{
    io::{self, IsTerminal, Write},
    iter,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use cluster_tests::sim::measure::{Cell, Measure, Part, Profile, Row};
use weft::core::netdb::{PUSHES_MAX, RANDOM_MAX, Scheme};

const ABOUT_COLUMNS: &str = "\
Measures:
  change    one change in a quiet cluster until all that are attached show it: create, update, delete, join-network,
            join-populated-network, write-after-join, leave-network, one each a seed; --entries is what a joiner finds
  burst     --entries entries of 64-digit keys and 60 random bytes created at once by one node, until all have all
  churn     every 20 ms one node makes 8 entries, every 100 ms another leaves or joins: one write until all that stay show it
  idle      bytes a second that a node sends while nothing happens, holding --entries entries
  conflict  two nodes write one key at the same instant: until all show the later write, and whether any does not
  return    a node crashes, is cut off or stands still: until its entry is hidden everywhere, and shown again after it is back;
            the row without a case is the crash
  crash     a node crashes: until its entry is hidden everywhere, and until the first node hides it
  falsedown 600 s in which one node of fifty, and at least one, stands still for 0.1-10 s again and again: how often another
            node, which is well, is held for down
  hardship  120 s each in which, again and again for 0.1-10 s, up to a third of the nodes stand still; one hears nobody; one is
            heard by nobody; as many links as there are nodes are cut one way; up to an eighth of the nodes are cut off; and any
            of these: how often a node that is well is held for down by one that is not cut off from it
  join      all nodes join through one within 100 ms: until every node sees all

Columns:
  p50, p90, max  milliseconds of virtual time; delays are 0.2-1 ms, lines carry 1 Gbit/s, receive buffers hold 1 MiB
  bytes/node     what a node sends on average, datagrams and streams, without headers of UDP, TCP and IP; of a change or a burst:
                 until 75 ms after it, 250 where datagrams are lost, beyond what is sent all the time; of idle: in one second
  B/s            what a node sends in one second while nothing happens, on average
  first ms       until half of the first nodes have seen it
  scheme         to how many steps along the ring, on either side, and how many random nodes a new dot is pushed at once
  without        which part of membership is left out
  copies         how often a node receives each dot that it lacks
  x content      all bytes of a burst, over the keys and values that all nodes lacked
  false downs    how often a node that was well was held for down
  violations     what did not arrive in time; nodes that were well and held for down
  missed         what must come true and did not

Exits 1 if anything was violated, diverged or missed.

Examples:
  tables
  tables change --nodes 25,1000 --loss 0,30
  tables change --nodes 25,1000 --loss 0,30 --scheme 1+2,0+4,2+0 --brief
  tables crash --nodes 25 --loss 0,30 --without neighbours,stream-ping,copies --brief
  tables hardship --nodes 25 --without refuted,hearsay,doubt
  tables burst --nodes 25 --entries 1000,5000 --seeds 10 --json";

/// Measures in virtual time how long changes take to all nodes, and what they cost
#[derive(Parser)]
#[command(after_help = ABOUT_COLUMNS)]
struct Args {
    /// What to measure [default: everything]
    measure: Option<Measure>,
    /// How many nodes; several are cells of their own
    #[arg(long, value_delimiter = ',', value_name = "N,…", value_parser = nodes)]
    nodes: Vec<usize>,
    /// How many of a hundred datagrams are lost
    #[arg(long, value_delimiter = ',', value_name = "P,…", value_parser = percent)]
    loss: Vec<f64>,
    /// How many entries there are, or are made
    #[arg(long, value_delimiter = ',', value_name = "K,…")]
    entries: Vec<usize>,
    /// How many seeds a cell [default: 40, fewer where there are many nodes, more of conflicts]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed_base: u64,
    /// How patient nodes are with silent members [default: lan; of idle both]
    #[arg(long)]
    profile: Option<Profile>,
    /// To how many steps along the ring on either side, plus how many random nodes, a new dot is pushed at once; several are
    /// cells of their own
    #[arg(long, value_delimiter = ',', value_name = "R+N,…", value_parser = scheme, default_value = "1+2")]
    scheme: Vec<Scheme>,
    /// Leave a part of membership out, to see what it is worth; several are cells of their own, after the whole
    #[arg(long, value_delimiter = ',', value_name = "PART,…")]
    without: Vec<Part>,
    /// Print only the row of each cell, not those of its parts
    #[arg(long)]
    brief: bool,
    /// Print a JSON object a row
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut is_good = true;
    if !args.json {
        println!("{}", heading());
    }
    for cell in cells(&args) {
        let mut rows = run(&cell);
        if args.brief {
            rows.truncate(1);
        }
        for row in rows {
            is_good &= row.is_good();
            if let Err(error) = print(&row, args.json) {
                Args::command().error(ErrorKind::Io, error).exit();
            }
        }
    }
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Returns what to measure: what was asked for, and where nothing was said what the measure is usually asked for.
fn cells(args: &Args) -> Vec<Cell> {
    let measures = args.measure.map_or(Measure::ALL.to_vec(), |one| vec![one]);
    let mut cells = Vec::new();
    for measure in measures {
        let profiles = match (args.profile, measure) {
            (Some(profile), _) => vec![profile],
            (None, Measure::Idle) => vec![Profile::Lan, Profile::Wan],
            (None, _) => vec![Profile::Lan],
        };
        for (nodes, entries, loss_pct) in sizes(args, measure) {
            let schemes = || args.scheme.iter().copied();
            let kinds = profiles
                .iter()
                .flat_map(|profile| schemes().map(move |scheme| (*profile, scheme)))
                .flat_map(|kind| parts(args).map(move |without| (kind, without)));
            cells.extend(kinds.map(|((profile, scheme), without)| Cell {
                measure,
                nodes,
                entries,
                loss_pct,
                seeds: args.seeds.unwrap_or(seeds(measure, nodes)),
                seed_base: args.seed_base,
                profile,
                scheme,
                without,
            }));
        }
    }
    cells
}

/// Returns what is left out of membership: nothing, then each part that was named.
fn parts(args: &Args) -> impl Iterator<Item = Option<Part>> {
    iter::once(None).chain(args.without.iter().copied().map(Some))
}

/// Returns nodes, entries and loss of the cells that a measure usually has.
fn usual_sizes(measure: Measure) -> &'static [(usize, usize, f64)] {
    match measure {
        Measure::Change => &[
            (2, 100, 0.0),
            (3, 100, 0.0),
            (5, 100, 0.0),
            (10, 100, 0.0),
            (25, 100, 0.0),
            (25, 100, 30.0),
            (100, 100, 0.0),
            (100, 100, 30.0),
            (1000, 100, 0.0),
            (1000, 100, 30.0),
            (5000, 100, 0.0),
            (5000, 100, 30.0),
        ],
        Measure::Burst => &[
            (2, 1000, 0.0),
            (3, 1000, 0.0),
            (5, 1000, 0.0),
            (10, 1000, 0.0),
            (25, 1000, 0.0),
            (25, 1000, 30.0),
            (25, 5000, 0.0),
            (100, 1000, 0.0),
            (1000, 1000, 0.0),
        ],
        Measure::Churn => &[
            (5, 0, 0.0),
            (10, 0, 0.0),
            (25, 0, 0.0),
            (25, 0, 30.0),
            (100, 0, 0.0),
        ],
        Measure::Idle => &[
            (5, 0, 0.0),
            (5, 5_000, 0.0),
            (5, 100_000, 0.0),
            (25, 0, 0.0),
            (25, 5_000, 0.0),
            (100, 0, 0.0),
            (1000, 0, 0.0),
        ],
        Measure::Conflict => &[
            (2, 0, 0.0),
            (3, 0, 0.0),
            (5, 0, 0.0),
            (5, 0, 30.0),
            (25, 0, 0.0),
            (25, 0, 30.0),
        ],
        Measure::Return => &[
            (2, 0, 0.0),
            (3, 0, 0.0),
            (5, 0, 0.0),
            (10, 0, 0.0),
            (25, 0, 0.0),
            (25, 0, 30.0),
            (100, 0, 0.0),
            (1000, 0, 0.0),
        ],
        Measure::Crash | Measure::FalseDown | Measure::Hardship | Measure::Join => {
            usual_sizes_of_membership(measure)
        }
    }
}

/// Returns the same of those that are about members.
fn usual_sizes_of_membership(measure: Measure) -> &'static [(usize, usize, f64)] {
    match measure {
        Measure::Crash => &[
            (25, 0, 0.0),
            (25, 0, 10.0),
            (25, 0, 20.0),
            (25, 0, 30.0),
            (100, 0, 0.0),
            (100, 0, 30.0),
            (1000, 0, 0.0),
            (1000, 0, 30.0),
        ],
        Measure::FalseDown => &[
            (25, 0, 0.0),
            (25, 0, 30.0),
            (128, 0, 0.0),
            (128, 0, 10.0),
            (128, 0, 20.0),
            (128, 0, 30.0),
        ],
        Measure::Hardship => &[(25, 0, 0.0), (25, 0, 30.0), (50, 0, 0.0)],
        Measure::Join => &[(25, 0, 0.0), (100, 0, 0.0), (100, 0, 30.0), (200, 0, 0.0)],
        Measure::Change
        | Measure::Burst
        | Measure::Churn
        | Measure::Idle
        | Measure::Conflict
        | Measure::Return => &[],
    }
}

/// Returns nodes, entries and loss of the cells of a measure.
fn sizes(args: &Args, measure: Measure) -> Vec<(usize, usize, f64)> {
    let usual = usual_sizes(measure);
    if args.nodes.is_empty() && args.loss.is_empty() && args.entries.is_empty() {
        return usual.to_vec();
    }
    let default_entries = usual[0].1;
    let or = |asked: &[usize], usual: usize| {
        if asked.is_empty() {
            vec![usual]
        } else {
            asked.to_vec()
        }
    };
    let losses = if args.loss.is_empty() {
        vec![0.0]
    } else {
        args.loss.clone()
    };
    let mut sizes = Vec::new();
    for nodes in or(&args.nodes, 25) {
        for &loss in &losses {
            for entries in or(&args.entries, default_entries) {
                sizes.push((nodes, entries, loss));
            }
        }
    }
    sizes
}

fn seeds(measure: Measure, nodes: usize) -> u64 {
    match (measure, nodes) {
        (Measure::Idle, _) => 2,
        (Measure::Conflict, 0..=25) => 1000,
        (Measure::Burst, 101..) => 2,
        (Measure::Burst, 26..) | (Measure::Change | Measure::Return | Measure::Crash, 101..) => 10,
        (Measure::FalseDown | Measure::Hardship, _) | (Measure::Join, 101..) => 2,
        (Measure::Join, _) => 10,
        (_, _) => 40,
    }
}

fn run(cell: &Cell) -> Vec<Row> {
    let worlds = cell.worlds();
    let done = AtomicUsize::new(0);
    let told = io::stderr().is_terminal();
    let tell = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if told {
            let name = cell.measure.name();
            let text = format!(
                "\r{name}, {} nodes: {done} of {worlds} worlds\x1b[K",
                cell.nodes
            );
            // Who cannot read it needs no error about that.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    };
    let rows = cell.run(&tell);
    if told {
        let _ = io::stderr().write_all(b"\r\x1b[K");
    }
    rows
}

fn print(row: &Row, json: bool) -> io::Result<()> {
    if json {
        println!("{}", serde_json::to_string(row)?);
    } else {
        println!("{}", line(row));
    }
    Ok(())
}

fn heading() -> String {
    format!(
        "{:<9}{:<23}{:>5}{:>8}{:>6}{:>7}  {:<12}{:>5}{:>10}{:>10}{:>10}{:>10}{:>12}{:>8}{:>8}{:>11}{:>10}{:>13}{:>12}  {}",
        "measure",
        "case",
        "nodes",
        "entries",
        "loss",
        "scheme",
        "without",
        "seeds",
        "p50 ms",
        "p90 ms",
        "max ms",
        "first ms",
        "bytes/node",
        "B/s",
        "copies",
        "x content",
        "diverged",
        "false downs",
        "violations",
        "missed"
    )
}

fn line(row: &Row) -> String {
    let number = |number: Option<f64>, digits: usize| match number {
        Some(number) => format!("{number:.digits$}"),
        None => "-".to_owned(),
    };
    let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let line = format!(
        "{:<9}{:<23}{:>5}{:>8}{:>6}{:>7}  {:<12}{:>5}{:>10}{:>10}{:>10}{:>10}{:>12}{:>8}{:>8}{:>11}{:>10}{:>13}{:>12}  {}",
        row.measure,
        row.case.unwrap_or("-"),
        row.nodes,
        row.entries,
        row.loss_pct,
        row.scheme,
        row.without.unwrap_or("-"),
        row.seeds,
        number(row.p50_ms, 2),
        number(row.p90_ms, 2),
        number(row.max_ms, 2),
        number(row.first_ms, 2),
        number(row.bytes_per_node, 0),
        number(row.bytes_per_node_s, 0),
        number(row.copies_per_node, 2),
        number(row.times_content, 2),
        count(row.diverged),
        count(row.false_downs),
        row.violations,
        row.missed.join(", ")
    );
    line.trim_end().to_owned()
}

/// Parses a number of nodes: fewer than two have nobody to tell.
fn nodes(text: &str) -> Result<usize, String> {
    let parsed = text
        .parse()
        .ok()
        .filter(|nodes| (2..=10_000).contains(nodes));
    parsed.ok_or_else(|| "expected a number from 2 to 10000".to_owned())
}

/// Parses a share of lost datagrams.
fn percent(text: &str) -> Result<f64, String> {
    let parsed = text
        .parse()
        .ok()
        .filter(|percent| (0.0..=90.0).contains(percent));
    parsed.ok_or_else(|| "expected a number from 0 to 90".to_owned())
}

/// Parses to whom a new dot is pushed: steps along the ring, a plus, random nodes.
fn scheme(text: &str) -> Result<Scheme, String> {
    let parsed = text.split_once('+').and_then(|(near, random)| {
        let (near, random) = (near.parse().ok()?, random.parse().ok()?);
        Some(Scheme { near, random })
    });
    let is_possible = |scheme: &Scheme| {
        (1..=PUSHES_MAX).contains(&(2 * scheme.near + scheme.random)) && scheme.random <= RANDOM_MAX
    };
    parsed.filter(is_possible).ok_or_else(|| {
        format!("expected R+N, as 1+2: in all at most {PUSHES_MAX} nodes, N at most {RANDOM_MAX}")
    })
}
