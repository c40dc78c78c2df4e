//! Nodes of chitchat: one key of the writer's own state, seen by a subscription at every node.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use chitchat::{
    ChitchatConfig, ChitchatEnvelope, ChitchatHandle, ChitchatId, FailureDetectorConfig,
    ProtocolVersion, spawn_chitchat,
    transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket},
};

use super::{Cluster, Settings};
use crate::{arrivals::Arrivals, payload};

const KEY: &str = "bench";
/// Quickwit's interval, and chitchat's own default in its tests.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Chitchat wants to know its port before it binds it. These are below the ones that the system gives out by itself
/// (`ip_local_port_range` begins at 32768), so nobody takes one meanwhile.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);

/// The nodes.
pub struct ChitchatCluster {
    nodes: Vec<ChitchatHandle>,
    sent: Arc<AtomicU64>,
}

impl Cluster for ChitchatCluster {
    async fn start(
        settings: Settings,
        nodes: usize,
        arrivals: &Arc<Arrivals>,
    ) -> anyhow::Result<Self> {
        let gossip_interval = match settings {
            Settings::Default => DEFAULT_INTERVAL,
            Settings::Fast { every, .. } => every,
        };
        let mut cluster = Self {
            nodes: Vec::new(),
            sent: Arc::default(),
        };
        let mut seeds = Vec::new();
        for number in 0..nodes {
            let addr = free_addr().await?;
            let config = ChitchatConfig {
                chitchat_id: ChitchatId::new(format!("node-{number}"), 0, addr),
                cluster_id: "bench".to_owned(),
                gossip_interval,
                listen_addr: addr,
                seed_nodes: seeds.clone(),
                failure_detector_config: FailureDetectorConfig::default(),
                marked_for_deletion_grace_period: Duration::from_mins(15),
                catchup_callback: None,
                extra_liveness_predicate: None,
                // The newest, which compresses digests.
                protocol_version: ProtocolVersion::V1,
            };
            if seeds.is_empty() {
                seeds.push(addr.to_string());
            }
            let transport = Counting {
                sent: Arc::clone(&cluster.sent),
            };
            let node = spawn_chitchat(config, Vec::new(), &transport).await?;
            let arrivals = Arc::clone(arrivals);
            node.with_chitchat(|chitchat| {
                let arrivals = Arc::clone(&arrivals);
                let subscription = chitchat.subscribe_event(KEY, move |event| {
                    if let Some(round) = payload::round(event.value.as_bytes()) {
                        arrivals.arrived(number, round);
                    }
                });
                subscription.forever();
            })
            .await;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    async fn is_whole(&self) -> anyhow::Result<bool> {
        for node in &self.nodes {
            let alive = node.with_chitchat(|chitchat| chitchat.live_nodes().count());
            if alive.await != self.nodes.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn write(&self, node: usize, payload: String) -> anyhow::Result<()> {
        self.nodes[node]
            .with_chitchat(|chitchat| chitchat.self_node_state().set(KEY, &payload))
            .await;
        Ok(())
    }

    /// Returns what the sockets have taken, counted around chitchat's own socket.
    async fn sent(&self) -> anyhow::Result<u64> {
        Ok(self.sent.load(Relaxed))
    }

    async fn stop(self) -> anyhow::Result<()> {
        for node in self.nodes {
            node.shutdown().await?;
        }
        Ok(())
    }
}

/// Returns an address that nobody has.
async fn free_addr() -> anyhow::Result<SocketAddr> {
    for _ in 0..10_000 {
        let port = NEXT_PORT.fetch_add(1, Relaxed);
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if tokio::net::UdpSocket::bind(addr).await.is_ok() {
            return Ok(addr);
        }
    }
    anyhow::bail!("no port is free")
}

/// Chitchat's UDP transport, its bytes counted.
#[derive(Debug)]
struct Counting {
    sent: Arc<AtomicU64>,
}

#[async_trait]
impl Transport for Counting {
    async fn open(&self, listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = UdpSocket::open(listen_addr).await;
        Ok(Box::new(CountingSocket {
            socket: socket.context("chitchat's socket")?,
            sent: Arc::clone(&self.sent),
        }))
    }
}

struct CountingSocket {
    socket: UdpSocket,
    sent: Arc<AtomicU64>,
}

#[async_trait]
impl Socket for CountingSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn send(
        &mut self,
        to: SocketAddr,
        envelope: ChitchatEnvelope,
    ) -> anyhow::Result<SendOutcome> {
        let outcome = self.socket.send(to, envelope).await?;
        self.sent.fetch_add(outcome.num_bytes_sent as u64, Relaxed);
        Ok(outcome)
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        self.socket.recv().await
    }
}
