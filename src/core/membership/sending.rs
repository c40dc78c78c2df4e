//! Everything that goes out, and its second copies.

use std::net::SocketAddr;

use bytes::Bytes;
use foca::Timer;
use rand::RngExt;

use super::{Identity, MemberState, Membership, Outgoing, effects::Effects, machine::Duty, packet};
use crate::core::{
    model::{Instant, NodeId},
    wire::record::RecordKind,
};

/// How many records wait to be sent, and how many copies. At the bound further ones are dropped and counted, as a full
/// network would.
const OUTGOING_MAX: usize = 32_768;

impl Membership {
    /// Sends what foca wants sent, and keeps its timers.
    pub(super) fn carry_out(&mut self, now: Instant, effects: Effects) {
        if let Some(incarnation) = effects.incarnation {
            self.incarnation = incarnation;
        }
        for (to, packet) in effects.packets {
            let mut body = self.without_doubts(&packet);
            if packet::is_ack(&body) {
                body.extend_from_slice(&self.short_hash().to_be_bytes());
            }
            if let Some(number) = packet::ping_number(&packet) {
                self.probe.begin(to, number);
                let period = self.config.probe_period;
                self.answers.begin(now, (to, number), period);
            }
            self.send_packet(now, to, Bytes::from(body));
        }
        for (timer, after) in effects.timers {
            if let Timer::ChangeSuspectToDown {
                member_id,
                incarnation,
                ..
            } = &timer
                && self.plan_tell(now, *member_id, *incarnation)
            {
                self.stats.suspected += 1;
            }
            let mut after = after;
            if matches!(timer, Timer::ProbeRandomMember(_)) {
                // A little early, so that nodes that began together do not stay in step.
                after = after.mul_f64(self.rng.random_range(0.9..1.0));
            }
            self.duties.add(now + after, Duty::Foca(timer));
        }
    }

    /// Sends a SWIM packet, without its preamble.
    pub(super) fn send_packet(&mut self, now: Instant, to: Identity, body: Bytes) {
        self.send(
            now,
            Outgoing {
                to: to.node,
                addr: to.addr,
                kind: RecordKind::FOCA,
                body,
            },
        );
    }

    /// Sends a list of members.
    pub(super) fn send_members(
        &mut self,
        now: Instant,
        to: NodeId,
        addr: SocketAddr,
        members: &[MemberState],
    ) {
        let body = Bytes::from(packet::write_members(members));
        let kind = RecordKind::MEMBERS;
        self.send(
            now,
            Outgoing {
                to,
                addr,
                kind,
                body,
            },
        );
    }

    /// Sends a record, and its copies a little later.
    pub(super) fn send(&mut self, now: Instant, outgoing: Outgoing) {
        self.plan_copy(now, &outgoing, self.config.copies.saturating_sub(1));
        self.enqueue(outgoing);
    }

    pub(super) fn plan_copy(&mut self, now: Instant, outgoing: &Outgoing, more: u8) {
        let Some(left) = more.checked_sub(1) else {
            return;
        };
        if self.copies.len() >= OUTGOING_MAX {
            self.stats.overflows += 1;
            return;
        }
        let gap = &self.config.copy_gap;
        let after = if gap.is_empty() {
            gap.start
        } else {
            self.rng.random_range(gap.clone())
        };
        self.copies.add(now + after, (outgoing.clone(), left));
    }

    pub(super) fn enqueue(&mut self, outgoing: Outgoing) {
        if self.outgoing.len() >= OUTGOING_MAX {
            self.stats.overflows += 1;
            return;
        }
        self.outgoing.push_back(outgoing);
    }
}
