//! Mutations: defects that are put in on purpose, so that the simulator's checkers prove that they would catch them.
//!
//! Only the feature `mutations` can put one in; without it every question is answered no when the program is compiled.

/// A guard that is left out, or a rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mutation {
    /// A suspicion that was refuted runs out all the same (the defect of foca 2.0 that membership guards against).
    RunRefutedTimer,
    /// That a member is down is believed at once, whoever says so.
    BelieveHearsay,
    /// A suspect is not told that it is one.
    TellNoSuspect,
    /// That somebody joined, refuted, left or is down is not pushed: it rides along with probes.
    PushNoNews,
    /// Nobody asks for the members that an ack's hash shows to be missing.
    RepairNothing,
    /// Who was cut off tells whom it held for down, and believes no good of them.
    DoubtNothing,
    /// Who was late itself gives the others no more time.
    IgnoreStalls,
    /// Who is suspected and does not refute stays a suspect for ever.
    EndNoSuspicion,
    /// An answer that was cut covers superseded dots as if it were complete (rule S of the network DB).
    CoverHoles,
    /// A replica below a floor is not told which dots still stand.
    SkipSnapshot,
    /// Of two owners of a key the one shows whose log came here first.
    IgnoreOrder,
    /// Who tells what it has names the last of it twice, which is malformed.
    TellTwice,
}

/// Which mutation a room was made with: none, except in a test of the checkers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mutated {
    #[cfg(feature = "mutations")]
    by: Option<Mutation>,
}

impl Mutated {
    /// Puts one in.
    #[cfg(feature = "mutations")]
    pub fn by(mutation: Mutation) -> Self {
        Self { by: Some(mutation) }
    }

    /// Returns whether that one was put in.
    #[cfg(feature = "mutations")]
    pub(crate) fn has(self, mutation: Mutation) -> bool {
        self.by == Some(mutation)
    }

    /// Returns whether that one was put in: never.
    #[cfg(not(feature = "mutations"))]
    pub(crate) fn has(self, _mutation: Mutation) -> bool {
        false
    }
}
