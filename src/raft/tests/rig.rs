//! Nodes in one process that agree over function calls, each with a data file of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rand::{SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{
    core::{
        allocator::{Action, NetworkWish, Outcome, Secret, TokenSecret},
        model::{ClusterId, Name, NetworkId, NodeId, UnixMillis},
        wire::keyring::{ClusterKey, KeyId, Keyring},
    },
    raft::{
        Raft, RaftConfig, Role, Service, Timings, Transport, TransportError, Wait,
        wire::{self, Message},
    },
    store::Store,
};

/// How long something that must happen may take: far more than a slow machine needs.
const SOON: Duration = Duration::from_secs(30);

/// Nodes, running or not.
pub(super) struct Rig {
    timings: Timings,
    voters: usize,
    running: Running,
    ways: Ways,
    pages: Pages,
    disks: BTreeMap<u64, (TempDir, Store)>,
    /// How often a node was started.
    starts: u64,
}

type Running = Arc<Mutex<BTreeMap<u64, Raft>>>;

/// From whom to whom calls do not simply pass, and what becomes of them.
type Ways = Arc<Mutex<BTreeMap<(u64, u64), Way>>>;

/// The pages of snapshots that passed, and how many may.
type Pages = Arc<Mutex<(usize, usize)>>;

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// There is no connection.
    Shut,
    /// It arrives, and its answer is lost.
    Mute,
}

impl Rig {
    pub(super) fn new(voters: usize, lease: Duration) -> Self {
        Self {
            timings: Timings {
                lease,
                turn: (lease / 4).min(Duration::from_millis(150)),
                propose: Duration::from_secs(10),
                voter_gone: Duration::from_secs(60),
                voter_settled: Duration::ZERO,
                autopilot: Duration::from_millis(50),
                snapshot_every: 1_000,
            },
            voters,
            running: Running::default(),
            ways: Ways::default(),
            pages: Arc::new(Mutex::new((0, usize::MAX))),
            disks: BTreeMap::new(),
            starts: 0,
        }
    }

    /// Has the wait for an answer to a proposal be this long.
    pub(super) fn propose_within(&mut self, limit: Duration) {
        self.timings.propose = limit;
    }

    /// Has snapshots be made after so many entries of the log.
    pub(super) fn snapshot_every(&mut self, entries: u64) {
        self.timings.snapshot_every = entries;
    }

    /// Has the calls from one node to another come to this; nothing: they pass.
    pub(super) fn set_way(&self, from: u64, to: u64, way: Option<Way>) {
        let mut ways = self.ways.lock().unwrap();
        match way {
            Some(way) => ways.insert((from, to), way),
            None => ways.remove(&(from, to)),
        };
    }

    /// Has no more than so many pages of snapshots pass in all.
    pub(super) fn limit_pages(&self, most: usize) {
        self.pages.lock().unwrap().1 = most;
    }

    /// Returns how many pages of snapshots have passed.
    pub(super) fn pages(&self) -> usize {
        self.pages.lock().unwrap().0
    }

    /// Has a node hear nobody, while all hear it; or lets it hear again.
    pub(super) fn deafen(&self, node: u64, deaf: bool) {
        for other in self.rafts().into_keys().filter(|other| *other != node) {
            self.set_way(node, other, deaf.then_some(Way::Mute));
            self.set_way(other, node, deaf.then_some(Way::Shut));
        }
    }

    /// Gives a node a disk.
    pub(super) fn add_disk(&mut self, node: u64, directory: TempDir, store: Store) {
        self.disks.insert(node, (directory, store));
    }

    /// Starts a node on its disk; a node without one gets one.
    pub(super) async fn start(&mut self, node: u64) -> Raft {
        if !self.disks.contains_key(&node) {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path()).unwrap();
            self.add_disk(node, directory, store);
        }
        self.starts += 1;
        let wire = Wire {
            from: node,
            running: Arc::clone(&self.running),
            ways: Arc::clone(&self.ways),
            pages: Arc::clone(&self.pages),
        };
        let (raft, _news) = Raft::start(RaftConfig {
            node: NodeId(node),
            store: self.store(node).clone(),
            transport: Arc::new(wire),
            clock: Arc::new(|| UnixMillis(1)),
            seed: self.starts,
            timings: self.timings,
            voters: self.voters,
        })
        .await
        .unwrap();
        self.running.lock().unwrap().insert(node, raft.clone());
        self.tell();
        raft
    }

    /// Founds a cluster on node 1 and adds nodes until so many vote.
    pub(super) async fn found(&mut self, nodes: u64) {
        let first = self.start(1).await;
        let genesis = Action::Genesis {
            cluster: ClusterId(7),
            ca_cert_der: vec![1],
            ca_key_der: Secret(vec![2]),
            keyring: Keyring::new(KeyId(0), ClusterKey::random(&mut StdRng::seed_from_u64(1))),
            token_secret: TokenSecret([3; 16]),
            founder: NodeId(1),
            name: name("n1"),
        };
        first.bootstrap(genesis).await.unwrap();
        for node in 2..=nodes {
            self.add(node).await;
        }
        self.until_voting(self.voters.min(nodes.try_into().unwrap()))
            .await;
    }

    /// Lets a node in, and starts it.
    pub(super) async fn add(&mut self, node: u64) {
        let action = Action::AdmitNode {
            node: NodeId(node),
            name: name(&format!("n{node}")),
            key: [7; 32],
        };
        let leader = self.leader().unwrap();
        self.raft(leader).propose(action).await.unwrap();
        self.start(node).await;
    }

    /// Returns whether a node runs.
    pub(super) fn runs(&self, node: u64) -> bool {
        self.rafts().contains_key(&node)
    }

    pub(super) fn store(&self, node: u64) -> &Store {
        &self.disks[&node].1
    }

    pub(super) fn raft(&self, node: u64) -> Raft {
        self.running.lock().unwrap()[&node].clone()
    }

    fn rafts(&self) -> BTreeMap<u64, Raft> {
        self.running.lock().unwrap().clone()
    }

    /// Tells every node who is there.
    pub(super) fn tell(&self) {
        let rafts = self.rafts();
        let alive: Vec<NodeId> = rafts.keys().copied().map(NodeId).collect();
        for raft in rafts.values() {
            let all: Vec<NodeId> = raft.read(|state| state.members().keys().copied().collect());
            raft.set_members(&alive, &all, &BTreeMap::new());
        }
    }

    /// Stops a node as its operator would.
    pub(super) async fn stop(&self, node: u64) {
        let raft = self.raft(node);
        raft.shutdown().await;
        self.running.lock().unwrap().remove(&node);
        self.tell();
    }

    /// Ends a node without a word.
    pub(super) async fn kill(&self, node: u64) {
        let raft = self.running.lock().unwrap().remove(&node).unwrap();
        self.tell();
        raft.shutdown().await;
    }

    /// Returns which node leads, as those that run say.
    pub(super) fn leader(&self) -> Option<u64> {
        let rafts = self.rafts();
        let leads = |raft: &Raft| raft.status().role == Role::Leader;
        rafts
            .iter()
            .find(|(_, raft)| leads(raft))
            .map(|(node, _)| *node)
    }

    /// Waits until so many vote, all of which have the whole log, and nothing of the change is left to be done: until then a
    /// majority of those that voted before it is needed too (joint consensus: Ongaro, §4.3).
    pub(super) async fn until_voting(&self, voters: usize) {
        self.until("all vote", || {
            self.tell();
            let rafts = self.rafts();
            let Some(leader) = self.leader() else {
                return false;
            };
            let known = rafts[&leader].status();
            let wait = rafts[&leader].voters_wait();
            matches!(wait, Some(Wait::Nothing | Wait::Nodes))
                && known.voters.len() == voters
                && known.voters.iter().all(|voter| {
                    let status = rafts.get(&voter.0).map(Raft::status);
                    status.is_some_and(|status| {
                        status.applied == known.last_log && status.leader == Some(NodeId(leader))
                    })
                })
        })
        .await;
    }

    pub(super) async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let seen = async {
            while !is_so() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = timeout(SOON, seen).await;
        let statuses: Vec<_> = self.rafts().values().map(Raft::status).collect();
        assert!(seen.is_ok(), "not seen: {what}: {statuses:#?}");
    }

    /// Makes a network through a node.
    pub(super) async fn create(&self, through: u64, called: &str) -> NetworkId {
        let made = self.raft(through).propose(network(called)).await;
        match made {
            Ok(Outcome::Network(record)) => record.id,
            other => panic!("{called}: {other:?}"),
        }
    }

    /// Returns the networks that a node knows.
    pub(super) fn networks(&self, node: u64) -> BTreeSet<String> {
        self.raft(node).read(|state| {
            let networks = state.networks().values();
            networks.map(|record| record.name.to_string()).collect()
        })
    }
}

pub(super) fn network(called: &str) -> Action {
    Action::AllocateNetwork(NetworkWish {
        name: name(called),
        driver: name("overlay"),
        options: BTreeMap::new(),
        subnets: Vec::new(),
        vxlan: true,
        v6: false,
        avoid: Vec::new(),
    })
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The way from one node to the others.
struct Wire {
    from: u64,
    running: Running,
    ways: Ways,
    pages: Pages,
}

impl Wire {
    /// Counts a page of a snapshot; returns whether a call may pass.
    fn count(&self, service: Service, request: &Bytes) -> bool {
        let is_page =
            service == Service::Raft && matches!(wire::open(request), Ok(Message::Snapshot { .. }));
        let (passed, most) = &mut *self.pages.lock().unwrap();
        let may = !is_page || *passed < *most;
        *passed += usize::from(is_page && may);
        may
    }
}

impl Transport for Wire {
    fn call(
        &self,
        to: NodeId,
        service: Service,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let from = NodeId(self.from);
        let raft = {
            let running = self.running.lock().unwrap();
            // Who has been killed says nothing any more.
            let speaks = running.contains_key(&self.from) || running.is_empty();
            running.get(&to.0).filter(|_| speaks).cloned()
        };
        let way = self.ways.lock().unwrap().get(&(self.from, to.0)).copied();
        Box::pin(async move {
            let raft = raft.ok_or(TransportError::NoAddress(to))?;
            if way == Some(Way::Shut) || !self.count(service, &request) {
                let (node, reason) = (to, "the way is shut".to_owned());
                return Err(TransportError::Unreachable { node, reason });
            }
            let answer = async {
                match service {
                    Service::Raft => raft.handle_raft(from, request).await,
                    Service::Propose => raft.handle_propose(from, request).await,
                }
            };
            let answer = timeout(deadline, answer).await;
            let answer = answer.map_err(|_late| TransportError::TimedOut(to))?;
            if way == Some(Way::Mute) {
                let (node, reason) = (to, "the answer is lost".to_owned());
                return Err(TransportError::Broken { node, reason });
            }
            Ok(answer)
        })
    }
}
