//! Real messages to begin with: what two sound nodes say to each other. And a check that the liars' words are the same.

use std::{collections::BTreeMap, fs, io, path::Path};

use weft::core::{
    model::{Key, TableName, Value},
    netdb::PutMode,
    node::Node,
    wire::{envelope::Opener, record::records},
};

use crate::{
    message::{Delta, Dot, Have, Log, Number, Record, Reply, Request, Scope},
    world::{self, ME, NETWORKS, World, peer},
};

/// Names the directory of corpora: if it is set, a target writes the real messages there before it does anything else.
pub(crate) const DIRECTORY: &str = "WEFT_FUZZ_SEEDS";
/// How many messages of one kind are kept, by their length.
const A_KIND_MAX: usize = 6;
/// For how long the nodes speak, in milliseconds.
const SPEAK_FOR: u16 = 4_000;

/// Writes the seeds if that is asked for.
pub fn write_if_asked() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        check_words();
        write(Path::new(&directory)).expect("the seeds can be written");
    }
}

fn write(directory: &Path) -> io::Result<()> {
    let mut pair = Pair::new();
    pair.speak();
    let kinds = ["record", "stream", "datagram"];
    for kind in kinds {
        fs::create_dir_all(directory.join(kind))?;
    }
    for ((kind, len), bytes) in pair.heard {
        let name = format!("{kind:?}-{len}");
        match kind {
            Said::Records(_) => {
                let mut input = vec![0];
                input.extend(bytes);
                fs::write(directory.join("record").join(name), input)?;
            }
            Said::Datagram => fs::write(directory.join("datagram").join(name), bytes)?,
            Said::Request | Said::Reply => fs::write(directory.join("stream").join(name), bytes)?,
        }
    }
    Ok(())
}

/// What was said: which kind of record came first, or on what way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Said {
    Records(u8),
    Datagram,
    Request,
    Reply,
}

/// Two sound nodes.
struct Pair {
    nodes: [World; 2],
    openers: [Opener; 2],
    heard: BTreeMap<(Said, usize), Vec<u8>>,
}

impl Pair {
    fn new() -> Self {
        let opener = |node| Opener::new(world::CLUSTER, node, world::keyring());
        Self {
            nodes: [World::new(), World::of(peer(0))],
            openers: [opener(ME), opener(peer(0))],
            heard: BTreeMap::new(),
        }
    }

    fn note(&mut self, said: Said, bytes: &[u8]) {
        let of_kind = self.heard.keys().filter(|(kind, _)| *kind == said);
        if of_kind.count() < A_KIND_MAX {
            self.heard.insert((said, bytes.len()), bytes.to_vec());
        }
    }

    fn speak(&mut self) {
        for millis in 0..SPEAK_FOR {
            for at in 0..2 {
                self.write(at, millis);
                let now = self.nodes[at].now;
                self.nodes[at].node.handle_timeout(now);
                self.pass_on(at);
                self.nodes[at].pass(1);
            }
        }
    }

    fn write(&mut self, at: usize, millis: u16) {
        let world = &mut self.nodes[at];
        let (Ok(table), Ok(key)) = (
            TableName::new("t"),
            Key::new(format!("{at}/{}", millis % 90)),
        ) else {
            return;
        };
        let address = (NETWORKS[1], &table, &key);
        let len = if millis == 900 { 5_000 } else { 20 };
        let (now, node) = (world.now, &mut world.node);
        if millis % 300 == 0 {
            let value = Value::new(vec![b'v'; len]).expect("within the limits");
            drop(node.put(now, address, &value, PutMode::Upsert));
        } else if millis % 700 == 10 {
            drop(node.delete(now, address));
        } else if millis == 1_500 {
            drop(node.ready(now));
        }
    }

    fn pass_on(&mut self, at: usize) {
        let other = 1 - at;
        while let Some(transmit) = self.nodes[at].node.poll_transmit() {
            let Ok(opened) = self.openers[other].open(&transmit.datagram) else {
                continue;
            };
            self.note(Said::Datagram, &transmit.datagram);
            if let Some(Ok((kind, _))) = records(&opened.payload).next() {
                self.note(Said::Records(kind.0), &opened.payload);
            }
            let now = self.nodes[other].now;
            drop(
                self.nodes[other]
                    .node
                    .handle_datagram(now, &transmit.datagram),
            );
        }
        while let Some(call) = self.nodes[at].node.poll_stream() {
            let now = self.nodes[at].now;
            let from = [ME, peer(0)][at];
            let reply = match call.id.to == [ME, peer(0)][other] {
                true => self.nodes[other]
                    .node
                    .handle_stream(from, &call.request)
                    .ok(),
                false => None,
            };
            let node: &mut Node = &mut self.nodes[at].node;
            match reply {
                Some(reply) => {
                    drop(node.handle_stream_reply(now, call.id, &reply));
                    self.note(Said::Request, &call.request);
                    self.note(Said::Reply, &reply);
                }
                None => node.handle_stream_failed(now, call.id),
            }
        }
    }
}

/// Checks that what the liars say means what they want to say: it is taken.
fn check_words() {
    let mut world = World::new();
    let number = Number::small;
    let log = Log {
        network: 1,
        owner: 3,
        generation: number(1),
        epoch: number(1),
    };
    let dot = |seq| Dot {
        seq: number(seq),
        written: 0,
        table: 0,
        key: seq,
        value: Some(5),
    };
    let have = Have {
        prefix: number(3),
        ranges: Vec::new(),
    };
    let said = [
        Record::Push {
            log,
            floor: number(0),
            dots: vec![dot(1)],
        },
        Record::Ihave {
            log,
            ranges: vec![(number(1), number(1))],
            large: false,
        },
        Record::Pull {
            log,
            ranges: vec![(number(1), number(1))],
        },
        Record::Digest {
            roots: vec![(1, 0, true)],
            answer: false,
        },
        Record::Ask {
            log,
            seq: number(1),
        },
        Record::Reached {
            log,
            prefix: number(1),
        },
    ];
    let said: Vec<_> = said.iter().map(Record::encode).collect();
    world.hear(peer(0), &said);
    world.drain();
    let call = std::iter::from_fn(|| world.calls.pop_front()).find(|call| call.request[0] == 0);
    let call = call.expect("the digest differs");
    let delta = Delta {
        log,
        dots: vec![dot(2), dot(3)],
        complete: Some((have.clone(), number(2), Some(vec![(number(1), number(2))]))),
    };
    let reply = Reply::Deltas {
        network: 1,
        synced: true,
        next: None,
        logs: vec![delta],
    };
    let now = world.now;
    let taken = world
        .node
        .handle_stream_reply(now, call.id, &reply.encode());
    let fetch = Request::Fetch {
        network: 1,
        scope: Scope::Whole,
        from: Some(log),
        through: None,
        logs: vec![(log, have, number(0))],
    };
    let parts = Request::Parts {
        network: 1,
        buckets: vec![1, 2],
    };
    let buckets = Request::Buckets {
        network: 1,
        few: false,
    };
    for request in [fetch, parts, buckets, Request::Members] {
        world
            .node
            .handle_stream(peer(0), &request.encode())
            .expect("a sound request");
    }

    taken.expect("a sound answer");
    let stats = world.node.stats().netdb;
    assert!(stats.refused.is_empty(), "{stats:?}");
    assert_eq!((stats.snapshots, stats.floors_raised), (1, 1));
    world.brought += 8;
    world.check();
}
