//! Nodes of Weft: the loop with its UDP socket, and TLS streams for repair. No disk and no Raft: neither is on this way.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weft::{
    core::{
        membership,
        model::{Boot, ClusterId, Generation, Key, NetworkId, NodeId, TableName, Value},
        netdb::{self, PutMode, SyncState},
        node,
        watch::Filter,
        wire::keyring::{ClusterKey, KeyId, Keyring},
    },
    runtime::{
        self, Handle, Sockets, WatchEvent, Watcher, clock,
        streams::{self, Caller, Dialer, Handler, Limits, Refusal, Service, Tls},
        trust::{Ca, CertifiedName, NodeKey, VALID_FOR},
    },
};

use super::{Cluster, Settings};
use crate::{arrivals::Arrivals, payload};

const CLUSTER: ClusterId = ClusterId(1);
const NETWORK: NetworkId = NetworkId(1);
const TABLE: &str = "bench";

/// The nodes.
#[derive(Debug)]
pub struct WeftCluster {
    nodes: Vec<Member>,
    stop: CancellationToken,
    loops: TaskTracker,
    /// The doors for streams, and the watches.
    served: JoinSet<()>,
}

#[derive(Debug)]
struct Member {
    handle: Handle,
    tls: Tls,
}

impl Cluster for WeftCluster {
    async fn start(
        _settings: Settings,
        nodes: usize,
        arrivals: &Arc<Arrivals>,
    ) -> anyhow::Result<Self> {
        let ca = Ca::create(CLUSTER)?;
        let keyring = Keyring::new(KeyId(1), ClusterKey::random(&mut clock::entropy()));
        let mut cluster = Self {
            nodes: Vec::new(),
            stop: CancellationToken::new(),
            loops: TaskTracker::new(),
            served: JoinSet::new(),
        };
        for number in 0..nodes {
            cluster.add(&ca, &keyring, number).await?;
        }
        let seed = cluster.nodes[0].handle.member_states().await?;
        for member in &cluster.nodes {
            member.handle.apply_members(seed.clone()).await?;
            member.handle.attach(NETWORK).await?;
        }
        for (number, member) in cluster.nodes.iter().enumerate() {
            let filter = Filter {
                network: Some(NETWORK),
                table: Some(TableName::new(TABLE)?),
                ..Filter::default()
            };
            let watcher = member.handle.watch(filter, None);
            let arrivals = Arc::clone(arrivals);
            cluster.served.spawn(tell(watcher, number, arrivals));
        }
        Ok(cluster)
    }

    async fn is_whole(&self) -> anyhow::Result<bool> {
        for member in &self.nodes {
            let status = member.handle.status().await?;
            let attached = member.handle.attached(NETWORK).await?.len();
            let mut networks = status.networks.iter();
            if status.alive != self.nodes.len()
                || attached != self.nodes.len()
                || !networks.all(|(_, state)| *state == SyncState::Synced)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn write(&self, node: usize, payload: String) -> anyhow::Result<()> {
        let entry = (
            TableName::new(TABLE)?,
            // An entry is its writer's: every node has a key of its own, 16 bytes as an endpoint's id.
            Key::new(format!("update-of-{node:06}").into_bytes())?,
            Value::new(payload.into_bytes())?,
        );
        let handle = &self.nodes[node].handle;
        handle.put(NETWORK, entry, PutMode::Upsert).await?;
        Ok(())
    }

    /// Returns what the nodes have counted: sealed datagrams, and what TLS has made of the streams.
    async fn sent(&self) -> anyhow::Result<u64> {
        let mut sent = 0;
        for member in &self.nodes {
            let status = member.handle.status().await?;
            sent += status.stats.datagram_bytes_sent + member.tls.stats().bytes_sent;
        }
        Ok(sent)
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.loops.close();
        self.loops.wait().await;
        Ok(())
    }
}

impl WeftCluster {
    async fn add(&mut self, ca: &Ca, keyring: &Keyring, number: usize) -> anyhow::Result<()> {
        let node = NodeId(number as u64 + 1);
        let key = NodeKey::generate()?;
        let name = CertifiedName {
            node,
            cluster: CLUSTER,
        };
        let cert = ca.sign(&key.csr(node)?, name, (clock::wall(), VALID_FOR))?;
        let tls = Tls::new(&key.certified(ca.cert_der.clone(), cert)?)?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets = Sockets::bind(listen).await?;
        let config = node::Config {
            cluster: CLUSTER,
            node,
            addr: sockets.addr,
            boot: Boot(1),
            generation: Generation(1),
            keyring: keyring.clone(),
            membership: membership::Config::lan(),
            newest: weft::core::wire::versions::NEWEST,
            netdb: netdb::Config::default(),
            seed: clock::seed(),
        };
        let dialer = Dialer::new(tls.clone(), &Limits::default());
        let stop = self.stop.clone();
        let (handle, _ended) =
            runtime::start(config, sockets.udp, dialer, &self.loops, stop.clone());
        let door = Arc::new(Door(handle.clone()));
        self.served
            .spawn(streams::serve(sockets.tcp, tls.clone(), door, stop));
        self.nodes.push(Member { handle, tls });
        Ok(())
    }
}

/// Answers the repair of other nodes, which is all that is called here.
#[derive(Debug)]
struct Door(Handle);

impl Handler for Door {
    fn call(
        &self,
        _caller: Caller,
        service: Service,
        request: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        async move {
            if service != Service::Sync {
                return Err(Refusal(format!("{service} is not offered here")));
            }
            let answer = async { anyhow::Ok(self.0.answer(request).await??) };
            let answer = answer.await.map_err(|error| Refusal(error.to_string()))?;
            Ok(answer.into())
        }
        .boxed()
    }
}

async fn tell(mut watcher: Watcher, node: usize, arrivals: Arc<Arrivals>) {
    while let Ok(event) = watcher.next().await {
        if let WatchEvent::Change(revised) = event
            && let Some(value) = revised.change.value
            && let Some(round) = payload::round(value.as_bytes())
        {
            arrivals.arrived(node, round);
        }
    }
}
