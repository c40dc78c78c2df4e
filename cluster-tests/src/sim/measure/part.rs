//! The parts that membership has around SWIM, each of which can be left out to see what it is worth.

use std::time::Duration;

use clap::ValueEnum;
use weft::{
    core::model::{Mutated, Mutation},
    sim::Settings,
};

/// A part of membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Part {
    /// A suspicion that was refuted does not run out
    Refuted,
    /// Each datagram goes out twice
    Copies,
    /// Who does not answer a probe is asked on a stream
    StreamPing,
    /// Neighbours on the ring listen to each other
    Neighbours,
    /// A suspect is told that it is one
    Tells,
    /// That a member is down is not believed on another's word alone
    Hearsay,
    /// News is pushed at once
    Pushes,
    /// Who sees that members differ asks for them
    Repair,
    /// Who was cut off doubts what it thinks of the others
    Doubt,
    /// Who was late itself gives the others more time
    Stalls,
}

impl Part {
    /// Returns its name, as on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Refuted => "refuted",
            Self::Copies => "copies",
            Self::StreamPing => "stream-ping",
            Self::Neighbours => "neighbours",
            Self::Tells => "tells",
            Self::Hearsay => "hearsay",
            Self::Pushes => "pushes",
            Self::Repair => "repair",
            Self::Doubt => "doubt",
            Self::Stalls => "stalls",
        }
    }

    /// Leaves it out.
    pub(super) fn leave_out_of(self, settings: &mut Settings) {
        let config = &mut settings.membership;
        let mutation = match self {
            Self::Copies => return config.copies = 1,
            Self::StreamPing => return config.stream_ping = false,
            Self::Neighbours => return config.neighbour_silence = Duration::from_hours(24),
            Self::Refuted => Mutation::RunRefutedTimer,
            Self::Tells => Mutation::TellNoSuspect,
            Self::Hearsay => Mutation::BelieveHearsay,
            Self::Pushes => Mutation::PushNoNews,
            Self::Repair => Mutation::RepairNothing,
            Self::Doubt => Mutation::DoubtNothing,
            Self::Stalls => Mutation::IgnoreStalls,
        };
        config.mutated = Mutated::by(mutation);
    }
}
