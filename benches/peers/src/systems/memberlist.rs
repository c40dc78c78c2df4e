//! Nodes of memberlist: a user message that every receiver passes on, as often as the protocol's transmit limit says.

use std::{
    borrow::Cow,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use memberlist::{
    Broadcast, Memberlist, Options,
    agnostic::{RuntimeLite, tokio::TokioRuntime},
    delegate::{CompositeDelegate, NodeDelegate, VoidDelegate},
    net::NetTransportOptions,
    proto::{MaybeResolvedAddress, Payload},
    queue::TransmitLimitedQueue,
    tokio::{TokioNetTransport, TokioSocketAddrResolver, TokioTcp},
    transport::{Connection, PacketSubscriber, StreamSubscriber, Transport},
};
use smol_str::SmolStr;

use super::{Cluster, Settings};
use crate::{arrivals::Arrivals, payload};

type Net = TokioNetTransport<SmolStr, TokioSocketAddrResolver, TokioTcp>;
type NetOptions = NetTransportOptions<SmolStr, TokioSocketAddrResolver, TokioTcp>;
type Void = VoidDelegate<SmolStr, SocketAddr>;
type Delegate = CompositeDelegate<SmolStr, SocketAddr, Void, Void, Void, Void, Arc<Gossip>, Void>;

/// What a user message takes in a packet beside its bytes, at most.
const MESSAGE_OVERHEAD: usize = 8;

/// The nodes.
pub struct MemberlistCluster {
    nodes: Vec<Member>,
    sent: Arc<AtomicU64>,
}

struct Member {
    list: Memberlist<Counting, Delegate>,
    gossip: Arc<Gossip>,
}

impl Cluster for MemberlistCluster {
    async fn start(
        settings: Settings,
        nodes: usize,
        arrivals: &Arc<Arrivals>,
    ) -> anyhow::Result<Self> {
        let options = match settings {
            Settings::Default => Options::lan(),
            Settings::Fast { every, to } => Options::lan()
                .with_gossip_interval(every)
                .with_gossip_nodes(to),
        };
        let mut cluster = Self {
            nodes: Vec::new(),
            sent: Arc::default(),
        };
        let population = Arc::new(AtomicUsize::new(nodes));
        for number in 0..nodes {
            let mut net = NetOptions::new(SmolStr::new(format!("node-{number}")));
            net.add_bind_address(SocketAddr::from(([127, 0, 0, 1], 0)));
            let gossip = Arc::new(Gossip {
                node: number,
                arrivals: Arc::clone(arrivals),
                newest: Mutex::new(0),
                queue: TransmitLimitedQueue::new(
                    options.retransmit_mult(),
                    Arc::clone(&population),
                ),
            });
            let delegate = CompositeDelegate::new().with_node_delegate(Arc::clone(&gossip));
            let counted = (net, Arc::clone(&cluster.sent));
            let list = Memberlist::with_delegate(delegate, counted, options.clone()).await?;
            if let Some(first) = cluster.nodes.first() {
                let seed = MaybeResolvedAddress::resolved(*first.list.advertise_address());
                list.join(seed).await?;
            }
            cluster.nodes.push(Member { list, gossip });
        }
        Ok(cluster)
    }

    async fn is_whole(&self) -> anyhow::Result<bool> {
        for member in &self.nodes {
            if member.list.num_online_members().await != self.nodes.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn write(&self, node: usize, payload: String) -> anyhow::Result<()> {
        self.nodes[node].gossip.take(payload.as_bytes()).await;
        Ok(())
    }

    /// Returns what the transport has sent, counted around memberlist's own: packets and streams.
    async fn sent(&self) -> anyhow::Result<u64> {
        Ok(self.sent.load(Relaxed))
    }

    async fn stop(self) -> anyhow::Result<()> {
        for member in self.nodes {
            member.list.shutdown().await?;
        }
        Ok(())
    }
}

/// What a node does with user messages. A message is a whole write, so the newest invalidates what was before.
struct Gossip {
    node: usize,
    arrivals: Arc<Arrivals>,
    newest: Mutex<u64>,
    queue: TransmitLimitedQueue<Message, Arc<AtomicUsize>>,
}

impl Gossip {
    /// Takes a message, and passes it on if it is new here.
    async fn take(&self, message: &[u8]) {
        let Some(round) = payload::round(message) else {
            return;
        };
        let is_new = {
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = *newest < round;
            *newest = round.max(*newest);
            is_new
        };
        if is_new {
            let message = Message(Bytes::copy_from_slice(message));
            self.queue.queue_broadcast(message).await;
            self.arrivals.arrived(self.node, round);
        }
    }
}

impl NodeDelegate for Gossip {
    async fn notify_message(&self, message: Cow<'_, [u8]>) {
        self.take(&message).await;
    }

    async fn broadcast_messages<F>(
        &self,
        limit: usize,
        _encoded_len: F,
    ) -> impl Iterator<Item = Bytes> + Send
    where
        F: Fn(Bytes) -> (usize, Bytes) + Send + Sync + 'static,
    {
        self.queue.get_broadcasts(limit).await.into_iter()
    }
}

#[derive(Debug)]
struct Message(Bytes);

impl Broadcast for Message {
    type Id = u64;
    type Message = Bytes;

    fn id(&self) -> Option<&u64> {
        None
    }

    fn invalidates(&self, other: &Self) -> bool {
        payload::round(&self.0) > payload::round(&other.0)
    }

    fn message(&self) -> &Bytes {
        &self.0
    }

    fn encoded_len(message: &Bytes) -> usize {
        message.len() + MESSAGE_OVERHEAD
    }

    async fn finished(&self) {}
}

/// Memberlist's transport over UDP and TCP, its bytes counted.
struct Counting {
    net: Net,
    sent: Arc<AtomicU64>,
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counting").finish_non_exhaustive()
    }
}

type Moment = <TokioRuntime as RuntimeLite>::Instant;

impl Transport for Counting {
    type Error = <Net as Transport>::Error;
    type Id = SmolStr;
    type Address = SocketAddr;
    type ResolvedAddress = SocketAddr;
    type Resolver = TokioSocketAddrResolver;
    type Connection = <Net as Transport>::Connection;
    type Runtime = TokioRuntime;
    type Options = (NetOptions, Arc<AtomicU64>);

    async fn new((options, sent): Self::Options) -> Result<Self, Self::Error> {
        let net = Net::new(options).await?;
        Ok(Self { net, sent })
    }

    async fn resolve(&self, addr: &SocketAddr) -> Result<SocketAddr, Self::Error> {
        self.net.resolve(addr).await
    }

    fn local_id(&self) -> &SmolStr {
        self.net.local_id()
    }

    fn local_address(&self) -> &SocketAddr {
        self.net.local_address()
    }

    fn advertise_address(&self) -> &SocketAddr {
        self.net.advertise_address()
    }

    fn max_packet_size(&self) -> usize {
        self.net.max_packet_size()
    }

    fn header_overhead(&self) -> usize {
        self.net.header_overhead()
    }

    fn blocked_address(&self, addr: &SocketAddr) -> Result<(), Self::Error> {
        self.net.blocked_address(addr)
    }

    async fn read(
        &self,
        from: &SocketAddr,
        reader: &mut <Self::Connection as Connection>::Reader,
    ) -> Result<usize, Self::Error> {
        self.net.read(from, reader).await
    }

    async fn write(
        &self,
        writer: &mut <Self::Connection as Connection>::Writer,
        payload: Payload,
    ) -> Result<usize, Self::Error> {
        let sent = self.net.write(writer, payload).await?;
        self.sent.fetch_add(sent as u64, Relaxed);
        Ok(sent)
    }

    async fn send_to(
        &self,
        addr: &SocketAddr,
        packet: Payload,
    ) -> Result<(usize, Moment), Self::Error> {
        let (sent, at) = self.net.send_to(addr, packet).await?;
        self.sent.fetch_add(sent as u64, Relaxed);
        Ok((sent, at))
    }

    async fn open(
        &self,
        addr: &SocketAddr,
        deadline: Moment,
    ) -> Result<Self::Connection, Self::Error> {
        self.net.open(addr, deadline).await
    }

    fn packet(&self) -> PacketSubscriber<SocketAddr, Moment> {
        self.net.packet()
    }

    fn stream(&self) -> StreamSubscriber<SocketAddr, Self::Connection> {
        self.net.stream()
    }

    fn packet_reliable(&self) -> bool {
        self.net.packet_reliable()
    }

    fn packet_secure(&self) -> bool {
        self.net.packet_secure()
    }

    fn stream_secure(&self) -> bool {
        self.net.stream_secure()
    }

    async fn shutdown(&self) -> Result<(), Self::Error> {
        self.net.shutdown().await
    }
}
