//! ACTS on agreement: log store, transport, proposals, voters' autopilot.
//!
//! Every node runs it. Voters hold the log and the allocator's state; the leader, which they elect, is the only one that adds to
//! the log. What was applied comes out of every voter as the same numbered dots, so any of them can serve the cluster log.
//!
//! **Invariants:** what was answered `Done` is on the disks of a majority; a proposal is done at most once, however often it was
//! sent. Source: Ongaro, "Consensus: Bridging Theory and Practice" (2014), as openraft builds it; §6.4.1 for the leases.

mod autopilot;
mod confirm;
mod disk;
mod election;
mod handle;
mod handover;
mod log_store;
mod machine;
mod network;
mod propose;
mod recover;
mod transport;
mod types;
mod voters;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use openraft::{
    Config, EmptyNode, RaftMetrics, ServerState, SnapshotPolicy, error::RaftError as OpenError,
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use autopilot::{Standing, VoterReport, VoterRole, VotersReport, Wait};
pub use machine::{ClusterLog, LoadError};
pub use propose::ProposeError;
pub use recover::{RecoverError, Recovery};
pub use transport::{Service, Transport, TransportError};
pub use wire::reread;

use self::{
    autopilot::{Autopilot, Look, Members},
    disk::Disk,
    election::Gone,
    log_store::LogStore,
    machine::{Machine, Shared},
    network::Network,
    types::Types,
};
use crate::{
    core::{
        agreement::Patience,
        allocator::{Action, Allocator},
        model::{NodeId, UnixMillis},
    },
    store::{Store, StoreError},
};

/// How many pieces of the cluster log may wait for who takes them; then they are gathered, see [`ClusterLog`].
const CLUSTER_LOG_QUEUE: usize = 16;

/// How often a leader speaks within the lease: a word or two may be late.
const SPEAKS: u32 = 3;

/// How long one page of a snapshot is, in bytes: far below the longest frame.
const SNAPSHOT_PAGE: usize = 1024 * 1024;

/// The longest snapshot that is taken, in bytes; the pages are gathered in memory. A hundred times what 10,000 networks and
/// 200,000 leases come to.
const SNAPSHOT_MAX: u64 = 1024 * 1024 * 1024;

/// What Raft needs.
pub struct RaftConfig {
    /// This node.
    pub node: NodeId,
    /// Where the log is kept.
    pub store: Store,
    /// How to reach the others.
    pub transport: Arc<dyn Transport>,
    /// The wall clock; it dates proposals.
    pub clock: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    /// Drawn anew at every start; names proposals.
    pub seed: u64,
    /// How long everything takes.
    pub timings: Timings,
    /// How many voters there shall be: 1, 3, 5 or 7.
    pub voters: usize,
}

/// How long everything takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timings {
    /// A leader that is silent for this long may be replaced; it speaks three times in this time.
    pub lease: Duration,
    /// After the lease and this much more the first follower asks for votes, and each other one so much later than the one
    /// before it, see [`Patience`].
    pub turn: Duration,
    /// How long a proposal may take.
    pub propose: Duration,
    /// How long a voter may be down before another takes its place.
    pub voter_gone: Duration,
    /// How long a node must be up before it gets a vote; longer than its death would go unnoticed.
    pub voter_settled: Duration,
    /// How often the leader looks whether who votes should change.
    pub autopilot: Duration,
    /// After how many entries of the log a snapshot is made.
    pub snapshot_every: u64,
}

impl Default for Timings {
    /// A silent leader is replaced after 1.2 s, one that is known to be down after 1 s, both from its last word on, which is a
    /// third of a second old at most.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(1),
            turn: Duration::from_millis(150),
            propose: Duration::from_secs(10),
            voter_gone: Duration::from_secs(60),
            voter_settled: Duration::from_secs(3),
            autopilot: Duration::from_secs(1),
            snapshot_every: 1_000,
        }
    }
}

impl Timings {
    fn patience(&self) -> Patience {
        Patience {
            lease: self.lease,
            turn: self.turn,
        }
    }

    /// Returns how long ago a quorum may have answered a leader that still counts as one: two leases.
    fn heard_within(&self) -> Duration {
        self.lease * 2
    }

    fn openraft(&self) -> Result<Config, RaftError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // The end of openraft's range of election timeouts is the lease, its beginning how long a vote may take: when to stand is
        // decided in `core::agreement`. Its leader speaks at ticks of 3/2 of the heartbeat interval, which is also how long it waits
        // for an answer; it is made to speak between them too.
        let config = Config {
            cluster_name: "weft".to_owned(),
            heartbeat_interval: millis(self.lease) / 3,
            election_timeout_min: millis(self.lease) / 2,
            election_timeout_max: millis(self.lease),
            enable_elect: false,
            install_snapshot_timeout: 10_000,
            snapshot_max_chunk_size: SNAPSHOT_PAGE as u64,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.snapshot_every / 2,
            replication_lag_threshold: self.snapshot_every * 4,
            ..Config::default()
        };
        config
            .validate()
            .map_err(|error| RaftError::Timings(error.to_string()))
    }
}

/// Why Raft did not start.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The data file failed; it says who must act.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is on the disk cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The timings contradict each other: whoever set them must act.
    #[error("the timings of the agreement do not fit together: {0}")]
    Timings(String),
    /// The log on the disk cannot be used.
    #[error("the agreement cannot go on from what is on the disk: {0}")]
    Log(String),
}

/// What a node is in the agreement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It has no vote.
    Learner,
    /// It votes, and follows a leader or waits for one.
    Follower,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// It takes no part until there is room on its disk.
    DiskFull,
    /// It takes no part: shut down, or its disk failed.
    Stopped,
}

impl Role {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::DiskFull => "disk_full",
            Self::Stopped => "stopped",
        }
    }
}

/// How the agreement stands, as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RaftStatus {
    /// What this node is.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who has the log without a vote.
    pub learners: Vec<NodeId>,
    /// How far the log was applied.
    pub applied: u64,
    /// How far the log goes.
    pub last_log: u64,
    /// Up to where the last snapshot goes.
    pub snapshot: u64,
    /// Up to where the log was cut off.
    pub purged: u64,
}

/// Who leads in which term, as this node hears it from the voters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// Who leads; nothing while nobody does, and on a node that takes no part.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: u64,
}

/// What others say of the agreement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hint {
    /// Who leads; nothing while nobody does.
    pub leader: Option<NodeId>,
    /// Who voted when somebody led last; nothing if that is not known.
    pub voters: Vec<NodeId>,
}

/// A node's part in the agreement.
#[derive(Clone)]
pub struct Raft {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    raft: openraft::Raft<Types>,
    shared: Arc<Shared>,
    disk: Disk,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    rng: Mutex<StdRng>,
    timings: Timings,
    /// Who leads and votes by what others say, for a node that takes no part.
    hinted: Mutex<Hint>,
    members: watch::Sender<Members>,
    /// When it was told anew who is there.
    told: Mutex<Option<Instant>>,
    gone: watch::Sender<Gone>,
    missed: watch::Sender<Gone>,
    /// How many voters there shall be, and what the leader saw last.
    wanted: usize,
    seen: watch::Receiver<Option<Look>>,
    leadership: watch::Receiver<Leadership>,
    /// This node shall not lead any longer, and is about to see to it.
    aside: Arc<Notify>,
    steps_aside: AtomicBool,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Raft {
    /// Starts from what is on the disk. The receiver gets the cluster log, the whole of it first where there is any.
    pub async fn start(
        config: RaftConfig,
    ) -> Result<(Self, mpsc::Receiver<ClusterLog>), RaftError> {
        let RaftConfig {
            node,
            store,
            transport,
            timings,
            ..
        } = config;
        let open_config = Arc::new(timings.openraft()?);
        log_store::create_tables(&store)?;
        let stop = CancellationToken::new();
        let disk = Disk::new(store.clone(), stop.clone());
        let (machine, shared) = Machine::load(&store, disk.clone())?;
        let network = Network::new(Arc::clone(&transport));
        let log = LogStore::new(disk.clone());
        let raft = openraft::Raft::new(node.0, open_config, network, log, machine)
            .await
            .map_err(|fatal| RaftError::Log(fatal.to_string()))?;
        let (members, members_seen) = watch::channel(Members::default());
        let (leadership_told, leadership) = watch::channel(Leadership::default());
        let (missed, missed_seen) = watch::channel(Gone::default());
        let (seen_told, seen) = watch::channel(None);
        let (tasks, aside) = (TaskTracker::new(), Arc::new(Notify::new()));
        let autopilot = Autopilot {
            us: node.0,
            raft: raft.clone(),
            members: members_seen,
            target: config.voters,
            every: timings.autopilot,
            gone_after: timings.voter_gone,
            settled_after: timings.voter_settled,
            seen: seen_told,
            aside: Arc::clone(&aside),
            stop: stop.clone(),
        };
        tasks.spawn(autopilot.run());
        tasks.spawn(follow_leadership(
            (raft.clone(), missed_seen),
            timings.heard_within(),
            leadership_told,
            stop.clone(),
        ));
        let (news, news_taken) = mpsc::channel(CLUSTER_LOG_QUEUE);
        tasks.spawn(hand_over(Arc::clone(&shared), news, stop.clone()));
        let inner = Inner {
            node,
            raft,
            shared,
            disk,
            transport,
            clock: config.clock,
            rng: Mutex::new(StdRng::seed_from_u64(config.seed)),
            timings,
            hinted: Mutex::default(),
            members,
            told: Mutex::default(),
            gone: watch::Sender::default(),
            missed,
            wanted: config.voters,
            seen,
            leadership,
            aside,
            steps_aside: AtomicBool::new(false),
            stop,
            tasks,
        };
        let inner = Arc::new(inner);
        inner.begin();
        Ok((Self { inner }, news_taken))
    }

    /// Founds the agreement with this node as its only voter and applies the genesis. Safe to call again after a crash.
    pub async fn bootstrap(&self, genesis: Action) -> Result<(), ProposeError> {
        let voters = std::collections::BTreeSet::from([self.inner.node.0]);
        match self.inner.raft.initialize(voters).await {
            Ok(()) | Err(OpenError::APIError(_)) => {}
            Err(OpenError::Fatal(_)) => return Err(ProposeError::Stopped),
        }
        self.propose(genesis).await.map(|_done| ())
    }

    /// Reads what this node has applied. Meaningful on voters and learners; a follower may be a moment behind.
    pub fn read<T>(&self, look: impl FnOnce(&Allocator) -> T) -> T {
        look(&self.inner.shared.lock().allocator)
    }

    /// Returns who leads, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.leader()
    }

    /// Follows who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Waits until [`Self::status`] tells what is on disk: just after the start, nobody seems to vote.
    pub async fn until_loaded(&self) {
        // One that has stopped tells nothing any more.
        let _stopped = self.inner.raft.with_raft_state(|_state| ()).await;
    }

    /// Returns how the agreement stands.
    pub fn status(&self) -> RaftStatus {
        self.inner.status()
    }

    /// Tells who is there, who belongs to the cluster, and what fails together; the leader changes who votes accordingly.
    pub fn set_members(&self, alive: &[NodeId], all: &[NodeId], zones: &BTreeMap<NodeId, String>) {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        let zones = zones.iter().map(|(node, zone)| (node.0, zone.clone()));
        let members = Members {
            alive: ids(alive),
            all: ids(all),
            zones: zones.collect(),
        };
        self.inner.members.send_if_modified(|known| {
            let is_new = *known != members;
            if known.alive != members.alive {
                let told = self.inner.told.lock();
                *told.unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            *known = members;
            is_new
        });
    }

    /// Tells who leads and votes by what others say; only a node that takes no part in the agreement needs it.
    pub fn hint(&self, hint: Hint) {
        let hinted = self.inner.hinted.lock();
        *hinted.unwrap_or_else(PoisonError::into_inner) = hint;
    }

    /// Tells that a node is down. If it leads, another is elected as soon as its lease has run out.
    pub fn hint_down(&self, node: NodeId) {
        self.inner.hint_gone(node);
    }

    /// Stops taking part. A leader hands over first, so that the others need not wait for its lease to run out.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.hand_over().await;
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the agreement did not stop cleanly");
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    /// Begins to take part.
    fn begin(self: &Arc<Self>) {
        self.tasks.spawn(Arc::clone(self).elections());
        self.tasks.spawn(Arc::clone(self).speak());
        self.tasks.spawn(Arc::clone(self).step_aside());
    }

    /// Notes that a node is gone, if it leads.
    fn hint_gone(&self, node: NodeId) {
        let Leadership { leader, term } = *self.leadership.borrow();
        if leader == Some(node) {
            self.gone.send_replace(Some((node, term)));
        }
    }

    fn leader(&self) -> Option<NodeId> {
        let hint = self.hinted.lock().unwrap_or_else(PoisonError::into_inner);
        let hint = hint.leader;
        let heard = self.leadership.borrow().leader;
        // What this node knew before its disk was full is old.
        let heard = heard.filter(|leader| *leader != self.node || !self.disk.is_full());
        // Who lost its vote is not told who leads any more, so what others say counts more then.
        if self.is_voter() {
            heard.or(hint)
        } else {
            hint.or(heard)
        }
    }

    fn is_voter(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let mut voters = metrics.membership_config.voter_ids();
        voters.any(|voter| voter == self.node.0)
    }

    /// Returns whether this node leads by its own account, and no quorum hears it: what it proposed now would wait for long.
    fn leads_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.current_leader == Some(metrics.id)
            && leader(&metrics, self.timings.heard_within(), None).is_none()
    }

    fn status(&self) -> RaftStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let role = match metrics.state {
            _ if metrics.running_state.is_err() => Role::Stopped,
            _ if self.disk.is_full() => Role::DiskFull,
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        };
        let index = |id: Option<openraft::LogId<u64>>| id.map_or(0, |id| id.index);
        RaftStatus {
            role,
            term: metrics.current_term,
            leader: leader(&metrics, self.timings.heard_within(), *self.missed.borrow()),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
            applied: index(metrics.last_applied),
            last_log: metrics.last_log_index.unwrap_or(0),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
        }
    }
}

/// Returns who leads. This node does while a quorum hears it and no longer: after a restart the vote on the disk alone makes
/// it lead by its own account, before anybody has answered. Another does until it is missed.
fn leader(
    metrics: &RaftMetrics<u64, EmptyNode>,
    heard_within: Duration,
    missed: Gone,
) -> Option<NodeId> {
    let heard = metrics.millis_since_quorum_ack.map(Duration::from_millis);
    let leader = NodeId(metrics.current_leader?);
    let counts = match leader.0 == metrics.id {
        true => heard.is_some_and(|before| before <= heard_within),
        false => missed != Some((leader, metrics.vote.leader_id.term)),
    };
    counts.then_some(leader)
}

/// Tells who leads whenever it changes.
async fn follow_leadership(
    (raft, mut missed): (openraft::Raft<Types>, watch::Receiver<Gone>),
    heard_within: Duration,
    tell: watch::Sender<Leadership>,
    stop: CancellationToken,
) {
    let mut metrics = raft.metrics();
    loop {
        let leadership = {
            let metrics = metrics.borrow_and_update();
            Leadership {
                leader: leader(&metrics, heard_within, *missed.borrow_and_update()),
                term: metrics.vote.leader_id.term,
            }
        };
        tell.send_if_modified(|known| {
            let is_new = *known != leadership;
            *known = leadership;
            is_new
        });
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = metrics.changed() => changed,
            changed = missed.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Hands the cluster log over; what is made while nobody takes it is gathered meanwhile.
async fn hand_over(shared: Arc<Shared>, news: mpsc::Sender<ClusterLog>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.news.notified() => {}
        }
        let permit = tokio::select! {
            () = stop.cancelled() => return,
            permit = news.reserve() => permit,
        };
        let Ok(permit) = permit else {
            return;
        };
        if let Some(log) = shared.take_news() {
            permit.send(log);
        }
    }
}
