//! What members tell on a stream: the whole list, which gossip alone teaches slowly, and that they live.

use std::time::Duration;

use super::{MEMBERS, Node, StreamError};
use crate::core::{
    membership::MemberState,
    model::{Instant, NodeId},
    netdb::{CallId, StreamCall},
    wire::codec,
};

/// How long to wait for a list of members before another member is asked.
const MEMBERS_AGAIN: Duration = Duration::from_secs(2);
/// When to ask for the list once more: those that come at the same time are in nobody's list yet. And how many members that
/// were not known make it worth to ask yet again.
const MEMBERS_SOON: Duration = Duration::from_millis(250);
const MANY_NEW: usize = 8;
/// Scatters ids: 2^64 over the golden ratio.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Node {
    /// Takes the whole list of a member, and asks another for it as long as that may tell more.
    pub(super) fn take_list(&mut self, now: Instant, members: Vec<MemberState>) {
        let before = self.membership.alive().count();
        self.membership.apply(now, members);
        let new = self.membership.alive().count().saturating_sub(before);
        self.members_listed += 1;
        let again = self.members_listed == 1 || new >= MANY_NEW;
        self.members_at = again.then_some(now + MEMBERS_SOON);
    }

    /// Takes what a member that was asked on a stream says of itself.
    pub(super) fn take_pong(
        &mut self,
        now: Instant,
        from: NodeId,
        member: &[u8],
    ) -> Result<(), StreamError> {
        let member: MemberState = codec::decode(member).map_err(StreamError::Members)?;
        if member.identity.node != from {
            return Err(StreamError::Unknown);
        }
        self.membership.handle_stream_pong(now, member);
        Ok(())
    }

    /// Asks one live member after another for the whole list until one answers: gossip alone teaches it slowly. Nodes that start
    /// together do not all ask the same.
    pub(super) fn ask_for_members(&mut self, now: Instant) {
        let alive: Vec<NodeId> = self.membership.alive().collect();
        let ours = self.membership.identity().node.0;
        let drawn = ours.wrapping_mul(SCATTER) >> 32;
        let pick = (drawn + self.members_asked) % alive.len().max(1) as u64;
        if let Some(&to) = usize::try_from(pick).ok().and_then(|pick| alive.get(pick)) {
            self.members_asked += 1;
            self.calls.push_back(StreamCall {
                id: CallId::foreign(to),
                request: vec![MEMBERS],
            });
        }
        self.members_at = Some(now + MEMBERS_AGAIN);
    }
}

/// Returns the members in the answer to [`super::MEMBERS_REQUEST`].
pub fn members_in(reply: &[u8]) -> Result<Vec<MemberState>, StreamError> {
    match reply.split_first() {
        Some((&MEMBERS, list)) => Ok(codec::decode(list)?),
        Some(_) | None => Err(StreamError::Unknown),
    }
}
