//! Asking on a stream whether a member lives, when its probe was not answered: as memberlist's TCP ping, it tells a lossy or
//! blocked datagram path from a dead node before anybody suspects it.
//!
//! It is asked beside the indirect probes, and its answer counts as the ack of the probe, if it comes before the probe's period
//! is over. An answer that is late, or none, changes nothing: a crash is noticed no later.

use std::collections::BTreeSet;

use foca::{Header, Message};

use super::{
    Identity, MemberState, Membership, State,
    effects::Effects,
    machine::{Cause, note_refusal},
    packet::Packet,
};
use crate::core::model::{Instant, NodeId};

/// Where the probe of the current period is.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Whose ack is awaited, of which number.
    awaited: Option<(Identity, u8)>,
    /// Who is to be asked on a stream.
    to_ask: BTreeSet<NodeId>,
}

impl Probe {
    /// Takes note of a probe that goes out.
    pub(super) fn begin(&mut self, member: Identity, number: u8) {
        self.awaited = Some((member, number));
    }

    /// Takes note of a packet that came in.
    pub(super) fn hear(&mut self, header: &Header<Identity>) {
        let answers = match (self.awaited, &header.message) {
            (Some((member, number)), Message::Ack(of)) => member == header.src && number == *of,
            (
                Some((member, number)),
                Message::ForwardedAck {
                    origin,
                    probe_number,
                },
            ) => member == *origin && number == *probe_number,
            _ => false,
        };
        if answers {
            self.awaited = None;
        }
    }

    /// The member has had its time to answer the datagram.
    pub(super) fn fall_back(&mut self, member: Identity) {
        if self.awaited.is_some_and(|(awaited, _)| awaited == member) {
            self.ask(member.node);
        }
    }

    /// Wants a member asked on a stream.
    pub(super) fn ask(&mut self, node: NodeId) {
        self.to_ask.insert(node);
    }
}

impl Membership {
    /// Returns a member to be asked on a stream who it is, with [`as_member`](Self::as_member) for an answer.
    pub fn poll_stream_ping(&mut self) -> Option<NodeId> {
        let node = self.probe.to_ask.pop_first()?;
        self.stats.stream_pings += 1;
        self.answers.ask_on_stream(node);
        Some(node)
    }

    /// Takes the answer of a member that was asked on a stream. It is authentic.
    pub fn handle_stream_pong(&mut self, now: Instant, member: MemberState) {
        if self.left {
            return;
        }
        (self.answered, self.heard) = (true, now);
        self.answers.hear_on_stream(now, member.identity);
        let node = member.identity.node;
        self.neighbours.hear(now, node);
        let awaited = self.probe.awaited.filter(|(of, _)| *of == member.identity);
        let Some((identity, number)) = awaited.filter(|_| member.state == State::Alive) else {
            // It came too late for the probe, or from another life of the member.
            return self.take_in(now, Some(node), vec![member]);
        };
        self.probe.awaited = None;
        self.stats.stream_pongs += 1;
        let ack = Packet {
            header: Header {
                src: identity,
                src_incarnation: member.incarnation,
                dst: self.identity,
                message: Message::Ack(number),
            },
            members: Vec::new(),
        };
        let mut bytes = Vec::new();
        ack.write(&mut bytes);
        let mut effects = Effects::default();
        note_refusal(self.foca.handle_data(&bytes, &mut effects));
        let cause = Cause {
            from: Some(node),
            ..Cause::default()
        };
        self.absorb(now, effects, cause);
    }
}
