//! How much memory an entry of the network DB takes, beyond its key and value.
//!
//! Entries are written on one DB and taken by another, once `--entries` of them and once twice as many; the difference is
//! what they cost, without what a DB costs by itself. Two measures, on both DBs: the bytes asked of the allocator, which
//! are the same on every run, and the growth of the resident set, which has the allocator's own overhead in it. Each
//! runs in a process of its own, so that no measurement fills holes that another has left.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::{alloc::System, io, process::Command};

use anyhow::{Context, ensure};
use benches::{
    corpus::{Corpus, KEY_LEN, READER, VALUE_LEN, WRITER, db, settle, take},
    process::{Process, resident},
};
use clap::Parser;
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What an entry may take beyond its key and value, in bytes.
const LIMIT: f64 = 200.0;
/// What 100,000 entries may take on one node beyond their keys and values, in bytes, all that the DB holds for them included.
const WHOLE_LIMIT: f64 = 64.0 * MEBIBYTE;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Measures how much memory an entry takes
#[derive(Debug, Parser)]
struct Args {
    /// How many entries to begin with; twice as many follow
    #[arg(long, default_value_t = 100_000)]
    entries: usize,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Exit 1 if a replica's entry takes more than it may
    #[arg(long)]
    check: bool,
    /// Hold this many and say what they take: what the program starts itself for
    #[arg(long, hide = true)]
    hold: Option<usize>,
}

/// What a DB with some entries takes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Held {
    writer: Taken,
    reader: Taken,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Taken {
    asked: i64,
    resident: i64,
}

/// What one entry takes beyond its key and value, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
struct PerEntry {
    entries: usize,
    key: usize,
    value: usize,
    limit: f64,
    /// On a node that heard of it.
    reader_asked: f64,
    reader_resident: f64,
    /// On the node that wrote it.
    writer_asked: f64,
    writer_resident: f64,
    /// What the first `entries` take together, on the node where they take more: resident.
    whole: f64,
    whole_limit: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(entries) = args.hold {
        serde_json::to_writer(io::stdout(), &hold(entries)?)?;
        return Ok(());
    }
    let few = in_a_process(args.entries)?;
    let many = in_a_process(2 * args.entries)?;
    let each = |few: i64, many: i64| {
        (many - few) as f64 / args.entries as f64 - (KEY_LEN + VALUE_LEN) as f64
    };
    let whole = few.reader.resident.max(few.writer.resident) as f64;
    let per_entry = PerEntry {
        entries: args.entries,
        key: KEY_LEN,
        value: VALUE_LEN,
        limit: LIMIT,
        reader_asked: each(few.reader.asked, many.reader.asked),
        reader_resident: each(few.reader.resident, many.reader.resident),
        writer_asked: each(few.writer.asked, many.writer.asked),
        writer_resident: each(few.writer.resident, many.writer.resident),
        whole: whole - (args.entries * (KEY_LEN + VALUE_LEN)) as f64,
        whole_limit: WHOLE_LIMIT * args.entries as f64 / 100_000.0,
    };
    if args.json {
        println!("{}", serde_json::to_string(&per_entry)?);
    } else {
        println!(
            "an entry takes, beyond its key ({KEY_LEN} B) and value ({VALUE_LEN} B), from {} to {} entries: \
             {:.0} B resident ({:.0} B asked of the allocator); on its writer {:.0} B ({:.0} B); limit {LIMIT} B",
            args.entries,
            2 * args.entries,
            per_entry.reader_resident,
            per_entry.reader_asked,
            per_entry.writer_resident,
            per_entry.writer_asked,
        );
        println!(
            "{} entries take {:.1} MiB of a node beyond keys and values; limit {:.0} MiB",
            args.entries,
            per_entry.whole / MEBIBYTE,
            per_entry.whole_limit / MEBIBYTE,
        );
    }
    let over = per_entry.reader_resident.max(per_entry.writer_resident) > LIMIT;
    ensure!(!args.check || !over, "an entry takes more than {LIMIT} B");
    let over = per_entry.whole > per_entry.whole_limit;
    ensure!(!args.check || !over, "all entries take more than they may");
    Ok(())
}

fn in_a_process(entries: usize) -> anyhow::Result<Held> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--hold", &entries.to_string()])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("the measuring process")
}

/// Lets a writer and then a reader hold entries, and measures what each adds. What is only needed on the way is made
/// before and lives on, so that neither DB can use its room.
fn hold(entries: usize) -> anyhow::Result<Held> {
    let corpus = Corpus::new(entries);
    let mut writer = db(WRITER, &[READER]);
    let mut reader = db(READER, &[WRITER]);
    let before = taken()?;
    let pushes = corpus.write(&mut writer, READER);
    settle(&mut writer);
    let between = taken()?;
    take(&mut reader, &pushes);
    settle(&mut reader);
    let after = taken()?;
    ensure!(reader.len() == writer.len(), "the reader lacks entries");

    let pushed: usize = pushes.iter().map(Vec::capacity).sum();
    let pushed = i64::try_from(pushed + pushes.capacity() * size_of::<Vec<u8>>())?;
    Ok(Held {
        writer: Taken {
            asked: between.asked - before.asked - pushed,
            resident: between.resident - before.resident - pushed,
        },
        reader: Taken {
            asked: after.asked - between.asked,
            resident: after.resident - between.resident,
        },
    })
}

fn taken() -> anyhow::Result<Taken> {
    let asked = ALLOCATOR.stats();
    Ok(Taken {
        asked: i64::try_from(asked.bytes_allocated - asked.bytes_deallocated)?,
        resident: i64::try_from(resident(Process::Own)?)?,
    })
}
