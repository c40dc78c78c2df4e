//! Which change of who votes comes next, from what the leader sees: pure.
//!
//! **Invariant:** a change is only begun when a majority of the old voters and of the new ones is alive, and every new voter has
//! the log already and has been up for a while; a voter that is down is replaced, never just dropped, while it is a member. A
//! leader that was removed has another voter lead, which takes its vote; one that alone votes gives it away itself.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};

use crate::core::{agreement::most, model::NodeId};

/// What the membership says of the nodes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::raft) struct Members {
    /// Who is there now.
    pub(in crate::raft) alive: BTreeSet<u64>,
    /// Who belongs to the cluster, there or not.
    pub(in crate::raft) all: BTreeSet<u64>,
    /// What fails together, by node; those of which nothing is said are taken for one zone.
    pub(in crate::raft) zones: BTreeMap<u64, String>,
}

/// Everything a decision depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) us: u64,
    pub(super) voters: BTreeSet<u64>,
    pub(super) learners: BTreeSet<u64>,
    /// A change of voters was begun and not finished.
    pub(super) joint: bool,
    pub(super) caught_up: BTreeSet<u64>,
    pub(super) members: Members,
    /// Who has been up for long enough to be given a vote.
    pub(super) settled: BTreeSet<u64>,
    /// Who has been down for too long.
    pub(super) gone: BTreeSet<u64>,
    /// How many voters there shall be; odd.
    pub(super) target: usize,
}

/// One change of who votes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    AddLearner(u64),
    SetVoters(BTreeSet<u64>),
    Forget(BTreeSet<u64>),
    /// Another one shall lead, and take this one's vote.
    MakeWay,
}

/// What the leader waits for before it changes who votes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Wait {
    /// As many vote as shall.
    Nothing,
    /// A change is being made.
    Change,
    /// Until a node has the log.
    Log(NodeId),
    /// Until a node has been up for a while.
    Settled(NodeId),
    /// Until a majority of the voters is up: no change is safe before.
    Majority,
    /// Whether a voter that is down comes back.
    Return(NodeId),
    /// Until there is another node, which could take the place of a voter that is lost.
    Replacement(NodeId),
    /// Until there are enough nodes.
    Nodes,
    /// Until a leader is elected.
    Leader,
}

/// Why a node votes, or does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Standing {
    /// It leads.
    Leads,
    /// It votes.
    Votes,
    /// It votes, and is down: it keeps its vote for a while.
    Down,
    /// It votes, and has been down for too long: another takes its place as soon as one can.
    Gone,
    /// It votes, and was removed from the cluster: it loses its vote as soon as that is safe.
    Removed,
    /// It votes, and another node shall in its place.
    Leaving,
    /// It is to vote, once it has the log.
    CatchingUp,
    /// It is to vote, once it has been up for a while.
    Settling,
    /// It is to vote, once the change is safe.
    Chosen,
    /// It has the log, and would make the number of votes even.
    Standby,
    /// Enough others vote.
    Spare,
    /// It does not vote, and is down.
    Absent,
    /// It is not known why: there is no leader to say.
    Unknown,
}

/// What shall be done, and what keeps more from being done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Decision {
    pub(super) step: Option<Step>,
    pub(super) wait: Wait,
    /// Who shall vote in the end.
    pub(super) voters: BTreeSet<u64>,
}

/// Decides what comes next.
pub(super) fn decide(view: &View) -> Decision {
    let voters = desired_voters(view);
    let (step, wait) = towards(view, &voters);
    Decision { step, wait, voters }
}

fn towards(view: &View, voters: &BTreeSet<u64>) -> (Option<Step>, Wait) {
    let is_heir = |id: &u64| *id != view.us && is_up(view, id) && view.members.all.contains(id);
    if !view.members.all.contains(&view.us) && view.voters.iter().any(is_heir) {
        return (Some(Step::MakeWay), Wait::Change);
    }
    let newcomers: Vec<u64> = voters.difference(&view.voters).copied().collect();
    let mut waiting = newcomers.iter().copied();
    if let Some(new) = waiting.find(|id| !view.learners.contains(id)) {
        return (Some(Step::AddLearner(new)), Wait::Log(NodeId(new)));
    }
    if *voters != view.voters || view.joint {
        let lacks_log = |id: &&u64| **id != view.us && !view.caught_up.contains(id);
        if let Some(late) = newcomers.iter().find(lacks_log) {
            return (None, Wait::Log(NodeId(*late)));
        }
        if let Some(new) = newcomers.iter().find(|id| !view.settled.contains(id)) {
            return (None, Wait::Settled(NodeId(*new)));
        }
        if voters.is_empty() || !has_majority(view, voters) || !has_majority(view, &view.voters) {
            return (None, Wait::Majority);
        }
        return (Some(Step::SetVoters(voters.clone())), Wait::Change);
    }
    let standby = standby(view, voters);
    let wait = wait_for_nodes(view, voters);
    if let Some(new) = standby.iter().find(|id| !view.learners.contains(id)) {
        return (Some(Step::AddLearner(*new)), wait);
    }
    let stale: BTreeSet<u64> = view.learners.difference(&standby).copied().collect();
    ((!stale.is_empty()).then_some(Step::Forget(stale)), wait)
}

fn wait_for_nodes(view: &View, voters: &BTreeSet<u64>) -> Wait {
    let mut down = voters.iter().filter(|id| !is_up(view, id));
    match down.next() {
        Some(gone) if view.gone.contains(gone) => Wait::Replacement(NodeId(*gone)),
        Some(down) => Wait::Return(NodeId(*down)),
        None if voters.len() < view.target => Wait::Nodes,
        None => Wait::Nothing,
    }
}

/// Says why a node votes, or does not.
pub(super) fn standing(view: &View, decision: &Decision, node: u64) -> Standing {
    let shall_vote = decision.voters.contains(&node);
    let is_down = !is_up(view, &node);
    if view.voters.contains(&node) {
        return match () {
            () if node == view.us => Standing::Leads,
            () if !view.members.all.contains(&node) => Standing::Removed,
            () if view.gone.contains(&node) => Standing::Gone,
            () if is_down => Standing::Down,
            () if !shall_vote => Standing::Leaving,
            () => Standing::Votes,
        };
    }
    match () {
        () if is_down => Standing::Absent,
        () if shall_vote && !view.caught_up.contains(&node) => Standing::CatchingUp,
        () if shall_vote && !view.settled.contains(&node) => Standing::Settling,
        () if shall_vote => Standing::Chosen,
        () if view.learners.contains(&node) => Standing::Standby,
        () => Standing::Spare,
    }
}

fn is_up(view: &View, node: &u64) -> bool {
    *node == view.us || view.members.alive.contains(node)
}

fn has_majority(view: &View, voters: &BTreeSet<u64>) -> bool {
    most(voters, |id| is_up(view, id))
}

fn zone<'a>(view: &'a View, node: &u64) -> &'a str {
    view.members.zones.get(node).map_or("", String::as_str)
}

/// Returns how many of these are in the zone of a node.
fn crowd(view: &View, voters: &BTreeSet<u64>, node: &u64) -> usize {
    let shares = |id: &&u64| zone(view, id) == zone(view, node);
    voters.iter().filter(shares).count()
}

/// Returns who could become a voter beside these, the best first: where the fewest of them are, who has been up for a while,
/// who has the log already, then by id.
fn candidates(view: &View, beside: &BTreeSet<u64>) -> Vec<u64> {
    let may = |id: &&u64| {
        view.members.all.contains(id) && !view.gone.contains(id) && !beside.contains(id)
    };
    let mut candidates: Vec<u64> = view.members.alive.iter().filter(may).copied().collect();
    candidates.sort_by_key(|id| {
        let has_log = view.learners.contains(id) || view.voters.contains(id);
        (
            crowd(view, beside, id),
            !view.settled.contains(id),
            !has_log,
            *id,
        )
    });
    candidates
}

fn desired_voters(view: &View) -> BTreeSet<u64> {
    let kept = view.voters.intersection(&view.members.all);
    let mut voters: BTreeSet<u64> = kept.copied().collect();
    let gone: Vec<u64> = voters.intersection(&view.gone).copied().collect();
    for gone in gone {
        // Its zone is not crowded by it any more, and it is no candidate itself.
        voters.remove(&gone);
        let replacement = candidates(view, &voters).first().copied();
        voters.insert(replacement.unwrap_or(gone));
    }
    let possible = view
        .target
        .min(voters.len() + candidates(view, &voters).len());
    // With an even number one more failure is fatal, and none more is survived.
    let wanted = if possible.is_multiple_of(2) {
        possible.saturating_sub(1)
    } else {
        possible
    };
    while voters.len() < wanted {
        match candidates(view, &voters).first() {
            Some(candidate) => voters.insert(*candidate),
            None => break,
        };
    }
    while voters.len() > wanted {
        match least(view, &voters) {
            Some(least) => voters.remove(&least),
            None => break,
        };
    }
    spread(view, voters)
}

/// Returns who can be spared first: not us, then who is down, then where most of them are, then the highest id.
fn least(view: &View, voters: &BTreeSet<u64>) -> Option<u64> {
    let worth = |id: &u64| {
        let crowd = crowd(view, voters, id);
        (
            *id == view.us,
            view.members.alive.contains(id),
            usize::MAX - crowd,
        )
    };
    voters.iter().rev().copied().min_by_key(worth)
}

/// Moves one vote to where fewer are. Only when nothing else is to be done: all voters are up and none changes.
fn spread(view: &View, mut voters: BTreeSet<u64>) -> BTreeSet<u64> {
    let is_calm = voters == view.voters && voters.iter().all(|id| is_up(view, id));
    if !is_calm {
        return voters;
    }
    let (Some(from), Some(to)) = (
        least(view, &voters),
        candidates(view, &voters).first().copied(),
    ) else {
        return voters;
    };
    let better = crowd(view, &voters, &from) >= crowd(view, &voters, &to) + 2;
    if from != view.us && better && view.settled.contains(&to) {
        voters.remove(&from);
        voters.insert(to);
    }
    voters
}

/// Returns who shall have the log without a vote: with two nodes the second one.
fn standby(view: &View, voters: &BTreeSet<u64>) -> BTreeSet<u64> {
    let room = view.target.saturating_sub(voters.len());
    candidates(view, voters).into_iter().take(room).collect()
}
