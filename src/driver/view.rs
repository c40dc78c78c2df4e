//! How a driver's part of the kernel is, for a person: desired beside actual.

use std::time::Duration;

use crate::core::overlay::Compared;

/// The data plane of one network on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataplaneView {
    /// Whether packets flow through it; otherwise it is in memory only.
    pub carries_packets: bool,
    /// All that should be there or is.
    pub compared: Vec<Compared>,
    /// Why it could not be looked at; what is shown as actual is then nothing.
    pub problem: Option<String>,
    /// The last reconciliation.
    pub last: Option<Reconciled>,
    /// How many there were since the daemon started.
    pub reconciliations: u64,
    /// How many steps they took.
    pub steps: u64,
    /// How many of them failed.
    pub failures: u64,
}

impl DataplaneView {
    /// Returns whether all is as it should be.
    pub fn is_as_desired(&self) -> bool {
        self.problem.is_none() && !self.compared.iter().any(Compared::differs)
    }
}

/// What came of a reconciliation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reconciled {
    /// How long ago it began.
    pub ago: Duration,
    /// How long it took.
    pub took: Duration,
    /// Why it was done.
    pub why: Why,
    /// How many steps it took, or what the kernel refused.
    pub outcome: Result<usize, String>,
}

/// Why a reconciliation was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// An endpoint of this node joined.
    Join,
    /// An endpoint of this node left.
    Leave,
    /// Other nodes' endpoints came, went or moved.
    Event,
    /// All that was there at the start has been told.
    Settled,
    /// Somebody else seemed to have changed the kernel.
    Changed,
    /// The underlay has changed.
    Underlay,
    /// The slow clock.
    Clock,
    /// The network is removed.
    Removal,
}

impl Why {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Event => "event",
            Self::Settled => "settled",
            Self::Changed => "changed",
            Self::Underlay => "underlay",
            Self::Clock => "clock",
            Self::Removal => "removal",
        }
    }
}
