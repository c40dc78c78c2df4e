//! Pieces of work whose instructions and allocations are counted: the same on every run, so that a change of them is real.
//!
//! The program `counts` counts them; the report is `counts.md`.

use std::{any::Any, hint::black_box, time::Duration};

use weft::core::{
    model::{Boot, ClusterId, NodeId, Now},
    netdb::{NetDb, PutMode},
    wire::{
        envelope::{Opener, Sealer},
        record::RecordKind,
    },
};

use crate::corpus::{
    self, APP, Corpus, READER, Snapshot, WRITER, crowd, datagrams, db, node, now, settle, take,
};

/// How many dots a piece of work has to do with.
const DOTS: usize = 10_000;
/// How many datagrams are sealed or opened, and digests compared.
const DATAGRAMS: usize = 1_000;
/// How long a sealed payload is: about a full datagram, and a single small record.
const LARGE: usize = 1_300;
const SMALL: usize = 100;
/// How many pushes come between two flushes, where dots are passed on.
pub const PUSHES_A_FLUSH: usize = 16;
/// How many nodes they are passed on among.
pub const NODES: u64 = 8;

/// A piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Pushes of new entries are taken.
    ApplyNew,
    /// Pushes of other values for known entries are taken.
    ApplyUpdates,
    /// Pushes that were taken before come again.
    ApplyKnown,
    /// New entries come in sealed datagrams to a whole node.
    ApplySealed,
    /// Pushes of new entries are taken and passed on among eight nodes.
    Forward,
    /// A key that is held is written again on a node that is alone.
    Put,
    /// A key that is held is written again, and each write is pushed to two others in a datagram of its own.
    PutAndPush,
    /// All entries are listed.
    List,
    /// All pages of a snapshot are made.
    SnapshotSent,
    /// All pages of a snapshot are taken by a newcomer.
    SnapshotTaken,
    /// Digests of equal networks are sent and compared.
    Digest,
    /// One dot is found and fetched among three hundred logs, both sides.
    Compare,
    /// A small payload is sealed.
    SealSmall,
    /// A datagram's payload is sealed.
    SealLarge,
    /// A datagram is opened.
    Open,
}

/// What is left when a piece of work is done; dropping it is not part of the work.
pub type Left = Box<dyn Any>;
/// A piece of work with all that it needs.
pub type Ready = Box<dyn FnOnce() -> Left>;

impl Work {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 15] = [
        Self::ApplyNew,
        Self::ApplyUpdates,
        Self::ApplyKnown,
        Self::ApplySealed,
        Self::Forward,
        Self::Put,
        Self::PutAndPush,
        Self::List,
        Self::SnapshotSent,
        Self::SnapshotTaken,
        Self::Digest,
        Self::Compare,
        Self::SealSmall,
        Self::SealLarge,
        Self::Open,
    ];

    /// Returns its name on a command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::ApplyNew => "apply_new",
            Self::ApplyUpdates => "apply_updates",
            Self::ApplyKnown => "apply_known",
            Self::ApplySealed => "apply_sealed",
            Self::Forward => "forward",
            Self::Put => "put",
            Self::PutAndPush => "put_and_push",
            Self::List => "list",
            Self::SnapshotSent => "snapshot_sent",
            Self::SnapshotTaken => "snapshot_taken",
            Self::Digest => "digest",
            Self::Compare => "compare",
            Self::SealSmall => "seal_small",
            Self::SealLarge => "seal_large",
            Self::Open => "open",
        }
    }

    /// Returns what it is, in the report's words, and of what it does how many.
    pub fn describe(self) -> (&'static str, &'static str, usize) {
        match self {
            Self::ApplyNew => ("apply pushes of new entries", "dot", DOTS),
            Self::ApplyUpdates => ("apply pushes of updates", "dot", DOTS),
            Self::ApplyKnown => ("apply pushes that are known already", "dot", DOTS),
            Self::ApplySealed => ("open datagrams and apply new entries", "dot", DOTS),
            Self::Forward => ("apply new entries, pass on among 8 nodes", "dot", DOTS),
            Self::Put => ("put, alone", "put", DOTS),
            Self::PutAndPush => ("put, and push it to two others", "put", DOTS),
            Self::List => ("list", "entry", DOTS),
            Self::SnapshotSent => ("make the pages of a snapshot", "entry", DOTS),
            Self::SnapshotTaken => ("take the pages of a snapshot", "entry", DOTS),
            Self::Digest => ("send a digest, and find it equal", "digest", DATAGRAMS),
            Self::Compare => ("find and fetch one dot among 300 logs", "dot", 1),
            Self::SealSmall => ("seal 100 B", "datagram", DATAGRAMS),
            Self::SealLarge => ("seal 1300 B", "datagram", DATAGRAMS),
            Self::Open => ("open 1300 B", "datagram", DATAGRAMS),
        }
    }

    /// Makes all that it needs.
    pub fn prepare(self) -> Ready {
        match self {
            Self::ApplyNew => applied(&[], pushes().0),
            Self::ApplyUpdates => {
                let (created, updated) = pushes();
                applied(&created, updated)
            }
            Self::ApplyKnown => {
                let (created, _) = pushes();
                applied(&created.clone(), created)
            }
            Self::ApplySealed => sealed_applied(),
            Self::Forward => {
                let others: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
                let mut reader = db(READER, &but(&others, READER));
                let (created, _) = pushes();
                Box::new(move || {
                    pass_on(&mut reader, &created);
                    Box::new(reader)
                })
            }
            Self::Put => put(&[]),
            Self::PutAndPush => put(&[READER, NodeId(3)]),
            Self::List => {
                let (writer, corpus) = full();
                Box::new(move || Box::new(black_box(writer.list(APP, Some(&corpus.table)))))
            }
            Self::SnapshotSent => {
                let (mut writer, _) = full();
                let snapshot = Snapshot::of(&mut writer);
                Box::new(move || Box::new(snapshot.send(&mut writer)))
            }
            Self::SnapshotTaken => {
                let (mut writer, _) = full();
                let snapshot = Snapshot::of(&mut writer);
                let mut reader = db(READER, &[WRITER]);
                Box::new(move || {
                    snapshot.take(&mut reader);
                    Box::new(reader)
                })
            }
            Self::Digest => digest(),
            Self::Compare => {
                let (mut knows, mut lacks) = crowd();
                Box::new(move || {
                    corpus::fetch(&mut lacks, (WRITER, &mut knows), |_, _| {});
                    Box::new((knows, lacks))
                })
            }
            Self::SealSmall => seal(SMALL),
            Self::SealLarge => seal(LARGE),
            Self::Open => open(),
        }
    }
}

/// Takes pushes, and passes them on once a millisecond.
pub fn pass_on(reader: &mut NetDb, pushes: &[Vec<u8>]) {
    let mut now = now();
    for pushes in pushes.chunks(PUSHES_A_FLUSH) {
        take(reader, pushes);
        now = later(now);
        reader.handle_timeout(now);
        while let Some(record) = reader.poll_transmit() {
            black_box(record);
        }
    }
}

/// Makes a write, the `count`th, of a known key with another value, and takes out what it causes within a millisecond;
/// returns the time after it.
pub fn put_one(writer: &mut NetDb, now: Now, corpus: &Corpus, count: usize) -> Now {
    let entry = |at: usize| &corpus.entries[at % corpus.entries.len()];
    let (key, _) = entry(count);
    let (_, value) = entry(count + count / corpus.entries.len() + 1);
    let put = writer.put(now, (APP, &corpus.table, key), value, PutMode::Upsert);
    black_box(put.expect("attached, and within the limits"));
    while let Some(change) = writer.poll_change() {
        black_box(change);
    }
    let now = later(now);
    writer.handle_timeout(now);
    while let Some(record) = writer.poll_transmit() {
        black_box(record);
    }
    now
}

fn later(now: Now) -> Now {
    Now {
        instant: now.instant + Duration::from_millis(1),
        ..now
    }
}

fn but(nodes: &[NodeId], me: NodeId) -> Vec<NodeId> {
    nodes.iter().copied().filter(|node| *node != me).collect()
}

/// Returns the pushes that make entries, and those that change them.
fn pushes() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let corpus = Corpus::new(DOTS);
    let mut writer = db(WRITER, &[READER]);
    let created = corpus.write(&mut writer, READER);
    let updated = corpus.rewritten().write(&mut writer, READER);
    (created, updated)
}

fn full() -> (NetDb, Corpus) {
    let corpus = Corpus::new(DOTS);
    let mut writer = db(WRITER, &[READER]);
    corpus.write(&mut writer, READER);
    settle(&mut writer);
    (writer, corpus)
}

fn applied(before: &[Vec<u8>], pushes: Vec<Vec<u8>>) -> Ready {
    let mut reader = db(READER, &[WRITER]);
    take(&mut reader, before);
    Box::new(move || {
        take(&mut reader, &pushes);
        Box::new(reader)
    })
}

fn sealed_applied() -> Ready {
    let sealed = datagrams(&Corpus::new(DOTS));
    let mut reader = node(READER, &[WRITER]);
    Box::new(move || {
        for datagram in &sealed {
            reader
                .handle_datagram(now(), datagram)
                .expect("it is sound");
        }
        Box::new(reader)
    })
}

fn put(others: &[NodeId]) -> Ready {
    let corpus = Corpus::new(DOTS);
    let mut writer = db(WRITER, others);
    corpus.write(&mut writer, READER);
    settle(&mut writer);
    Box::new(move || {
        let mut now = now();
        for count in 0..DOTS {
            now = put_one(&mut writer, now, &corpus, count);
        }
        Box::new(writer)
    })
}

fn digest() -> Ready {
    let (mut knows, mut lacks) = crowd();
    corpus::fetch(&mut lacks, (WRITER, &mut knows), |_, _| {});
    settle(&mut knows);
    settle(&mut lacks);
    Box::new(move || {
        let mut now = now();
        let mut compared = 0;
        while compared < DATAGRAMS {
            now.instant += Duration::from_secs(1);
            knows.handle_timeout(now);
            while let Some(record) = knows.poll_transmit() {
                if record.kind == RecordKind::DIGEST {
                    lacks
                        .handle_record(now, WRITER, record.kind, &record.body)
                        .expect("a sound digest");
                    compared += 1;
                }
            }
        }
        Box::new((knows, lacks))
    })
}

fn sealer() -> Sealer {
    Sealer::new(ClusterId(1), WRITER, Boot(1), &corpus::keyring())
}

fn seal(len: usize) -> Ready {
    let mut sealer = sealer();
    let payload = corpus::payload(len);
    Box::new(move || {
        for _ in 0..DATAGRAMS {
            black_box(sealer.seal(READER, &payload).expect("it fits"));
        }
        Box::new(sealer)
    })
}

fn open() -> Ready {
    let mut sealer = sealer();
    let payload = corpus::payload(LARGE);
    let sealed = (0..DATAGRAMS).map(|_| sealer.seal(READER, &payload).expect("it fits"));
    let sealed: Vec<_> = sealed.collect();
    let mut opener = Opener::new(ClusterId(1), READER, corpus::keyring());
    Box::new(move || {
        for datagram in &sealed {
            black_box(opener.open(datagram).expect("it is sound"));
        }
        Box::new(opener)
    })
}
