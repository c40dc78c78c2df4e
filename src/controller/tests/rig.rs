//! Nodes in one process: real loops over loopback, real disks, a driver that writes down what it hears.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    controller::{Controller, Lives, Parts, Streams},
    core::{
        allocator::{Action, Allocator, Command, NetworkWish, Outcome, Secret, TokenSecret},
        ipam::Lease,
        membership,
        model::{
            ClusterId, EndpointId, EndpointRecord, Family, Generation, Hlc, Key, Labels, Name,
            NetworkId, NetworkRecord, NodeId, Prefix, TableEntry, TableName, Value,
        },
        netdb, node,
        wire::keyring::{AgreedRing, ClusterKey, KeyId, Keyring},
    },
    driver::{
        Agreed, Capability, Driver, DriverError, EventBatch, Joined, ObjectType, Origin, Progress,
        Registry, Scope, TableEvent, TableInterest,
    },
    raft::{Raft, RaftConfig, Timings},
    runtime::{
        self, Sockets,
        clock::{self, Clock},
        streams::{self, Dialer, Limits, Tls},
        trust::{Ca, CertifiedName, Credentials, NodeKey, VALID_FOR},
    },
    store::{NodeIdentity, Store},
};

/// How long something that must happen may take.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// The secret of the token of a founded cluster.
pub(super) const SECRET: [u8; 16] = [9; 16];

/// The agreement, faster than in production.
const TIMINGS: Timings = Timings {
    lease: Duration::from_millis(600),
    turn: Duration::from_millis(150),
    propose: Duration::from_secs(3),
    voter_gone: Duration::from_secs(60),
    voter_settled: Duration::from_millis(100),
    autopilot: Duration::from_millis(100),
    snapshot_every: 1_000,
};

/// Nodes that share what a leader would have agreed.
pub(super) struct Rig {
    cluster: ClusterId,
    ca: Ca,
    keyring: Keyring,
    allocator: Allocator,
    requests: u128,
    /// What nodes are started with from now on.
    pub(super) labels: Labels,
}

impl Rig {
    pub(super) fn new() -> Self {
        let cluster = ClusterId(7);
        let ca = Ca::create(cluster).unwrap();
        let key = ClusterKey::random(&mut crate::controller::entropy());
        let mut rig = Self {
            cluster,
            keyring: Keyring::new(KeyId(1), key),
            ca,
            allocator: Allocator::default(),
            requests: 0,
            labels: Labels::default(),
        };
        rig.agree(Action::Genesis {
            cluster,
            ca_cert_der: rig.ca.cert_der.clone(),
            ca_key_der: Secret(Vec::new()),
            keyring: rig.keyring.clone(),
            token_secret: TokenSecret([0; 16]),
            founder: NodeId(1),
            name: name("n1"),
        });
        for node in 2..=3 {
            rig.agree(Action::AdmitNode {
                node: NodeId(node),
                name: name(&format!("n{node}")),
                key: [7; 32],
            });
        }
        rig
    }

    /// Makes the authority's key useless for what is founded from now on. Nodes that were started have their certificates.
    pub(super) fn damage_authority(&mut self) {
        self.ca.key_der = b"no key".to_vec().into();
    }

    /// Founds a real agreement with this node as its only voter.
    pub(super) async fn found(&self, node: &Node) {
        let genesis = Action::Genesis {
            cluster: self.cluster,
            ca_cert_der: self.ca.cert_der.clone(),
            ca_key_der: Secret(self.ca.key_der.to_vec()),
            keyring: self.keyring.clone(),
            token_secret: TokenSecret(SECRET),
            founder: node.controller.parts.node,
            name: node.controller.parts.name.clone(),
        };
        let founded = node.controller.parts.raft.bootstrap(genesis);
        founded.await.unwrap();
    }

    fn agree(&mut self, action: Action) -> Outcome {
        self.requests += 1;
        let command = Command {
            at: Hlc::default().tick(clock::wall()),
            request: self.requests,
            action,
        };
        self.allocator.apply(&command).unwrap()
    }

    /// Makes a network of the driver `spy` with a block of addresses for each node.
    pub(super) async fn network(&mut self, text: &str, nodes: &[&Node]) -> NetworkRecord {
        let made = self.agree(Action::AllocateNetwork(NetworkWish {
            name: name(text),
            driver: name("spy"),
            options: BTreeMap::new(),
            subnets: Vec::new(),
            vxlan: true,
            v6: false,
            avoid: Vec::new(),
        }));
        let Outcome::Network(record) = made else {
            panic!("a network: {made:?}")
        };
        for node in nodes {
            self.lease(&record, node).await;
        }
        self.publish(nodes).await;
        record
    }

    /// Leases a node a further block, as a leader would whom it asks.
    pub(super) async fn lease(&mut self, network: &NetworkRecord, node: &Node) {
        let leased = self.agree(Action::GrowFamily {
            network: network.id,
            node: node.controller.parts.node,
            family: Family::V4,
        });
        let Outcome::Leased(block, number) = leased else {
            panic!("a block: {leased:?}")
        };
        let prefix = block.prefix;
        let mut hand = node.controller.desk.hands.hold(network.id).await;
        hand.lease(network, Lease { prefix, number });
    }

    pub(super) async fn remove_network(&mut self, id: NetworkId, nodes: &[&Node]) {
        self.agree(Action::RemoveNetwork { id });
        self.publish(nodes).await;
    }

    /// Hands the cluster log to these nodes.
    pub(super) async fn publish(&mut self, nodes: &[&Node]) {
        let (dots, floor) = self.allocator.cluster_log();
        let through = dots.last().map_or(floor, |dot| dot.seq);
        for node in nodes {
            let handle = &node.controller.parts.handle;
            handle
                .cluster_log(dots.clone(), floor, through)
                .await
                .unwrap();
        }
    }

    /// Returns what makes a node a member, as its disk keeps it.
    pub(super) fn identity(&self, node: NodeId) -> NodeIdentity {
        NodeIdentity {
            node,
            name: name(&format!("n{}", node.0)),
            cluster: self.cluster,
            credentials: self.credentials(node).to_bytes(),
            ring: AgreedRing {
                version: 0,
                keys: self.keyring.clone(),
            },
        }
    }

    /// Has a member of that number answer calls, and returns where.
    pub(super) async fn answer_as(
        &self,
        node: NodeId,
        handler: Arc<dyn streams::Handler>,
    ) -> SocketAddr {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (tcp, tls) = (sockets.tcp, self.tls(node));
        TaskTracker::new().spawn(streams::serve(tcp, tls, handler, CancellationToken::new()));
        sockets.addr
    }

    pub(super) fn ca(&self) -> &Ca {
        &self.ca
    }

    fn tls(&self, node: NodeId) -> Tls {
        Tls::new(&self.credentials(node)).unwrap()
    }

    fn credentials(&self, node: NodeId) -> Credentials {
        let key = NodeKey::generate().unwrap();
        let cluster = self.cluster;
        let name = CertifiedName { node, cluster };
        let csr = key.csr(node).unwrap();
        let signed = self.ca.sign(&csr, name, (clock::wall(), VALID_FOR));
        let credentials = key.certified(self.ca.cert_der.clone(), signed.unwrap());
        credentials.unwrap()
    }

    /// Starts a node on a disk; a node of the same number that ran on it before must have stopped.
    pub(super) async fn start(&self, number: u64, disk: &tempfile::TempDir, spy: Spy) -> Node {
        let id = NodeId(number);
        let store = Store::open(disk.path()).unwrap();
        let (generation, boot) = store.start(clock::wall().0 / 1000).unwrap();
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let tls = self.tls(id);
        let dialer = Dialer::new(tls.clone(), &Limits::default());
        let config = node::Config {
            cluster: self.cluster,
            node: id,
            addr: sockets.addr,
            boot,
            generation: Generation(generation.0),
            keyring: self.keyring.clone(),
            membership: membership::Config::local(),
            newest: crate::core::wire::versions::NEWEST,
            netdb: netdb::Config::default(),
            seed: number,
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (handle, _ended) =
            runtime::start(config, sockets.udp, dialer.clone(), &tasks, stop.clone());
        let (raft, news) = Raft::start(RaftConfig {
            node: id,
            store: store.clone(),
            transport: Arc::new(Streams::new(handle.clone(), dialer.clone())),
            clock: Arc::new(clock::wall),
            // Another one each time, as a daemon's is: requests are told apart by it.
            seed: clock::seed(),
            timings: TIMINGS,
            voters: 3,
        })
        .await
        .unwrap();
        let controller = Controller::new(Parts {
            node: id,
            name: name(&format!("n{number}")),
            labels: self.labels.clone(),
            capabilities: vec![name("spy")],
            cluster: self.cluster,
            handle,
            raft: raft.clone(),
            store,
            registry: Arc::new(registry(spy)),
            dialer,
            tls: tls.clone(),
            lives: Lives::default(),
            clock: Clock::start(),
        });
        let handler = Arc::new(controller.clone());
        tasks.spawn(streams::serve(sockets.tcp, tls, handler, stop.clone()));
        tasks.spawn(controller.clone().run(news, stop.clone()));
        Node {
            controller,
            tasks,
            stop,
        }
    }
}

/// The drivers of a node: the spy alone.
fn registry(spy: Spy) -> Registry {
    let registry = Registry::new();
    registry
        .register("spy", Origin::BuiltIn, Arc::new(spy))
        .unwrap();
    let needs = Arc::new(Agreed::OVERLAY);
    registry
        .register_allocator("spy", Origin::BuiltIn, needs)
        .unwrap();
    registry
}

/// A node that runs.
pub(super) struct Node {
    pub(super) controller: Controller,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    /// Lets two nodes know each other.
    pub(super) async fn meet(&self, other: &Self) {
        let states = other.controller.parts.handle.member_states().await.unwrap();
        self.controller
            .parts
            .handle
            .apply_members(states)
            .await
            .unwrap();
    }

    /// Waits until the node knows who leads.
    pub(super) async fn until_led(&self) {
        self.until(NetworkId::CLUSTER, "leader", |entries| entries == 1)
            .await;
        let raft = &self.controller.parts.raft;
        let led = async {
            let mut revision = self.controller.parts.handle.revision();
            while raft.leader().is_none() {
                revision.changed().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, led).await.unwrap();
    }

    /// Ends all that the node says and does, as a power failure would; others have yet to notice.
    pub(super) fn fall_silent(&self) {
        self.stop.cancel();
    }

    /// Stops the node and closes its disk.
    pub(super) async fn stop(self) {
        self.controller.parts.raft.shutdown().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits until what this node has in a table of a network is so.
    pub(super) async fn until(
        &self,
        network: NetworkId,
        table: &str,
        wanted: impl Fn(usize) -> bool,
    ) {
        let handle = &self.controller.parts.handle;
        let table = TableName::new(table).unwrap();
        let mut revision = handle.revision();
        let reached = async {
            loop {
                revision.borrow_and_update();
                let entries = handle.list(network, Some(table.clone())).await.unwrap();
                if wanted(entries.len()) {
                    return;
                }
                revision.changed().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, reached).await.unwrap();
    }
}

/// A driver that publishes one entry an endpoint in table `spied`, and writes down what it hears.
#[derive(Clone)]
pub(super) struct Spy {
    pub(super) heard: mpsc::Sender<TableEvent>,
    pub(super) scope: Scope,
    pub(super) table: &'static str,
    /// Whether it outlives the daemon, as a plugin does.
    pub(super) is_older: bool,
    /// How many events it takes at once.
    pub(super) takes: usize,
    pub(super) calls: Arc<Mutex<Vec<String>>>,
}

impl Spy {
    pub(super) fn new() -> (Self, Ear) {
        let (heard, events) = mpsc::channel(1024);
        let spy = Self {
            heard,
            scope: Scope::Global,
            table: "spied",
            is_older: false,
            takes: usize::MAX,
            calls: Arc::default(),
        };
        (spy, Ear { events })
    }

    fn note(&self, call: &str) {
        self.calls.lock().unwrap().push(call.to_owned());
    }

    pub(super) fn called(&self, call: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|made| *made == call).count()
    }
}

/// What a spy hears.
pub(super) struct Ear {
    events: mpsc::Receiver<TableEvent>,
}

impl Ear {
    pub(super) async fn next(&mut self) -> TableEvent {
        let event = tokio::time::timeout(SOON, self.events.recv());
        event.await.expect("nothing was heard").unwrap()
    }

    pub(super) fn heard_nothing(&mut self) -> bool {
        self.events.try_recv().is_err()
    }
}

fn done<T: Default + Send + 'static>() -> BoxFuture<'static, Result<T, DriverError>> {
    Box::pin(std::future::ready(Ok(T::default())))
}

impl Driver for Spy {
    fn capability(&self) -> Capability {
        Capability {
            data_scope: Scope::Global,
            connectivity_scope: self.scope,
        }
    }

    fn check_options(&self, _: &BTreeMap<String, String>) -> Result<(), DriverError> {
        Ok(())
    }

    fn create_network<'a>(
        &'a self,
        _: &'a NetworkRecord,
    ) -> BoxFuture<'a, Result<Vec<TableInterest>, DriverError>> {
        self.note("create_network");
        let interest = TableInterest {
            table: TableName::new("spied").unwrap(),
            object: ObjectType::Endpoint,
        };
        Box::pin(std::future::ready(Ok(vec![interest])))
    }

    fn delete_network(&self, _: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        self.note("delete_network");
        done()
    }

    fn create_endpoint<'a>(
        &'a self,
        _: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Vec<Prefix>, DriverError>> {
        self.note("create_endpoint");
        done()
    }

    fn delete_endpoint(
        &self,
        _: NetworkId,
        _: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        self.note("delete_endpoint");
        done()
    }

    fn join<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Joined, DriverError>> {
        self.note("join");
        let entry = TableEntry {
            table: TableName::new(self.table).unwrap(),
            key: key(endpoint.name.as_str()),
            value: Value::new(endpoint.mac.0.to_vec()).unwrap(),
        };
        let joined = Joined {
            entries: vec![entry],
            ..Joined::default()
        };
        Box::pin(std::future::ready(Ok(joined)))
    }

    fn leave(&self, _: NetworkId, _: EndpointId) -> BoxFuture<'_, Result<(), DriverError>> {
        self.note("leave");
        done()
    }

    fn event_notify<'a>(
        &'a self,
        events: &'a [TableEvent],
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        for event in events {
            // A test that does not listen has dropped its ear.
            let _ = self.heard.try_send(event.clone());
        }
        done()
    }

    fn event_batch<'a>(
        &'a self,
        batch: EventBatch<'a>,
    ) -> BoxFuture<'a, Result<Progress, DriverError>> {
        Box::pin(async move {
            let count = batch.events.len().min(self.takes);
            self.event_notify(&batch.events[..count]).await?;
            Ok(Progress {
                through: batch.after.revision + count as u64,
                pause: None,
            })
        })
    }

    fn is_older_than_us(&self) -> bool {
        self.is_older
    }

    fn decode_table_entry(
        &self,
        _: &TableName,
        _: &Key,
        _: &Value,
    ) -> Option<(EndpointId, BTreeMap<String, String>)> {
        None
    }

    fn inspect(&self, _: NetworkId) -> BoxFuture<'_, serde_json::Value> {
        Box::pin(std::future::ready(serde_json::Value::Null))
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn key(text: &str) -> Key {
    Key::new(text.as_bytes().to_vec()).unwrap()
}
