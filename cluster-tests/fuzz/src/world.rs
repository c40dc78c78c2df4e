//! A node whose members lie, and what must hold whatever they say.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng};
use weft::core::{
    membership::{self, Identity, MemberState, State},
    model::{
        Boot, ClusterId, Generation, Instant, Key, NetworkId, NodeId, Now, TableName, UnixMillis,
        Value,
    },
    netdb::{self, LogView, StreamCall},
    node::{self, Node},
    watch::Filter,
    wire::{
        DATAGRAM_MAX,
        envelope::Sealer,
        keyring::{ClusterKey, KeyId, Keyring},
        record::{Batch, RecordKind},
    },
};

/// The node that is lied to.
pub const ME: NodeId = NodeId(1);
/// The networks that there are; it is attached to the first two.
pub const NETWORKS: [NetworkId; 3] = [NetworkId::CLUSTER, NetworkId(1), NetworkId(2)];

/// The cluster.
pub const CLUSTER: ClusterId = ClusterId(7);
/// How many bytes may go out at once: a flush to each of three nodes, and what membership says.
const FLUSH_MAX: usize = 512 * 1024;
/// How much may wait to be sent: dots and small messages to each of four nodes.
const QUEUED_MAX: u64 = 4 * (16_384 + 1_024);
/// How many calls may be under way; the oldest fail then.
const CALLS_MAX: usize = 8;
/// How often a node may say at once that it has something to do at once.
const SPINS_MAX: usize = 10_000;

/// Returns when it all begins.
pub fn now_millis() -> u64 {
    1_700_000_000_000
}

/// Returns one of three senders: two members, and one that holds the key and is none.
pub fn peer(at: u8) -> NodeId {
    NodeId(2 + u64::from(at % 3))
}

/// Returns the ring of keys that everybody holds.
pub fn keyring() -> Keyring {
    let key = ClusterKey::random(&mut StdRng::seed_from_u64(1));
    Keyring::new(KeyId(1), key)
}

fn identity(node: NodeId) -> Identity {
    let place = u16::try_from(node.0 % 1_000).unwrap_or_default();
    Identity {
        node,
        addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9_000 + place)),
        boot: Boot(1),
        rejoin: 0,
    }
}

/// Returns one member's state, in a life of it.
pub fn member(node: NodeId, boot: u8, state: u8) -> MemberState {
    let states = [State::Alive, State::Suspect, State::Down, State::Left];
    MemberState {
        identity: Identity {
            boot: Boot(u32::from(boot)),
            ..identity(node)
        },
        incarnation: u16::from(boot),
        state: states[usize::from(state) % states.len()],
    }
}

type Address = (NetworkId, TableName, Key);

/// The node, and what it should be like.
pub struct World {
    /// The node.
    pub node: Node,
    /// What it reads from its clocks.
    pub now: Now,
    /// Its calls that wait for an answer.
    pub calls: VecDeque<StreamCall>,
    /// How many dots it was told of or wrote, at most.
    pub brought: usize,
    sealers: BTreeMap<NodeId, Sealer>,
    /// What the node has written and not deleted, by network.
    written: BTreeMap<NetworkId, BTreeMap<Key, Value>>,
    /// How often it has written there since it attached.
    writes: BTreeMap<NetworkId, u64>,
    /// What a watcher has been told is there.
    watched: BTreeMap<Address, Value>,
    revision: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Makes a node that is attached to a network, and knows two members that are too.
    pub fn new() -> Self {
        Self::of(ME)
    }

    /// Makes such a node by another name.
    pub fn of(me: NodeId) -> Self {
        let now = Now {
            instant: Instant::from_start(Duration::from_secs(1)),
            wall: UnixMillis(now_millis()),
        };
        let config = node::Config {
            cluster: CLUSTER,
            node: me,
            addr: identity(me).addr,
            boot: Boot(1),
            generation: Generation(1),
            keyring: keyring(),
            membership: membership::Config::lan(),
            newest: weft::core::wire::versions::NEWEST,
            netdb: netdb::Config::default(),
            seed: 1,
        };
        let node = Node::new(config, now);
        let sealer = |at| {
            (
                peer(at),
                Sealer::new(CLUSTER, peer(at), Boot(1), &keyring()),
            )
        };
        let revision = node.revision();
        let mut world = Self {
            node,
            now,
            calls: VecDeque::new(),
            brought: 0,
            sealers: (0..3).map(sealer).collect(),
            written: BTreeMap::new(),
            writes: BTreeMap::new(),
            watched: BTreeMap::new(),
            revision,
        };
        let others = [ME, peer(0), peer(1)]
            .into_iter()
            .filter(|node| *node != me);
        world
            .node
            .apply_members(now, others.map(|node| member(node, 1, 0)).collect());
        world.attach(NETWORKS[1]);
        world
    }

    /// Attaches the node to a network.
    pub fn attach(&mut self, network: NetworkId) {
        if network != NetworkId::CLUSTER && self.node.attach(self.now, network).is_ok() {
            self.brought += 1;
            self.writes.entry(network).or_default();
        }
    }

    /// Detaches it.
    pub fn detach(&mut self, network: NetworkId) {
        if self.node.detach(self.now, network).is_ok() {
            self.brought += 1;
            self.writes.remove(&network);
            self.written.remove(&network);
        }
    }

    /// Lets the node write an entry, or delete it.
    pub fn write(&mut self, network: NetworkId, key: u8, value: Option<u16>) {
        let (Ok(table), Ok(key)) = (TableName::new("t"), Key::new(vec![key])) else {
            return;
        };
        let address = (network, &table, &key);
        let value = value.and_then(|len| Value::new(vec![b'o'; usize::from(len)]).ok());
        let mode = netdb::PutMode::Upsert;
        let written = match &value {
            Some(value) => self.node.put(self.now, address, value, mode).is_ok(),
            None => self.node.delete(self.now, address).is_ok(),
        };
        if !written {
            return;
        }
        self.brought += 1;
        *self.writes.entry(network).or_default() += 1;
        let entries = self.written.entry(network).or_default();
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }

    /// Hands the node a datagram with these records.
    pub fn hear(&mut self, from: NodeId, records: &[(u8, Vec<u8>)]) {
        let mut batch = Batch::new();
        for (kind, body) in records {
            // What does not fit a datagram cannot be sent in one.
            let _ = batch.push(RecordKind(*kind), body);
        }
        if let Some(datagram) = self.seal(from, batch.as_bytes()) {
            drop(self.node.handle_datagram(self.now, &datagram));
        }
    }

    /// Returns an authentic datagram.
    pub fn seal(&mut self, from: NodeId, payload: &[u8]) -> Option<Vec<u8>> {
        let sealer = self.sealers.get_mut(&from)?;
        sealer
            .seal(ME, payload)
            .ok()
            .map(|datagram| datagram.to_vec())
    }

    /// Lets time pass.
    pub fn wait(&mut self, millis: u16) {
        let passed = Duration::from_millis(u64::from(millis));
        let until = self.now.instant + passed;
        for spins in 0.. {
            assert!(spins < SPINS_MAX, "the node is never done");
            let Some(at) = self.node.poll_timeout().filter(|at| *at <= until) else {
                break;
            };
            let at = at.max(self.now.instant);
            let step = at.saturating_duration_since(self.now.instant);
            self.now.instant = at;
            self.now.wall.0 += u64::try_from(step.as_millis()).unwrap_or_default();
            self.node.handle_timeout(self.now);
            self.drain();
        }
        self.now.instant = until;
    }

    /// Lets time pass, and nothing happen.
    pub fn pass(&mut self, millis: u16) {
        self.now.instant += Duration::from_millis(u64::from(millis));
        self.now.wall.0 += u64::from(millis);
    }

    /// Takes what the node has to say; it is little.
    pub fn drain(&mut self) {
        let mut bytes = 0;
        while let Some(transmit) = self.node.poll_transmit() {
            assert!(transmit.datagram.len() <= DATAGRAM_MAX);
            bytes += transmit.datagram.len();
        }
        assert!(bytes <= FLUSH_MAX, "{bytes} bytes at once");
        while self.node.poll_event().is_some() {}
        while let Some(call) = self.node.poll_stream() {
            self.calls.push_back(call);
            if self.calls.len() > CALLS_MAX
                && let Some(oldest) = self.calls.pop_front()
            {
                self.node.handle_stream_failed(self.now, oldest.id);
            }
        }
    }

    /// Checks all that must hold, whatever was said.
    pub fn check(&mut self) {
        self.drain();
        let stats = self.node.stats();
        assert!(
            stats.netdb.queued <= QUEUED_MAX,
            "{} wait",
            stats.netdb.queued
        );
        assert!(stats.netdb.faulty.len() <= 16);
        let held = self.node.held();
        assert!(
            held <= self.brought,
            "{held} entries of {} dots",
            self.brought
        );
        let logs = self.node.view_logs();
        for log in &logs {
            check_log(log);
        }
        self.check_own(&logs);
        self.check_watch();
    }

    /// Only this node writes its own logs.
    fn check_own(&self, logs: &[LogView]) {
        for (network, writes) in &self.writes {
            let mut ours = logs.iter().filter(|view| {
                view.log.owner == ME
                    && view.log.network == *network
                    && *network != NetworkId::CLUSTER
            });
            let nothing = BTreeMap::new();
            let expected = self.written.get(network).unwrap_or(&nothing);
            let Some(log) = ours.next() else {
                assert!(
                    *writes == 0 || *network == NetworkId::CLUSTER,
                    "our log is gone"
                );
                continue;
            };
            assert!(ours.next().is_none(), "two logs of ours");
            assert_eq!(log.prefix(), *writes, "{:?}", log.have);
            let live = log
                .dots
                .iter()
                .filter_map(|dot| Some((&dot.key, dot.value.as_ref()?)));
            assert_eq!(live.collect::<BTreeMap<_, _>>(), expected.iter().collect());
        }
    }

    /// What a watcher was told is what is visible, and only those show who may.
    fn check_watch(&mut self) {
        let all = Filter::default();
        let (entries, revision) = self.node.list(&all);
        if let Ok(heard) = self.node.changes(self.revision, &all, usize::MAX) {
            for revised in heard.changes {
                let change = revised.change;
                let address = (change.network, change.table, change.key);
                let before = match change.value {
                    Some(value) => self.watched.insert(address, value),
                    None => self.watched.remove(&address),
                };
                assert_eq!(before, change.previous, "told of another former value");
            }
        }
        self.revision = revision;
        let mut visible = BTreeMap::new();
        for entry in entries {
            let shows = entry.owner == NodeId::CLUSTER
                || self
                    .node
                    .attached(entry.network)
                    .any(|node| node == entry.owner);
            assert!(shows, "an entry of {} shows", entry.owner);
            visible.insert((entry.network, entry.table, entry.key), entry.value);
        }
        // Nothing is told of a network that was left whole.
        assert_eq!(self.watched, visible);
    }
}

/// I3: every dot is had; I4: the floor is within the prefix; ranges ascend.
fn check_log(log: &LogView) {
    assert!(log.floor <= log.prefix(), "{log:?}");
    assert!(
        log.have.windows(2).all(|pair| pair[0].1 < pair[1].0),
        "{log:?}"
    );
    assert!(log.dots.iter().all(|dot| log.has(dot.seq)), "{log:?}");
}
