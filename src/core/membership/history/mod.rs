//! What became of each member, and why: a bounded history that people and watchers read.
//!
//! Every change of a member's state or life is one transition. Each member has a trail of its own, so that one that comes and
//! goes pushes nobody else's out; and the latest of all members stand in one row, in which a watcher has its place.
//!
//! **Invariant:** a trail ends in the state in which the member is shown, and no state changes without a transition.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use super::{Identity, Member, Membership, State};
use crate::core::model::{Boot, Instant, NodeId};

/// How many transitions of one member are kept. At the bound its oldest goes, and it is counted how many went.
pub const TRAIL_MAX: usize = 64;

/// How many transitions are kept that are not the last of their member. At the bound the oldest of all goes; the last of a
/// member goes only with the member, so there are never more trails than members.
pub(super) const SUPERSEDED_MAX: usize = 16_384;

/// How many transitions a watcher may lag behind. Of one that lags more, the place is gone: it must list again.
pub const RECENT_MAX: usize = 4_096;

/// How many transitions a second of a node's life has room for, as in `core::watch`: boots are numbered by seconds at least.
const REVISIONS_A_SECOND: u64 = 1 << 20;

/// What happened to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// It was not known, and is alive.
    Joined,
    /// It is suspected.
    Suspected,
    /// It refuted a suspicion: of ours, or one that only others had.
    Refuted,
    /// It is held for down.
    Down,
    /// It has left.
    Left,
    /// It was held for down here or elsewhere, or had left, and is alive.
    Returned,
    /// Its program was started anew before anybody held it for down.
    Restarted,
    /// It was gone for so long, or so many were, that it is not known any more. Its trail is gone too.
    Forgotten,
}

/// How this node came to take that for true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// This node began.
    Started,
    /// This member, or a list, said of this node itself that it is suspected or down.
    SaidOfUs(Option<NodeId>),
    /// The member said so itself.
    Itself,
    /// This member told it; it may have it from others.
    Told(NodeId),
    /// It stood in a list of members: from a stream, or from disk.
    Listed,
    /// It answered no probe of this node, neither directly nor through others.
    NoAck {
        /// Whether it was also asked on a stream, and did not answer there in time.
        asked_on_stream: bool,
    },
    /// It was suspected for as long as a suspect has, and did not refute.
    NotRefuted,
    /// This member, or a list, holds it for down. That is a suspicion first, and the end if it does not refute.
    Accused(Option<NodeId>),
    /// The cluster removed it.
    Removed,
    /// See [`What::Forgotten`].
    Outlived,
}

/// A change of what this node takes a member for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// One more than that of the transition before, of whichever member; not comparable between nodes.
    pub revision: u64,
    /// When, on this node's monotonic clock.
    pub at: Instant,
    /// What happened.
    pub what: What,
    /// How this node knows.
    pub why: Why,
    /// The member as it is since then; of one that is forgotten, as it was.
    pub identity: Identity,
    /// Its state since then; nothing if it is forgotten.
    pub state: Option<State>,
    /// How often it has refuted in this life.
    pub incarnation: u16,
    /// Where it was before, if it is elsewhere now.
    pub moved_from: Option<SocketAddr>,
}

/// The transitions of one member that are kept, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trail {
    /// **Invariant:** never empty in a history.
    kept: VecDeque<Transition>,
    dropped: u64,
}

impl Trail {
    /// Returns the transitions that are kept, oldest first.
    pub fn transitions(&self) -> impl Iterator<Item = &Transition> {
        self.kept.iter()
    }

    /// Returns the last transition.
    pub fn last(&self) -> Option<&Transition> {
        self.kept.back()
    }

    /// Returns how many earlier ones were dropped at a bound.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The watcher's place is no longer in the history: it must list the members again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("transitions up to revision {oldest} are no longer kept: list again")]
pub struct Missed {
    /// The oldest revision that could still be resumed from.
    pub oldest: u64,
}

/// The transitions of all members, this node's own included.
#[derive(Debug)]
pub struct History {
    revision: u64,
    recent: VecDeque<Transition>,
    trails: BTreeMap<NodeId, Trail>,
    /// Those in trails that are not the last of theirs.
    superseded: BTreeSet<(u64, NodeId)>,
}

impl History {
    /// Begins the history of a start of the program, beyond the revisions of every start before.
    pub(super) fn of_boot(boot: Boot) -> Self {
        Self {
            revision: u64::from(boot.0) * REVISIONS_A_SECOND,
            recent: VecDeque::new(),
            trails: BTreeMap::new(),
            superseded: BTreeSet::new(),
        }
    }

    /// Returns the revision of the newest transition: where a watcher begins that has just listed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns what is kept of one member; nothing of one that is not known.
    pub fn trail(&self, node: NodeId) -> Option<&Trail> {
        self.trails.get(&node)
    }

    /// Returns what happened last to a member.
    pub fn last(&self, node: NodeId) -> Option<&Transition> {
        self.trail(node)?.last()
    }

    /// Returns how many transitions are held in trails, and how many in the row of the latest.
    pub fn len(&self) -> (usize, usize) {
        let trails = self.trails.len() + self.superseded.len();
        (trails, self.recent.len())
    }

    /// Returns the transitions that followed revision `after`, no more than `limit`.
    pub fn since(&self, after: u64, limit: usize) -> Result<Vec<Transition>, Missed> {
        let oldest = self.revision - self.recent.len() as u64;
        if after < oldest || after > self.revision {
            return Err(Missed { oldest });
        }
        let skip = usize::try_from(after - oldest).unwrap_or(usize::MAX);
        Ok(self.recent.iter().skip(skip).take(limit).copied().collect())
    }

    /// Records what happened to a member.
    fn record(&mut self, at: Instant, (what, why): (What, Why), change: Step) {
        self.revision += 1;
        let transition = Transition {
            revision: self.revision,
            at,
            what,
            why,
            identity: change.identity,
            state: change.state,
            incarnation: change.incarnation,
            moved_from: change.moved_from,
        };
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(transition);
        match change.state {
            Some(_) => self.lengthen(transition),
            None => self.end(change.identity.node),
        }
    }

    fn lengthen(&mut self, transition: Transition) {
        let node = transition.identity.node;
        let trail = self.trails.entry(node).or_default();
        if let Some(last) = trail.last() {
            self.superseded.insert((last.revision, node));
        }
        trail.kept.push_back(transition);
        if trail.kept.len() > TRAIL_MAX {
            self.drop_first_of(node);
        }
        if self.superseded.len() > SUPERSEDED_MAX
            && let Some((_, node)) = self.superseded.first().copied()
        {
            self.drop_first_of(node);
        }
    }

    fn drop_first_of(&mut self, node: NodeId) {
        if let Some(trail) = self.trails.get_mut(&node)
            && let Some(first) = trail.kept.pop_front()
        {
            trail.dropped += 1;
            self.superseded.remove(&(first.revision, node));
        }
    }

    fn end(&mut self, node: NodeId) {
        for transition in self.trails.remove(&node).unwrap_or_default().kept {
            self.superseded.remove(&(transition.revision, node));
        }
    }
}

/// A member after a transition.
#[derive(Clone, Copy, Debug)]
struct Step {
    identity: Identity,
    state: Option<State>,
    incarnation: u16,
    moved_from: Option<SocketAddr>,
}

/// Where a change comes from that no member in particular has told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Origin {
    /// From a deadline of ours: a probe was not answered, or a suspicion not refuted.
    #[default]
    Deadline,
    /// From a list.
    List,
    /// The time that a member had to refute what somebody, or a list, said is over.
    Hearing(Option<NodeId>),
}

/// Returns what happened to a member, if its state or its life changed.
fn what(before: Option<&Member>, after: &Member) -> Option<What> {
    let same_life = before.is_some_and(|before| before.identity == after.identity);
    let same_state = same_life && before.is_some_and(|before| before.state == after.state);
    let same_boot = before.is_some_and(|before| before.identity.boot == after.identity.boot);
    let refuted = before.is_some_and(|before| before.incarnation != after.incarnation);
    match (before.map(|before| before.state), after.state) {
        (_, State::Down | State::Left) if same_state => None,
        (_, State::Down) => Some(What::Down),
        (_, State::Left) => Some(What::Left),
        (_, State::Suspect) if same_state && !refuted => None,
        (_, State::Suspect) => Some(What::Suspected),
        (None, State::Alive) => Some(What::Joined),
        (Some(State::Down | State::Left), State::Alive) => Some(What::Returned),
        (Some(_), State::Alive) if !same_boot => Some(What::Restarted),
        (Some(_), State::Alive) if !same_life => Some(What::Returned),
        (Some(State::Suspect), State::Alive) => Some(What::Refuted),
        (Some(State::Alive), State::Alive) => refuted.then_some(What::Refuted),
    }
}

impl Membership {
    /// Returns what became of the members, and why; of this node too, as others made it refute or return.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Records what became of another member.
    pub(super) fn record_change(
        &mut self,
        now: Instant,
        (before, after): (Option<&Member>, &Member),
        (from, origin): (Option<NodeId>, Origin),
    ) {
        let Some(what) = what(before, after) else {
            return;
        };
        let why = self.why(after, from, origin);
        let moved_from = before
            .map(|before| before.identity.addr)
            .filter(|addr| *addr != after.identity.addr);
        let step = Step {
            identity: after.identity,
            state: Some(after.state),
            incarnation: after.incarnation,
            moved_from,
        };
        self.history.record(now, (what, why), step);
    }

    /// Records what became of this node itself.
    pub(super) fn record_ourselves(&mut self, now: Instant, what: What, why: Why) {
        let us = self.as_member();
        let step = Step {
            identity: us.identity,
            state: Some(us.state),
            incarnation: us.incarnation,
            moved_from: None,
        };
        self.history.record(now, (what, why), step);
    }

    /// Records that a member is known no more.
    pub(super) fn record_forgotten(&mut self, now: Instant, identity: Identity) {
        let step = Step {
            identity,
            state: None,
            incarnation: 0,
            moved_from: None,
        };
        self.history
            .record(now, (What::Forgotten, Why::Outlived), step);
    }

    fn why(&self, after: &Member, from: Option<NodeId>, origin: Origin) -> Why {
        let node = after.identity.node;
        if after.state == State::Left && self.is_removed(node) {
            return Why::Removed;
        }
        let accuser = self.hearings.get(&(after.identity, after.incarnation));
        match (after.state, from, origin) {
            (State::Suspect, ..) if let Some(accuser) = accuser => Why::Accused(*accuser),
            (_, Some(from), _) if from == node => Why::Itself,
            (_, Some(from), _) => Why::Told(from),
            (_, None, Origin::List) => Why::Listed,
            (_, None, Origin::Hearing(accuser)) => Why::Accused(accuser),
            (State::Suspect, None, Origin::Deadline) => Why::NoAck {
                asked_on_stream: self.answers.was_asked_on_stream(node),
            },
            (_, None, Origin::Deadline) => Why::NotRefuted,
        }
    }
}

#[cfg(test)]
mod tests;
