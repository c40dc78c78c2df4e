//! The ring of datagram keys: rotated by proposals, fetched by every node over TLS, from voters alone.
//!
//! What a rotation does and when is decided in [`rotation`](crate::core::wire::rotation). A key never goes by gossip: the cluster
//! log tells the version of the ring, and who has an older one asks a voter. Only voters answer, because they hold the cluster's
//! authority anyway: who trusts one with the ring trusts it with nothing new. That it is one it shows by the authority's
//! signature: a member that only claims to vote, or to lead, has none to show.
//!
//! Who slept through several rotations is heard by nobody, and hears no log. It sees datagrams that it cannot open, or nobody at
//! all, and asks everybody it knows until a voter answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use bincode::{Decode, Encode};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Controller, ControllerError, entropy, run::cluster_table};
use crate::{
    core::{
        allocator::{Action, AllocatorError, KEYS_TABLE, Outcome},
        model::{Name, NodeId, TableName},
        wire::{
            codec,
            keyring::{AgreedRing, ClusterKey, KeyId},
            rotation::{Goal, Rotation, Step, is_due},
        },
    },
    runtime::{
        Stopped, WatchEvent, clock,
        streams::{Refusal, Service, StreamError},
        trust::{Statement, TrustError, Vouched},
    },
    store::NodeIdentity,
};

/// How often the leader looks whether it is time to rotate, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How many members are told of a ring at once.
pub(super) const TOLD_AT_ONCE: usize = 16;
/// How long the leader has to answer with its ring, and how long to wait before it is asked again.
pub(super) const NEWEST_WITHIN: Duration = Duration::from_secs(10);
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long a member may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often a node looks whether it lacks keys, how seldom if it asked and lacked none, and how many others it asks at most:
/// whoever sends garbage makes a node ask, and no oftener than that. Who is alone has nothing else to do.
const LACK_EVERY: Duration = Duration::from_secs(1);
const LACK_SELDOM: Duration = Duration::from_mins(1);
const LACK_ALONE: Duration = Duration::from_secs(5);
const ASKED_MAX: usize = 8;

/// What a member asks of another.
#[derive(Encode, Decode)]
pub(super) enum Request {
    /// The ring.
    Ring,
    /// To fetch the ring unless its own has this version, and to say which it has then.
    Fetch(u64),
    /// A certificate, for this request. Answered with a [`CertifyAnswer`](super::certificate::CertifyAnswer).
    Certify(Vec<u8>),
    /// Which authorities to trust.
    Authorities,
    /// To trust that version of the authorities and be certified by the one that signs, and to say what it
    /// [has](crate::core::wire::succession::Has) then.
    Trust(u64),
    /// To replace the authority. Answered with a [`SucceedAnswer`](super::authority::SucceedAnswer).
    Succeed {
        /// Whether who does not answer is left behind.
        waits_for_nobody: bool,
    },
}

/// What a member says to [`Request::Ring`] and [`Request::Authorities`], which voters know and [vouch](Vouched) for.
#[derive(Encode, Decode)]
pub(super) enum VoterAnswer<T> {
    /// A voter's.
    Has(T),
    /// It does not vote. That node leads, for all it knows.
    Ask(NodeId, SocketAddr),
    /// It does not vote, and knows of no leader.
    Unknown,
}

/// What came of a rotation.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The key that seals now.
    pub key: KeyId,
    /// Whether the former keys were retired.
    pub retired: bool,
    /// Live members that had not fetched the ring in time; they will by themselves.
    pub behind: BTreeSet<Name>,
}

/// The ring as this node has it, without the keys.
#[derive(Clone, Debug)]
pub struct KeysView {
    /// Which change of the ring it is.
    pub version: u64,
    /// The key that seals.
    pub primary: KeyId,
    /// Those that open, the primary first.
    pub keys: Vec<KeyId>,
}

impl Controller {
    /// Shows the ring.
    pub async fn keys(&self) -> Result<KeysView, ControllerError> {
        let ring = self.own_ring().await?;
        Ok(KeysView {
            version: ring.version,
            primary: ring.keys.primary().0,
            keys: ring.keys.keys().map(|(id, _)| id).collect(),
        })
    }

    /// Rotates the datagram keys; with `retire`, what is sealed with former ones is refused afterwards.
    pub async fn rotate_keys(&self, retire: bool) -> Result<Rotated, ControllerError> {
        let this = self.clone();
        let goal = if retire { Goal::Replace } else { Goal::Rotate };
        self.finish(async move { this.rotate_now(goal).await })
            .await
    }

    /// Does what [`Rotation`] decides.
    pub(super) async fn rotate_now(&self, goal: Goal) -> Result<Rotated, ControllerError> {
        let _one = self.desk.rotating.lock().await;
        let mut rotation = Rotation::new(goal, self.now());
        loop {
            let ring = self.newest_ring().await?;
            let others = self.live_others().await?;
            let members = others.keys().copied().collect();
            match rotation.step(&ring, &members, self.now()) {
                Step::Add => {
                    let key = ClusterKey::random(&mut entropy());
                    let Outcome::Key(id) = self.propose(Action::AddKey { key }).await? else {
                        return Err(ControllerError::Broken("a key was added and has no id"));
                    };
                    rotation.handle_added(id);
                }
                Step::Tell {
                    version,
                    whom,
                    within,
                } => {
                    let whom = others.into_iter().filter(|(node, _)| whom.contains(node));
                    for (node, has) in self.tell(whom.collect(), version, within).await {
                        rotation.handle_has(node, has);
                    }
                }
                Step::Promote(id) => self.promote(id).await?,
                Step::Retire => {
                    self.propose(Action::RetireKeys).await?;
                }
                Step::Pause(pause) => sleep(pause).await,
                Step::Done(key) => {
                    let behind = rotation.behind(ring.version, &members);
                    return self.rotated((key, goal), behind).await;
                }
                Step::Overtaken => return Err(ControllerError::Overtaken),
            }
        }
    }

    async fn promote(&self, id: KeyId) -> Result<(), ControllerError> {
        match self.propose(Action::PromoteKey { id }).await {
            // A newer one seals: the next look at the ring shows it.
            Ok(_) | Err(ControllerError::Refused(AllocatorError::NoSuchKey(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn rotated(
        &self,
        (key, goal): (KeyId, Goal),
        behind: BTreeSet<NodeId>,
    ) -> Result<Rotated, ControllerError> {
        let retired = goal == Goal::Replace;
        tracing::info!(key = key.0, retired, "the datagram keys were rotated");
        Ok(Rotated {
            key,
            retired,
            behind: self.names_of(behind).await?,
        })
    }

    /// Names nodes; one without a name by its id.
    pub(super) async fn names_of(
        &self,
        nodes: BTreeSet<NodeId>,
    ) -> Result<BTreeSet<Name>, ControllerError> {
        let mut names = self.admitted_names().await?;
        let name = |node: NodeId| {
            let id = || Name::new(&node.to_string()).expect("hexadecimal digits are a name");
            names.remove(&node).unwrap_or_else(id)
        };
        Ok(nodes.into_iter().map(name).collect())
    }

    pub(super) async fn live_others(&self) -> Result<BTreeMap<NodeId, SocketAddr>, Stopped> {
        let members = self.parts.handle.members().await?.into_iter();
        let others = members.filter(|member| !member.ours && member.state.is_alive());
        Ok(others.map(|member| (member.node, member.addr)).collect())
    }

    /// Fetches the ring from the leader, and returns the newest that this node has heard of.
    async fn newest_ring(&self) -> Result<AgreedRing, ControllerError> {
        let fetched = timeout(NEWEST_WITHIN, async {
            loop {
                if let Some(leader) = self.parts.raft.leader()
                    && self.fetch_from_node(leader).await?
                {
                    return self.own_ring().await;
                }
                sleep(ASK_AGAIN).await;
            }
        });
        let in_time = fetched.await;
        in_time.unwrap_or(Err(ControllerError::NoLeader))
    }

    /// Has members fetch a version of the ring. Returns which version those have that answer in time.
    async fn tell(
        &self,
        whom: Vec<(NodeId, SocketAddr)>,
        version: u64,
        within: Duration,
    ) -> Vec<(NodeId, u64)> {
        let until = Instant::now() + within;
        let told = stream::iter(whom).map(|whom| self.told(whom, version, until));
        let told: Vec<Option<(NodeId, u64)>> = told.buffer_unordered(TOLD_AT_ONCE).collect().await;
        told.into_iter().flatten().collect()
    }

    async fn told(
        &self,
        whom: (NodeId, SocketAddr),
        version: u64,
        until: Instant,
    ) -> Option<(NodeId, u64)> {
        let request = Request::Fetch(version);
        let answer = timeout_at(until, self.ask_keys(whom, &request)).await;
        let has = codec::decode::<u64>(&answer.ok()??).ok()?;
        Some((whom.0, has))
    }

    pub(super) async fn ask_keys(
        &self,
        whom: (NodeId, SocketAddr),
        request: &Request,
    ) -> Option<Bytes> {
        let request = codec::encode(request).into();
        let call = self
            .parts
            .dialer
            .call(whom.0, whom.1, Service::Keys, request, ANSWER_WITHIN);
        match call.await {
            Ok(answer) => Some(answer),
            Err(error @ StreamError::Refused(_)) => {
                tracing::warn!(node = %whom.0, %error, "asked about keys, and was refused");
                None
            }
            Err(error) => {
                tracing::debug!(node = %whom.0, %error, "no answer about keys");
                None
            }
        }
    }

    /// Answers a member.
    pub(super) async fn answer_keys(&self, from: NodeId, request: &[u8]) -> Result<Bytes, Refusal> {
        let malformed = |error: codec::CodecError| Refusal(error.to_string());
        let failed = |error: ControllerError| Refusal(error.to_string());
        match codec::decode(request).map_err(malformed)? {
            Request::Ring => {
                let answer = self.voter_answer(self.vouched(self.agreed_ring())).await;
                Ok(codec::encode(&answer).into())
            }
            Request::Fetch(version) => {
                if self.own_ring().await.map_err(failed)?.version < version {
                    let leader = self.parts.raft.leader().unwrap_or(from);
                    self.fetch_from_node(leader).await.map_err(failed)?;
                }
                let has = self.own_ring().await.map_err(failed)?.version;
                Ok(codec::encode(&has).into())
            }
            Request::Certify(csr_der) => {
                Ok(codec::encode(&self.certify_member(from, &csr_der).await).into())
            }
            Request::Authorities => {
                let known = self.vouched(self.own_authorities());
                let answer = self.voter_answer(known).await;
                Ok(codec::encode(&answer).into())
            }
            Request::Trust(version) => {
                let has = self.come_to_trust(version, from).await.map_err(failed)?;
                Ok(codec::encode(&has).into())
            }
            Request::Succeed { waits_for_nobody } => {
                Ok(codec::encode(&self.begin_succession(waits_for_nobody).await).into())
            }
        }
    }

    async fn voter_answer<T>(&self, known: Option<T>) -> VoterAnswer<T> {
        if let Some(known) = known {
            return VoterAnswer::Has(known);
        }
        let Some(leader) = self.parts.raft.leader() else {
            return VoterAnswer::Unknown;
        };
        match self.parts.handle.address(leader).await {
            Ok(Some(address)) => VoterAnswer::Ask(leader, address),
            Ok(None) | Err(Stopped) => VoterAnswer::Unknown,
        }
    }

    /// Signs what this node knows as a voter.
    fn vouched<T: Statement>(&self, known: Option<T>) -> Option<Vouched<T>> {
        match Vouched::sign(&self.authority()?, self.parts.cluster, known?) {
            Ok(vouched) => Some(vouched),
            Err(error) => {
                tracing::error!(%error, "members are not told of keys and authorities");
                None
            }
        }
    }

    /// The ring as this node has it applied; nothing on a node that does not vote.
    fn agreed_ring(&self) -> Option<AgreedRing> {
        let raft = &self.parts.raft;
        let votes = raft.status().voters.contains(&self.parts.node);
        votes.then(|| raft.read(|state| state.ring()))?
    }

    /// Takes the ring of a node, and says whether that had one to give.
    async fn fetch_from_node(&self, node: NodeId) -> Result<bool, ControllerError> {
        if node == self.parts.node {
            return match self.agreed_ring() {
                Some(ring) => self.adopt_ring(ring).await.map(|()| true),
                None => Ok(false),
            };
        }
        match self.parts.handle.address(node).await? {
            Some(address) => self.fetch_from((node, address)).await,
            None => Ok(false),
        }
    }

    /// Takes the ring of whoever it is at that address, or of whom that one says to ask, if a voter vouches for it.
    pub(super) async fn fetch_from(
        &self,
        whom: (NodeId, SocketAddr),
    ) -> Result<bool, ControllerError> {
        let asked = self.ask_voter(whom, &Request::Ring);
        let Some(ring) = asked.await else {
            return Ok(false);
        };
        if let Ok(ring) = self.proven_ring(&ring).await? {
            return self.adopt_ring(ring).await.map(|()| true);
        }
        // Who was away for long learns first which authority signs now.
        self.fetch_authorities_from(whom).await?;
        match self.proven_ring(&ring).await? {
            Ok(ring) => self.adopt_ring(ring).await.map(|()| true),
            Err(error) => {
                tracing::warn!(node = %whom.0, %error, "somebody who is no voter hands out keys");
                Ok(false)
            }
        }
    }

    async fn proven_ring(
        &self,
        ring: &Vouched<AgreedRing>,
    ) -> Result<Result<AgreedRing, TrustError>, ControllerError> {
        let credentials = self.own_credentials().await?;
        let checked = ring.clone();
        Ok(checked.check(self.parts.cluster, &credentials.trusted()))
    }

    /// Asks for what voters know: whoever it is at that address, or whom that one says to ask.
    pub(super) async fn ask_voter<T: Decode<()>>(
        &self,
        mut whom: (NodeId, SocketAddr),
        request: &Request,
    ) -> Option<T> {
        for _hop in 0..2 {
            let answer = self.ask_keys(whom, request).await?;
            match codec::decode(&answer).ok()? {
                VoterAnswer::Has(known) => return Some(known),
                VoterAnswer::Ask(node, address) => whom = (node, address),
                VoterAnswer::Unknown => return None,
            }
        }
        None
    }

    pub(super) async fn own_ring(&self) -> Result<AgreedRing, ControllerError> {
        Ok(self.own_identity().await?.ring)
    }

    pub(super) async fn own_identity(&self) -> Result<NodeIdentity, ControllerError> {
        let identity = self.disk(|store| store.identity()).await?;
        identity.ok_or(ControllerError::Broken("the disk knows no cluster"))
    }

    /// Uses a ring from now on if it is newer than ours: on disk first, or a restart would bring the older one back. One of the
    /// same version that differs takes the place of ours, which is what somebody told this node when it joined.
    async fn adopt_ring(&self, ring: AgreedRing) -> Result<(), ControllerError> {
        let _one = self.desk.adopting.lock().await;
        let newer = ring.clone();
        let written = self.disk(move |store| match store.identity()? {
            Some(mut identity)
                if identity.ring.version <= newer.version && identity.ring != newer =>
            {
                identity.ring = newer;
                store.set_identity(&identity).map(|()| true)
            }
            Some(_) | None => Ok(false),
        });
        if written.await? {
            tracing::debug!(
                version = ring.version,
                primary = ring.keys.primary().0.0,
                "new datagram keys"
            );
            self.parts.handle.set_keyring(ring.keys).await?;
        }
        Ok(())
    }

    /// Fetches the ring and the authorities whenever the cluster log says that they have changed, until a voter gives them.
    pub(super) async fn follow_keys(self) -> Result<(), Stopped> {
        let table = TableName::new(KEYS_TABLE).expect("letters are a table name");
        let mut watcher = self.parts.handle.watch(cluster_table(table), None);
        loop {
            match watcher.next().await? {
                WatchEvent::Snapshot { .. } | WatchEvent::Change(_) => {}
                WatchEvent::State { .. } | WatchEvent::Lagged => continue,
            }
            let mut pause = ASK_AGAIN;
            while !self.renew_from_leader().await {
                sleep(pause).await;
                pause = (pause * 2).min(LACK_ALONE);
            }
        }
    }

    /// Fetches the ring and the authorities from whoever leads; returns whether it had them to give.
    async fn renew_from_leader(&self) -> bool {
        let Some(leader) = self.parts.raft.leader() else {
            return false;
        };
        let fetched = async {
            self.fetch_authorities(leader).await?;
            self.fetch_from_node(leader).await
        };
        match fetched.await {
            Ok(has) => has,
            // Whoever waits for what changes next hears that too.
            Err(ControllerError::Stopped) => true,
            Err(error) => {
                tracing::warn!(%error, "keys and authorities were not renewed; it is tried again");
                false
            }
        }
    }

    /// Asks for the ring while others seal with keys that this node lacks, or nobody is there.
    pub(super) async fn ask_for_keys(self) -> Result<(), Stopped> {
        let (mut seen, mut pause) = (0, LACK_EVERY);
        loop {
            sleep(pause).await;
            let status = self.parts.handle.status().await?;
            let unknown = status.stats.rejections.unknown_key;
            let members = self.parts.handle.members().await?;
            let is_alone = status.alive <= 1 && members.len() > 1;
            if unknown == std::mem::replace(&mut seen, unknown) && !is_alone {
                pause = LACK_EVERY;
                continue;
            }
            let seldom = if is_alone { LACK_ALONE } else { LACK_SELDOM };
            pause = (pause * 2).min(seldom);
            let others = members.iter().filter(|member| !member.ours);
            let mut others: Vec<_> = others.map(|member| (member.node, member.addr)).collect();
            let first = usize::try_from(clock::seed() % others.len().max(1) as u64).unwrap_or(0);
            others.rotate_left(first);
            others.truncate(ASKED_MAX);
            for whom in others {
                match self.fetch_from(whom).await {
                    Ok(true) => break, // Newer or not: it is what the voters have.
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "the datagram keys were not renewed"),
                }
            }
        }
    }

    /// Rotates when it is time, while this node leads.
    pub(super) async fn rotate_in_time(self) -> Result<(), Stopped> {
        let since = clock::wall();
        let life = self.parts.lives.datagram_key;
        loop {
            sleep((life / 10).clamp(LOOK_EVERY.0, LOOK_EVERY.1)).await;
            if self.parts.raft.leader() != Some(self.parts.node) {
                continue;
            }
            // A cluster that never rotated does so one span after its leader's start.
            let agreed = self.parts.raft.read(|state| {
                let added = state.rotated().map_or(since, |at| at.wall());
                Some((state.ring()?, added))
            });
            if agreed.is_none_or(|(ring, added)| !is_due(&ring, added, clock::wall(), life)) {
                continue;
            }
            if let Err(error) = self.rotate_now(Goal::Rotate).await {
                tracing::warn!(%error, "the datagram keys were not rotated; it is tried again");
            }
        }
    }
}
