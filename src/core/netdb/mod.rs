//! What the cluster knows: logs, entries, dissemination, anti-entropy, floors, visibility.
//!
//! A node writes its own entries only. Its entries in one network form a log, named (network, owner, generation, attach
//! epoch), of dots numbered 1, 2, 3 …; a put or a delete of a key is the next dot. A replica keeps, per log, which dots it has
//! (`have.rs`), the newest dot of each key, and a floor below which tombstones are forgotten.
//!
//! - Order: the visible entry of a key is the one with the greatest ([`Hlc`], owner) among the shown logs.
//! - Visibility: an entry shows iff its owner is alive, attached in that epoch, and in that generation (`owners.rs`). Changes are computed from what was visible before and after.
//! - Merge: union of have, greatest number per key; it is idempotent, commutative and associative, so replicas converge.
//! - No resurrection: a tombstone goes when the floor passes it; who is below the floor gets a snapshot. No clock decides.
//!
//! # Nodes that lie
//!
//! Every message here is authentic: its sender holds the cluster's key. What it says may still be wrong. What breaks a bound,
//! contradicts itself, what was asked or what this node knows of its own logs is refused, counted by its reason
//! ([`Refusal`]), and its sender is named ([`Stats::faulty`], the metrics, the log at most every ten seconds). Nothing that a
//! message says makes a table here grow without bound, but entries, of which a log has at most 2²⁰. Nobody writes this
//! node's own logs but this node, whatever others claim to have of them.
//!
//! What is **not** prevented: gossip is passed on, and carries no proof of its owner, so a holder of the key can speak for any
//! other node. It can forge dots, an attach epoch, a generation, a floor or a whole snapshot of another's log, and with them
//! hide or replace that owner's entries at whoever believes it, until the owner begins a new generation; it can claim to have
//! come whole, or to have what it lacks, and so end a barrier or a `syncing` early. The owner notices when such a thing
//! reaches it: it is counted as [`Refusal::Forged`]. A signature of every dot would prevent it, at 64 bytes and a check of
//! some tens of microseconds a dot; a node that is not trusted that far is to be removed, and the key rotated.
//!
//! Source: the state-based CRDTs of Shapiro et al. (2011), the dotted version sets of Preguiça et al. (2012), the bimodal
//! multicast of Birman et al. (1999).

mod accept;
mod answer;
mod barrier;
mod change;
mod digest;
mod entries;
mod error;
mod floor;
mod have;
mod joining;
mod log;
mod message;
mod owners;
mod receive;
mod refusal;
mod replica;
mod retell;
mod ring;
mod slots;
mod small;
mod spread;
mod sync;
mod tables;
mod tree;
mod versions;
mod view;
mod visibility;
mod write;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use barrier::{Applied, BarrierId};
pub use change::{Change, ChangeKind, EntryView, Reason};
pub use error::WriteError;
pub use joining::BELIEVE_AFTER;
pub use message::LogId;
pub use refusal::Refusal;
pub use sync::{CallId, STREAM_RETRIED_AFTER, StreamCall};
pub use view::LogView;
pub use write::PutMode;

use self::{
    barrier::Barriers,
    floor::Floors,
    owners::Owners,
    receive::Wanted,
    refusal::Refusals,
    replica::{Difference, Replica, Seen},
    retell::News,
    ring::Ring,
    spread::Spread,
    sync::Syncs,
};
use crate::core::{
    model::{Generation, Hlc, Instant, Mutated, NetworkId, NodeId, Now, TableName},
    wire::record::RecordKind,
};

/// Cluster scope: which networks a node is attached to. Key: the network's id and the node's, 4 and 8 bytes big endian, so
/// that no two owners hold one key; the value is empty.
pub const ATTACH_TABLE: &str = "attach";
/// Cluster scope: up to where a generation has written all its former entries again. Key: the node's id, 8 bytes big endian.
pub const READY_TABLE: &str = "ready";

/// The most nodes that a new dot is pushed to at once.
pub const PUSHES_MAX: usize = 8;
/// The most of them that are drawn at random.
pub const RANDOM_MAX: usize = 4;

/// For how many changes room is kept while none waits.
const CHANGES_KEPT: usize = 64;

/// To whom a new dot is pushed at once: by its owner, and by each node that first receives it.
///
/// Together they are at most [`PUSHES_MAX`]; the rest is left out. In virtual time, 20 seeds of seven changes each, p50 / max in
/// milliseconds and bytes a node sends, by `tables change --nodes 25,100 --loss 0,30 --seeds 20 --brief --scheme …`:
///
/// | near + random | 25 nodes, 0 % | 25, 30 % | 100, 0 % | 100, 30 % |
/// |---|---|---|---|---|
/// | **1 + 2** | 2.2 / 3.4, 835 | 5.8 / 37, 2254 | 3.2 / 4.4, 782 | 24 / 46, 2360 |
/// | 0 + 4 | 2.5 / 11, 862 | 22 / 25, 2388 | 11 / 12, 853 | 25 / 35, 2533 |
/// | 2 + 0 | 3.5 / 4.4, 850 | 5.2 / 30, 2252 | 13 / 15, 753 | 25 / 46, 2389 |
/// | 1 + 1 | 2.8 / 4.3, 714 | 21 / 33, 2267 | 4.5 / 6.4, 629 | 26 / 49, 2326 |
/// | 1 + 3 | 1.9 / 3.0, 945 | 3.0 / 25, 2339 | 2.6 / 3.3, 934 | 15 / 26, 2494 |
///
/// Without the ring some node is missed and waits for an announcement; without random nodes a dot walks round the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheme {
    /// How many steps along the ring, on either side.
    pub near: usize,
    /// How many nodes at random, at most [`RANDOM_MAX`].
    pub random: usize,
}

impl Default for Scheme {
    /// The ring makes coverage certain where nothing is lost, the random nodes make it quick.
    fn default() -> Self {
        Self { near: 1, random: 2 }
    }
}

/// The figures of dissemination and anti-entropy.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often root hashes are compared; 0.5–1 s, on several sites a few.
    pub digest_every: Duration,
    /// To whom a new dot is pushed at once.
    pub scheme: Scheme,
    /// After how long the next nodes of the ring on either side, ±2, are told of a dot.
    pub first_ihave: Duration,
    /// After how long those after them, ±3, are told of a dot.
    pub second_ihave: Duration,
    /// How long a gap may close by itself before it is pulled.
    pub pull_after: Duration,
    /// After how long a pull is sent again, elsewhere.
    pub pull_again: Duration,
    /// How long the logs of a node that is down are kept.
    pub retention: Duration,
    /// How long the former generation is shown while the newest is not ready.
    pub grace: Duration,
    /// After how long a tombstone goes even if not every member is known to have it.
    pub floor_after: Duration,
    /// How many bytes of dots one answer on a stream carries.
    pub page: usize,
    /// What is broken on purpose; nothing.
    pub mutated: Mutated,
}

impl Config {
    /// One site: the default.
    pub fn lan() -> Self {
        Self {
            digest_every: Duration::from_secs(1),
            scheme: Scheme::default(),
            first_ihave: Duration::from_millis(5),
            second_ihave: Duration::from_millis(25),
            pull_after: Duration::from_millis(2),
            pull_again: Duration::from_millis(12),
            retention: Duration::from_mins(10),
            grace: Duration::from_secs(10),
            floor_after: Duration::from_mins(10),
            page: 512 * 1024,
            mutated: Mutated::default(),
        }
    }

    /// Several sites: slower links, a third of the bytes.
    pub fn wan() -> Self {
        Self {
            digest_every: Duration::from_secs(4),
            first_ihave: Duration::from_millis(20),
            second_ihave: Duration::from_millis(100),
            pull_after: Duration::from_millis(10),
            pull_again: Duration::from_millis(200),
            ..Self::lan()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::lan()
    }
}

/// What the DB has counted since its start.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Dots that were new here.
    pub applied: u64,
    /// Dots that were known already.
    pub duplicates: u64,
    /// Messages refused, by reason.
    pub refused: BTreeMap<Refusal, u64>,
    /// Who sent the last of each.
    pub refused_last: BTreeMap<Refusal, NodeId>,
    /// Who sent how many messages that no sound node sends: those that sent most.
    pub faulty: BTreeMap<NodeId, u64>,
    /// Floors that rose here, of own logs and of others'.
    pub floors_raised: u64,
    /// Snapshots taken: answers that said which dots below a floor still stand.
    pub snapshots: u64,
    /// Generations that took over from one that still showed.
    pub settled: u64,
    /// Sync requests sent.
    pub syncs: u64,
    /// Bytes of sync requests sent.
    pub sync_bytes: u64,
    /// Queues dropped at their bound.
    pub overflows: u64,
    /// Dots and small messages that wait to be sent, over all nodes.
    pub queued: u64,
}

/// Names a write, so that somebody can wait until others have it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// The log it is in.
    pub log: LogId,
    /// Its number.
    pub seq: u64,
    /// When it was written.
    pub written: Hlc,
}

/// How far a network's entries have come since this node attached to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncState {
    /// Nobody has answered yet.
    Syncing,
    /// One member's state has come whole since.
    Synced,
    /// Nobody could be asked: there are members, and none answers.
    Degraded,
}

/// A record for another node's network DB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Who is to have it.
    pub to: NodeId,
    /// What it is.
    pub kind: RecordKind,
    /// Its body, at most [`BODY_MAX`].
    pub body: Vec<u8>,
}

pub use crate::core::wire::record::BODY_MAX;

/// The replicated network DB of one node.
#[derive(Debug)]
pub struct NetDb {
    me: NodeId,
    generation: Generation,
    config: Config,
    clock: Hlc,
    rng: StdRng,
    owners: Owners,
    replicas: BTreeMap<NetworkId, Replica>,
    sync_states: BTreeMap<NetworkId, SyncState>,
    rings: BTreeMap<NetworkId, Ring>,
    spread: Spread,
    /// Whom the dots of a block of a log are pushed to beside the ring.
    picks: (Option<(LogId, u64)>, [u64; RANDOM_MAX]),
    wanted: Wanted,
    refusals: Refusals,
    syncs: Syncs,
    floors: Floors,
    settling: BTreeMap<NodeId, visibility::Settling>,
    barriers: Barriers,
    synced: VecDeque<(NetworkId, SyncState)>,
    changes: VecDeque<Change>,
    next_digest: Instant,
    /// Datagrams are lost; and what is told of again because of that.
    is_lossy: bool,
    news: Option<News>,
    stats: Stats,
}

impl NetDb {
    /// Makes the DB of node `me`, which carries the cluster scope and nothing else yet.
    ///
    /// **Invariant:** no two lives of a node share a generation, or one number could name two dots.
    pub fn new(config: Config, me: NodeId, generation: Generation, seed: u64, now: Now) -> Self {
        let mut db = Self {
            me,
            generation,
            clock: Hlc::default().tick(now.wall),
            rng: StdRng::seed_from_u64(seed),
            owners: Owners::new(me, generation),
            replicas: BTreeMap::from([(
                NetworkId::CLUSTER,
                Replica::new(NetworkId::CLUSTER, config.mutated),
            )]),
            sync_states: BTreeMap::from([(NetworkId::CLUSTER, SyncState::Syncing)]),
            rings: BTreeMap::new(),
            spread: Spread::new(me),
            picks: (None, [0; RANDOM_MAX]),
            wanted: Wanted::default(),
            refusals: Refusals::default(),
            syncs: Syncs::default(),
            floors: Floors::default(),
            settling: BTreeMap::new(),
            barriers: Barriers::default(),
            synced: VecDeque::new(),
            changes: VecDeque::new(),
            next_digest: now.instant + config.digest_every,
            is_lossy: false,
            news: None,
            stats: Stats::default(),
            config,
        };
        db.begin_joining(now.instant, NetworkId::CLUSTER);
        db
    }

    /// Returns our log in a network, if we are attached to it.
    fn our_log(&self, network: NetworkId) -> Option<LogId> {
        let epoch = self.owners.our_epoch(network)?;
        self.replicas.contains_key(&network).then_some(LogId {
            network,
            owner: self.me,
            generation: self.generation,
            epoch,
        })
    }

    /// Returns the entry that is visible under a key.
    pub fn get(&self, network: NetworkId, table: &str, key: &[u8]) -> Option<EntryView> {
        let replica = self.replicas.get(&network)?;
        let seen = replica.get(table, key)?;
        let table = TableName::new(table).ok()?;
        let key = crate::core::model::Key::new(Bytes::copy_from_slice(key)).ok()?;
        Some(self.view(network, table, key, seen))
    }

    /// Returns all visible entries of a network, of one table or of all, by table and key.
    pub fn list(&self, network: NetworkId, table: Option<&TableName>) -> Vec<EntryView> {
        let listed = self
            .replicas
            .get(&network)
            .map(|replica| replica.list(table));
        let entries = listed.into_iter().flatten();
        entries
            .map(|(table, key, seen)| self.view(network, table, key, seen))
            .collect()
    }

    fn view(
        &self,
        network: NetworkId,
        table: TableName,
        key: crate::core::model::Key,
        seen: Seen,
    ) -> EntryView {
        EntryView {
            network,
            table,
            key,
            ours: seen.owner == self.me,
            value: seen.value,
            owner: seen.owner,
            written: seen.written,
        }
    }

    /// Returns the networks this node carries, the cluster scope first.
    pub fn networks(&self) -> impl Iterator<Item = (NetworkId, SyncState)> {
        self.sync_states
            .iter()
            .map(|(network, state)| (*network, *state))
    }

    /// Returns the live nodes attached to a network, ourselves included.
    pub fn attached(&self, network: NetworkId) -> impl Iterator<Item = NodeId> {
        self.owners.attached(network)
    }

    /// Returns how many entries and tombstones of all owners are held.
    pub fn len(&self) -> usize {
        self.replicas.values().map(Replica::len).sum()
    }

    /// Returns whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the hash of a network's shown logs: equal hashes, equal entries.
    pub fn root(&mut self, network: NetworkId) -> Option<u64> {
        self.replicas.get_mut(&network).map(Replica::root)
    }

    /// Returns every log held, the prefix of what is held of it, and its floor.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, u64, u64)> {
        let logs = self.replicas.values().flat_map(Replica::logs);
        logs.map(|log| (log.id, log.have.prefix(), log.floor))
    }

    /// Returns how far this node has the log of what the cluster agreed, without a hole.
    pub fn agreed(&self) -> u64 {
        let replica = self.replicas.get(&NetworkId::CLUSTER);
        let log = replica.and_then(|replica| replica.log(&write::CLUSTER_LOG));
        log.map_or(0, |log| log.have.prefix())
    }

    /// Returns what was counted.
    pub fn stats(&self) -> Stats {
        Stats {
            queued: self.spread.len() as u64,
            refused: self.refusals.counts(),
            refused_last: self.refusals.last(),
            faulty: self.refusals.faulty(),
            ..self.stats.clone()
        }
    }

    /// Returns the next network whose state has changed, and the state.
    pub fn poll_synced(&mut self) -> Option<(NetworkId, SyncState)> {
        self.synced.pop_front()
    }

    /// Returns the next change of what is visible.
    pub fn poll_change(&mut self) -> Option<Change> {
        let change = self.changes.pop_front();
        if change.is_none() {
            // A network that came whole was as many changes at once.
            self.changes.shrink_to(CHANGES_KEPT);
        }
        change
    }

    /// Returns when [`Self::handle_timeout`] has work.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [
            Some(self.next_digest),
            self.news.as_ref().map(|news| news.at),
            self.hedge_at(),
            self.spread.poll_timeout(),
            self.wanted.poll_timeout(),
            self.owners.poll_timeout(),
            self.syncs.poll_timeout(),
            self.barriers.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.spread.handle_timeout(now.instant);
        self.pull_what_is_due(now.instant);
        self.expire_owners(now.instant);
        self.retry_syncs(now.instant);
        self.ask_for_barriers(now.instant);
        if self.next_digest <= now.instant {
            self.next_digest = now.instant
                + self
                    .config
                    .digest_every
                    .mul_f64(self.rng.random_range(0.9..1.1));
            self.note_alone(now.instant);
            self.move_own_floors(now);
            self.send_digests();
        }
        self.retell_news(now.instant);
        self.hedge(now.instant);
    }

    fn ring(&mut self, network: NetworkId) -> &Ring {
        let (me, owners) = (self.me, &self.owners);
        self.rings
            .entry(network)
            .or_insert_with(|| Ring::new(network, me, owners.attached(network)))
    }

    /// Tells watchers of differences.
    fn report(
        &mut self,
        network: NetworkId,
        differences: impl IntoIterator<Item = Difference>,
        reason: Reason,
    ) {
        for Difference {
            table,
            key,
            before,
            after,
        } in differences
        {
            let (kind, seen) = match (&before, &after) {
                (None, Some(after)) => (ChangeKind::Created, after),
                (Some(_), Some(after)) => (ChangeKind::Updated, after),
                (Some(before), None) => (ChangeKind::Deleted(reason), before),
                (None, None) => continue,
            };
            let (owner, written) = (seen.owner, seen.written);
            self.changes.push_back(Change {
                kind,
                network,
                table,
                key,
                value: after.map(|seen| seen.value),
                previous: before.map(|seen| seen.value),
                owner,
                written,
                ours: owner == self.me,
            });
        }
    }
}

#[cfg(test)]
mod tests;
