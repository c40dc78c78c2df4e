//! What became of each member, and why: a bounded history that people and watchers read.
//!
//! Every change of a member's state or life is one transition. Each member has a trail of its own, so that one that comes and
//! goes pushes nobody else's out; and the order of the latest of all members is kept, in which a watcher has its place.
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
pub const RECENT_MAX: usize = 2_048;

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

/// A transition, and its place among those of all members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revised {
    /// One more than that of the transition before, of whichever member; not comparable between nodes.
    pub revision: u64,
    /// What happened.
    pub transition: Transition,
}

/// The transitions of one member.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trail {
    /// Those that are kept, oldest first.
    pub transitions: Vec<Transition>,
    /// How many earlier ones were dropped at a bound.
    pub dropped: u64,
}

/// The watcher's place is no longer in the history: it must list the members again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("transitions up to revision {oldest} are no longer kept: list again")]
pub struct Missed {
    /// The oldest revision that could still be resumed from.
    pub oldest: u64,
}

/// The revision of a transition that was not written down when it happened.
const UNKNOWN: u64 = 0;

/// What is kept of one member.
#[derive(Debug, Default)]
struct Kept {
    transitions: VecDeque<Revised>,
    dropped: u64,
}

/// The transitions of all members, this node's own included.
///
/// That a member stood in a list is not written down: as long as nothing else has become of it, the table of members says
/// all of it. So a node that gets a list of thousands keeps nothing for it.
#[derive(Debug)]
pub(super) struct History {
    revision: u64,
    /// Whose the latest transitions were.
    recent: VecDeque<NodeId>,
    trails: BTreeMap<NodeId, Kept>,
    /// Those in trails that are not the last of theirs.
    superseded: BTreeSet<(u64, NodeId)>,
    /// The latest that have no trail, because their member is forgotten.
    forgotten: BTreeMap<u64, Transition>,
}

impl History {
    /// Begins the history of a start of the program, beyond the revisions of every start before.
    pub(super) fn of_boot(boot: Boot) -> Self {
        Self {
            revision: u64::from(boot.0) * REVISIONS_A_SECOND,
            recent: VecDeque::new(),
            trails: BTreeMap::new(),
            superseded: BTreeSet::new(),
            forgotten: BTreeMap::new(),
        }
    }

    /// Records what happened to a member, which was `before` if it was known.
    fn record(&mut self, before: Option<&Member>, transition: Transition) {
        self.revision += 1;
        let node = transition.identity.node;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
            self.forgotten.remove(&(self.revision - RECENT_MAX as u64));
        }
        self.recent.push_back(node);
        if transition.state.is_none() {
            self.end(node);
            self.forgotten.insert(self.revision, transition);
            return;
        }
        if before.is_none() && transition.why == Why::Listed {
            return;
        }
        if let Some(before) = before
            && !self.trails.contains_key(&node)
        {
            self.lengthen(UNKNOWN, listed(before));
        }
        self.lengthen(self.revision, transition);
    }

    fn lengthen(&mut self, revision: u64, transition: Transition) {
        let node = transition.identity.node;
        let trail = self.trails.entry(node).or_default();
        if let Some(last) = trail.transitions.back() {
            self.superseded.insert((last.revision, node));
        }
        trail.transitions.push_back(Revised {
            revision,
            transition,
        });
        if trail.transitions.len() > TRAIL_MAX {
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
            && let Some(first) = trail.transitions.pop_front()
        {
            trail.dropped += 1;
            self.superseded.remove(&(first.revision, node));
        }
    }

    fn end(&mut self, node: NodeId) {
        for kept in self.trails.remove(&node).unwrap_or_default().transitions {
            self.superseded.remove(&(kept.revision, node));
        }
    }

    /// Returns the transition of that revision, which was this member's, if it is kept.
    fn find(&self, revision: u64, node: NodeId, member: Option<&Member>) -> Option<Transition> {
        if let Some(forgotten) = self.forgotten.get(&revision) {
            return Some(*forgotten);
        }
        let Some(trail) = self.trails.get(&node) else {
            return member.map(listed);
        };
        let mut kept = trail.transitions.iter();
        // Where the first one was not written down, none was dropped: then what is not found is the first.
        let is_it = |kept: &&Revised| kept.revision == revision;
        let first = trail
            .transitions
            .front()
            .filter(|first| first.revision == UNKNOWN);
        kept.find(is_it).or(first).map(|kept| kept.transition)
    }
}

/// Returns what became of a member of which nothing is known but that it stood in a list.
fn listed(member: &Member) -> Transition {
    Transition {
        at: member.since,
        what: first(member.state),
        why: Why::Listed,
        identity: member.identity,
        state: Some(member.state),
        incarnation: member.incarnation,
        moved_from: None,
    }
}

/// Returns what happened to a member that was not known before.
fn first(state: State) -> What {
    match state {
        State::Alive => What::Joined,
        State::Suspect => What::Suspected,
        State::Down => What::Down,
        State::Left => What::Left,
    }
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
        (None, state) => Some(first(state)),
        (Some(State::Down | State::Left), State::Alive) => Some(What::Returned),
        (Some(_), State::Alive) if !same_boot => Some(What::Restarted),
        (Some(_), State::Alive) if !same_life => Some(What::Returned),
        (Some(State::Suspect), State::Alive) => Some(What::Refuted),
        (Some(State::Alive), State::Alive) => refuted.then_some(What::Refuted),
    }
}

impl Membership {
    /// Returns what became of a member, oldest first; of this node too, as others made it refute or return. Nothing of one
    /// that is not known.
    pub fn trail(&self, node: NodeId) -> Option<Trail> {
        let Some(kept) = self.history.trails.get(&node) else {
            let transitions = vec![listed(self.member(node)?)];
            return Some(Trail {
                transitions,
                dropped: 0,
            });
        };
        let transitions = kept.transitions.iter().map(|kept| kept.transition);
        Some(Trail {
            transitions: transitions.collect(),
            dropped: kept.dropped,
        })
    }

    /// Returns what happened last to a member.
    pub fn last_transition(&self, node: NodeId) -> Option<Transition> {
        match self.history.trails.get(&node) {
            Some(kept) => kept.transitions.back().map(|last| last.transition),
            None => self.member(node).map(listed),
        }
    }

    /// Returns the revision of the newest transition: where a watcher begins that has just listed.
    pub fn revision(&self) -> u64 {
        self.history.revision
    }

    /// Returns the transitions of all members that followed revision `after`, no more than `limit`.
    pub fn transitions(&self, after: u64, limit: usize) -> Result<Vec<Revised>, Missed> {
        let history = &self.history;
        let oldest = history.revision - history.recent.len() as u64;
        if after < oldest || after > history.revision {
            return Err(Missed { oldest });
        }
        let skip = usize::try_from(after - oldest).unwrap_or(usize::MAX);
        let whose = history.recent.iter().zip(oldest + 1..);
        let wanted = whose.skip(skip).take(limit);
        let found = wanted.map(|(node, revision)| {
            let transition = history.find(revision, *node, self.member(*node));
            let transition = transition.ok_or(Missed { oldest: revision })?;
            Ok(Revised {
                revision,
                transition,
            })
        });
        found.collect()
    }

    /// Returns how many transitions are held in memory.
    pub fn transitions_held(&self) -> usize {
        self.history.trails.len() + self.history.superseded.len() + self.history.forgotten.len()
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
        let moved_from = before
            .map(|before| before.identity.addr)
            .filter(|addr| *addr != after.identity.addr);
        let transition = Transition {
            at: now,
            what,
            why: self.why(after, from, origin),
            identity: after.identity,
            state: Some(after.state),
            incarnation: after.incarnation,
            moved_from,
        };
        self.history.record(before, transition);
    }

    /// Records what became of this node itself.
    pub(super) fn record_ourselves(&mut self, now: Instant, what: What, why: Why) {
        let us = self.as_member();
        let transition = Transition {
            at: now,
            what,
            why,
            identity: us.identity,
            state: Some(us.state),
            incarnation: us.incarnation,
            moved_from: None,
        };
        self.history.record(None, transition);
    }

    /// Records that a member is known no more.
    pub(super) fn record_forgotten(&mut self, now: Instant, identity: Identity) {
        let transition = Transition {
            at: now,
            what: What::Forgotten,
            why: Why::Outlived,
            identity,
            state: None,
            incarnation: 0,
            moved_from: None,
        };
        self.history.record(None, transition);
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
