//! A way to ask the node's loop. The loop owns all state, so there is nothing to lock.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::watcher::Watcher;
use crate::core::{
    membership::{Event as MemberEvent, MemberState},
    model::{Dot, Key, NetworkId, NodeId, Now, TableName, Value},
    netdb::{Applied, EntryView, PutMode, SyncState, Version, WriteError},
    node::{Node, Stats, StreamError},
    watch::{Filter, Heard, Lagged},
    wire::keyring::Keyring,
};

/// What the loop does with the node in hand.
pub(super) type Task = Box<dyn FnOnce(&mut Node, Now) + Send>;

/// Something to be done by the loop.
pub(super) enum Command {
    /// A question or a change.
    Do(Task),
    /// A change of which networks the node carries: those who follow them are told.
    Carry(Task),
    /// Wait until every live member of the network has a write.
    Await {
        version: Version,
        limit: Duration,
        reply: oneshot::Sender<Applied>,
    },
}

/// How far each network has come that this node carries.
pub type SyncStates = BTreeMap<NetworkId, SyncState>;

/// The node's loop has stopped; the daemon is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// Why a write did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The network DB refused it; nothing was written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The daemon is going down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What the node has counted, and how far its networks have come.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// What was counted.
    pub stats: Stats,
    /// The networks carried, the cluster scope among them.
    pub networks: Vec<(NetworkId, SyncState)>,
    /// How many entries and tombstones are held.
    pub held: usize,
    /// How many members are alive, ourselves included.
    pub alive: usize,
    /// How long the loop has run.
    pub uptime: Duration,
}

/// A way to ask the node's loop: one bounded queue of commands. One that finds it full waits.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) revision: watch::Receiver<u64>,
    pub(super) members: watch::Receiver<u64>,
    pub(super) transitions: watch::Receiver<u64>,
    pub(super) synced: watch::Receiver<SyncStates>,
}

impl Handle {
    /// Lets the loop call `f`, and returns what it returned.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Node, Now) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.order(Command::Do, f).await
    }

    async fn order<T: Send + 'static>(
        &self,
        command: fn(Task) -> Command,
        f: impl FnOnce(&mut Node, Now) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, replied) = oneshot::channel();
        let command = command(Box::new(move |node, now| {
            // Whoever asked may have gone.
            let _ = reply.send(f(node, now));
        }));
        self.commands
            .send(command)
            .await
            .map_err(|_stopped| Stopped)?;
        replied.await.map_err(|_stopped| Stopped)
    }

    /// Writes an entry of this node.
    pub async fn put(
        &self,
        network: NetworkId,
        entry: (TableName, Key, Value),
        mode: PutMode,
    ) -> Result<Version, PutError> {
        let (table, key, value) = entry;
        let written =
            self.ask(move |node, now| node.put(now, (network, &table, &key), &value, mode));
        Ok(written.await??)
    }

    /// Deletes an entry of this node.
    pub async fn delete(
        &self,
        network: NetworkId,
        table: TableName,
        key: Key,
    ) -> Result<Version, PutError> {
        let deleted = self.ask(move |node, now| node.delete(now, (network, &table, &key)));
        Ok(deleted.await??)
    }

    /// Returns the entry that is visible under a key.
    pub async fn get(
        &self,
        network: NetworkId,
        table: TableName,
        key: Key,
    ) -> Result<Option<EntryView>, Stopped> {
        self.ask(move |node, _| node.get(network, table.as_str(), key.as_bytes()))
            .await
    }

    /// Returns the visible entries of a network, of one table or of all.
    pub async fn list(
        &self,
        network: NetworkId,
        table: Option<TableName>,
    ) -> Result<Vec<EntryView>, Stopped> {
        let filter = Filter {
            network: Some(network),
            table,
            ..Filter::default()
        };
        Ok(self.list_filtered(filter).await?.0)
    }

    /// Returns the visible entries that pass a filter, and the revision from which to hear of changes.
    pub async fn list_filtered(&self, filter: Filter) -> Result<(Vec<EntryView>, u64), Stopped> {
        self.ask(move |node, _| node.list(&filter)).await
    }

    /// Returns the changes after a revision, looking at no more than `limit`.
    pub async fn changes(
        &self,
        after: u64,
        filter: Filter,
        limit: usize,
    ) -> Result<Result<Heard, Lagged>, Stopped> {
        self.ask(move |node, _| node.changes(after, &filter, limit))
            .await
    }

    /// Returns the changes after a revision, and how far the filter's network has come at the same moment.
    pub(super) async fn look(
        &self,
        after: u64,
        filter: Filter,
        limit: usize,
    ) -> Result<(Result<Heard, Lagged>, Option<SyncState>), Stopped> {
        self.ask(move |node, _| {
            let of_filter = |(network, _): &(NetworkId, _)| Some(*network) == filter.network;
            let state = node.networks().find(of_filter).map(|(_, state)| state);
            (node.changes(after, &filter, limit), state)
        })
        .await
    }

    /// Returns a receiver that wakes whenever something visible has changed.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Follows the entries that pass a filter: a snapshot first, or what changed since a revision. If the filter names a
    /// network, also how far that has come.
    pub fn watch(&self, filter: Filter, from: Option<u64>) -> Watcher {
        Watcher::new(self.clone(), filter, from)
    }

    /// Attaches this node to a network.
    pub async fn attach(&self, network: NetworkId) -> Result<(), PutError> {
        Ok(self
            .order(Command::Carry, move |node, now| node.attach(now, network))
            .await??)
    }

    /// Detaches this node from a network.
    pub async fn detach(&self, network: NetworkId) -> Result<(), PutError> {
        Ok(self
            .order(Command::Carry, move |node, now| node.detach(now, network))
            .await??)
    }

    /// Waits until every live member of a network has all that this node has written in it, at most for `limit`.
    pub async fn applied(
        &self,
        network: NetworkId,
        limit: Duration,
    ) -> Result<(Version, Applied), PutError> {
        let version = self.ask(move |node, _| node.written(network)).await??;
        let (reply, ended) = oneshot::channel();
        let command = Command::Await {
            version,
            limit,
            reply,
        };
        let sent = self.commands.send(command).await;
        sent.map_err(|_stopped| Stopped)?;
        Ok((version, ended.await.map_err(|_stopped| Stopped)?))
    }

    /// Returns a receiver of how far each network has come that this node carries.
    pub fn synced(&self) -> watch::Receiver<SyncStates> {
        self.synced.clone()
    }

    /// Returns the networks this node carries, and how far each has come.
    pub async fn networks(&self) -> Result<Vec<(NetworkId, SyncState)>, Stopped> {
        self.ask(|node, _| node.networks().collect()).await
    }

    /// Returns the live nodes attached to a network, ourselves included.
    pub async fn attached(&self, network: NetworkId) -> Result<Vec<NodeId>, Stopped> {
        self.ask(move |node, _| node.attached(network).collect())
            .await
    }

    /// Says that all that stood before the start is written again.
    pub async fn ready(&self) -> Result<(), PutError> {
        Ok(self.ask(|node, now| node.ready(now)).await??)
    }

    /// Takes dots of the cluster log from Raft; see [`crate::core::netdb::NetDb::handle_cluster_log`].
    pub async fn cluster_log(
        &self,
        dots: Vec<Dot>,
        floor: u64,
        through: u64,
    ) -> Result<(), Stopped> {
        self.ask(move |node, now| node.handle_cluster_log(now, &dots, floor, through))
            .await
    }

    /// Returns what to tell others of the members, ourselves included.
    pub async fn member_states(&self) -> Result<Vec<MemberState>, Stopped> {
        self.ask(|node, _| node.membership().list()).await
    }

    /// Takes what somebody else, or the disk, knows of the members.
    pub async fn apply_members(&self, members: Vec<MemberState>) -> Result<(), Stopped> {
        self.ask(move |node, now| node.apply_members(now, members))
            .await
    }

    /// Opens with another ring's keys from now on, and seals with its primary.
    pub async fn set_keyring(&self, keyring: Keyring) -> Result<(), Stopped> {
        self.ask(move |node, _| node.set_keyring(keyring)).await
    }

    /// Takes a node for gone for good: what it says is dropped, and its entries go.
    pub async fn remove_member(&self, of: NodeId) -> Result<(), Stopped> {
        self.ask(move |node, now| node.remove_member(now, of)).await
    }

    /// Returns where a node is reached.
    pub async fn address(&self, of: NodeId) -> Result<Option<SocketAddr>, Stopped> {
        self.ask(move |node, _| node.membership().address(of)).await
    }

    /// Returns a receiver that wakes whenever the members have changed.
    pub fn members_changed(&self) -> watch::Receiver<u64> {
        self.members.clone()
    }

    /// Returns how far this node has the log of what the cluster agreed, without a hole.
    pub async fn agreed(&self) -> Result<u64, Stopped> {
        self.ask(|node, _| node.agreed()).await
    }

    /// Returns what the node has counted.
    pub async fn status(&self) -> Result<NodeStatus, Stopped> {
        self.ask(|node, now| NodeStatus {
            stats: node.stats(),
            networks: node.networks().collect(),
            held: node.held(),
            alive: node.membership().alive().count() + 1,
            uptime: now.instant.since_start(),
        })
        .await
    }

    /// Returns the time on the loop's clocks.
    pub async fn now(&self) -> Result<Now, Stopped> {
        self.ask(|_, now| now).await
    }

    /// Says to everyone that this node leaves the cluster; it should go on serving for about a second.
    pub async fn leave(&self) -> Result<(), Stopped> {
        self.ask(|node, now| node.leave(now)).await
    }

    /// Answers another node's request that came on a stream.
    pub async fn answer(
        &self,
        from: NodeId,
        request: bytes::Bytes,
    ) -> Result<Result<Vec<u8>, StreamError>, Stopped> {
        self.ask(move |node, _| node.handle_stream(from, &request))
            .await
    }
}

/// Tells how far a network has come.
pub(super) fn log_state(network: NetworkId, state: SyncState) {
    match state {
        SyncState::Degraded => {
            tracing::warn!(%network, "a member does not answer: this node may lack entries of the network");
        }
        SyncState::Syncing | SyncState::Synced => tracing::debug!(%network, ?state, "network"),
    }
}

/// Returns what an operator must know of an event among the members.
pub(super) fn log(event: &MemberEvent) {
    match event {
        MemberEvent::Up(node) => tracing::info!(%node, "member is up"),
        MemberEvent::Down(node) => tracing::info!(%node, "member is down"),
        MemberEvent::Left(node) => tracing::info!(%node, "member has left"),
        MemberEvent::Moved(node, addr) => {
            tracing::info!(%node, %addr, "member has moved or restarted");
        }
        MemberEvent::Renewed(identity) => {
            tracing::info!(
                rejoin = identity.rejoin,
                "others held this node for down: it has returned"
            );
        }
        MemberEvent::Clash {
            node,
            holder,
            other,
        } => {
            tracing::error!(%node, %holder, %other, "two nodes run with one id: stop one and let it join anew");
        }
    }
}
