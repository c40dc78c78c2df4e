//! When a follower stands for election: once most voters say that they would vote for it.
//!
//! The engine's own elections are off: one that hears nobody would raise its term again and again, and depose a leader that
//! works as soon as it is heard again. Here a voter that misses the leader asks the others first whether they miss it too, and
//! whose log goes further (pre-vote: Ongaro, §9.6). Nobody promises anything by its answer, and no term is raised; the engine's
//! election follows, which alone decides.

use std::{collections::BTreeSet, sync::Arc, sync::PoisonError, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use openraft::{EmptyNode, RaftMetrics, ServerState, storage::RaftLogStorage};
use rand::RngExt;
use tokio::{sync::watch, time::sleep};

use super::{
    Inner, leader,
    log_store::LogStore,
    transport::Service,
    types::{LogId, Vote, most},
    wire::{self, Message, Reply},
};
use crate::core::model::NodeId;

/// How long after the lease has run out whoever knows that the leader is gone asks: the others' leases may have begun a little
/// later.
const MARGIN: Duration = Duration::from_millis(50);

type Metrics = RaftMetrics<u64, EmptyNode>;

/// A leader that is known to be gone, or is missed, and its term: of another one nothing is said.
pub(super) type Gone = Option<(NodeId, u64)>;

/// What the wait for a leader to be heard of came to.
enum Wait {
    Silent,
    /// There is nothing to stand for any more.
    Moot,
    Stopped,
}

impl Inner {
    /// Stands for election whenever no leader is heard of and most voters would vote for this node.
    pub(super) async fn elections(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        let mut gone = self.gone.subscribe();
        loop {
            let may = metrics.wait_for(may_stand);
            let may = tokio::select! {
                () = self.stop.cancelled() => return,
                may = may => may.is_ok(),
            };
            if !may {
                return;
            }
            match self.until_silent(&mut gone).await {
                Wait::Silent => {}
                Wait::Moot => continue,
                Wait::Stopped => return,
            }
            let wanted = tokio::select! {
                () = self.stop.cancelled() => return,
                wanted = self.is_wanted() => wanted,
            };
            if wanted {
                tracing::info!("no leader is heard of: standing for election");
                if self.raft.trigger().elect().await.is_err() {
                    return;
                }
                continue;
            }
            self.note_missed();
            let pause = self.draw(self.timings.election / 4);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Waits until the leader has been silent for the lease and a random while, or a moment if it is known to be gone.
    async fn until_silent(&self, gone: &mut watch::Receiver<Gone>) -> Wait {
        let patience = self.draw(self.timings.election);
        loop {
            let silence = self
                .raft
                .with_raft_state(|state| state.vote_last_modified().map(|at| at.elapsed()));
            let silence = tokio::select! {
                () = self.stop.cancelled() => return Wait::Stopped,
                silence = silence => silence,
            };
            let Ok(silence) = silence else {
                return Wait::Stopped;
            };
            if silence.is_some_and(|silence| silence <= self.timings.lease) {
                self.missed
                    .send_if_modified(|missed| missed.take().is_some());
            }
            let limit = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow();
                if !may_stand(&metrics) {
                    return Wait::Moot;
                }
                self.limit(&metrics, *gone.borrow_and_update(), patience)
            };
            let left = silence.map_or(Duration::ZERO, |silence| limit.saturating_sub(silence));
            if left.is_zero() {
                return Wait::Silent;
            }
            tokio::select! {
                () = self.stop.cancelled() => return Wait::Stopped,
                () = sleep(left) => {}
                Ok(()) = gone.changed() => {}
            }
        }
    }

    /// Returns for how long no leader must have been heard of.
    fn limit(&self, metrics: &Metrics, gone: Gone, patience: Duration) -> Duration {
        let vote = metrics.vote;
        let leads = (NodeId(vote.leader_id.node_id), vote.leader_id.term);
        match () {
            () if metrics.membership_config.voter_ids().count() == 1 => Duration::ZERO,
            () if !vote.committed => patience,
            () if gone == Some(leads) => self.timings.lease + MARGIN,
            () => self.timings.lease + patience,
        }
    }

    /// Notes that the leader is missed, so that nobody is told any more that it leads: it was silent, and this node is not wanted.
    fn note_missed(&self) {
        let vote = self.raft.metrics().borrow().vote;
        let leads = (NodeId(vote.leader_id.node_id), vote.leader_id.term);
        self.missed.send_if_modified(|missed| {
            let is_new = vote.committed && *missed != Some(leads);
            if is_new {
                *missed = Some(leads);
            }
            is_new
        });
    }

    /// Draws a wait of at least half of this.
    fn draw(&self, longest: Duration) -> Duration {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        longest.mul_f64(rng.random_range(0.5..1.0))
    }

    /// Asks the other voters, and returns whether most of them would vote for this node: of either half of a change of voters.
    async fn is_wanted(&self) -> bool {
        if self.disk.is_full() {
            return false;
        }
        let Some(last) = self.log_end().await else {
            return false;
        };
        let (configs, vote) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let membership = metrics.membership_config.membership();
            let vote = Vote::new(metrics.vote.leader_id.term + 1, self.node.0);
            (membership.get_joint_config().clone(), vote)
        };
        let request = wire::seal(&Message::PreVote {
            vote: (&vote).into(),
            last: last.as_ref().map(Into::into),
        });
        let all: BTreeSet<u64> = configs.iter().flatten().copied().collect();
        let others = all.into_iter().filter(|voter| *voter != self.node.0);
        let mut asked: FuturesUnordered<_> = others
            .map(|voter| {
                let (to, deadline) = (NodeId(voter), self.timings.lease / 2);
                let call = self
                    .transport
                    .call(to, Service::Raft, request.clone(), deadline);
                async move {
                    let reply = wire::open::<Reply>(&call.await.ok()?).ok()?;
                    matches!(reply, Reply::PreVote { granted: true }).then_some(voter)
                }
            })
            .collect();
        let mut granted = BTreeSet::from([self.node.0]);
        loop {
            let grant = |voters: &BTreeSet<u64>| most(voters, |voter| granted.contains(voter));
            if configs.iter().all(grant) {
                return true;
            }
            match asked.next().await {
                Some(answer) => granted.extend(answer),
                None => return false,
            }
        }
    }

    /// Returns whether this node would vote for one whose log ends with `last`: it hears no leader, and knows no more.
    pub(super) async fn would_vote(&self, last: Option<LogId>) -> bool {
        if self.disk.is_full() || self.stop.is_cancelled() || self.hears_leader().await {
            return false;
        }
        self.log_end().await.is_some_and(|ours| ours <= last)
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
        metrics.vote.committed && silence.is_some_and(|silence| silence <= self.timings.lease)
    }

    /// Returns where this node's log ends; nothing if the disk does not say.
    async fn log_end(&self) -> Option<Option<LogId>> {
        let state = LogStore::new(self.disk.clone()).get_log_state().await;
        state.ok().map(|state| state.last_log_id)
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
