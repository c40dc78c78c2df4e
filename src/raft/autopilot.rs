//! Which nodes vote: the leader keeps an odd number of voters, and a learner beside them where they cannot be odd.
//!
//! **Invariant:** a change is only begun when a majority of the old voters and of the new ones is alive, and every new voter has
//! the log already; a voter that is down is replaced, never just dropped, while it is still a member.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::{ChangeMembers, EmptyNode, RaftMetrics};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::types::Types;

/// How far behind the leader a learner may be to become a voter.
const LAG_MAX: u64 = 64;

/// How long one change may take before it is given up and looked at anew.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// What the membership says of the nodes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Members {
    /// Who is there now.
    pub(super) alive: BTreeSet<u64>,
    /// Who belongs to the cluster, there or not.
    pub(super) all: BTreeSet<u64>,
}

/// Everything a decision depends on.
#[derive(Clone, Debug, Default)]
struct View {
    us: u64,
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    /// A change of voters was begun and not finished.
    joint: bool,
    caught_up: BTreeSet<u64>,
    members: Members,
    /// Who has been down for too long.
    gone: BTreeSet<u64>,
    /// How many voters there shall be; odd.
    target: usize,
}

/// One change of who votes.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    AddLearner(u64),
    SetVoters(BTreeSet<u64>),
    Forget(BTreeSet<u64>),
}

/// Returns the next change; nothing if all is well or a change must wait.
fn next_step(view: &View) -> Option<Step> {
    let voters = desired_voters(view);
    let is_ready = |id: &u64| *id == view.us || view.caught_up.contains(id);
    let newcomer = voters
        .iter()
        .find(|id| !view.voters.contains(id) && !view.learners.contains(id));
    if let Some(newcomer) = newcomer {
        return Some(Step::AddLearner(*newcomer));
    }
    if voters != view.voters || view.joint {
        let new_are_ready = voters.difference(&view.voters).all(is_ready);
        let is_safe = has_majority(view, &voters) && has_majority(view, &view.voters);
        return (new_are_ready && is_safe && !voters.is_empty()).then_some(Step::SetVoters(voters));
    }
    let standby = standby(view, &voters);
    if let Some(newcomer) = standby.iter().find(|id| !view.learners.contains(id)) {
        return Some(Step::AddLearner(*newcomer));
    }
    let stale: BTreeSet<u64> = view.learners.difference(&standby).copied().collect();
    (!stale.is_empty()).then_some(Step::Forget(stale))
}

fn has_majority(view: &View, voters: &BTreeSet<u64>) -> bool {
    let is_alive = |id: &&u64| **id == view.us || view.members.alive.contains(id);
    voters.iter().filter(is_alive).count() > voters.len() / 2
}

/// Returns who could become a voter, the best first: who has the log already, then by id.
fn candidates(view: &View, except: &BTreeSet<u64>) -> Vec<u64> {
    let may = |id: &&u64| {
        view.members.all.contains(id) && !view.gone.contains(id) && !except.contains(id)
    };
    let mut candidates: Vec<u64> = view.members.alive.iter().filter(may).copied().collect();
    candidates.sort_by_key(|id| (!view.learners.contains(id), *id));
    candidates
}

fn desired_voters(view: &View) -> BTreeSet<u64> {
    let mut voters: BTreeSet<u64> = view
        .voters
        .intersection(&view.members.all)
        .copied()
        .collect();
    let mut candidates = candidates(view, &view.voters).into_iter();
    let gone: Vec<u64> = voters.intersection(&view.gone).copied().collect();
    for gone in gone {
        if let Some(replacement) = candidates.next() {
            voters.remove(&gone);
            voters.insert(replacement);
        }
    }
    let possible = view.target.min(voters.len() + candidates.len());
    // With an even number one more failure is fatal, and none more is survived.
    let wanted = if possible.is_multiple_of(2) {
        possible.saturating_sub(1)
    } else {
        possible
    };
    while voters.len() < wanted {
        match candidates.next() {
            Some(candidate) => voters.insert(candidate),
            None => break,
        };
    }
    while voters.len() > wanted {
        let worth = |id: &u64| {
            (
                *id == view.us,
                view.members.alive.contains(id),
                view.target as u64,
            )
        };
        let least = voters.iter().rev().copied().min_by_key(worth);
        match least {
            Some(least) => voters.remove(&least),
            None => break,
        };
    }
    voters
}

/// Returns who shall have the log without a vote: with two nodes the second one.
fn standby(view: &View, voters: &BTreeSet<u64>) -> BTreeSet<u64> {
    let room = view.target.saturating_sub(voters.len());
    candidates(view, voters).into_iter().take(room).collect()
}

/// The task that takes one step after another while this node leads.
pub(super) struct Autopilot {
    pub(super) us: u64,
    pub(super) raft: openraft::Raft<Types>,
    pub(super) members: watch::Receiver<Members>,
    pub(super) target: usize,
    pub(super) every: Duration,
    pub(super) gone_after: Duration,
    pub(super) stop: CancellationToken,
}

impl Autopilot {
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut down_since: BTreeMap<u64, Instant> = BTreeMap::new();
        loop {
            let now = tokio::select! {
                () = self.stop.cancelled() => return,
                now = ticks.tick() => now,
                changed = self.members.changed() => match changed {
                    Ok(()) => Instant::now(),
                    Err(_closed) => return,
                },
            };
            let members = self.members.borrow_and_update().clone();
            down_since.retain(|id, _| members.all.contains(id) && !members.alive.contains(id));
            for down in members.all.difference(&members.alive) {
                down_since.entry(*down).or_insert(now);
            }
            let is_gone = |(_, since): &(&u64, &Instant)| now - **since >= self.gone_after;
            let gone = down_since
                .iter()
                .filter(is_gone)
                .map(|(id, _)| *id)
                .collect();
            if let Some(step) = self.next_step(members, gone) {
                self.take(step).await;
            }
        }
    }

    fn next_step(&self, members: Members, gone: BTreeSet<u64>) -> Option<Step> {
        let metrics: RaftMetrics<u64, EmptyNode> = self.raft.metrics().borrow().clone();
        // Before anybody said who belongs to the cluster there is nothing to decide.
        if metrics.current_leader != Some(self.us) || members.all.is_empty() {
            return None;
        }
        let replication = metrics.replication?;
        let membership = Arc::clone(&metrics.membership_config);
        let membership = membership.membership();
        let near = metrics.last_log_index.unwrap_or(0).saturating_sub(LAG_MAX);
        let has_log =
            |matched: &Option<openraft::LogId<u64>>| matched.is_some_and(|id| id.index >= near);
        let view = View {
            us: self.us,
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            joint: membership.get_joint_config().len() > 1,
            caught_up: replication
                .iter()
                .filter(|(_, matched)| has_log(matched))
                .map(|(id, _)| *id)
                .collect(),
            members,
            gone,
            target: self.target,
        };
        next_step(&view)
    }

    async fn take(&self, step: Step) {
        tracing::info!(?step, "changing who votes");
        let change = match step {
            Step::AddLearner(id) => ChangeMembers::AddNodes(BTreeMap::from([(id, EmptyNode {})])),
            Step::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
            Step::Forget(learners) => ChangeMembers::RemoveNodes(learners),
        };
        let changing = self.raft.change_membership(change, false);
        let changed = tokio::select! {
            () = self.stop.cancelled() => return,
            changed = tokio::time::timeout(CHANGE_DEADLINE, changing) => changed,
        };
        match changed {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "who votes was not changed; trying again"),
            Err(_late) => tracing::warn!("changing who votes takes long; looking at it anew"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    /// Node 1 leads; everybody who has the log has caught up.
    fn view(voters: &[u64], learners: &[u64], alive: &[u64], all: &[u64]) -> View {
        View {
            us: 1,
            voters: set(voters),
            learners: set(learners),
            caught_up: set(voters).union(&set(learners)).copied().collect(),
            members: Members {
                alive: set(alive),
                all: set(all),
            },
            target: 3,
            ..View::default()
        }
    }

    #[test]
    fn a_second_node_gets_the_log_but_no_vote() {
        let lone = view(&[1], &[], &[1, 2], &[1, 2]);
        let settled = view(&[1], &[2], &[1, 2], &[1, 2]);

        assert_eq!(next_step(&lone), Some(Step::AddLearner(2)));
        assert_eq!(next_step(&settled), None);
    }

    #[test]
    fn three_nodes_become_three_voters_once_both_have_the_log() {
        let first = view(&[1], &[2], &[1, 2, 3], &[1, 2, 3]);
        let mut second = view(&[1], &[2, 3], &[1, 2, 3], &[1, 2, 3]);
        second.caught_up = set(&[2]);
        let third = view(&[1], &[2, 3], &[1, 2, 3], &[1, 2, 3]);

        assert_eq!(next_step(&first), Some(Step::AddLearner(3)));
        assert_eq!(next_step(&second), None);
        assert_eq!(next_step(&third), Some(Step::SetVoters(set(&[1, 2, 3]))));
    }

    #[test]
    fn a_voter_that_is_down_for_a_moment_keeps_its_vote() {
        let view = view(&[1, 2, 3], &[], &[1, 2, 4], &[1, 2, 3, 4]);

        assert_eq!(next_step(&view), None);
    }

    #[test]
    fn a_voter_that_is_gone_is_replaced() {
        let mut view = view(&[1, 2, 3], &[], &[1, 2, 4], &[1, 2, 3, 4]);
        view.gone = set(&[3]);

        assert_eq!(next_step(&view), Some(Step::AddLearner(4)));
        view.learners = set(&[4]);
        assert_eq!(next_step(&view), None);
        view.caught_up = set(&[4]);
        assert_eq!(next_step(&view), Some(Step::SetVoters(set(&[1, 2, 4]))));
    }

    #[test]
    fn a_voter_that_is_gone_stays_while_nobody_can_replace_it() {
        let mut view = view(&[1, 2, 3], &[], &[1, 2], &[1, 2, 3]);
        view.gone = set(&[3]);

        assert_eq!(next_step(&view), None);
    }

    #[test]
    fn a_voter_that_was_removed_loses_its_vote_and_the_number_stays_odd() {
        let with_replacement = view(&[1, 2, 3], &[4], &[1, 2, 4], &[1, 2, 4]);
        let without = view(&[1, 2, 3], &[], &[1, 2], &[1, 2]);

        assert_eq!(
            next_step(&with_replacement),
            Some(Step::SetVoters(set(&[1, 2, 4])))
        );
        assert_eq!(next_step(&without), Some(Step::SetVoters(set(&[1]))));
    }

    #[test]
    fn a_leader_that_was_removed_hands_its_vote_on() {
        let view = view(&[1, 2, 3], &[4], &[1, 2, 3, 4], &[2, 3, 4]);

        assert_eq!(next_step(&view), Some(Step::SetVoters(set(&[2, 3, 4]))));
    }

    #[test]
    fn nothing_is_changed_without_a_majority_of_old_and_new() {
        let view = view(&[1, 2, 3], &[], &[1], &[1]);

        assert_eq!(next_step(&view), None);
    }

    #[test]
    fn a_change_that_was_begun_is_finished() {
        let mut view = view(&[1, 2, 3], &[], &[1, 2, 3], &[1, 2, 3]);
        view.joint = true;

        assert_eq!(next_step(&view), Some(Step::SetVoters(set(&[1, 2, 3]))));
    }

    #[test]
    fn a_learner_that_is_not_needed_is_forgotten() {
        let view = view(&[1, 2, 3], &[9], &[1, 2, 3], &[1, 2, 3]);

        assert_eq!(next_step(&view), Some(Step::Forget(set(&[9]))));
    }
}
