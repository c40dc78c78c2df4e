//! Proposals from any node: to the leader, wherever it is, as often as it takes, done once.

use std::{collections::BTreeSet, sync::PoisonError, time::Duration};

use bytes::Bytes;
use openraft::error::{ClientWriteError, RaftError};
use rand::RngExt;
use tokio::time::{Instant, timeout};

use super::{
    Inner, Raft, Role,
    transport::{Service, TransportError},
    types::Applied,
    wire::{self, Proposed},
};
use crate::core::{
    agreement::most_of_all,
    allocator::{Action, AllocatorError, Command, Outcome},
    model::{Hlc, NodeId},
};

/// How long to wait before asking again when nobody leads.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Why a proposal came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It passes by itself once a majority of the voters is there. Nothing was done.
    #[error("no leader: a majority of the voters cannot be reached")]
    NoLeader,
    /// The caller asked for what cannot be. Nothing was done.
    #[error(transparent)]
    Refused(#[from] AllocatorError),
    /// There was no answer after it was sent. It may have been done, or may yet be.
    #[error("the leader did not answer in time: it may have been done, look before trying again")]
    Timeout,
    /// This node is shutting down, or its disk failed. Nothing was done.
    #[error("this node takes no part in the agreement any more")]
    Stopped,
}

/// What one try came to.
enum Attempt {
    Applied(Applied),
    /// Nothing was done; perhaps that node leads.
    NotLeader(Option<NodeId>),
    /// The node could not be asked; nothing was done.
    Unreachable,
    /// No answer: it may have been done.
    Unanswered,
    /// The node takes no part any more; nothing was done.
    Stopped,
}

impl Raft {
    /// Proposes and waits until it was applied by the leader. Any node may; the deadline is the one of the timings.
    pub async fn propose(&self, action: Action) -> Result<Outcome, ProposeError> {
        let command = self.inner.command(action);
        self.inner.propose(command).await
    }

    /// Answers a proposal that another node forwarded.
    pub async fn handle_propose(&self, from: NodeId, request: Bytes) -> Bytes {
        let proposed = match wire::open::<Command>(&request) {
            Ok(command) => self.inner.forwarded(from, command).await,
            Err(error) => Proposed::Malformed(error.to_string()),
        };
        wire::seal(&proposed)
    }
}

impl Inner {
    pub(super) fn command(&self, action: Action) -> Command {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        // Half of it is the node, so that equal seeds on two nodes do no harm.
        let request = (u128::from(self.node.0) << 64) | u128::from(rng.random::<u64>());
        Command {
            at: Hlc::default().tick((self.clock)()),
            request,
            action,
        }
    }

    pub(super) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let deadline = Instant::now() + self.timings.propose;
        let mut hint = None;
        let mut turn = 0;
        let mut unanswered = false;
        let mut silent = None;
        while !self.is_cut_off() {
            // Who did not answer may be dead, and what we know of the leader old: another node may know better.
            let leader = self
                .leader()
                .filter(|leader| silent.take() != Some(*leader));
            let target = hint.take().or(leader).or_else(|| self.guess(turn));
            turn += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt = match target {
                Some(target) if !left.is_zero() => self.attempt(target, &command, left).await,
                Some(_) | None => Attempt::Unreachable,
            };
            match attempt {
                Attempt::Applied(applied) => return applied.map_err(Into::into),
                Attempt::NotLeader(other) if other.is_some() && other != target => {
                    hint = other;
                    // A moment, lest two nodes that are both wrong send us to and fro.
                    if turn < 4 {
                        continue;
                    }
                }
                Attempt::NotLeader(_) => {}
                Attempt::Stopped if target == Some(self.node) && !unanswered => {
                    return Err(ProposeError::Stopped);
                }
                Attempt::Unreachable | Attempt::Stopped => silent = target,
                Attempt::Unanswered => {
                    unanswered = true;
                    silent = target;
                }
            }
            if Instant::now() + RETRY_AFTER >= deadline {
                break;
            }
            tokio::select! {
                () = self.stop.cancelled() => match unanswered {
                    true => break,
                    false => return Err(ProposeError::Stopped),
                },
                () = tokio::time::sleep(RETRY_AFTER) => {}
                () = self.led_anew(None) => {}
            }
        }
        Err(match unanswered {
            true => ProposeError::Timeout,
            false => ProposeError::NoLeader,
        })
    }

    /// Waits until somebody is heard of as leader from now on, other than this one.
    async fn led_anew(&self, but: Option<NodeId>) {
        let mut leadership = self.leadership.clone();
        leadership.mark_unchanged();
        while leadership.changed().await.is_ok() {
            let leader = leadership.borrow_and_update().leader;
            if leader.is_some() && leader != but {
                return;
            }
        }
        // Stopped: there is nobody to hear of.
        std::future::pending::<()>().await;
    }

    /// Returns whether nobody can lead, for all that this node knows: most voters, or all other nodes, have been down for longer
    /// than an election takes. Who does not vote knows the voters from whoever led last.
    fn is_cut_off(&self) -> bool {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_settled = told.is_some_and(|at| at.elapsed() >= self.timings.heard_within());
        if !is_settled {
            return false;
        }
        let members = self.members.borrow();
        let is_up = |node: &u64| *node == self.node.0 || members.alive.contains(node);
        if !self.is_voter() {
            let others = |nodes: &BTreeSet<u64>| nodes.iter().any(|node| *node != self.node.0);
            let is_alone = others(&members.all) && !others(&members.alive);
            let voters = self.hinted.lock().unwrap_or_else(PoisonError::into_inner);
            let voters: BTreeSet<u64> = voters.voters.iter().map(|voter| voter.0).collect();
            return is_alone || (!voters.is_empty() && !most_of_all([&voters], is_up));
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        !most_of_all(membership.get_joint_config(), is_up)
    }

    async fn forwarded(&self, from: NodeId, command: Command) -> Proposed {
        if let Action::Genesis { .. } = command.action {
            tracing::warn!(node = %from, "a node asked to found the cluster again");
            return Proposed::Refused(AllocatorError::AlreadyFounded);
        }
        // The leader's clock dates the cluster log, not the clock of whoever asks.
        let command = Command {
            at: Hlc::default().tick((self.clock)()),
            ..command
        };
        match self.attempt_here(&command, self.timings.propose).await {
            Attempt::Applied(Ok(outcome)) => Proposed::Done(outcome),
            Attempt::Applied(Err(refused)) => Proposed::Refused(refused),
            Attempt::NotLeader(leader) => Proposed::NotLeader(leader),
            Attempt::Unreachable | Attempt::Unanswered => Proposed::TimedOut,
            Attempt::Stopped => Proposed::Stopped,
        }
    }

    async fn attempt(&self, target: NodeId, command: &Command, left: Duration) -> Attempt {
        if target == self.node {
            return self.attempt_here(command, left).await;
        }
        let request = wire::seal(command);
        // Not for all that is left: who is cut off shall find out, and another may lead by then.
        let within = left.min(self.timings.heard_within());
        let asked = self
            .transport
            .call(target, Service::Propose, request, within);
        let answer = tokio::select! {
            answer = asked => answer,
            // It may have died over it, and the next one will know.
            () = self.led_anew(Some(target)) => return Attempt::Unanswered,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(
                TransportError::NoAddress(_)
                | TransportError::Unreachable { .. }
                | TransportError::Refused { .. },
            ) => return Attempt::Unreachable,
            Err(TransportError::Broken { .. } | TransportError::TimedOut(_)) => {
                return Attempt::Unanswered;
            }
        };
        match wire::open(&answer) {
            Ok(Proposed::Done(outcome)) => Attempt::Applied(Ok(outcome)),
            Ok(Proposed::Refused(refused)) => Attempt::Applied(Err(refused)),
            Ok(Proposed::NotLeader(leader)) => Attempt::NotLeader(leader),
            Ok(Proposed::TimedOut) => Attempt::Unanswered,
            Ok(Proposed::Stopped) => Attempt::Stopped,
            Ok(Proposed::Malformed(reason)) => {
                tracing::warn!(node = %target, reason, "a proposal was not understood");
                Attempt::Unreachable
            }
            Err(error) => {
                tracing::warn!(node = %target, %error, "an answer to a proposal cannot be read");
                Attempt::Unanswered
            }
        }
    }

    async fn attempt_here(&self, command: &Command, left: Duration) -> Attempt {
        // A leader that hands over takes nothing new: who follows it must have all of its log.
        if self.leads_alone() || self.disk.is_full() || self.hands_over() {
            return Attempt::NotLeader(None);
        }
        if self.status().role == Role::Stopped {
            return Attempt::Stopped;
        }
        let written = match timeout(left, self.raft.client_write(command.clone())).await {
            Ok(written) => written,
            Err(_late) => return Attempt::Unanswered,
        };
        match written {
            Ok(response) => Attempt::Applied(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(leader))) => {
                Attempt::NotLeader(leader.leader_id.map(NodeId))
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_))) => {
                Attempt::NotLeader(None)
            }
            // It may be in the log, which others may have.
            Err(RaftError::Fatal(_)) => Attempt::Unanswered,
        }
    }

    /// Returns one node after another that might know who leads.
    fn guess(&self, turn: usize) -> Option<NodeId> {
        let members = self.members.borrow();
        let others: Vec<u64> = members
            .alive
            .iter()
            .copied()
            .filter(|id| *id != self.node.0)
            .collect();
        if others.is_empty() {
            return Some(self.node);
        }
        others.get(turn % others.len()).copied().map(NodeId)
    }
}
