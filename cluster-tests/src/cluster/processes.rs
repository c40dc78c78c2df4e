//! A cluster of processes.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::{Index, IndexMut},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use weft::{
    api::{
        client::ClientError,
        http::{
            Exit,
            cluster::{Waits, WaitsFor},
            types::{CreateEndpoint, CreateNetwork, Endpoint, Network, Status},
        },
    },
    core::model::{EndpointId, Name, NodeId},
};

use super::{
    node::Node,
    underlay::Underlay,
    until::{Seen, until},
};

/// How many nodes vote where there are enough.
const VOTERS: usize = 3;
/// How many nodes a cluster has room for, so that each may move once.
const NODES_MAX: usize = 7;
/// The table in which the overlay driver finds its peers.
const PEERS: &str = "overlay_peers";
/// What no node may log, whatever is done to it.
const NEVER_LOGGED: [&str; 2] = ["panicked at", "ERROR"];

/// How patient the nodes are with silent members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// A node that is gone is noticed within two seconds.
    Lan,
    /// Only after many seconds: for tests in which nobody shall notice.
    Wan,
}

/// A cluster of processes. A test that is content with it calls [`Self::end`]; otherwise the nodes' logs are shown.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    program: PathBuf,
    profile: Profile,
    /// The first three bytes of its addresses, and the last one of its first node less one.
    net: ([u8; 3], u8),
    place: TempDir,
    underlay: Option<Underlay>,
    /// Settings of all its nodes, as variables.
    settings: Vec<(&'static str, &'static str)>,
    /// Whether the nodes on hosts carry packets.
    carries: bool,
    content: bool,
}

impl Cluster {
    /// Makes a place for nodes that run this program; none is there yet.
    pub fn empty(program: &str, profile: Profile) -> anyhow::Result<Self> {
        // A path of a socket may be 107 bytes long: the names are kept short.
        let place = tempfile::Builder::new().prefix("weft").tempdir()?;
        Ok(Self {
            nodes: Vec::new(),
            program: PathBuf::from(program),
            profile,
            net: loopback_net(),
            place,
            underlay: None,
            settings: Vec::new(),
            carries: true,
            content: false,
        })
    }

    /// Starts a cluster of a node on each of so many hosts, and waits until all are members and a leader is found.
    pub async fn start_on(program: &str, underlay: Underlay, count: usize) -> anyhow::Result<Self> {
        let mut cluster = Self::empty(program, Profile::Lan)?;
        cluster.underlay = Some(underlay);
        cluster.fill(count).await?;
        Ok(cluster)
    }

    /// As [`Self::start_on`], but the nodes carry no packets.
    pub async fn start_bare_on(
        program: &str,
        underlay: Underlay,
        count: usize,
    ) -> anyhow::Result<Self> {
        let mut cluster = Self::empty(program, Profile::Lan)?;
        (cluster.underlay, cluster.carries) = (Some(underlay), false);
        cluster.fill(count).await?;
        Ok(cluster)
    }

    /// Starts a cluster of so many nodes, and waits until all are members and a leader is found.
    pub async fn start(program: &str, count: usize) -> anyhow::Result<Self> {
        Self::start_with(program, count, Profile::Lan).await
    }

    /// Starts a cluster with this profile.
    pub async fn start_with(program: &str, count: usize, profile: Profile) -> anyhow::Result<Self> {
        let mut cluster = Self::empty(program, profile)?;
        cluster.fill(count).await?;
        Ok(cluster)
    }

    /// Starts a cluster whose nodes have these variables in their environment.
    pub async fn start_set(
        program: &str,
        count: usize,
        settings: &[(&'static str, &'static str)],
    ) -> anyhow::Result<Self> {
        let mut cluster = Self::empty(program, Profile::Lan)?;
        cluster.settings = settings.to_vec();
        cluster.fill(count).await?;
        Ok(cluster)
    }

    async fn fill(&mut self, count: usize) -> anyhow::Result<()> {
        self.found().await?;
        for _ in 1..count {
            self.join().await?;
        }
        self.until_members(count).await?;
        self.until_led().await?;
        Ok(())
    }

    /// Returns the hosts that the nodes run on.
    pub fn underlay(&self) -> anyhow::Result<&Underlay> {
        self.underlay.as_ref().context("the nodes run on no hosts")
    }

    /// Adds a node that founds the cluster.
    pub async fn found(&mut self) -> anyhow::Result<()> {
        let at = self.add()?;
        let mut up = self.nodes[at].up();
        up.arg("--init");
        self.nodes[at].start_as(up)?;
        self.nodes[at].until_ready().await?;
        Ok(())
    }

    /// Adds a node that joins through the first.
    pub async fn join(&mut self) -> anyhow::Result<()> {
        self.join_through(0).await
    }

    /// Adds a node that joins through this one.
    pub async fn join_through(&mut self, seed: usize) -> anyhow::Result<()> {
        let token = self.nodes[seed].client().token().await?.token;
        let at = self.add()?;
        let mut up = self.nodes[at].up();
        up.args(["--join", &self.nodes[seed].address().to_string()])
            .env("WEFT_TOKEN", token);
        self.nodes[at].start_as(up)?;
        self.nodes[at].until_ready().await?;
        Ok(())
    }

    /// Adds a place for a node that is not started, and returns which it is.
    pub fn add(&mut self) -> anyhow::Result<usize> {
        let at = self.nodes.len();
        ensure!(at < NODES_MAX, "too many nodes");
        let number = at + 1;
        let address = match &self.underlay {
            Some(underlay) => underlay.address(at),
            None => self.address(number).into(),
        };
        let profile = match self.profile {
            Profile::Lan => "lan",
            Profile::Wan => "wan",
        };
        self.nodes.push(Node::new(
            &self.program,
            self.place.path(),
            (format!("n{number}"), address),
            profile,
        )?);
        for (variable, value) in &self.settings {
            self.nodes[at].set(variable, value);
        }
        if let Some(underlay) = &self.underlay {
            self.nodes[at].run_on(underlay.host(at).path(), self.carries);
        }
        Ok(at)
    }

    /// Returns an address that a node may move to; no other has it.
    pub fn spare_address(&self, at: usize) -> IpAddr {
        self.address(NODES_MAX + 1 + at).into()
    }

    fn address(&self, number: usize) -> Ipv4Addr {
        let ([a, b, c], before) = self.net;
        let last = u8::try_from(number).expect("there are fewer than sixteen");
        Ipv4Addr::new(a, b, c, before + last)
    }

    /// Returns the directory that holds all that is the nodes', and goes with them.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Returns which nodes run.
    pub fn running(&self) -> Vec<usize> {
        let runs = |at: &usize| self.nodes[*at].pid().is_some();
        (0..self.nodes.len()).filter(runs).collect()
    }

    /// Returns which nodes run, but this one.
    pub fn others(&self, but: usize) -> Vec<usize> {
        let mut running = self.running();
        running.retain(|at| *at != but);
        running
    }

    /// Looks at these nodes, all at the same time, until each shows what is waited for.
    pub async fn until_on(
        &self,
        nodes: &[usize],
        what: &str,
        look: impl AsyncFn(&Node) -> anyhow::Result<Seen<()>>,
    ) -> anyhow::Result<()> {
        until(what, async || {
            for at in nodes {
                let node = &self.nodes[*at];
                let on = || format!("on {}", node.name());
                if let Seen::NotYet(other) = look(node).await.with_context(on)? {
                    return Ok(Seen::NotYet(format!("{}, {other}", on())));
                }
            }
            Ok(Seen::Good(()))
        })
        .await
    }

    /// Waits until every running node sees so many members alive, and nobody under suspicion.
    pub async fn until_members(&self, alive: usize) -> anyhow::Result<()> {
        let what = format!("{alive} members are alive");
        self.until_on(&self.running(), &what, async |node| {
            let members = node.client().status().await?.members;
            let good = members.alive == alive as u64 && members.suspect == 0;
            Ok(Seen::when(good, || format!("{members:?}")))
        })
        .await
    }

    /// Waits until all running nodes name one of them as leader and as many vote as shall, all of which have the log as it was when
    /// that leader was first seen: clients may add to it all the time.
    ///
    /// Then any one voter may be lost. Returns the leader.
    pub async fn until_led(&self) -> anyhow::Result<usize> {
        let running = self.running();
        let mut seen = None;
        until("one leader is followed by all", async || {
            let mut statuses = Vec::new();
            for at in &running {
                let asked = self.nodes[*at].client().status().await;
                statuses.push(asked.with_context(|| self.nodes[*at].name().to_owned())?);
            }
            // Two voters are no safer than one.
            let voters = if running.len() < VOTERS { 1 } else { VOTERS };
            let leads = statuses.iter().find(|status| status.raft.role == "leader");
            seen = leads.map(|now| match seen {
                Some((term, log)) if term == now.raft.term => (term, log),
                _ => (now.raft.term, now.raft.last_log),
            });
            let log = seen.map_or(0, |(_, log)| log);
            let found = settled(&statuses, voters, log);
            Ok(match found {
                Ok(place) => Seen::Good(running[place]),
                Err(why) => Seen::NotYet(why),
            })
        })
        .await
    }

    /// Asks a node for a network until the answer is no longer that the cluster cannot agree now; then all running nodes
    /// list it.
    pub async fn create_network(&self, asked: usize, called: &str) -> anyhow::Result<Network> {
        let wish = CreateNetwork::overlay(Name::new(called)?);
        let client = self.nodes[asked].client();
        let what = format!("network {called} is created");
        let created = until(&what, async || {
            let listed = client.networks().await?;
            if let Some(found) = listed.into_iter().find(|network| network.name == wish.name) {
                // The answer to an earlier try was lost.
                return Ok(Seen::Good(Ok(found)));
            }
            Ok(match client.network_create(&wish).await {
                Ok(network) => Seen::Good(Ok(network)),
                Err(error) if passes(&error) => Seen::NotYet(error.to_string()),
                Err(error) => Seen::Good(Err(error)),
            })
        });
        let network = created.await??;
        self.until_on(&self.running(), "the network is listed", async |node| {
            let listed = node.client().networks().await?;
            Ok(Seen::when(listed.contains(&network), || {
                format!("{listed:?}")
            }))
        })
        .await?;
        Ok(network)
    }

    /// Creates an endpoint on a node and joins it.
    pub async fn create_endpoint(
        &self,
        at: usize,
        network: &str,
        called: &str,
    ) -> anyhow::Result<Endpoint> {
        let wish = CreateEndpoint {
            name: Name::new(called)?,
            address: None,
            second_address: None,
        };
        let client = self.nodes[at].client();
        client.endpoint_create(network, &wish).await?;
        Ok(client.endpoint_join(network, called).await?)
    }

    /// Waits until, on each of these nodes, the overlay driver and the table both have an endpoint, or both have not.
    pub async fn until_peer(
        &self,
        nodes: &[usize],
        network: &str,
        endpoint: EndpointId,
        there: bool,
    ) -> anyhow::Result<()> {
        let what = format!("the entry of endpoint {endpoint} is there: {there}");
        self.until_on(nodes, &what, async |node| {
            let detail = node.client().network(network).await?;
            let peers = detail.driver_state["peers"].as_array();
            let mut peers = peers.into_iter().flatten();
            let in_driver = peers.any(|peer| peer["endpoint"] == endpoint.to_string());
            let entries = node.client().entries(network, PEERS).await?;
            let key = endpoint.0.to_be_bytes();
            let in_table = entries.iter().any(|entry| *entry.key.0 == key);
            Ok(Seen::when(in_driver == there && in_table == there, || {
                format!("in the driver: {in_driver}, in the table: {in_table}")
            }))
        })
        .await
    }

    /// Stops all nodes, and checks that each ended well and has logged nothing that a node never may.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let running = self.running();
        for at in &running {
            self.nodes[*at].signal(nix::sys::signal::Signal::SIGTERM)?;
        }
        for at in &running {
            let status = self.nodes[*at].until_ended().await?;
            let name = self.nodes[*at].name();
            ensure!(status.success(), "{name} stopped with {status}");
        }
        for node in &self.nodes {
            let logged = node.logged();
            let never = |line: &&str| NEVER_LOGGED.iter().any(|never| line.contains(never));
            if let Some(line) = logged.lines().find(never) {
                anyhow::bail!("{} has logged: {line}", node.name());
            }
        }
        self.content = true;
        Ok(())
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, at: usize) -> &Node {
        &self.nodes[at]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }
}

impl Drop for Cluster {
    #[expect(
        clippy::print_stderr,
        reason = "the harness shows it when a test fails"
    )]
    fn drop(&mut self) {
        if !self.content {
            for node in &self.nodes {
                eprintln!("{}", node.log_tail());
            }
        }
    }
}

/// Returns which of these leads, if all follow it, all voters have so much of the log, and one of them may be lost.
fn settled(statuses: &[Status], voters: usize, log: u64) -> Result<usize, String> {
    let leader: NodeId = match statuses.first().and_then(|status| status.leader) {
        Some(leader) => leader,
        None => return Err("the first node knows no leader".to_owned()),
    };
    for status in statuses {
        let raft = &status.raft;
        let votes = raft.voters.contains(&status.node);
        if status.leader != Some(leader) {
            return Err(format!("{} follows {:?}", status.name, status.leader));
        }
        if votes && (raft.voters.len() != voters || raft.applied < log) {
            return Err(format!("{}: {raft:?}", status.name));
        }
    }
    let place = statuses.iter().position(|status| status.node == leader);
    let place = place.ok_or_else(|| format!("{leader} leads and does not run"))?;
    let raft = &statuses[place].raft;
    let live = |voter: &NodeId| statuses.iter().any(|status| status.node == *voter);
    // While a change of voters is under way, a majority of those that voted before it is needed too.
    let is_over = |waits: &Waits| matches!(waits.what, WaitsFor::Nothing | WaitsFor::Nodes);
    let is_whole = raft.waits.as_ref().is_some_and(is_over)
        && raft.voters.len() == voters
        && raft.voters.iter().all(live);
    if raft.role != "leader" || !is_whole {
        return Err(format!("the leader: {raft:?}"));
    }
    Ok(place)
}

/// Returns whether asking again may help.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(failure) => failure.code.exit() == Exit::Unavailable,
        ClientError::TimedOut { .. } => true,
        ClientError::NoDaemon { .. }
        | ClientError::Denied { .. }
        | ClientError::Broken { .. }
        | ClientError::Foreign { .. } => false,
    }
}

/// Picks loopback addresses that no other cluster has: of another process, or of this one.
///
/// Then a node may come back on the port it had, and a VTEP belongs to one node only.
fn loopback_net() -> ([u8; 3], u8) {
    static CLUSTERS: AtomicU8 = AtomicU8::new(0);
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    ([127, high | 1, low], (cluster % 15) * 16)
}
