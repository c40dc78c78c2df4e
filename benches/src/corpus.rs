//! Entries to measure with, and the messages and datagrams that carry them, made by the network DB itself.
//!
//! An entry is shaped like an overlay's peer record: a random key of 16 bytes (an endpoint's id), a value of
//! [`VALUE_LEN`] bytes. Keys are drawn from a seed, so every run measures the same ones.

use std::{net::SocketAddr, time::Duration};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use weft::core::{
    membership::{self, Identity, MemberState, State},
    model::{
        Boot, ClusterId, Generation, Instant, Key, NetworkId, NodeId, Now, TableName, UnixMillis,
        Value,
    },
    netdb::{self, CallId, NetDb, Outgoing, PutMode},
    node::{self, Node},
    wire::{
        keyring::{ClusterKey, KeyId, Keyring},
        record::RecordKind,
    },
};

/// The network that the entries are in.
pub const APP: NetworkId = NetworkId(1);
/// Who writes them.
pub const WRITER: NodeId = NodeId(1);
/// Who is measured while it takes them.
pub const READER: NodeId = NodeId(2);
/// How long a key is.
pub const KEY_LEN: usize = 16;
/// How long a value is.
pub const VALUE_LEN: usize = 32;

/// How many puts are made before what they cause is taken out: fewer than any queue's bound.
const PUTS_AT_ONCE: usize = 4_096;
/// How many others are in a [`crowd`]: more than a sync names without comparing the parts of the hash tree first.
pub const CROWD: usize = 300;
/// How far time goes on while a node has more to say than it may say at once, and for how long at most.
const TICK: Duration = Duration::from_millis(1);
const TICKS: u32 = 500;

/// Entries with random keys and values.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The table that all are in.
    pub table: TableName,
    /// Key and value of each.
    pub entries: Vec<(Key, Value)>,
}

impl Corpus {
    /// Draws `count` entries.
    pub fn new(count: usize) -> Self {
        let mut rng = rng();
        let mut entry = || {
            let key: [u8; KEY_LEN] = rng.random();
            let value: [u8; VALUE_LEN] = rng.random();
            (
                Key::new(key.to_vec()).expect("within the limits"),
                Value::new(value.to_vec()).expect("within the limits"),
            )
        };
        Self {
            table: TableName::new("overlay_peers").expect("within the limits"),
            entries: (0..count).map(|_| entry()).collect(),
        }
    }

    /// Returns the same keys with other values.
    pub fn rewritten(&self) -> Self {
        let entries = self.entries.iter().map(|(key, value)| {
            let flipped: Vec<u8> = value.as_bytes().iter().map(|byte| !byte).collect();
            (key.clone(), Value::new(flipped).expect("as long as it was"))
        });
        Self {
            table: self.table.clone(),
            entries: entries.collect(),
        }
    }

    /// Writes all entries into `db`, which is attached to [`APP`], and returns what it wants to push to `to`.
    pub fn write(&self, db: &mut NetDb, to: NodeId) -> Vec<Vec<u8>> {
        let mut pushes = Vec::new();
        for entries in self.entries.chunks(PUTS_AT_ONCE) {
            for (key, value) in entries {
                db.put(now(), (APP, &self.table, key), value, PutMode::Upsert)
                    .expect("attached, and within the limits");
                while db.poll_change().is_some() {}
            }
            pushes.extend(pushes_to(db, to));
        }
        pushes
    }
}

/// Returns the seeded source of chance.
pub fn rng() -> StdRng {
    StdRng::seed_from_u64(0x5eed)
}

/// Returns the moment at which everything here happens.
pub fn now() -> Now {
    Now {
        instant: Instant::from_start(Duration::from_secs(1)),
        wall: UnixMillis(1_700_000_000_000),
    }
}

/// Returns the ticks that follow [`now`], in which a node may say what it could not say at once.
fn ticks() -> impl Iterator<Item = Now> {
    (1..=TICKS).map(|ticks| Now {
        instant: now().instant + TICK * ticks,
        ..now()
    })
}

/// Returns all that `db` has to say, however long it takes.
fn said(db: &mut NetDb) -> Vec<Outgoing> {
    let mut said: Vec<Outgoing> = std::iter::from_fn(|| db.poll_transmit()).collect();
    for tick in ticks() {
        db.handle_timeout(tick);
        said.extend(std::iter::from_fn(|| db.poll_transmit()));
        if db.stats().queued == 0 {
            break;
        }
    }
    said
}

fn pushes_to(db: &mut NetDb, to: NodeId) -> Vec<Vec<u8>> {
    let pushes = said(db)
        .into_iter()
        .filter(|record| record.to == to && record.kind == RecordKind::PUSH);
    pushes.map(|record| record.body).collect()
}

/// Makes the DB of a node that knows `others` and is attached to [`APP`], as they are.
pub fn db(node: NodeId, others: &[NodeId]) -> NetDb {
    let mut db = bare(node, others);
    for other in others {
        let mut there = bare(*other, &[node]);
        for push in pushes_to(&mut there, node) {
            db.handle_record(now(), *other, RecordKind::PUSH, &push)
                .expect("it was just made");
        }
    }
    settle(&mut db);
    db
}

fn bare(node: NodeId, others: &[NodeId]) -> NetDb {
    let config = netdb::Config::default();
    let mut db = NetDb::new(config, node, Generation(1), node.0, now());
    for other in others {
        db.handle_member_up(*other, Boot(1));
    }
    db.attach(now(), APP).expect("there is room");
    db
}

/// Takes out all that waits to be sent or told.
pub fn settle(db: &mut NetDb) {
    said(db);
    while db.poll_stream().is_some() {}
    while db.poll_change().is_some() {}
}

/// Takes pushes of [`WRITER`], and out of the DB what it tells watchers; returns how many changes those were.
pub fn take(db: &mut NetDb, pushes: &[Vec<u8>]) -> usize {
    let mut changes = 0;
    for push in pushes {
        db.handle_record(now(), WRITER, RecordKind::PUSH, push)
            .expect("a sound push");
        while let Some(change) = db.poll_change() {
            std::hint::black_box(change);
            changes += 1;
        }
    }
    changes
}

/// Lets [`READER`] ask [`WRITER`] for all that it lacks, page by page.
pub fn catch_up(writer: &mut NetDb, reader: &mut NetDb) {
    fetch(reader, (WRITER, writer), |_, _| {});
    assert_eq!(reader.len(), writer.len(), "the newcomer has caught up");
}

/// Lets `reader` ask another for all that it lacks; `each` sees every request and its answer.
pub fn fetch(reader: &mut NetDb, from: (NodeId, &mut NetDb), mut each: impl FnMut(&[u8], &[u8])) {
    let (from, holder) = from;
    reader.sync_with(now().instant, from);
    while let Some(call) = reader.poll_stream() {
        let reply = holder
            .handle_stream(READER, &call.request)
            .expect("a sound request");
        each(&call.request, &reply);
        take_page(reader, call.id, &reply);
    }
}

fn take_page(reader: &mut NetDb, call: CallId, reply: &[u8]) {
    reader
        .handle_stream_reply(now(), call, reply)
        .expect("a sound answer");
    while let Some(change) = reader.poll_change() {
        std::hint::black_box(change);
    }
}

/// All that a newcomer asks for and is sent.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pages: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Snapshot {
    /// Records how a newcomer is sent what [`WRITER`] holds.
    pub fn of(writer: &mut NetDb) -> Self {
        let mut pages = Vec::new();
        let mut newcomer = db(READER, &[WRITER]);
        fetch(&mut newcomer, (WRITER, writer), |request, reply| {
            pages.push((request.to_vec(), reply.to_vec()));
        });
        Self { pages }
    }

    /// Makes every page anew, and returns how many bytes they have.
    pub fn send(&self, writer: &mut NetDb) -> usize {
        let pages = self.pages.iter();
        pages
            .map(|(request, _)| {
                writer
                    .handle_stream(READER, request)
                    .expect("a sound request")
                    .len()
            })
            .sum()
    }

    /// Lets a newcomer that is made as the first one was ask for every page and take it.
    pub fn take(&self, newcomer: &mut NetDb) {
        newcomer.sync_with(now().instant, WRITER);
        for (request, reply) in &self.pages {
            let call = newcomer.poll_stream().expect("it asks for every page");
            assert_eq!(call.request, *request, "it asks as the first one did");
            take_page(newcomer, call.id, reply);
        }
    }
}

/// Makes two members of a network of [`CROWD`] others: [`READER`] lacks the newest dot of one log, [`WRITER`] has it.
pub fn crowd() -> (NetDb, NetDb) {
    let owners: Vec<NodeId> = (10..).map(NodeId).take(CROWD).collect();
    let corpus = Corpus::new(CROWD);
    let with = |other: NodeId| [&owners[..], &[other]].concat();
    let mut knows = bare(WRITER, &with(READER));
    let mut lacks = bare(READER, &with(WRITER));
    let put = |db: &mut NetDb, (key, value): &(Key, Value)| {
        db.put(now(), (APP, &corpus.table, key), value, PutMode::Upsert)
            .expect("attached, and within the limits");
    };
    for (owner, entry) in owners.iter().zip(&corpus.entries) {
        let mut db = bare(*owner, &[WRITER, READER]);
        put(&mut db, entry);
        meet(&mut knows, (*owner, &mut db));
        meet(&mut lacks, (*owner, &mut db));
        if owner == owners.last().expect("there are some") {
            put(&mut db, entry);
            meet(&mut lacks, (WRITER, &mut knows));
            meet(&mut knows, (READER, &mut lacks));
            meet(&mut knows, (*owner, &mut db));
        }
    }
    settle(&mut knows);
    settle(&mut lacks);
    assert_ne!(knows.root(APP), lacks.root(APP), "a dot is missing");
    (knows, lacks)
}

/// Fetches from a node what it has of the cluster scope, then what it has of the networks that it is attached to.
fn meet(reader: &mut NetDb, from: (NodeId, &mut NetDb)) {
    let (from, holder) = from;
    for _ in 0..2 {
        fetch(reader, (from, &mut *holder), |_, _| {});
    }
}

/// Makes a whole node that knows `others`.
pub fn node(node: NodeId, others: &[NodeId]) -> Node {
    let mut made = Node::new(
        node::Config {
            cluster: ClusterId(1),
            node,
            addr: address(node),
            boot: Boot(1),
            generation: Generation(1),
            keyring: keyring(),
            membership: membership::Config::lan(),
            newest: weft::core::wire::versions::NEWEST,
            netdb: netdb::Config::default(),
            seed: node.0,
        },
        now(),
    );
    let member = |other: &NodeId| MemberState {
        identity: Identity {
            node: *other,
            addr: address(*other),
            boot: Boot(1),
            rejoin: 0,
        },
        incarnation: 0,
        state: State::Alive,
    };
    made.apply_members(now(), others.iter().map(member).collect());
    made.attach(now(), APP).expect("there is room");
    made
}

/// Returns the sealed datagrams with which [`WRITER`] brings `corpus` to [`READER`], its attachment included.
pub fn datagrams(corpus: &Corpus) -> Vec<bytes::Bytes> {
    let mut writer = node(WRITER, &[READER]);
    let mut reader = node(READER, &[WRITER]);
    for datagram in datagrams_of(&mut reader) {
        writer
            .handle_datagram(now(), &datagram)
            .expect("it was just sealed");
    }
    let mut datagrams = Vec::new();
    for entries in corpus.entries.chunks(PUTS_AT_ONCE) {
        for (key, value) in entries {
            writer
                .put(now(), (APP, &corpus.table, key), value, PutMode::Upsert)
                .expect("attached, and within the limits");
        }
        datagrams.extend(datagrams_of(&mut writer));
    }
    datagrams
}

/// Returns all datagrams that `node` has to send, however long it takes.
fn datagrams_of(node: &mut Node) -> Vec<bytes::Bytes> {
    let mut transmits: Vec<_> = std::iter::from_fn(|| node.poll_transmit()).collect();
    for tick in ticks() {
        node.handle_timeout(tick);
        transmits.extend(std::iter::from_fn(|| node.poll_transmit()));
        if node.stats().netdb.queued == 0 {
            break;
        }
    }
    let datagrams = transmits.into_iter().map(|transmit| transmit.datagram);
    datagrams.collect()
}

/// Returns the keys that all datagrams here are sealed with.
pub fn keyring() -> Keyring {
    Keyring::new(KeyId(1), ClusterKey::random(&mut rng()))
}

/// Returns bytes to seal.
pub fn payload(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng().fill_bytes(&mut bytes);
    bytes
}

fn address(node: NodeId) -> SocketAddr {
    let port = u16::try_from(node.0).expect("small numbers only");
    SocketAddr::from(([192, 0, 2, 1], port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: usize = 1_000;

    #[test]
    fn pushes_bring_every_entry() {
        let mut writer = db(WRITER, &[READER]);
        let mut reader = db(READER, &[WRITER]);
        let corpus = Corpus::new(ENTRIES);

        let created = take(&mut reader, &corpus.write(&mut writer, READER));
        let updated = take(&mut reader, &corpus.rewritten().write(&mut writer, READER));

        assert_eq!((created, updated), (ENTRIES, ENTRIES));
        assert_eq!(reader.list(APP, None), owned_by_another(&writer));
    }

    #[test]
    fn sealed_datagrams_bring_every_entry() {
        let mut reader = node(READER, &[WRITER]);

        for datagram in datagrams(&Corpus::new(ENTRIES)) {
            reader.handle_datagram(now(), &datagram).unwrap();
        }

        // And the attachment of each of the two.
        assert_eq!(reader.held(), ENTRIES + 2);
    }

    #[test]
    fn a_newcomer_catches_up() {
        let mut writer = db(WRITER, &[READER]);
        let mut reader = db(READER, &[WRITER]);
        Corpus::new(ENTRIES).write(&mut writer, READER);
        settle(&mut writer);

        catch_up(&mut writer, &mut reader);

        assert_eq!(reader.list(APP, None), owned_by_another(&writer));
    }

    #[test]
    fn a_snapshot_can_be_sent_and_taken_again() {
        let mut writer = db(WRITER, &[READER]);
        let mut reader = db(READER, &[WRITER]);
        Corpus::new(ENTRIES).write(&mut writer, READER);
        settle(&mut writer);
        let snapshot = Snapshot::of(&mut writer);

        snapshot.take(&mut reader);

        assert!(snapshot.send(&mut writer) > ENTRIES * (KEY_LEN + VALUE_LEN));
        assert_eq!(reader.list(APP, None), owned_by_another(&writer));
    }

    #[test]
    fn one_of_a_crowd_finds_the_dot_that_it_lacks() {
        let (mut knows, mut lacks) = crowd();
        let mut requests = 0;

        fetch(&mut lacks, (WRITER, &mut knows), |_, _| requests += 1);

        assert_eq!(lacks.root(APP), knows.root(APP));
        // Buckets, parts and logs of the network.
        assert_eq!(requests, 3);
    }

    fn owned_by_another(db: &NetDb) -> Vec<netdb::EntryView> {
        let mut entries = db.list(APP, None);
        entries.iter_mut().for_each(|entry| entry.ours = false);
        entries
    }
}
