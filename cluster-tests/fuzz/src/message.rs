//! The messages of the network DB as a liar writes them: the same bytes as those of `core::netdb::message`, with anything in
//! them. `seeds` checks that they are the same.

use arbitrary::Arbitrary;
use bincode::Encode;
use weft::core::{
    model::{Generation, Hlc, NetworkId, NodeId},
    netdb::LogId,
};

use crate::world::{ME, NETWORKS, now_millis, peer};

/// A number: mostly small, sometimes one at which something may break.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Number(u8);

impl Number {
    /// Makes a small one.
    pub fn small(number: u8) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub fn get(self) -> u64 {
        let edges = [
            u64::MAX,
            u64::MAX - 1,
            1 << 63,
            (1 << 48) + 1,
            1 << 48,
            u64::from(u32::MAX) + 1,
            u64::from(u32::MAX),
            70_000,
        ];
        let from_end = usize::from(u8::MAX - self.0);
        edges
            .get(from_end)
            .copied()
            .unwrap_or(u64::from(self.0 % 48))
    }

    fn get_u32(self) -> u32 {
        u32::try_from(self.get()).unwrap_or(u32::MAX)
    }
}

/// The name of a log.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Log {
    /// Which of the networks.
    pub network: u8,
    /// Which of the nodes, 0 for the cluster.
    pub owner: u8,
    /// Which life.
    pub generation: Number,
    /// Which attachment.
    pub epoch: Number,
}

impl Log {
    fn id(self) -> LogId {
        let network = NETWORKS[usize::from(self.network) % NETWORKS.len()];
        let owner = match self.owner % 8 {
            0 => NodeId::CLUSTER,
            1 => ME,
            other => peer(other),
        };
        LogId {
            network,
            owner,
            generation: Generation(self.generation.get_u32()),
            // In the cluster scope nearly always what it must be.
            epoch: match (network, self.epoch.0) {
                (NetworkId::CLUSTER, ..240) => 0,
                _ => self.epoch.get(),
            },
        }
    }
}

/// One dot.
#[derive(Arbitrary, Clone, Debug)]
pub struct Dot {
    /// Its number.
    pub seq: Number,
    /// When it was written: around now, as a share of two minutes before and after.
    pub written: i16,
    /// Its table.
    pub table: u8,
    /// Its key.
    pub key: u8,
    /// Its value.
    pub value: Option<u16>,
}

#[derive(Encode)]
struct WireDot<'a> {
    seq: u64,
    written: Hlc,
    table: &'a str,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

fn encode<T: Encode>(value: &T) -> Vec<u8> {
    weft::core::wire::codec::encode(value)
}

/// Returns the bytes of dots; those of the cluster scope's own tables have keys that mean something.
pub fn dots(log: Log, dots: &[Dot]) -> Vec<u8> {
    let id = log.id();
    let mut bytes = Vec::new();
    for dot in dots {
        let table = ["t", "attach", "ready", "nodes", ""][usize::from(dot.table) % 5];
        let network = NETWORKS[usize::from(dot.key) % NETWORKS.len()];
        let mut key = network.0.to_be_bytes().to_vec();
        let value = dot.value.map(|value| match table {
            "attach" => Vec::new(),
            "ready" => encode(&vec![(
                network,
                u64::from(value >> 8),
                u64::from(value & 255),
            )]),
            _ => vec![b'v'; usize::from(value % 2_048)],
        });
        match table {
            "attach" => key.extend(id.owner.0.to_be_bytes()),
            _ => key = vec![b'k'; usize::from(dot.key)],
        }
        let millis = now_millis().saturating_add_signed(i64::from(dot.written) * 4);
        let wire = WireDot {
            seq: dot.seq.get(),
            written: Hlc(millis << 16),
            table,
            key: &key,
            value: value.as_deref(),
        };
        bytes.extend(encode(&wire));
    }
    bytes
}

/// Ranges, in any order.
pub type Ranges = Vec<(Number, Number)>;

fn ranges(ranges: &Ranges) -> Vec<(u64, u64)> {
    let range = |(first, last): &(Number, Number)| (first.get(), last.get());
    ranges.iter().map(range).collect()
}

/// A record in a datagram.
#[derive(Arbitrary, Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the messages")]
pub enum Record {
    /// Dots of a log, and its floor.
    Push {
        log: Log,
        floor: Number,
        dots: Vec<Dot>,
    },
    /// Which dots the sender has.
    Ihave {
        log: Log,
        ranges: Ranges,
        large: bool,
    },
    /// Which dots the sender wants.
    Pull { log: Log, ranges: Ranges },
    /// Root hashes.
    Digest {
        roots: Vec<(u8, u64, bool)>,
        answer: bool,
    },
    /// How far do you have this log?
    Ask { log: Log, seq: Number },
    /// This is how far I have it.
    Reached { log: Log, prefix: Number },
    /// Anything.
    Raw { kind: u8, body: Vec<u8> },
}

impl Record {
    /// Returns the record's kind and body.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Push {
                log,
                floor,
                dots: of,
            } => {
                let mut body = encode(&(log.id(), floor.get()));
                body.extend(dots(*log, of));
                (3, body)
            }
            Self::Ihave {
                log,
                ranges: of,
                large,
            } => (4, encode(&(log.id(), ranges(of), *large))),
            Self::Pull { log, ranges: of } => (5, encode(&(log.id(), ranges(of)))),
            Self::Digest { roots, answer } => {
                let root = |(network, hash, synced): &(u8, u64, bool)| {
                    let network = NETWORKS[usize::from(*network) % NETWORKS.len()];
                    (network, *hash, *synced)
                };
                let roots: Vec<_> = roots.iter().map(root).collect();
                (6, encode(&(roots, *answer)))
            }
            Self::Ask { log, seq } => (7, encode(&(log.id(), seq.get()))),
            Self::Reached { log, prefix } => (8, encode(&(log.id(), prefix.get()))),
            Self::Raw { kind, body } => (*kind, body.clone()),
        }
    }

    /// Returns how many dots it brings at most.
    pub fn weight(&self) -> usize {
        match self {
            Self::Push { dots, .. } => dots.len(),
            Self::Raw { body, .. } => body.len(),
            Self::Ihave { .. }
            | Self::Pull { .. }
            | Self::Digest { .. }
            | Self::Ask { .. }
            | Self::Reached { .. } => 0,
        }
    }
}

/// What a replica claims to have of a log.
#[derive(Arbitrary, Clone, Debug)]
pub struct Have {
    /// Everything up to here.
    pub prefix: Number,
    /// And these.
    pub ranges: Ranges,
}

impl Have {
    fn encode(&self) -> Vec<u8> {
        encode(&(self.prefix.get(), ranges(&self.ranges)))
    }
}

/// Parts of the hash tree.
#[derive(Arbitrary, Clone, Debug)]
pub enum Scope {
    /// All of it.
    Whole,
    /// Some buckets.
    Buckets(Vec<(u8, u64)>),
}

impl Scope {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Whole => encode(&(0u8..64).map(|at| (at, u64::MAX)).collect::<Vec<_>>()),
            Self::Buckets(buckets) => encode(buckets),
        }
    }
}

/// A request on a stream.
#[derive(Arbitrary, Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the messages")]
pub enum Request {
    /// Which buckets differ?
    Buckets { network: u8, few: bool },
    /// Which parts differ?
    Parts { network: u8, buckets: Vec<u8> },
    /// What do I lack?
    Fetch {
        network: u8,
        scope: Scope,
        from: Option<Log>,
        through: Option<Log>,
        logs: Vec<(Log, Have, Number)>,
    },
    /// Who is a member?
    Members,
    /// Anything.
    Raw(Vec<u8>),
}

impl Request {
    /// Returns the request's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let about = |network: &u8| {
            let mut bytes = vec![0];
            bytes.extend(encode(&NETWORKS[usize::from(*network) % NETWORKS.len()]));
            bytes
        };
        match self {
            Self::Buckets { network, few } => {
                let mut bytes = about(network);
                let count = if *few { 3 } else { 64 };
                bytes.extend(encode(&(0u32, vec![0u64; count])));
                bytes
            }
            Self::Parts { network, buckets } => {
                let mut bytes = about(network);
                let parts: Vec<_> = buckets.iter().map(|at| (*at, vec![7u64; 64])).collect();
                bytes.extend(encode(&(1u32, parts)));
                bytes
            }
            Self::Fetch {
                network,
                scope,
                from,
                through,
                logs,
            } => {
                let mut bytes = about(network);
                bytes.extend(encode(&2u32));
                bytes.extend(scope.encode());
                bytes.extend(encode(&(
                    from.map(Log::id),
                    through.map(Log::id),
                    logs.len() as u64,
                )));
                for (log, have, floor) in logs {
                    bytes.extend(encode(&log.id()));
                    bytes.extend(have.encode());
                    bytes.extend(encode(&floor.get()));
                }
                bytes
            }
            Self::Members => vec![1],
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

/// What a page says of one log.
#[derive(Arbitrary, Clone, Debug)]
pub struct Delta {
    /// Which log.
    pub log: Log,
    /// Its dots.
    pub dots: Vec<Dot>,
    /// What is said of the whole: have, floor, what is kept.
    pub complete: Option<(Have, Number, Option<Ranges>)>,
}

/// An answer on a stream.
#[derive(Arbitrary, Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the messages")]
pub enum Reply {
    /// The network is not carried.
    NotCarried { network: u8 },
    /// What differs.
    Differs { network: u8, scope: Scope },
    /// What was lacking.
    Deltas {
        network: u8,
        synced: bool,
        next: Option<Log>,
        logs: Vec<Delta>,
    },
    /// Anything.
    Raw(Vec<u8>),
}

impl Reply {
    /// Returns the answer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let of = |network: &u8| {
            let mut bytes = vec![0];
            bytes.extend(encode(&NETWORKS[usize::from(*network) % NETWORKS.len()]));
            bytes
        };
        match self {
            Self::NotCarried { network } => {
                let mut bytes = of(network);
                bytes.extend(encode(&0u32));
                bytes
            }
            Self::Differs { network, scope } => {
                let mut bytes = of(network);
                bytes.extend(encode(&1u32));
                bytes.extend(scope.encode());
                bytes
            }
            Self::Deltas {
                network,
                synced,
                next,
                logs,
            } => {
                let mut bytes = of(network);
                bytes.extend(encode(&(
                    2u32,
                    *synced,
                    next.map(Log::id),
                    logs.len() as u64,
                )));
                for delta in logs {
                    bytes.extend(encode(&(delta.log.id(), dots(delta.log, &delta.dots))));
                    let Some((have, floor, kept)) = &delta.complete else {
                        bytes.extend(encode(&None::<u8>));
                        continue;
                    };
                    bytes.push(1);
                    bytes.extend(have.encode());
                    bytes.extend(encode(&(floor.get(), kept.as_ref().map(ranges))));
                }
                bytes
            }
            Self::Raw(bytes) => bytes.clone(),
        }
    }

    /// Returns how many dots it brings at most.
    pub fn weight(&self) -> usize {
        match self {
            Self::Deltas { logs, .. } => logs.iter().map(|delta| delta.dots.len()).sum(),
            Self::Raw(bytes) => bytes.len(),
            Self::NotCarried { .. } | Self::Differs { .. } => 0,
        }
    }
}
