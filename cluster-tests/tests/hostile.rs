//! What strangers can send: a million datagrams and a few hundred connections, all of them bad.
//!
//! Each datagram is shown to an [`Opener`] of our own first, so it is known by which reason the node has to count it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, ensure};
use cluster_tests::cluster::{Cluster, Node, Profile, Seen, run, until};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use weft::{
    core::{
        model::{Boot, ClusterId, NodeId},
        wire::{
            DATAGRAM_MAX,
            envelope::{Opener, Rejections, Sealer},
            keyring::{ClusterKey, KeyId, Keyring},
        },
    },
    store::{NodeIdentity, Store},
};

/// The daemon under test.
const WEFT: &str = env!("CARGO_BIN_EXE_weft-under-test");
/// How many datagrams are thrown.
const DATAGRAMS: u64 = 1_000_000;
/// How many are sent before the memory is looked at for the first time: what the node takes once, it has then.
const WARM_UP: u64 = 20_000;
/// How many datagrams may wait in the node's socket at once; more, and the kernel would drop them, not the node.
const BURST: u64 = 64;
/// How long the node may take for a burst.
const BURST_MAX: Duration = Duration::from_secs(20);
/// How much more memory the node may hold afterwards, in bytes.
const GROWTH_MAX: u64 = 6 * 1024 * 1024;
/// How many connections are opened that bring garbage.
const CONNECTIONS: usize = 200;
/// How many connections are left standing without a word.
const SILENT: usize = 64;
/// How long an answer to a TLS alert is: its record header and two bytes (RFC 8446 §5.1, §6).
const ALERT_LEN: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are the report")]
async fn a_million_bad_datagrams_are_counted_and_never_answered() -> anyhow::Result<()> {
    let (mut cluster, identity) = founded().await?;
    let before = rejections(&cluster[0]).await?;
    let mut sender = Hostile::new(&identity, cluster[0].address())?;

    let mut warm = tokio::task::spawn_blocking(move || {
        sender.throw(WARM_UP)?;
        anyhow::Ok(sender)
    })
    .await??;
    until_counted(&cluster[0], &before, &warm).await?;
    let held = cluster[0].resident()?;
    let done = tokio::task::spawn_blocking(move || {
        warm.throw(DATAGRAMS - WARM_UP)?;
        anyhow::Ok(warm)
    });
    let sender = done.await??;

    until_counted(&cluster[0], &before, &sender).await?;
    let expected = sender.opener.rejections();
    let reasons = by_reason(expected);
    assert!(
        reasons.iter().all(|(_, count)| *count > 1_000),
        "{expected:?}"
    );
    assert_eq!(sender.dropped()?, 0, "the kernel dropped some");
    assert_eq!(sender.answers()?, 0, "the node has answered");
    let metrics = cluster[0].client().metrics().await?;
    for (reason, count) in by_reason(&rejections(&cluster[0]).await?) {
        let line = metrics.lines().find(|line| {
            line.starts_with("weft_datagrams_rejected_total{") && line.contains(reason)
        });
        let line = line.with_context(|| format!("no metric of {reason}"))?;
        assert!(line.ends_with(&format!(" {count}")), "{line}, not {count}");
    }
    let holds = cluster[0].resident()?;
    println!("{DATAGRAMS} bad datagrams: {reasons:?}; {held} bytes held before, {holds} after");
    assert!(holds < held + GROWTH_MAX, "{held} bytes, then {holds}");
    serves(&mut cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_connections_is_counted_and_gets_an_alert_at_most() -> anyhow::Result<()> {
    let (mut cluster, _) = founded().await?;
    let node = cluster[0].address();
    let mut rng = StdRng::seed_from_u64(9338);
    let held = cluster[0].resident()?;

    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|_| TcpStream::connect(node))
        .collect::<Result<_, _>>()?;
    let answers = tokio::task::spawn_blocking(move || {
        (0..CONNECTIONS)
            .map(|round| exchange(node, &garbage(round, &mut rng)))
            .collect::<anyhow::Result<Vec<usize>>>()
    });
    let answers = answers.await??;

    assert!(answers.iter().all(|len| *len <= ALERT_LEN), "{answers:?}");
    until("all connections are counted and closed", async || {
        let counters = cluster[0].client().status().await?.counters;
        let refused = |reason: &str| {
            let name = format!("streams_refused_total.{reason}");
            counters.get(&name).copied().unwrap_or(0)
        };
        let garbage = refused("handshake") + refused("truncated");
        let slow = refused("slow_handshake");
        let open = counters["stream_connections"];
        let good = garbage >= CONNECTIONS as u64 && slow >= SILENT as u64 && open == 0;
        Ok(Seen::when(good, || {
            format!("{garbage} bad, {slow} slow, {open} open")
        }))
    })
    .await?;
    drop(silent);
    let holds = cluster[0].resident()?;
    assert!(holds < held + GROWTH_MAX, "{held} bytes, then {holds}");
    serves(&mut cluster).await?;
    cluster.end().await
}

/// Starts a node whose keys are known to us.
async fn founded() -> anyhow::Result<(Cluster, NodeIdentity)> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;
    let mut init = cluster[at].weft();
    init.args(["init", "--name", cluster[at].name(), "--data-dir"]);
    init.arg(cluster[at].data_dir());
    run(init.into(), b"").await?.done()?;
    let store = Store::open(&cluster[at].data_dir())?;
    let identity = store.identity()?.context("nothing was founded")?;
    drop(store);
    cluster[at].start()?;
    cluster[at].until_ready().await?;
    cluster.until_led().await?;
    Ok((cluster, identity))
}

/// Checks that a node that was attacked does what it is there for: lets another in, agrees, and spreads what it is told.
async fn serves(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.join().await?;
    cluster.until_members(2).await?;
    cluster.create_network(1, "app").await?;
    let web = cluster.create_endpoint(0, "app", "web").await?;
    cluster.until_peer(&[1], "app", web.id, true).await
}

/// A sender of bad datagrams.
struct Hostile {
    socket: UdpSocket,
    to: SocketAddr,
    receiver: NodeId,
    opener: Opener,
    rng: StdRng,
    /// Random bytes to cut noise from: drawing them anew would take most of the time.
    noise: Vec<u8>,
    /// Datagrams that were good once: the node has opened them.
    opened: Vec<Vec<u8>>,
    /// A good one that the node has not seen, to be cut and changed.
    unseen: Vec<Vec<u8>>,
    /// One of before its sender started again.
    old: Vec<u8>,
    wrong_keys: Sealer,
    wrong_ring: Sealer,
    wrong_cluster: Sealer,
    right: Sealer,
}

impl Hostile {
    fn new(identity: &NodeIdentity, to: SocketAddr) -> anyhow::Result<Self> {
        let mut rng = StdRng::seed_from_u64(1);
        let (cluster, receiver) = (identity.cluster, identity.node);
        let (id, _) = identity.ring.keys.primary();
        let foreign = Keyring::new(id, ClusterKey::random(&mut rng));
        let unknown = Keyring::new(KeyId(id.0.wrapping_add(7)), ClusterKey::random(&mut rng));
        // What a member that is gone has sent, and somebody on the way has kept.
        let sealer = |node, boot, keyring| Sealer::new(cluster, NodeId(node), Boot(boot), keyring);
        let mut before = sealer(0xbad, 1, &identity.ring.keys);
        let mut after = sealer(0xbad, 2, &identity.ring.keys);
        let mut hostile = Self {
            socket: UdpSocket::bind((to.ip(), 0))?,
            to,
            receiver,
            opener: Opener::new(cluster, receiver, identity.ring.keys.clone()),
            opened: Vec::new(),
            unseen: Vec::new(),
            old: before.seal(receiver, b"")?.to_vec(),
            wrong_keys: sealer(0xbad, 2, &foreign),
            wrong_ring: sealer(0xbad, 2, &unknown),
            wrong_cluster: Sealer::new(
                ClusterId::random(&mut rng),
                NodeId(0xbad),
                Boot(2),
                &identity.ring.keys,
            ),
            right: sealer(0xdead, 1, &identity.ring.keys),
            noise: noise(&mut rng, 1 << 20..=1 << 20),
            rng,
        };
        for len in [0, 1, 100, 1_300] {
            // Records of a kind that nobody knows: they are skipped.
            let payload = record(0xee, len);
            let good = after.seal(receiver, &payload)?.to_vec();
            ensure!(hostile.opener.open(&good).is_ok(), "not good: {len} bytes");
            hostile.socket.send_to(&good, to)?;
            hostile.opened.push(good);
            hostile
                .unseen
                .push(after.seal(receiver, &payload)?.to_vec());
        }
        Ok(hostile)
    }

    /// Sends so many, no faster than the node takes them.
    fn throw(&mut self, count: u64) -> anyhow::Result<()> {
        for sent in 0..count {
            let datagram = self.datagram()?;
            ensure!(
                self.opener.open(&datagram).is_err(),
                "a good one: {datagram:?}"
            );
            self.socket.send_to(&datagram, self.to)?;
            if sent % BURST == 0 {
                let began = Instant::now();
                while waiting_and_dropped(self.to)?.0 > 0 {
                    ensure!(began.elapsed() < BURST_MAX, "the node no longer reads");
                    std::thread::yield_now();
                }
            }
        }
        Ok(())
    }

    fn datagram(&mut self) -> anyhow::Result<Vec<u8>> {
        let rng = &mut self.rng;
        let pick = rng.random_range(0..self.opened.len());
        Ok(match rng.random_range(0..10) {
            0 => cut(rng, &self.noise, 0..=DATAGRAM_MAX + 300),
            1 => {
                let mut plausible = cut(rng, &self.noise, 38..=DATAGRAM_MAX);
                plausible[..2].copy_from_slice(&self.opened[pick][..2]);
                plausible
            }
            2 => {
                let whole = &self.unseen[pick];
                whole[..rng.random_range(0..whole.len())].to_vec()
            }
            3 => {
                let mut changed = self.unseen[pick].clone();
                let at = rng.random_range(0..changed.len());
                changed[at] ^= 1 << rng.random_range(0..8);
                changed
            }
            4 => self.opened[pick].clone(),
            5 => self.old.clone(),
            6 => self.wrong_keys.seal(self.receiver, b"\xee\0\0")?.to_vec(),
            7 => self.wrong_ring.seal(self.receiver, b"")?.to_vec(),
            8 => {
                let mut ours = self.unseen[pick].clone();
                ours[2..10].copy_from_slice(&self.receiver.0.to_be_bytes());
                ours
            }
            _ if rng.random() => self.wrong_cluster.seal(self.receiver, b"")?.to_vec(),
            _ => self.right.seal(NodeId(self.receiver.0 ^ 1), b"")?.to_vec(),
        })
    }

    /// Returns how many datagrams the kernel dropped before the node could read them.
    fn dropped(&self) -> anyhow::Result<u64> {
        Ok(waiting_and_dropped(self.to)?.1)
    }

    /// Returns how many datagrams have come back.
    fn answers(&self) -> anyhow::Result<usize> {
        self.socket.set_nonblocking(true)?;
        let mut answers = 0;
        loop {
            match self.socket.recv(&mut [0; 2048]) {
                Ok(_) => answers += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(answers),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Waits until the node has counted what our own opener has, reason by reason.
async fn until_counted(node: &Node, before: &Rejections, sender: &Hostile) -> anyhow::Result<()> {
    let expected = by_reason(sender.opener.rejections());
    until("every datagram is counted by its reason", async || {
        let counted = by_reason(&rejections(node).await?);
        let grown = counted.iter().zip(by_reason(before));
        let grown = grown.map(|((reason, now), (_, before))| (*reason, now - before));
        let grown: Vec<_> = grown.collect();
        Ok(Seen::when(grown == expected, || {
            format!("{grown:?}, not {expected:?}")
        }))
    })
    .await
}

/// Returns what a node has counted.
async fn rejections(node: &Node) -> anyhow::Result<Rejections> {
    let counters = node.client().status().await?.counters;
    let of = |reason: &str| counters[&format!("datagrams_rejected_total.{reason}")];
    Ok(Rejections {
        too_short: of("too_short"),
        too_long: of("too_long"),
        version: of("version"),
        unknown_key: of("unknown_key"),
        forged: of("forged"),
        replayed: of("replayed"),
        old_boot: of("old_boot"),
        from_ourselves: of("from_ourselves"),
    })
}

fn by_reason(rejections: &Rejections) -> [(&'static str, u64); 8] {
    [
        ("too_short", rejections.too_short),
        ("too_long", rejections.too_long),
        ("version", rejections.version),
        ("unknown_key", rejections.unknown_key),
        ("forged", rejections.forged),
        ("replayed", rejections.replayed),
        ("old_boot", rejections.old_boot),
        ("from_ourselves", rejections.from_ourselves),
    ]
}

/// Returns a record of this kind: kind, length, body.
fn record(kind: u8, len: u16) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let mut record = vec![kind, high, low];
    record.resize(record.len() + usize::from(len), 0);
    record
}

fn noise(rng: &mut StdRng, len: std::ops::RangeInclusive<usize>) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(len)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Returns a piece of `noise`.
fn cut(rng: &mut StdRng, noise: &[u8], len: std::ops::RangeInclusive<usize>) -> Vec<u8> {
    let len = rng.random_range(len);
    let from = rng.random_range(0..=noise.len() - len);
    noise[from..from + len].to_vec()
}

/// Returns how many bytes wait in the UDP socket at this address, and how many datagrams it has lost (proc(5), `net/udp`).
fn waiting_and_dropped(addr: SocketAddr) -> anyhow::Result<(u64, u64)> {
    let IpAddr::V4(ip) = addr.ip() else {
        anyhow::bail!("{addr} is not of IPv4");
    };
    let ip = u32::from_ne_bytes(ip.octets());
    let local = format!("{ip:08X}:{:04X}", addr.port());
    let table = fs::read_to_string("/proc/net/udp")?;
    let mut lines = table.lines().map(|line| line.split_whitespace());
    let mut line = lines
        .find(|line| line.clone().nth(1) == Some(&local))
        .with_context(|| format!("no socket at {addr}"))?;
    let queues = line.nth(4).context("no queues")?;
    let waiting = queues.split_once(':').context("no receive queue")?.1;
    let dropped = line.last().context("no count of drops")?;
    Ok((u64::from_str_radix(waiting, 16)?, dropped.parse()?))
}

/// Returns what a stranger may send on a connection.
fn garbage(round: usize, rng: &mut StdRng) -> Vec<u8> {
    match round % 5 {
        0 => noise(rng, 1..=4096),
        1 => b"GET / HTTP/1.1\r\nHost: weft\r\n\r\n".to_vec(),
        // A TLS record that claims the longest length and ends early.
        2 => vec![0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff],
        // A ClientHello that claims to be of 16 MiB.
        3 => vec![0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff],
        _ => Vec::new(),
    }
}

/// Sends bytes on a connection of their own, and returns how many come back until it is closed.
fn exchange(to: SocketAddr, bytes: &[u8]) -> anyhow::Result<usize> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let gone = |error: &std::io::Error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        )
    };
    match stream
        .write_all(bytes)
        .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
    {
        Err(error) if !gone(&error) && error.kind() != ErrorKind::NotConnected => {
            return Err(error.into());
        }
        Ok(()) | Err(_) => {}
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if !gone(&error) => Err(error.into()),
        Ok(_) | Err(_) => Ok(answer.len()),
    }
}
