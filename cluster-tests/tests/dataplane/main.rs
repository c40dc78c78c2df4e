//! Packets between endpoints: daemons on hosts of their own (network namespaces), endpoints in sandboxes, real traffic.

mod changes;
mod families;
mod plugins;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use cluster_tests::cluster::{
    Cluster, Namespace, Seen, Underlay, inside, run, until, until_within,
};
use serde_json::{Value, json};
use tokio::{net::UdpSocket, task::JoinSet, time::timeout};
use weft::{
    api::http::types::{CreateEndpoint, CreateNetwork, CreateSubnet, JoinQuery, Network},
    core::model::{Mac, Name, Prefix, Vni},
};

const WEFT: &str = env!("CARGO_BIN_EXE_weft-under-test");

/// How soon after a join packets must flow, and after a change by hand flow again. On a machine that does nothing else it
/// is a hundredth of it.
const SOON: Duration = Duration::from_secs(5);
/// How long an answer is waited for: a thousand times what one takes.
const ANSWER: Duration = Duration::from_millis(100);
/// A container's id, as a runtime draws it.
const CONTAINER: &str = "0123456789abcdef0123456789abcdef";
/// How long traffic pauses after each packet.
const PACE: Duration = Duration::from_millis(2);

#[tokio::test(flavor = "multi_thread")]
async fn packets_flow_from_join_to_leave_and_stay_in_their_network() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    cluster.create_network(0, "app").await?;
    let six = create(&cluster, "six", &["fd00:77::/64"]).await?;
    let here = join(&cluster, 0, "app", "here").await?;
    let beside = join(&cluster, 0, "app", "beside").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    let six_here = join(&cluster, 0, "six", "here").await?;
    let six_there = join(&cluster, 1, "six", "there").await?;

    for (one, other) in [
        (&here, &there),
        (&there, &here),
        (&beside, &here),
        (&beside, &there),
        (&six_here, &six_there),
        (&six_there, &six_here),
    ] {
        one.until_reaches(other).await?;
    }
    // Each network has a subnet of its own, but a sandbox could send to any address.
    let stranger = join(&cluster, 1, "six", "stranger").await?;
    let route = ["route", "add", "10.0.0.0/8", "dev", "eth0"];
    stranger.sandbox.ip(&route)?;
    stranger
        .sandbox
        .ip(&["address", "add", "10.0.0.200/32", "dev", "eth0"])?;
    let foreign = stranger.sandbox.udp("10.0.0.200".parse()?)?;
    for target in [&here, &there] {
        ensure!(
            !asks(&foreign, target.echo).await?,
            "a packet has left its network"
        );
    }

    cluster[1].client().endpoint_leave("app", "there").await?;

    ensure!(
        !here.reaches(&there).await?,
        "an endpoint that has left answers"
    );
    let links = there.sandbox.ip(&["link"])?;
    ensure!(
        !links.contains("eth0"),
        "an interface is left behind: {links}"
    );
    here.until_reaches(&beside).await?;

    // A namespace lives as long as a socket in it, and its links until the kernel has cleared away those that went before it.
    let place = cluster[1].namespaces().join(six.id.to_string());
    let links = inside(&place, &["ip", "-o", "link"])?.lines().count();
    drop((stranger, foreign));
    until("the kernel has taken the link away", async || {
        let left = inside(&place, &["ip", "-o", "link"])?;
        Ok(Seen::when(left.lines().count() < links, || left))
    })
    .await?;

    until_within(SOON, "an endpoint leaves with its sandbox", async || {
        let joined = cluster[0].client().endpoints(Some("six")).await?;
        let stays = joined.iter().any(|found| found.name.as_str() == "stranger");
        Ok(Seen::when(!stays, || format!("{joined:?}")))
    })
    .await?;
    six_here.until_reaches(&six_there).await?;
    leave_all(&cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_and_started_again_loses_no_packet() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let mut cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    cluster.create_network(0, "app").await?;
    let here = join(&cluster, 0, "app", "here").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    here.until_reaches(&there).await?;
    there.until_reaches(&here).await?;
    let traffic = Traffic::start(&here, &there)?;

    for at in [0, 1, 0, 1] {
        cluster[at].kill().await?;
        cluster[at].start()?;
        cluster[at].until_ready().await?;
        cluster.until_members(2).await?;
        until_peers(&cluster, at).await?;
    }
    traffic.until_sent(1_000).await?;

    traffic.end().await?;
    leave_all(&cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_takes_out_of_the_kernel_is_put_back() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    let network = cluster.create_network(0, "app").await?;
    let vni = network.subnets[0].vni.context("no VNI")?;
    let here = join(&cluster, 0, "app", "here").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    here.until_reaches(&there).await?;
    let place = cluster[0].namespaces().join(network.id.to_string());
    let (bridge, tunnel) = (format!("br-{vni}"), format!("vx-{vni}"));
    let (mac, vtep) = (
        there.mac.to_string(),
        cluster.underlay()?.address(1).to_string(),
    );
    let entry = [
        "bridge", "fdb", "del", &mac, "dev", &tunnel, "dst", &vtep, "self",
    ];
    let address = there.address.to_string();

    for broken in [
        &entry[..],
        &["ip", "neigh", "del", &address, "dev", &tunnel],
        &["ip", "link", "set", &tunnel, "down"],
        &["ip", "link", "set", &tunnel, "nomaster"],
        &["ip", "link", "del", &tunnel],
        &["ip", "link", "del", &bridge],
    ] {
        inside(&place, broken)?;

        let what = format!("it works again after {broken:?}");
        until_within(SOON, &what, async || {
            let fdb = inside(&place, &["bridge", "fdb", "show", "dev", &tunnel])?;
            let links = inside(&place, &["ip", "link", "show", "master", &bridge])?;
            let is_whole = fdb.contains(&format!("{mac} dst {vtep}")) && links.contains(&tunnel);
            Ok(Seen::when(is_whole, || format!("{fdb}\n{links}")))
        })
        .await?;
        here.until_reaches(&there).await?;
    }
    here.sandbox.ip(&["link", "del", "eth0"])?;
    here.until_reaches(&there).await?;
    let left = inside(&place, &["ip", "address", "show", "dev", &bridge])?;
    ensure!(
        left.contains("inet "),
        "a bridge without its gateway: {left}"
    );
    leave_all(&cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_takes_no_packet_from_a_node_that_is_not_in_the_network() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(3)? else {
        return Ok(());
    };
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    let network = cluster.create_network(0, "app").await?;
    let vni = network.subnets[0].vni.context("no VNI")?;
    let here = join(&cluster, 0, "app", "here").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    here.until_reaches(&there).await?;
    there.until_reaches(&here).await?;
    let target = here.sandbox.udp(here.address)?;
    let forged = forge(vni, &there, &here, target.local_addr()?.port())?;
    let tunnel_end = SocketAddr::new(cluster.underlay()?.address(0), 4789);
    let mut buffer = [0; 64];

    // As the member sends it, it arrives: so what follows proves something.
    for (host, arrives) in [(1, true), (2, false), (1, true)] {
        let underlay = cluster.underlay()?;
        let sender = underlay.host(host).udp(underlay.address(host))?;
        let seen = async || {
            sender.send_to(&forged, tunnel_end).await?;
            let got = timeout(ANSWER, target.recv_from(&mut buffer)).await;
            anyhow::Ok(got.is_ok())
        };
        let mut seen = seen;
        let what = format!("what host {host} sends arrives: {arrives}");
        if arrives {
            until(&what, async || Ok(Seen::when(seen().await?, String::new))).await?;
        } else {
            for _ in 0..5 {
                ensure!(!seen().await?, "a stranger's packet was taken");
            }
        }
        while timeout(ANSWER, target.recv_from(&mut buffer)).await.is_ok() {}
    }
    leave_all(&cluster).await?;
    cluster.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runtime_attaches_checks_and_detaches_by_cni() -> anyhow::Result<()> {
    let Some(underlay) = Underlay::make(2)? else {
        return Ok(());
    };
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    cluster.create_network(0, "app").await?;
    let there = join(&cluster, 1, "app", "there").await?;
    let sandbox = Namespace::make()?;
    let plain = json!({ "cniVersion": "1.1.0", "name": "app", "type": "weft" });
    let call = async |command: &str, configuration: &Value| {
        let mut called = cluster[0].weft();
        called
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", CONTAINER)
            .env("CNI_NETNS", sandbox.path())
            .env("CNI_IFNAME", "net1")
            .env("CNI_PATH", "/opt/cni/bin");
        run(called.into(), configuration.to_string().as_bytes()).await
    };
    call("STATUS", &plain).await?.done()?;

    let added: Value = call("ADD", &plain).await?.json()?;

    assert_eq!(added["interfaces"][0]["name"], "net1");
    let address = added["ips"][0]["address"].as_str().context("no address")?;
    let (address, _length) = address.split_once('/').context("no length")?;
    let socket = sandbox.udp(address.parse()?)?;
    until_within(SOON, "a container reaches another", async || {
        Ok(Seen::when(asks(&socket, there.echo).await?, String::new))
    })
    .await?;
    let mut checked = plain.clone();
    checked["prevResult"] = added.clone();
    call("CHECK", &checked).await?.done()?;
    checked["prevResult"]["ips"][0]["address"] = json!("10.9.9.9/24");
    assert_eq!(call("CHECK", &checked).await?.code, Some(1));

    let mut valid = plain.clone();
    valid["cni.dev/valid-attachments"] = json!([{ "containerID": CONTAINER, "ifname": "net1" }]);
    call("GC", &valid).await?.done()?;
    ensure!(asks(&socket, there.echo).await?, "one in use was collected");
    valid["cni.dev/valid-attachments"] = json!([]);
    call("GC", &valid).await?.done()?;
    ensure!(!asks(&socket, there.echo).await?, "one was not collected");
    for _again in 0..2 {
        call("DEL", &plain).await?.done()?;
    }
    leave_all(&cluster).await?;
    cluster.end().await
}

/// An endpoint in a sandbox, in which somebody answers.
struct Member {
    sandbox: Namespace,
    address: IpAddr,
    mac: Mac,
    /// Where packets are sent back.
    echo: SocketAddr,
    /// What sends them from.
    ask: UdpSocket,
    _answers: JoinSet<()>,
}

impl Member {
    async fn reaches(&self, other: &Self) -> anyhow::Result<bool> {
        asks(&self.ask, other.echo).await
    }

    async fn until_reaches(&self, other: &Self) -> anyhow::Result<()> {
        let what = format!("{} reaches {}", self.address, other.address);
        until_within(SOON, &what, async || {
            Ok(Seen::when(self.reaches(other).await?, || {
                "no answer".to_owned()
            }))
        })
        .await
    }
}

/// Creates an endpoint and joins it in a sandbox of its own.
async fn join(cluster: &Cluster, at: usize, network: &str, called: &str) -> anyhow::Result<Member> {
    join_at(cluster, at, (network, called), None).await
}

/// As [`join`], with this address.
async fn join_at(
    cluster: &Cluster,
    at: usize,
    (network, called): (&str, &str),
    address: Option<Prefix>,
) -> anyhow::Result<Member> {
    let sandbox = Namespace::make()?;
    let client = cluster[at].client();
    let wish = CreateEndpoint {
        name: Name::new(called)?,
        address: address.map(|prefix| prefix.0.addr()),
        second_address: None,
    };
    client.endpoint_create(network, &wish).await?;
    let place: PathBuf = sandbox.path();
    let query = JoinQuery {
        netns: Some(place.to_str().context("no text")?.to_owned()),
        interface: None,
    };
    let joined = client.endpoint_enter(network, called, &query).await?;
    let named = joined.sandbox.and_then(|sandbox| sandbox.name);
    ensure!(named.as_deref() == Some("eth0"), "named {named:?}");
    let address = joined.address.context("no address")?.0.addr();
    let answers = sandbox.udp(address)?;
    let echo = answers.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = answers.recv_from(&mut buffer).await {
            // It is for the one who asks to notice.
            let _ = answers.send_to(&buffer[..length], from).await;
        }
    });
    Ok(Member {
        ask: sandbox.udp(address)?,
        sandbox,
        address,
        mac: joined.mac,
        echo,
        _answers: tasks,
    })
}

/// Sends a packet, and returns whether it came back.
async fn asks(socket: &UdpSocket, target: SocketAddr) -> anyhow::Result<bool> {
    let token = rand::random::<u64>().to_be_bytes();
    if socket.send_to(&token, target).await.is_err() {
        // No route, or nobody answers for the address.
        return Ok(false);
    }
    let answered = timeout(ANSWER, async {
        let mut buffer = [0; 64];
        // A late answer to an earlier one is none.
        while socket
            .recv(&mut buffer)
            .await
            .is_ok_and(|length| buffer[..length] != token)
        {}
    });
    Ok(answered.await.is_ok())
}

/// Creates a network with these subnets.
async fn create(cluster: &Cluster, called: &str, subnets: &[&str]) -> anyhow::Result<Network> {
    let subnets = subnets.iter().map(|prefix| {
        anyhow::Ok(CreateSubnet {
            prefix: Some(Prefix(prefix.parse()?)),
            ..CreateSubnet::default()
        })
    });
    let wish = CreateNetwork {
        subnets: subnets.collect::<anyhow::Result<_>>()?,
        ..CreateNetwork::overlay(Name::new(called)?)
    };
    let network = cluster[0].client().network_create(&wish).await?;
    cluster
        .until_on(&cluster.running(), "the network is listed", async |node| {
            let listed = node.client().networks().await?;
            let there = listed.iter().any(|network| network.name.as_str() == called);
            Ok(Seen::when(there, || "it is not".to_owned()))
        })
        .await?;
    Ok(network)
}

/// Packets that are sent again and again, and come back.
struct Traffic {
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinSet<anyhow::Result<Vec<usize>>>,
}

impl Traffic {
    fn start(from: &Member, to: &Member) -> anyhow::Result<Self> {
        let (socket, target) = (from.sandbox.udp(from.address)?, to.echo);
        let (sent, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, stopped) = (sent.clone(), stop.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut lost = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let number = count.fetch_add(1, Ordering::Relaxed);
                if !asks(&socket, target).await? {
                    lost.push(number);
                }
                tokio::time::sleep(PACE).await;
            }
            anyhow::Ok(lost)
        });
        Ok(Self { sent, stop, task })
    }

    async fn until_sent(&self, count: usize) -> anyhow::Result<()> {
        until("packets are sent", async || {
            let sent = self.sent.load(Ordering::Relaxed);
            Ok(Seen::when(sent >= count, || format!("{sent} packets")))
        })
        .await
    }

    /// Stops, and checks that none was lost.
    async fn end(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.task.join_next().await;
        let lost = ended.context("no traffic")???;
        let sent = self.sent.load(Ordering::Relaxed);
        ensure!(lost.is_empty(), "of {sent} packets, lost: {lost:?}");
        Ok(())
    }
}

/// Waits until a node that was started again has heard of the other's endpoint.
async fn until_peers(cluster: &Cluster, at: usize) -> anyhow::Result<()> {
    let what = format!("node {at} has its peers again");
    until(&what, async || {
        let detail = cluster[at].client().network("app").await?;
        let peers = detail.driver_state["peers"].as_array().map_or(0, Vec::len);
        Ok(Seen::when(peers == 1, || format!("{peers} peers")))
    })
    .await
}

/// Has every endpoint leave, after which nothing of ours is in the kernel.
async fn leave_all(cluster: &Cluster) -> anyhow::Result<()> {
    for at in cluster.running() {
        let node = &cluster[at];
        let id = node.id().await?;
        let all = node.client().endpoints(None).await?;
        for own in all.iter().filter(|endpoint| endpoint.node == id) {
            let network = own.network.to_string();
            let endpoint = own.id.to_string();
            node.client().endpoint_remove(&network, &endpoint).await?;
        }
        let left: Vec<_> = std::fs::read_dir(node.namespaces())?.collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        let links = cluster.underlay()?.host(at).ip(&["-oneline", "link"])?;
        ensure!(links.lines().count() == 2, "left behind: {links}");
    }
    Ok(())
}

/// Writes a VXLAN packet with a UDP packet from one endpoint to another inside, as a stranger could.
fn forge(vni: Vni, from: &Member, to: &Member, port: u16) -> anyhow::Result<Vec<u8>> {
    let (IpAddr::V4(source), IpAddr::V4(target)) = (from.address, to.address) else {
        anyhow::bail!("not IPv4");
    };
    let [_, a, b, c] = vni.get().to_be_bytes();
    let mut packet = vec![8, 0, 0, 0, a, b, c, 0];
    packet.extend(to.mac.0);
    packet.extend(from.mac.0);
    packet.extend([8, 0]);
    let payload = b"forged";
    let udp_length = u16::try_from(8 + payload.len())?;
    let mut header = vec![0x45, 0];
    header.extend((20 + udp_length).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend(source.octets());
    header.extend(target.octets());
    let words = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16))?;
    header[10..12].copy_from_slice(&(!folded).to_be_bytes());
    packet.extend(header);
    packet.extend([0x30, 0x39]);
    packet.extend(port.to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    // No checksum, which IPv4 allows.
    packet.extend([0, 0]);
    packet.extend(payload);
    Ok(packet)
}
