//! Who votes: the leader keeps an odd number of voters, and a learner beside them where they cannot be odd.
//!
//! [`mod@decide`] says what comes next; the task here looks, takes one step at a time, and remembers what it saw for
//! [`Raft::voters`](super::Raft::voters).

mod decide;
mod report;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::{ChangeMembers, EmptyNode, RaftMetrics};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, Step, View, decide};
pub(super) use self::{
    decide::Members,
    report::{of_leader, unled},
};
pub use self::{
    decide::{Standing, Wait},
    report::{VoterReport, VoterRole, VotersReport},
};
use super::types::Types;

/// How far behind the leader a learner may be to become a voter.
const LAG_MAX: u64 = 64;

/// How long one change may take before it is given up and looked at anew.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

type Metrics = RaftMetrics<u64, EmptyNode>;

/// What the leader saw last.
#[derive(Clone, Debug)]
pub(super) struct Look {
    view: View,
    decision: Decision,
    /// Since when each node is up, or down, as this node has seen it.
    since: BTreeMap<u64, (bool, Instant)>,
    /// Since when each node has the role it has, as this leader has seen it.
    roles: BTreeMap<u64, (VoterRole, Instant)>,
}

/// The task that takes one step after another while this node leads.
pub(super) struct Autopilot {
    pub(super) us: u64,
    pub(super) raft: openraft::Raft<Types>,
    pub(super) members: watch::Receiver<Members>,
    pub(super) target: usize,
    pub(super) every: Duration,
    pub(super) gone_after: Duration,
    pub(super) settled_after: Duration,
    /// Nothing while another node leads, or nobody.
    pub(super) seen: watch::Sender<Option<Look>>,
    /// Told when another voter shall lead.
    pub(super) aside: Arc<Notify>,
    pub(super) stop: CancellationToken,
}

impl Autopilot {
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut since = BTreeMap::new();
        let mut metrics = self.raft.metrics();
        let mut leader = None;
        loop {
            let led_anew = async {
                let changed = metrics.wait_for(|metrics| metrics.current_leader != leader);
                changed.await.map(|metrics| metrics.current_leader)
            };
            let now = tokio::select! {
                () = self.stop.cancelled() => return,
                now = ticks.tick() => now,
                // Whoever has just won says at once who votes.
                now_leads = led_anew => match now_leads {
                    Ok(now_leads) => {
                        leader = now_leads;
                        Instant::now()
                    }
                    Err(_stopped) => return,
                },
                changed = self.members.changed() => match changed {
                    Ok(()) => Instant::now(),
                    Err(_closed) => return,
                },
            };
            let members = self.members.borrow_and_update().clone();
            note_states(&mut since, &members, now);
            let look = self.look(members, &since, now);
            let step = look.as_ref().and_then(|look| look.decision.step.clone());
            self.seen.send_replace(look);
            if let Some(step) = step {
                self.take(step).await;
            }
        }
    }

    /// Looks at everything, if this node leads.
    fn look(
        &self,
        members: Members,
        since: &BTreeMap<u64, (bool, Instant)>,
        now: Instant,
    ) -> Option<Look> {
        let metrics: Metrics = self.raft.metrics().borrow().clone();
        // Before anybody said who belongs to the cluster there is nothing to decide.
        if metrics.current_leader != Some(self.us) || members.all.is_empty() {
            return None;
        }
        let replication = metrics.replication.as_ref()?;
        let membership = Arc::clone(&metrics.membership_config);
        let membership = membership.membership();
        // One that has just given its vote away leads for a moment still, and the engine takes no change from it.
        if !membership.voter_ids().any(|voter| voter == self.us) {
            return None;
        }
        let near = metrics.last_log_index.unwrap_or(0).saturating_sub(LAG_MAX);
        let has_log =
            |matched: &Option<openraft::LogId<u64>>| matched.is_some_and(|id| id.index >= near);
        let longer_than = |up: bool, limit: Duration| -> BTreeSet<u64> {
            let is = |(_, (is_up, since)): &(&u64, &(bool, Instant))| {
                *is_up == up && now - *since >= limit
            };
            since.iter().filter(is).map(|(id, _)| *id).collect()
        };
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
            settled: longer_than(true, self.settled_after),
            gone: longer_than(false, self.gone_after),
            target: self.target,
        };
        let roles = self.roles(&view, now);
        Some(Look {
            decision: decide(&view),
            view,
            since: since.clone(),
            roles,
        })
    }

    /// Returns since when each node has its role: as before, if it had it before.
    fn roles(&self, view: &View, now: Instant) -> BTreeMap<u64, (VoterRole, Instant)> {
        let before = self.seen.borrow();
        let before = before.as_ref().map(|look| &look.roles);
        let of = |id: &u64| {
            let role = report::role(view, *id);
            let known = before.and_then(|roles| roles.get(id));
            let since = known.filter(|(had, _)| *had == role).map(|(_, at)| *at);
            (*id, (role, since.unwrap_or(now)))
        };
        view.voters.union(&view.learners).map(of).collect()
    }

    async fn take(&self, step: Step) {
        tracing::info!(?step, "changing who votes");
        let change = match step {
            Step::AddLearner(id) => ChangeMembers::AddNodes(BTreeMap::from([(id, EmptyNode {})])),
            Step::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
            Step::Forget(learners) => ChangeMembers::RemoveNodes(learners),
            Step::MakeWay => return self.aside.notify_one(),
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

/// Notes since when each node is up or down; one that was seen for the first time is so from now.
fn note_states(since: &mut BTreeMap<u64, (bool, Instant)>, members: &Members, now: Instant) {
    since.retain(|id, _| members.all.contains(id));
    for id in &members.all {
        let is_up = members.alive.contains(id);
        let noted = since.entry(*id).or_insert((is_up, now));
        if noted.0 != is_up {
            *noted = (is_up, now);
        }
    }
}
