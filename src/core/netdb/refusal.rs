//! What was not taken, by reason, and who sends such things.
//!
//! Who sends most of it is found in bounded memory by the space-saving sketch of Metwally et al. (2005): a node that is not
//! among the few that are remembered takes the place of the least of them, and its count.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::NetDb;
use crate::core::model::{Instant, NodeId};

/// How many senders of faulty messages are remembered.
const FAULTY_MAX: usize = 16;
/// How often at most the log names a faulty sender.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Why a message or a part of it was not taken. Its sender is at fault, or behind, or this node is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It does not decode, or breaks a bound.
    Malformed,
    /// This node does not carry the network.
    NotCarried,
    /// It speaks for this node, or for the cluster outside its log.
    Forged,
    /// Its log is over: a former generation or attachment.
    Over,
    /// Its clock is more than a minute ahead.
    AheadOfTime,
    /// There is no room for it now.
    NoRoom,
    /// It contradicts itself, what was asked, or what this node knows of its own logs.
    Inconsistent,
    /// It promises more again and again, and brings nothing.
    Endless,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::NotCarried,
        Self::Forged,
        Self::Over,
        Self::AheadOfTime,
        Self::NoRoom,
        Self::Inconsistent,
        Self::Endless,
    ];

    /// Returns the reason's name as metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotCarried => "not_carried",
            Self::Forged => "forged",
            Self::Over => "over",
            Self::AheadOfTime => "ahead_of_time",
            Self::NoRoom => "no_room",
            Self::Inconsistent => "inconsistent",
            Self::Endless => "endless",
        }
    }

    /// Returns whether no sound node whose clock is right sends such a thing, late or not.
    pub fn is_fault(self) -> bool {
        match self {
            Self::Malformed
            | Self::Forged
            | Self::AheadOfTime
            | Self::Inconsistent
            | Self::Endless => true,
            Self::NotCarried | Self::Over | Self::NoRoom => false,
        }
    }
}

/// What was refused, and of whom.
#[derive(Default, Debug)]
pub(super) struct Refusals {
    counts: BTreeMap<Refusal, u64>,
    /// Who sent the last of each.
    last: BTreeMap<Refusal, NodeId>,
    /// Who sent how many faulty messages; at most [`FAULTY_MAX`], those that sent most.
    faulty: BTreeMap<NodeId, u64>,
    /// Whose message is being read.
    speaker: Option<NodeId>,
    now: Instant,
    quiet_until: Instant,
}

impl Refusals {
    /// What follows is of `speaker`.
    pub(super) fn hear(&mut self, now: Instant, speaker: NodeId) {
        self.speaker = Some(speaker);
        self.now = self.now.max(now);
    }

    fn note(&mut self, refusal: Refusal) {
        let count = self.counts.entry(refusal).or_default();
        *count += 1;
        let Some(node) = self.speaker else {
            return;
        };
        self.last.insert(refusal, node);
        if refusal.is_fault() {
            let faults = self.blame(node);
            if self.quiet_until <= self.now {
                self.quiet_until = self.now + WARN_EVERY;
                tracing::warn!(
                    %node, faults, reason = refusal.as_str(),
                    "a node sends what no sound node sends: it is refused"
                );
            }
        }
    }

    /// Counts one fault of a node. Returns how many it has.
    fn blame(&mut self, node: NodeId) -> u64 {
        let mut before = 0;
        if self.faulty.len() >= FAULTY_MAX && !self.faulty.contains_key(&node) {
            let least = self.faulty.iter().min_by_key(|(_, count)| **count);
            if let Some((least, count)) = least.map(|(least, count)| (*least, *count)) {
                self.faulty.remove(&least);
                before = count;
            }
        }
        let faults = self.faulty.entry(node).or_insert(before);
        *faults += 1;
        *faults
    }

    pub(super) fn counts(&self) -> BTreeMap<Refusal, u64> {
        self.counts.clone()
    }

    pub(super) fn last(&self) -> BTreeMap<Refusal, NodeId> {
        self.last.clone()
    }

    pub(super) fn faulty(&self) -> BTreeMap<NodeId, u64> {
        self.faulty.clone()
    }
}

impl NetDb {
    /// Counts something that was not taken, and names who sent it: whose message is being read.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusals.note(refusal);
    }

    /// Counts something of a node's that was not taken before it came here.
    pub fn note_refused(&mut self, from: NodeId, refusal: Refusal) {
        self.refusals.hear(self.spread.now(), from);
        self.refuse(refusal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_most_is_named_among_any_number_of_others() {
        let mut refusals = Refusals::default();

        for other in 0..10_000 {
            refusals.hear(Instant::default(), NodeId(1_000 + other));
            refusals.note(Refusal::Malformed);
            if other % 4 == 0 {
                refusals.hear(Instant::default(), NodeId(7));
                refusals.note(Refusal::Forged);
            }
        }

        let faulty = refusals.faulty();
        assert_eq!(faulty.len(), FAULTY_MAX);
        assert!(faulty[&NodeId(7)] >= 2_500);
        assert_eq!(refusals.last()[&Refusal::Forged], NodeId(7));
        assert_eq!(refusals.counts()[&Refusal::Malformed], 10_000);
    }

    #[test]
    fn who_is_merely_behind_is_not_called_faulty() {
        let mut refusals = Refusals::default();
        refusals.hear(Instant::default(), NodeId(7));

        refusals.note(Refusal::Over);
        refusals.note(Refusal::NoRoom);

        assert!(refusals.faulty().is_empty());
        assert_eq!(refusals.last()[&Refusal::Over], NodeId(7));
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            Refusal::ALL.into_iter().map(Refusal::as_str).collect();

        assert_eq!(names.len(), Refusal::ALL.len());
    }
}
