//! Doubting ourselves: who hears nobody, or is told that it is down, was cut off, and the others live for all it knows.
//!
//! What a node then holds for down stays hidden, but it tells nobody so, and the first word of the member, or of anybody who
//! knows better, brings it back: in the life that it has, without having to return.

use foca::Timer;

use super::{
    Identity, MemberState, Membership, State,
    effects::Effects,
    machine::note_refusal,
    packet::{PREAMBLE_LEN, Packet},
};
use crate::core::model::{Instant, Mutation};

impl Membership {
    /// Returns whether nobody was heard since well before a suspicion began that runs out now.
    pub(super) fn is_cut_off(&self, now: Instant) -> bool {
        if self.config.mutated.has(Mutation::DoubtNothing) {
            return false;
        }
        let config = &self.config;
        let silence = now.saturating_duration_since(self.heard);
        silence >= config.suspect_for + config.probe_timeout * 2
    }

    /// Doubts that those are down that we hold for down.
    pub(super) fn doubt(&mut self) {
        if self.config.mutated.has(Mutation::DoubtNothing) {
            return;
        }
        let certain: Vec<Identity> = self.table.certainly_down().collect();
        for identity in certain {
            // foca would believe nothing good of it any more.
            let timer = Timer::RemoveDown(identity);
            note_refusal(self.foca.handle_timer(timer, Effects::default()));
            self.table.doubt(identity.node);
        }
    }

    /// Returns whether a claim says that this node is down.
    pub(super) fn is_our_end(&self, claim: &MemberState) -> bool {
        claim.state == State::Down
            && claim.identity.node == self.identity.node
            && !self.identity.is_newer_than(&claim.identity)
    }

    /// Returns a packet as it goes on the wire: without its preamble, and without the downs that we doubt.
    pub(super) fn without_doubts(&self, packet: &[u8]) -> Vec<u8> {
        let is_doubted = |claim: &MemberState| {
            claim.state == State::Down && self.table.is_doubted(claim.identity.node)
        };
        let body = |packet: &[u8]| packet.get(PREAMBLE_LEN..).unwrap_or_default().to_vec();
        if !self.table.has_doubts() {
            return body(packet);
        }
        match Packet::read(packet) {
            Ok(mut packet) if packet.members.iter().any(is_doubted) => {
                packet.members.retain(|claim| !is_doubted(claim));
                let mut written = Vec::new();
                packet.write(&mut written);
                body(&written)
            }
            Ok(_) | Err(_) => body(packet),
        }
    }
}
