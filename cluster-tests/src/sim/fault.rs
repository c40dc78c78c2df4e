//! Faults: what may go wrong in a run. Each seed draws which of them it has (swarm testing, Groce et al. 2012), because a fault
//! that is always there hides what happens without it.

use std::{collections::BTreeSet, fmt};

use rand::{Rng, RngExt};

/// Something that may go wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// Datagrams are lost by chance.
    Loss,
    /// Nothing passes from one machine to another, in one direction.
    Cuts,
    /// Nothing passes between two sides.
    Partitions,
    /// Datagrams arrive twice.
    Duplicates,
    /// Delays spread so far that datagrams and answers overtake each other.
    Reorder,
    /// A program stands still.
    Pauses,
    /// A wall clock steps.
    ClockSteps,
    /// A program ends without a word, and starts again from its disk.
    Crashes,
    /// The disk goes too: what starts again is another node.
    LostDisks,
    /// The disk lacks its last writes.
    LostWrites,
    /// The disk takes no more.
    FullDisks,
    /// A node says that it leaves.
    Leaves,
    /// The key changes, at each node at another moment.
    KeyRotation,
    /// Nodes say things that others do not know.
    MixedVersions,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Loss,
        Self::Cuts,
        Self::Partitions,
        Self::Duplicates,
        Self::Reorder,
        Self::Pauses,
        Self::ClockSteps,
        Self::Crashes,
        Self::LostDisks,
        Self::LostWrites,
        Self::FullDisks,
        Self::Leaves,
        Self::KeyRotation,
        Self::MixedVersions,
    ];
}

/// The faults that a run has.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Faults(BTreeSet<Fault>);

impl Faults {
    /// Draws a subset: each fault is in about half of them.
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self(
            Fault::ALL
                .into_iter()
                .filter(|_| rng.random_bool(0.5))
                .collect(),
        )
    }

    /// Returns exactly these.
    pub fn of(faults: &[Fault]) -> Self {
        Self(faults.iter().copied().collect())
    }

    /// Draws one of them, if there is any.
    pub fn pick(&self, rng: &mut impl Rng) -> Option<Fault> {
        let at = rng.random_range(0..self.0.len().max(1));
        self.0.iter().nth(at).copied()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no faults");
        }
        let names: Vec<String> = self.0.iter().map(|fault| format!("{fault:?}")).collect();
        f.write_str(&names.join(", "))
    }
}
