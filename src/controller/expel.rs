//! Removing another node for good: nobody listens to it any more, and the keys that it knows are worth nothing.
//!
//! The leader writes the removal down, every node hears of it in the cluster log and drops what the node says from then on, its
//! streams and its datagrams; then the datagram keys are replaced and the former ones retired, since whoever holds them could
//! seal in another node's name. The join token changes too unless it is to stay: the node has seen it.

use tokio_util::sync::CancellationToken;

use super::{Controller, ControllerError, Rotated, run::cluster_table};
use crate::{
    core::{
        allocator::{Action, REMOVED_TABLE},
        model::{Key, Name, NodeId, TableName},
        watch::Revised,
        wire::rotation::Goal,
    },
    runtime::{Stopped, WatchEvent},
};

/// What came of a removal.
#[derive(Clone, Debug)]
pub struct Expelled {
    /// The node.
    pub node: NodeId,
    /// Its name, if it was known.
    pub name: Option<Name>,
    /// What came of the rotation of keys.
    pub keys: Rotated,
    /// Whether the join token was replaced.
    pub token_rotated: bool,
}

impl Controller {
    /// Removes another node, alive or not. One that alone votes is refused: nobody hears it once it is removed, so it could not
    /// have another vote in its place.
    pub async fn expel(&self, which: &str, keep_token: bool) -> Result<Expelled, ControllerError> {
        let this = self.clone();
        let which = which.to_owned();
        self.finish(async move { this.expel_now(&which, keep_token).await })
            .await
    }

    async fn expel_now(&self, which: &str, keep_token: bool) -> Result<Expelled, ControllerError> {
        let (node, name) = self.find_member(which).await?;
        if node == self.parts.node {
            return Err(ControllerError::Oneself(self.parts.name.clone()));
        }
        if self.parts.raft.status().voters == [node] {
            let name = name.map_or_else(|| node.to_string(), |name| name.to_string());
            return Err(ControllerError::OnlyVoter(name));
        }
        if !self.is_removed(node) {
            // A leader that is removed is heard by nobody: another one leads first, and takes its vote.
            if !self.parts.raft.relieve(node).await {
                return Err(ControllerError::NoLeader);
            }
            self.propose(Action::RemoveMember { node }).await?;
            tracing::info!(%node, "removed from the cluster");
            self.shut_out(node).await?;
        }
        if !keep_token {
            self.token(true).await?;
        }
        Ok(Expelled {
            node,
            name,
            keys: self.rotate_now(Goal::Replace).await?,
            token_rotated: !keep_token,
        })
    }

    async fn find_member(&self, which: &str) -> Result<(NodeId, Option<Name>), ControllerError> {
        let admitted = self.admitted_names().await?;
        let id: Option<NodeId> = which.parse().ok();
        // One whose removal was cut off is removed again by its id: then the token and the keys are replaced.
        if let Some(node) = id.filter(|node| self.is_removed(*node)) {
            return Ok((node, None));
        }
        let mut found = admitted.into_iter();
        found
            .find(|(node, name)| Some(*node) == id || name.as_str() == which)
            .map(|(node, name)| (node, Some(name)))
            .ok_or_else(|| ControllerError::NoSuchMember(which.to_owned()))
    }

    /// Returns whether this node has heard that a node was removed.
    pub(super) fn is_removed(&self, node: NodeId) -> bool {
        self.desk.removed.borrow().contains(&node)
    }

    /// Hears whom the cluster has removed. A node that hears it of itself, and did not ask for it, is done.
    pub(super) async fn follow_removed(self) -> Result<(), Stopped> {
        let table = TableName::new(REMOVED_TABLE).expect("letters are a table name");
        let mut watcher = self.parts.handle.watch(cluster_table(table), None);
        loop {
            let keys: Vec<Key> = match watcher.next().await? {
                WatchEvent::Snapshot { entries, .. } => entries
                    .into_iter()
                    .filter(|entry| entry.owner == NodeId::CLUSTER)
                    .map(|entry| entry.key)
                    .collect(),
                WatchEvent::Change(Revised { change, .. })
                    if change.value.is_some() && change.owner == NodeId::CLUSTER =>
                {
                    vec![change.key]
                }
                WatchEvent::Change(_) | WatchEvent::State { .. } | WatchEvent::Lagged => continue,
            };
            let nodes = keys.iter().filter_map(|key| key.as_bytes().try_into().ok());
            for node in nodes.map(|bytes| NodeId(u64::from_be_bytes(bytes))) {
                self.shut_out(node).await?;
            }
        }
    }

    /// Hears from another node that the cluster has removed this one, which may not have heard it otherwise: it came back late.
    pub async fn follow_refusals(self, refused: CancellationToken) {
        refused.cancelled().await;
        self.handle_expulsion();
    }

    fn handle_expulsion(&self) {
        if !self.desk.leaving.is_cancelled() {
            self.desk.expelled.cancel();
        }
    }

    /// Listens to a node no longer.
    async fn shut_out(&self, node: NodeId) -> Result<(), Stopped> {
        if node == self.parts.node {
            self.handle_expulsion();
            return Ok(());
        }
        self.desk.removed.send_modify(|removed| {
            removed.insert(node);
        });
        self.parts.handle.remove_member(node).await
    }

    /// Waits until others have removed this node.
    pub async fn expelled(&self) {
        self.desk.expelled.cancelled().await;
    }
}
