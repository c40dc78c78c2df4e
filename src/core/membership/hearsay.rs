//! What others say of members that we hold for alive. Whoever was cut off, or is ill, takes the others for down.
//!
//! **Invariant:** no member is held for down on another's word before it was suspected here for a while, told so, and did not
//! refute. If it has really crashed, the suspicion came here long before the word that it is down.

use super::{
    MemberState, Membership, State,
    effects::Effects,
    history::Origin,
    machine::{Cause, Duty, note_refusal},
};
use crate::core::model::{Instant, Mutation, NodeId};

/// Which part of a suspect's time it must have had here: some tries to tell it, and its answer to any of us.
const HEARING: u32 = 3;

impl Membership {
    /// Returns what to make of a claim: that a member is down, though it could not refute that here, is a suspicion.
    pub(super) fn weigh(
        &mut self,
        now: Instant,
        from: Option<NodeId>,
        claim: MemberState,
    ) -> MemberState {
        let (identity, node) = (claim.identity, claim.identity.node);
        let Some(known) = self.member(node).copied().filter(|known| {
            known.state.is_alive() && !known.identity.is_newer_than(&claim.identity)
        }) else {
            return claim;
        };
        // Who returns says itself that its former life is over.
        let is_hearsay = claim.state == State::Down && from != Some(node);
        if !is_hearsay || self.config.mutated.has(Mutation::BelieveHearsay) {
            return claim;
        }
        let is_this_life = known.identity == identity;
        let hearing = self.config.suspect_for / HEARING;
        // foca ends no suspicion that it only heard of. One that is older than any lasts is of another trouble, long over.
        let is_recent = now <= known.since + self.config.suspect_for * 2;
        let is_suspected = is_this_life && known.state == State::Suspect && is_recent;
        let until = if is_suspected {
            known.since + hearing
        } else {
            now + hearing
        };
        if until <= now {
            return claim;
        }
        let incarnation = if is_this_life {
            claim.incarnation.max(known.incarnation)
        } else {
            claim.incarnation
        };
        self.stats.hearings += 1;
        if self
            .hearings
            .insert((identity, incarnation), from)
            .is_none()
        {
            let end = Duty::EndHearing(identity, incarnation);
            self.duties.add(until, end);
        }
        self.plan_tell(now, identity, incarnation);
        MemberState {
            identity,
            incarnation,
            state: State::Suspect,
        }
    }

    /// Believes that a member is down that somebody said is, unless it has refuted.
    pub(super) fn end_hearing(&mut self, now: Instant, accused: MemberState) {
        let accuser = self
            .hearings
            .remove(&(accused.identity, accused.incarnation));
        if self.is_suspect(&accused.identity, accused.incarnation) {
            let mut effects = Effects::default();
            let down = std::iter::once(accused.to_foca());
            note_refusal(self.foca.apply_many(down, true, &mut effects));
            let cause = Cause {
                origin: Origin::Hearing(accuser.flatten()),
                ..Cause::default()
            };
            self.absorb(now, effects, cause);
        }
    }
}
