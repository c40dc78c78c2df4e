//! The follower against a real node over loopback, asked with real queries.

use std::time::Duration;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name as DnsName, RecordType},
};
use tokio::{net::UdpSocket, task::JoinSet, time::timeout};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    core::{
        membership,
        model::{Boot, ClusterId, Generation, Name, NodeId, Prefix},
        netdb::{self, PutMode},
        node,
        wire::keyring::{ClusterKey, KeyId, Keyring},
    },
    dns::{Names, TTL},
    runtime::{
        self, clock,
        streams::{Dialer, Limits, Tls},
        trust::{Ca, CertifiedName, NodeKey, VALID_FOR},
    },
};

/// How long something that must happen may take.
const SOON: Duration = Duration::from_secs(10);

const APP: NetworkId = NetworkId(1);
const WEB: EndpointId = EndpointId(1);

#[tokio::test]
async fn an_endpoint_is_answered_for_while_it_is_there() {
    let node = Node::start().await;
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(sockets.addr).await.unwrap();
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    let askers = watch::channel(Askers::new()).1;
    let upstream = Upstream::these(Vec::new(), sockets.addr);
    let handle = node.handle.clone();
    running.spawn(run(
        handle,
        sockets,
        (askers, upstream, TTL),
        nobody_lays(),
        stop.clone(),
    ));

    node.put_network().await;
    node.put_endpoint("10.0.0.2/24").await;
    let there = ask_until(&client, |answer| !answer.answers.is_empty()).await;
    node.put_alias("www").await;
    let alias = async || {
        let answer = ask(&client, "www.").await;
        answer.answers.first().map(|first| first.data.to_string())
    };
    while alias().await.as_deref() != Some("10.0.0.2") {}
    node.handle
        .delete(APP, table(ENDPOINTS_TABLE), key(&WEB.0.to_be_bytes()))
        .await
        .unwrap();
    let gone = ask_until(&client, |answer| answer.answers.is_empty()).await;

    assert_eq!(there.answers[0].data.to_string(), "10.0.0.2");
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    stop.cancel();
    running.join_next().await.unwrap().unwrap();
    node.stop().await;
}

#[tokio::test]
async fn what_was_there_before_is_known_and_what_changes_follows() {
    let node = Node::start().await;
    node.put_network().await;
    node.put_endpoint("10.0.0.2/24").await;
    let (names, mut known) = watch::channel(NameTable::default());
    let mut running = JoinSet::new();
    let handle = node.handle.clone();
    running.spawn(async move { follow(&handle, &names, nobody_lays()).await });

    let is_at = |known: &NameTable, address: &str| {
        known.addresses("web", "app") == Some(vec![address.parse().unwrap()])
    };
    until(&mut known, |known| is_at(known, "10.0.0.2")).await;
    node.put_endpoint("10.0.0.9/24").await;
    until(&mut known, |known| is_at(known, "10.0.0.9")).await;
    node.handle.detach(APP).await.unwrap();
    until(&mut known, |known| known.addresses("web", "app").is_none()).await;
    node.handle
        .delete(
            NetworkId::CLUSTER,
            table(NETWORKS_TABLE),
            key(&APP.0.to_be_bytes()),
        )
        .await
        .unwrap();
    until(&mut known, |known| !known.has_network("app")).await;

    node.stop().await;
    assert_eq!(running.join_next().await.unwrap().unwrap(), Err(Stopped));
}

#[test]
fn a_record_that_is_not_what_its_key_says_is_not_a_name() {
    let value = Value::new(codec::encode(&web("10.0.0.2/24"))).unwrap();
    let garbage = Value::new(vec![0xff; 9]).unwrap();
    let itself = key(&WEB.0.to_be_bytes());

    assert!(endpoint(APP, &itself, &value).is_some());
    assert!(endpoint(NetworkId(2), &itself, &value).is_none());
    assert!(endpoint(APP, &key(&[1; 16]), &value).is_none());
    assert!(endpoint(APP, &itself, &garbage).is_none());
    assert!(network(&key(&[0, 0, 0, 1]), &garbage).is_none());
}

/// A node alone in its cluster.
struct Node {
    handle: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    async fn start() -> Self {
        let (node, cluster) = (NodeId(1), ClusterId(7));
        let ca = Ca::create(cluster).unwrap();
        let key = NodeKey::generate().unwrap();
        let csr = key.csr(node).unwrap();
        let certificate = ca
            .sign(
                &csr,
                CertifiedName { node, cluster },
                (clock::wall(), VALID_FOR),
            )
            .unwrap();
        let credentials = key.certified(ca.cert_der.clone(), certificate).unwrap();
        let dialer = Dialer::new(Tls::new(&credentials).unwrap(), &Limits::default());
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let config = node::Config {
            cluster,
            node,
            addr: sockets.addr,
            boot: Boot(1),
            generation: Generation(1),
            keyring: Keyring::new(KeyId(1), ClusterKey::random(&mut clock::entropy())),
            membership: membership::Config::local(),
            newest: crate::core::wire::versions::NEWEST,
            netdb: netdb::Config::default(),
            seed: 1,
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (handle, _ended) = runtime::start(config, sockets.udp, dialer, &tasks, stop.clone());
        handle.ready().await.unwrap();
        Self {
            handle,
            tasks,
            stop,
        }
    }

    async fn put_network(&self) {
        let record = NetworkRecord {
            id: APP,
            name: Name::new("app").unwrap(),
            driver: Name::new("null").unwrap(),
            options: Default::default(),
            subnets: Vec::new(),
        };
        let value = Value::new(codec::encode(&record)).unwrap();
        let entry = (table(NETWORKS_TABLE), key(&APP.0.to_be_bytes()), value);
        let put = self.handle.put(NetworkId::CLUSTER, entry, PutMode::Upsert);
        put.await.unwrap();
        self.handle.attach(APP).await.unwrap();
    }

    async fn put_endpoint(&self, address: &str) {
        let value = Value::new(codec::encode(&web(address))).unwrap();
        let entry = (table(ENDPOINTS_TABLE), key(&WEB.0.to_be_bytes()), value);
        let put = self.handle.put(APP, entry, PutMode::Upsert);
        put.await.unwrap();
    }

    async fn put_alias(&self, name: &str) {
        let names = vec![Name::new(name).unwrap()];
        let value = Value::new(codec::encode(&NamesRecord { names })).unwrap();
        let entry = (table(NAMES_TABLE), key(&WEB.0.to_be_bytes()), value);
        let put = self.handle.put(APP, entry, PutMode::Upsert);
        put.await.unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn nobody_lays() -> watch::Receiver<Laid> {
    watch::channel(Laid::new()).1
}

fn web(address: &str) -> EndpointRecord {
    EndpointRecord {
        id: WEB,
        network: APP,
        name: Name::new("web").unwrap(),
        address: Some(Prefix(address.parse().unwrap())),
        second: None,
        mac: "02:00:00:00:00:01".parse().unwrap(),
    }
}

async fn until(known: &mut watch::Receiver<NameTable>, is_so: impl Fn(&NameTable) -> bool) {
    let reached = known.wait_for(|known| is_so(known));
    timeout(SOON, reached).await.unwrap().unwrap();
}

/// Asks for the address of `web.app` until the answer is so.
async fn ask_until(client: &UdpSocket, is_so: impl Fn(&Message) -> bool) -> Message {
    let asked = async {
        loop {
            let answer = ask(client, "web.app.").await;
            if is_so(&answer) {
                return answer;
            }
        }
    };
    timeout(SOON, asked).await.unwrap()
}

async fn ask(client: &UdpSocket, name: &str) -> Message {
    let mut query = Message::new(1, MessageType::Query, OpCode::Query);
    let name = DnsName::from_ascii(name).unwrap();
    query.add_query(Query::query(name, RecordType::A));
    let mut buffer = [0; 1500];
    client.send(&query.to_vec().unwrap()).await.unwrap();
    let len = timeout(SOON, client.recv(&mut buffer)).await.unwrap();
    Message::from_vec(&buffer[..len.unwrap()]).unwrap()
}

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes.to_vec()).unwrap()
}
