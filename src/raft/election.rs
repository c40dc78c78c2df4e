//! Elections: does what [`Election`] decides, and answers others that ask whether this node would vote for them.
//!
//! The engine's own elections are off; it counts the votes.

use std::{collections::BTreeSet, sync::Arc, sync::PoisonError};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use openraft::{EmptyNode, RaftMetrics, ServerState, storage::RaftLogStorage};
use tokio::time::{Instant, sleep};

use super::{
    Inner, SPEAKS, leader,
    log_store::LogStore,
    transport::Service,
    types::{LogId, Vote},
    wire::{self, Message, Reply},
};
use crate::core::{
    agreement::{Ballot, Election, Leads, Sight, Step, is_heard, would_vote},
    model::{self, NodeId},
};

type Metrics = RaftMetrics<u64, EmptyNode>;

/// A leader that is known to be gone, or is missed, and its term: of another one nothing is said.
pub(super) type Gone = Option<Leads>;

/// What others answer, each with its own name.
type Answers<'a> = FuturesUnordered<BoxFuture<'a, (NodeId, bool)>>;

impl Inner {
    /// Stands for election whenever no leader is heard of and most voters would vote for this node.
    pub(super) async fn elections(self: Arc<Self>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            // The engine has stopped.
            () = self.elect() => {}
        }
    }

    async fn elect(&self) {
        let mut metrics = self.raft.metrics();
        let mut gone = self.gone.subscribe();
        let mut election = Election::new(self.node, self.timings.patience());
        let mut answers = Answers::new();
        let begun = Instant::now();
        loop {
            let Some(sight) = self.sight(begun).await else {
                return;
            };
            if let Some(leads) = *gone.borrow_and_update() {
                election.handle_gone(leads);
            }
            let step = {
                let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
                election.step(&sight, &mut *rng)
            };
            self.missed.send_if_modified(|missed| {
                let is_new = *missed != election.missed();
                *missed = election.missed();
                is_new
            });
            let pause = match step {
                Step::Rest => match metrics.wait_for(may_stand).await {
                    Ok(_may) => continue,
                    Err(_stopped) => return,
                },
                Step::Ask { term, voters, .. } => {
                    answers = self.ask(term, voters).await;
                    continue;
                }
                Step::Stand => {
                    tracing::info!("no leader is heard of: standing for election");
                    match self.raft.trigger().elect().await {
                        Ok(()) => continue,
                        Err(_stopped) => return,
                    }
                }
                Step::Wait(pause) => pause,
            };
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = gone.changed() => {}
                Some((voter, would)) = answers.next() => election.handle_answer(voter, would),
            }
        }
    }

    /// Has the leader speak more often than the engine does by itself, while this node leads.
    pub(super) async fn speak(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        loop {
            let leads = metrics.wait_for(|metrics| metrics.state == ServerState::Leader);
            let leads = tokio::select! {
                () = self.stop.cancelled() => return,
                leads = leads => leads.is_ok(),
            };
            if !leads || self.raft.trigger().heartbeat().await.is_err() {
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(self.timings.lease / SPEAKS) => {}
            }
        }
    }

    /// Returns what this node sees; nothing if the engine has stopped.
    async fn sight(&self, begun: Instant) -> Option<Sight> {
        let state = self.raft.with_raft_state(|state| {
            let silence = state.vote_last_modified().map(|at| at.elapsed());
            (*state.vote_ref(), silence)
        });
        let (vote, silence) = state.await.ok()?;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let halves = metrics
            .membership_config
            .membership()
            .get_joint_config()
            .iter();
        let nodes = |half: &BTreeSet<u64>| half.iter().copied().map(NodeId).collect();
        Some(Sight {
            now: model::Instant::from_start(begun.elapsed()),
            may_stand: may_stand(&metrics),
            able: !self.disk.is_full(),
            voters: halves.map(nodes).collect(),
            ballot: ballot(vote),
            silence,
        })
    }

    /// Asks voters whether they would vote for this node; those that cannot be asked would not.
    async fn ask(&self, term: u64, voters: BTreeSet<NodeId>) -> Answers<'_> {
        let Some(last) = self.log_end().await else {
            return Answers::new();
        };
        let request = wire::seal(&Message::PreVote {
            vote: (&Vote::new(term, self.node.0)).into(),
            last: last.as_ref().map(Into::into),
        });
        let ask = |voter: NodeId| -> BoxFuture<'_, (NodeId, bool)> {
            let call = self.transport.call(
                voter,
                Service::Raft,
                request.clone(),
                self.timings.lease / 2,
            );
            Box::pin(async move {
                let answer = call.await.ok();
                let reply = answer.and_then(|bytes| wire::open::<Reply>(&bytes).ok());
                let would = matches!(reply, Some(Reply::PreVote { granted: true }));
                (voter, would)
            })
        };
        voters.into_iter().map(ask).collect()
    }

    /// Returns whether this node would vote for one whose log ends with `last`.
    pub(super) async fn would_vote(&self, last: Option<LogId>) -> bool {
        if self.disk.is_full() || self.stop.is_cancelled() {
            return false;
        }
        let hears_leader = self.hears_leader().await;
        let ours = self.log_end().await;
        ours.is_some_and(|ours| would_vote(hears_leader, &ours, &last))
    }

    /// Returns whether a leader was heard within the lease, this node itself by a quorum if it leads.
    async fn hears_leader(&self) -> bool {
        let silence = self
            .raft
            .with_raft_state(|state| state.vote_last_modified().map(|at| at.elapsed()));
        let silence = silence.await.ok().flatten();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.state == ServerState::Leader {
            return leader(&metrics, self.timings.lease, None).is_some();
        }
        is_heard(ballot(metrics.vote), silence, self.timings.lease)
    }

    /// Returns where this node's log ends; nothing if the disk does not say.
    async fn log_end(&self) -> Option<Option<LogId>> {
        let state = LogStore::new(self.disk.clone()).get_log_state().await;
        state.ok().map(|state| state.last_log_id)
    }
}

fn ballot(vote: Vote) -> Ballot {
    Ballot {
        term: vote.leader_id.term,
        node: NodeId(vote.leader_id.node_id),
        elected: vote.committed,
    }
}

/// Returns whether a node is one that could lead, and does not.
fn may_stand(metrics: &Metrics) -> bool {
    let votes = metrics
        .membership_config
        .voter_ids()
        .any(|voter| voter == metrics.id);
    votes && metrics.state != ServerState::Leader && metrics.running_state.is_ok()
}
