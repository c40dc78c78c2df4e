//! A leader that stops, or is about to be removed, hands over to the voter whose log goes furthest, with no lease to wait for.
//!
//! A follower grants no vote while it hears a leader, so that nobody disturbs one that works (Ongaro, §4.2.3); a leader that
//! hands over waives that (§3.10). It stops taking proposals, waits until its heir has all of its log, has every other voter
//! promise the next term to the heir, itself included, and then tells the heir to stand. The heir is elected as anybody is, by a
//! majority with logs no longer than its own; only the wait is left out.

use std::{
    io::Cursor,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use openraft::Snapshot;
use tokio::time::timeout;

use super::{
    Inner, Raft, Role,
    transport::Service,
    types::{SnapshotMeta, Vote},
    wire::{self, Message, Reply},
};
use crate::core::model::NodeId;

/// How long the heir may take to get the rest of the log.
const CATCH_UP: Duration = Duration::from_millis(500);

/// How long the others may take to answer.
const ANSWER: Duration = Duration::from_millis(300);

/// How long the heir may take to be elected.
const ELECTION: Duration = Duration::from_secs(1);

/// How long it may take until a leader that is told so leads no more.
const RELIEVE: Duration = Duration::from_secs(10);

/// How often it is told again.
const TELL_AGAIN: Duration = Duration::from_millis(200);

impl Raft {
    /// Has another voter lead, if that node does. Returns whether it leads no more, for all that this node knows.
    pub async fn relieve(&self, node: NodeId) -> bool {
        let inner = &self.inner;
        let relieved = async {
            while inner.leader() == Some(node) {
                if node == inner.node {
                    inner.aside.notify_one();
                } else {
                    inner.tell(&[node], &Message::StepAside).await;
                }
                tokio::time::sleep(TELL_AGAIN).await;
            }
        };
        timeout(RELIEVE, relieved).await.is_ok()
    }
}

impl Inner {
    /// Hands over whenever another voter shall lead, and goes on voting.
    pub(super) async fn step_aside(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.aside.notified() => {}
            }
            self.steps_aside.store(true, Ordering::Relaxed);
            self.hand_over().await;
            self.steps_aside.store(false, Ordering::Relaxed);
        }
    }

    /// Returns whether this node takes no proposals: who follows it must have all of its log.
    pub(super) fn hands_over(&self) -> bool {
        self.stop.is_cancelled() || self.steps_aside.load(Ordering::Relaxed)
    }

    /// Hands over, if this node leads and another one votes. It takes a moment, and never longer than the deadlines here.
    pub(super) async fn hand_over(&self) {
        let status = self.status();
        let others: Vec<NodeId> = status
            .voters
            .into_iter()
            .filter(|voter| *voter != self.node)
            .collect();
        if status.role != Role::Leader || others.is_empty() {
            return;
        }
        let Some(heir) = self.until_heir(&others).await else {
            // Nobody has all of the log: whoever gets it will stand once the lease has run out.
            self.tell(&others, &Message::Resign).await;
            return;
        };
        let term = status.term;
        let transfer = Message::Transfer { term, to: heir };
        let voters: Vec<NodeId> = others.into_iter().filter(|voter| *voter != heir).collect();
        self.tell(&voters, &transfer).await;
        self.promise(term, heir).await;
        self.tell(&[heir], &transfer).await;
        let mut metrics = self.raft.metrics();
        let elected = metrics.wait_for(|metrics| metrics.current_leader == Some(heir.0));
        match timeout(ELECTION, elected).await {
            Ok(_) => tracing::info!(%heir, term = term + 1, "handed over"),
            Err(_late) => {
                tracing::warn!(%heir, "the heir was not elected in time: another will be");
            }
        }
    }

    /// Waits until a voter has all of the log.
    async fn until_heir(&self, others: &[NodeId]) -> Option<NodeId> {
        let mut metrics = self.raft.metrics();
        let find = async {
            loop {
                let heir = {
                    let metrics = metrics.borrow_and_update();
                    let last = metrics.last_log_index;
                    let matched = |node: &NodeId| {
                        let matched = metrics.replication.as_ref()?.get(&node.0)?.as_ref()?;
                        Some(matched.index)
                    };
                    others.iter().copied().find(|node| matched(node) == last)
                };
                if heir.is_some() || metrics.changed().await.is_err() {
                    return heir;
                }
            }
        };
        timeout(CATCH_UP, find).await.ok().flatten()
    }

    async fn tell(&self, nodes: &[NodeId], message: &Message) {
        let request = wire::seal(message);
        let tell = |node: &NodeId| {
            let call = self
                .transport
                .call(*node, Service::Raft, request.clone(), ANSWER);
            async move { call.await.is_ok() }
        };
        // Who does not hear of it finds out by the silence.
        join_all(nodes.iter().map(tell)).await;
    }

    /// Hears from the leader that another one shall lead.
    pub(super) async fn handle_transfer(&self, from: NodeId, term: u64, to: NodeId) -> Reply {
        let leads = {
            let metrics = self.raft.metrics();
            let vote = metrics.borrow().vote;
            vote == Vote::new_committed(term, from.0)
        };
        if !leads {
            return Reply::Refused("the node does not lead in that term".to_owned());
        }
        if to != self.node {
            self.promise(term, to).await;
            return Reply::Noted;
        }
        tracing::info!(leader = %from, "told to lead from here: standing for election");
        match self.raft.trigger().elect().await {
            Ok(()) => Reply::Noted,
            Err(_stopped) => Reply::Stopped,
        }
    }

    /// Promises the term after `term` to a node, on the disk: it may stand in it, and whoever leads now leads no longer.
    async fn promise(&self, term: u64, to: NodeId) {
        // The engine takes a vote along with whatever comes under it; this is a snapshot of nothing, which it leaves aside.
        let nothing = Snapshot {
            meta: SnapshotMeta::default(),
            snapshot: Box::new(Cursor::new(Vec::new())),
        };
        let vote = Vote::new(term + 1, to.0);
        if let Err(error) = self.raft.install_full_snapshot(vote, nothing).await {
            tracing::debug!(%error, "the next term was not promised");
        }
    }
}
