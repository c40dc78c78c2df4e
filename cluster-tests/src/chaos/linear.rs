//! Whether what clients saw of a lock can have happened one after another, each operation at once at some moment between
//! its call and its answer: linearizability (Herlihy and Wing 1990), decided by search.
//!
//! The search is that of Wing and Gong 1993 with Lowe's memory of what was tried (2017), as in Porcupine: take the first
//! operation that may come next, go back where the state forbids it, and never try the same set of done operations with the
//! same state twice. An operation without an answer may take place at any time after its call, or never: it stays open to
//! the end. A history is checked key by key, which is enough: linearizability is local (Herlihy and Wing, theorem 1).
//!
//! An own module: of the crates, `stateright` has a tester for the short histories of its model checker, and `todc-utils`
//! has had no release since September 2023.

use std::collections::{BTreeMap, BTreeSet};

/// How many pairs of a set and a state are tried before the search gives up.
const TRIED_MAX: usize = 2_000_000;

/// Who takes a lock; no two operations that take one have the same.
pub type Holder = u64;

/// What was done to a lock, or seen of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// It was free, and is this holder's now.
    Take(Holder),
    /// It was this holder's, and is free now.
    Free(Holder),
    /// It was seen to be somebody's.
    Held,
    /// It was seen to be this holder's.
    HeldBy(Holder),
    /// It was seen to be free.
    IsFree,
}

impl Deed {
    /// Returns who holds the lock afterwards; nothing if it cannot happen while `holder` does.
    fn apply(self, holder: Option<Holder>) -> Option<Option<Holder>> {
        match (self, holder) {
            (Self::Take(new), None) => Some(Some(new)),
            (Self::Free(old), Some(holder)) if old == holder => Some(None),
            (Self::HeldBy(seen), Some(holder)) if seen == holder => Some(Some(holder)),
            (Self::Held, Some(holder)) => Some(Some(holder)),
            (Self::IsFree, None) => Some(None),
            (
                Self::Take(_) | Self::Free(_) | Self::Held | Self::HeldBy(_) | Self::IsFree,
                None | Some(_),
            ) => None,
        }
    }
}

/// One operation on a lock. Times are of one clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// What.
    pub deed: Deed,
    /// When it was called.
    pub called: u64,
    /// When it was answered; nothing if nobody knows whether it took place.
    pub answered: Option<u64>,
}

/// Why a history was not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// No order explains it.
    NotLinearizable {
        /// How many operations could be put in an order at most.
        ordered: usize,
        /// The operation that had been answered by then and fits nowhere.
        stuck: Operation,
    },
    /// The search was given up.
    TooHard,
}

/// Looks for an order of the operations that explains every answer; the lock is free before them.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    Search::new(operations).run()
}

/// A call or an answer, in the order of time; linked, so that an operation that was put in the order is taken out at once.
struct Entry {
    operation: usize,
    is_call: bool,
    before: usize,
    after: usize,
}

/// The entry before the first and after the last.
const END: usize = 0;

struct Search<'a> {
    operations: &'a [Operation],
    entries: Vec<Entry>,
    /// Operation → its answer's entry.
    answers: BTreeMap<usize, usize>,
    /// One bit an operation that was put in the order.
    done: Vec<u64>,
    holder: Option<Holder>,
    /// The entries of the calls in the order, each with who held the lock before.
    order: Vec<(usize, Option<Holder>)>,
    tried: BTreeSet<(Vec<u64>, Option<Holder>)>,
    furthest: Option<(usize, usize)>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            times.push((operation.called, false, at));
            times.extend(operation.answered.map(|answered| (answered, true, at)));
        }
        // At one time calls come first: then the operations are at the same time, which forbids less.
        times.sort_unstable();
        let end = Entry {
            operation: usize::MAX,
            is_call: false,
            before: times.len(),
            after: 1 % (times.len() + 1),
        };
        let mut search = Self {
            operations,
            entries: vec![end],
            answers: BTreeMap::new(),
            done: vec![0; operations.len().div_ceil(64)],
            holder: None,
            order: Vec::new(),
            tried: BTreeSet::new(),
            furthest: None,
        };
        let last = times.len();
        for (place, (_, is_answer, operation)) in (1..).zip(times) {
            if is_answer {
                search.answers.insert(operation, place);
            }
            search.entries.push(Entry {
                operation,
                is_call: !is_answer,
                before: place - 1,
                after: if place == last { END } else { place + 1 },
            });
        }
        search
    }

    fn run(mut self) -> Result<(), Violation> {
        let mut at = self.entries[END].after;
        // Past the last answer only what nobody knows of is left.
        while at != END {
            let Entry {
                operation, is_call, ..
            } = self.entries[at];
            if is_call {
                at = match self.put(at, operation) {
                    true => self.entries[END].after,
                    false => self.entries[at].after,
                };
                if self.tried.len() > TRIED_MAX {
                    return Err(Violation::TooHard);
                }
                continue;
            }
            let ordered = self.order.len();
            if self.furthest.is_none_or(|(most, _)| ordered > most) {
                self.furthest = Some((ordered, operation));
            }
            let Some(call) = self.take_back() else {
                let (ordered, stuck) = self.furthest.unwrap_or((ordered, operation));
                let stuck = self.operations[stuck];
                return Err(Violation::NotLinearizable { ordered, stuck });
            };
            at = self.entries[call].after;
        }
        Ok(())
    }

    /// Puts an operation next in the order; returns whether the lock allows it and it leads to something new.
    fn put(&mut self, call: usize, operation: usize) -> bool {
        let Some(next) = self.operations[operation].deed.apply(self.holder) else {
            return false;
        };
        self.flip(operation);
        if !self.tried.insert((self.done.clone(), next)) {
            self.flip(operation);
            return false;
        }
        self.order.push((call, self.holder));
        self.holder = next;
        self.unlink(call);
        if let Some(answer) = self.answers.get(&operation).copied() {
            self.unlink(answer);
        }
        true
    }

    /// Takes the last operation out of the order; returns its call.
    fn take_back(&mut self) -> Option<usize> {
        let (call, before) = self.order.pop()?;
        let operation = self.entries[call].operation;
        if let Some(answer) = self.answers.get(&operation).copied() {
            self.link(answer);
        }
        self.link(call);
        self.flip(operation);
        self.holder = before;
        Some(call)
    }

    fn flip(&mut self, operation: usize) {
        self.done[operation / 64] ^= 1 << (operation % 64);
    }

    fn unlink(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        self.entries[before].after = after;
        self.entries[after].before = before;
    }

    fn link(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        self.entries[before].after = at;
        self.entries[after].before = at;
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn one_after_another_is_accepted() {
        let history = [
            done(Deed::Take(1), 0, 1),
            done(Deed::Held, 2, 3),
            done(Deed::HeldBy(1), 2, 3),
            done(Deed::Free(1), 4, 5),
            done(Deed::IsFree, 6, 7),
            done(Deed::Take(2), 8, 9),
        ];

        assert_eq!(check(&history), Ok(()));
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn what_happens_at_the_same_time_may_have_happened_in_either_order() {
        let history = [
            done(Deed::Take(2), 0, 10),
            done(Deed::Free(1), 1, 9),
            done(Deed::Held, 2, 8),
            done(Deed::Take(1), 3, 7),
            done(Deed::HeldBy(1), 4, 6),
        ];

        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn two_holders_at_a_time_are_caught() {
        let history = [done(Deed::Take(1), 0, 1), done(Deed::Take(2), 2, 3)];

        let stuck = history[1];
        assert_eq!(
            check(&history),
            Err(Violation::NotLinearizable { ordered: 1, stuck })
        );
        let at_once = [done(Deed::Take(1), 0, 9), done(Deed::Take(2), 0, 9)];
        assert!(check(&at_once).is_err());
    }

    #[test]
    fn a_stale_read_after_an_answered_removal_is_caught() {
        let before = [done(Deed::Take(1), 0, 1), done(Deed::Free(1), 2, 3)];

        for read in [Deed::HeldBy(1), Deed::Held] {
            let [take, free] = before;
            assert!(check(&[take, free, done(read, 4, 5)]).is_err());
            assert_eq!(check(&[take, free, done(read, 2, 5)]), Ok(()), "at a time");
        }
    }

    #[test]
    fn what_nobody_answered_may_have_happened_late_or_never() {
        let take = open(Deed::Take(1), 0);

        for history in [
            [take, done(Deed::Take(2), 1, 2), done(Deed::Free(2), 8, 9)],
            [take, done(Deed::HeldBy(1), 5, 6), done(Deed::Free(1), 7, 8)],
            [
                take,
                done(Deed::IsFree, 5, 6),
                done(Deed::HeldBy(1), 10, 11),
            ],
        ] {
            assert_eq!(check(&history), Ok(()));
        }
        let gone_and_back = [
            take,
            done(Deed::HeldBy(1), 1, 2),
            done(Deed::Free(1), 3, 4),
            done(Deed::HeldBy(1), 5, 6),
        ];
        assert!(check(&gone_and_back).is_err(), "it happens once");
    }

    #[test]
    fn an_unanswered_removal_lets_the_next_in_and_no_third() {
        let begun = [
            done(Deed::Take(1), 0, 1),
            open(Deed::Free(1), 2),
            done(Deed::Take(2), 3, 4),
        ];
        let third = done(Deed::Take(3), 5, 6);

        assert_eq!(check(&begun), Ok(()));
        let [first, second, last] = begun;
        assert!(check(&[first, second, last, third]).is_err());
    }

    #[test]
    fn histories_of_a_lock_are_accepted_and_those_with_a_lie_are_not() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut history = true_history(&mut rng, 200);
            assert_eq!(check(&history), Ok(()), "seed {seed}");

            // Somebody sees a holder that had gone before the look began.
            let gone = history.iter().find_map(|operation| {
                let Deed::Free(holder) = operation.deed else {
                    return None;
                };
                Some((holder, operation.answered?))
            });
            let (holder, answered) = gone.expect("some are freed");
            history.push(done(Deed::HeldBy(holder), answered + 1, answered + 2));
            assert!(check(&history).is_err(), "seed {seed}");
        }
    }

    /// Makes a history by doing it: each operation happens at a moment, and its call and answer are around it.
    fn true_history(rng: &mut StdRng, count: u64) -> Vec<Operation> {
        let mut holder = None;
        let mut history = Vec::new();
        for moment in (1..=count).map(|n| n * 100) {
            let deed = match holder {
                None if rng.random_bool(0.7) => Deed::Take(moment),
                None => Deed::IsFree,
                Some(holder) => match rng.random_range(0..3) {
                    0 => Deed::Free(holder),
                    1 => Deed::HeldBy(holder),
                    _ => Deed::Held,
                },
            };
            holder = deed.apply(holder).expect("it was chosen so");
            let reach = 400;
            let called = moment.saturating_sub(rng.random_range(0..reach));
            let answered = moment + rng.random_range(0..reach);
            let is_known = rng.random_bool(0.95);
            let answered = is_known.then_some(answered);
            history.push(Operation {
                deed,
                called,
                answered,
            });
        }
        history
    }

    fn done(deed: Deed, called: u64, answered: u64) -> Operation {
        Operation {
            answered: Some(answered),
            ..open(deed, called)
        }
    }

    fn open(deed: Deed, called: u64) -> Operation {
        Operation {
            deed,
            called,
            answered: None,
        }
    }
}
