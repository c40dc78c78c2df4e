//! When a voter stands for election: once the leader was silent for the lease, and most voters would vote for it.
//!
//! An engine that only waits raises its term again and again where it hears nobody, and deposes a leader that works as soon as it is
//! heard again. Here a voter that misses the leader asks the others first whether they miss it too, and whose log goes
//! further. Nobody promises anything by its answer, and no term is raised; the engine's election follows, which alone decides.
//!
//! Voters take turns: each has a rank among those that are left, which all of them reckon alike, and asks a turn later than the
//! one before it. So the first whose log is long enough is elected, and two seldom stand at once.

use std::{collections::BTreeSet, time::Duration};

use rand::{Rng, RngExt};

use super::most_of_all;
use crate::core::model::{Instant, NodeId};

/// Who leads or led, and in which term.
pub type Leads = (NodeId, u64);

/// How long a voter waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// A leader that is silent for this long may be replaced.
    pub lease: Duration,
    /// By how much later than the one before it each voter asks, once the lease and one turn more have passed: longer than it takes
    /// to be elected, or two may stand at once.
    pub turn: Duration,
}

impl Patience {
    /// How long after the lease whoever knows that the leader is gone asks: the others' leases may have begun a little later.
    fn margin(&self) -> Duration {
        self.turn / 3
    }
}

/// Whom the newest vote is for, as this node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ballot {
    /// In which term.
    pub term: u64,
    /// Who stands.
    pub node: NodeId,
    /// Whether it was elected.
    pub elected: bool,
}

/// What a node sees of the agreement.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The time.
    pub now: Instant,
    /// Whether this node votes, and does not lead.
    pub may_stand: bool,
    /// Whether it could be elected: one whose disk is full could not.
    pub able: bool,
    /// Who votes: both halves, while that is being changed.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// The newest vote.
    pub ballot: Ballot,
    /// For how long nobody was heard of under it; nothing: nobody was since this node started.
    pub silence: Option<Duration>,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing, until this node may stand.
    Rest,
    /// Look again after so long, or when something was handled.
    Wait(Duration),
    /// Ask these whether they would vote for this node in that term, and say what each [answers](Election::handle_answer).
    Ask {
        /// The term it would stand in.
        term: u64,
        /// Whom to ask.
        voters: BTreeSet<NodeId>,
        /// How long they have.
        within: Duration,
    },
    /// Stand for election.
    Stand,
}

/// When one node stands for election.
#[derive(Clone, Debug)]
pub struct Election {
    us: NodeId,
    patience: Patience,
    /// Who is known to be gone, if it leads.
    gone: Option<Leads>,
    missed: Option<Leads>,
    /// What is added to the wait under a ballot, lest two that reckon differently go on asking at once.
    spread: Option<(Ballot, Duration)>,
    /// When this node looked first.
    since: Option<Instant>,
    /// When to ask again after a round that came to nothing.
    again: Instant,
    round: Option<Round>,
}

/// Others being asked.
#[derive(Clone, Debug)]
struct Round {
    ballot: Ballot,
    granted: BTreeSet<NodeId>,
    waiting: BTreeSet<NodeId>,
    until: Instant,
}

impl Election {
    /// Begins with nothing known.
    pub fn new(us: NodeId, patience: Patience) -> Self {
        Self {
            us,
            patience,
            gone: None,
            missed: None,
            spread: None,
            since: None,
            again: Instant::default(),
            round: None,
        }
    }

    /// Notes that a leader is known to be gone: of another one nothing is said.
    pub fn handle_gone(&mut self, gone: Leads) {
        self.gone = Some(gone);
    }

    /// Notes whether a voter would vote for this node; one that cannot be asked would not.
    pub fn handle_answer(&mut self, voter: NodeId, would: bool) {
        if let Some(round) = &mut self.round
            && round.waiting.remove(&voter)
            && would
        {
            round.granted.insert(voter);
        }
    }

    /// Returns the leader that is missed, so that nobody is told any more that it leads: it was silent, and this node is not
    /// wanted in its place.
    pub fn missed(&self) -> Option<Leads> {
        self.missed
    }

    /// Returns what to do next.
    pub fn step(&mut self, sight: &Sight, rng: &mut impl Rng) -> Step {
        let since = *self.since.get_or_insert(sight.now);
        if is_heard(sight.ballot, sight.silence, self.patience.lease) {
            self.missed = None;
        }
        if !sight.may_stand {
            self.round = None;
            return Step::Rest;
        }
        let silence = sight.silence;
        let waited = silence.unwrap_or_else(|| sight.now.saturating_duration_since(since));
        let left = self.limit(sight, rng).saturating_sub(waited);
        if !left.is_zero() {
            self.round = None;
            return Step::Wait(left);
        }
        let is_old = |round: &Round| round.ballot != sight.ballot;
        if self.round.as_ref().is_some_and(is_old) {
            self.round = None;
        }
        self.round_on(sight, rng)
    }

    /// Goes on with the round, or begins one.
    fn round_on(&mut self, sight: &Sight, rng: &mut impl Rng) -> Step {
        let Some(mut round) = self.round.take() else {
            let pause = self.again.saturating_duration_since(sight.now);
            if !pause.is_zero() {
                return Step::Wait(pause);
            }
            return self.begin(sight, rng);
        };
        if most_of_all(&sight.voters, |voter| round.granted.contains(voter)) {
            // The engine has until then to take it up.
            self.again = sight.now + self.patience.turn;
            return Step::Stand;
        }
        // Who leads answers no more, and should not be waited for; one that has just started again may yet answer.
        let is_last = |voter: &NodeId| sight.ballot.elected && *voter == sight.ballot.node;
        if round.waiting.iter().all(is_last) {
            round.until = round.until.min(sight.now + self.patience.turn / 2);
        }
        let may = |voter: &NodeId| round.granted.contains(voter) || round.waiting.contains(voter);
        let left = round.until.saturating_duration_since(sight.now);
        if left.is_zero() || !most_of_all(&sight.voters, may) {
            return self.give_up(sight, rng);
        }
        self.round = Some(round);
        Step::Wait(left)
    }

    fn begin(&mut self, sight: &Sight, rng: &mut impl Rng) -> Step {
        if !sight.able {
            return self.give_up(sight, rng);
        }
        let mut waiting: BTreeSet<NodeId> = sight.voters.iter().flatten().copied().collect();
        waiting.remove(&self.us);
        let within = self.patience.lease / 2;
        self.round = Some(Round {
            ballot: sight.ballot,
            granted: BTreeSet::from([self.us]),
            waiting: waiting.clone(),
            until: sight.now + within,
        });
        if waiting.is_empty() {
            return self.round_on(sight, rng);
        }
        Step::Ask {
            term: sight.ballot.term + 1,
            voters: waiting,
            within,
        }
    }

    /// Ends a round that came to nothing: this node is not wanted, and asks again a little later.
    fn give_up(&mut self, sight: &Sight, rng: &mut impl Rng) -> Step {
        let Ballot { term, node, .. } = sight.ballot;
        if sight.ballot.elected {
            self.missed = Some((node, term));
        }
        self.round = None;
        let pause = self.patience.turn.mul_f64(rng.random_range(0.5..1.0));
        self.again = sight.now + pause;
        Step::Wait(pause)
    }

    /// Returns for how long nobody must have been heard of.
    fn limit(&mut self, sight: &Sight, rng: &mut impl Rng) -> Duration {
        let Patience { lease, turn } = self.patience;
        let all: BTreeSet<NodeId> = sight.voters.iter().flatten().copied().collect();
        if all.len() == 1 {
            return Duration::ZERO;
        }
        let ballot = sight.ballot;
        let spread = match self.spread {
            Some((of, spread)) if of == ballot => spread,
            Some(_) | None => turn.mul_f64(rng.random_range(0.0..0.2)),
        };
        self.spread = Some((ballot, spread));
        let rank = rank(self.us, &all, ballot);
        let first = match () {
            () if sight.silence.is_none() => Duration::ZERO,
            () if !ballot.elected => turn,
            () if self.gone == Some((ballot.node, ballot.term)) => lease + self.patience.margin(),
            () => lease + turn,
        };
        first + turn * rank + spread
    }
}

/// Returns how many voters ask before this one, if the leader is gone. It moves on with the term, so that one which is asked
/// for in vain is not the first for ever.
fn rank(us: NodeId, voters: &BTreeSet<NodeId>, ballot: Ballot) -> u32 {
    let left = voters
        .iter()
        .filter(|voter| !ballot.elected || **voter != ballot.node);
    let (count, place) = left.fold((0_u64, 0), |(count, place), voter| {
        (count + 1, if *voter == us { count } else { place })
    });
    let count = count.max(1);
    u32::try_from((place + count - ballot.term % count) % count).unwrap_or(0)
}

/// Returns whether a leader was heard within the lease.
pub fn is_heard(ballot: Ballot, silence: Option<Duration>, lease: Duration) -> bool {
    ballot.elected && silence.is_some_and(|silence| silence <= lease)
}

/// Returns whether a voter would vote for another whose log ends at `theirs`: it hears no leader, and knows no more.
pub fn would_vote<Log: Ord>(hears_leader: bool, ours: &Log, theirs: &Log) -> bool {
    !hears_leader && ours <= theirs
}
