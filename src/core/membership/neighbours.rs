//! Listening to both neighbours on the ring: they are heard once a second anyway, by the network DB's digests, so that silence
//! is noticed without a byte.
//!
//! SWIM's probes alone notice a crash when chance wants it: nobody probes a certain member in three periods once in twenty times
//! (SWIM §4.3 only bounds the time of each prober). A neighbour that was silent for longer than digests are apart is asked at
//! once, on a stream, then by a ping and by others that ping it; whatever is heard of it is an answer. So two certain nodes begin
//! to suspect who crashed within `neighbour_silence` and one probe period, if no prober was quicker.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use foca::{Header, Message};
use rand::RngExt;

use super::{
    Identity, MemberState, Membership, State,
    effects::Effects,
    machine::{Cause, Duty, note_refusal},
    packet::{PREAMBLE_LEN, Packet},
};
use crate::core::model::{Instant, Mutation, NodeId};

/// The number of our probes. Only what foca has begun goes by number.
const PROBE_NUMBER: u8 = 0;

/// How far we are with a neighbour, and since when.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// It was heard.
    Heard(Instant),
    /// It was silent, and asked.
    Asked(Instant),
    /// Others were asked to ask it.
    OthersAsked(Instant),
}

/// Our neighbours on the ring, two at most.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    stages: BTreeMap<NodeId, Stage>,
}

impl Neighbours {
    /// Takes note that a node lives.
    pub(super) fn hear(&mut self, now: Instant, node: NodeId) {
        if let Some(stage) = self.stages.get_mut(&node) {
            *stage = Stage::Heard(now);
        }
    }

    /// Gives everybody more time.
    pub(super) fn postpone(&mut self, delay: Duration) {
        for stage in self.stages.values_mut() {
            let (Stage::Heard(at) | Stage::Asked(at) | Stage::OthersAsked(at)) = stage;
            *at += delay;
        }
    }

    /// Listens to those that are neighbours now.
    fn become_those(&mut self, now: Instant, nodes: &[NodeId]) {
        self.stages.retain(|node, _| nodes.contains(node));
        for node in nodes {
            self.stages.entry(*node).or_insert(Stage::Heard(now));
        }
    }
}

impl Membership {
    /// Returns both neighbours on the ring of all that are alive; one if they are the same.
    pub fn neighbours(&self) -> impl Iterator<Item = NodeId> {
        self.table.neighbours(self.identity.node)
    }

    /// Takes note that `node` has proved to have sent something, whatever it was.
    pub fn hear(&mut self, now: Instant, node: NodeId) {
        self.neighbours.hear(now, node);
    }

    /// Takes note of a SWIM packet that came in.
    pub(super) fn hear_packet(&mut self, now: Instant, header: &Header<Identity>) {
        self.probe.hear(header);
        if let Message::ForwardedAck { origin, .. } = &header.message {
            self.neighbours.hear(now, origin.node);
        }
    }

    /// Listens to those that are our neighbours now. Returns them.
    pub(super) fn find_neighbours(&mut self, now: Instant) -> Vec<NodeId> {
        let nodes: Vec<NodeId> = Self::neighbours(self).collect();
        self.neighbours.become_those(now, &nodes);
        nodes
    }

    /// Looks who of the neighbours is silent, and plans when to look again.
    pub(super) fn mind_neighbours(&mut self, now: Instant) {
        let nodes = self.find_neighbours(now);
        for node in nodes {
            let due = self.deadline_of(node);
            if due.is_some_and(|due| due <= now) {
                self.mind_neighbour(now, node);
            }
        }
        let watched = self.neighbours.stages.keys();
        let next = watched.filter_map(|node| self.deadline_of(*node)).min();
        let next = next.unwrap_or(now + self.config.neighbour_silence);
        self.duties.add(next, Duty::MindNeighbours);
    }

    /// Returns when a neighbour will have been silent for too long.
    fn deadline_of(&self, node: NodeId) -> Option<Instant> {
        let config = &self.config;
        Some(match *self.neighbours.stages.get(&node)? {
            Stage::Heard(at) => at + config.neighbour_silence,
            Stage::Asked(at) => at + config.probe_timeout,
            Stage::OthersAsked(at) => at + config.probe_period.saturating_sub(config.probe_timeout),
        })
    }

    fn mind_neighbour(&mut self, now: Instant, node: NodeId) {
        let Some(member) = self.member(node).copied() else {
            return;
        };
        let neighbour = member.identity;
        let next = match self.neighbours.stages.get(&node) {
            None => return,
            Some(Stage::Heard(_)) => {
                self.stats.neighbours_asked += 1;
                if self.config.stream_ping {
                    // Where datagrams are lost this happens often, and a stream costs less than two copies and theirs.
                    self.probe.ask(node);
                    self.answers.ask_on_stream(node);
                } else {
                    self.send_message(now, neighbour, Message::Ping(PROBE_NUMBER));
                }
                Stage::Asked(now)
            }
            Some(Stage::Asked(_)) => {
                self.send_message(now, neighbour, Message::Ping(PROBE_NUMBER));
                self.ask_others(now, neighbour);
                Stage::OthersAsked(now)
            }
            Some(Stage::OthersAsked(_)) => {
                self.suspect(now, neighbour, member.incarnation);
                Stage::Heard(now)
            }
        };
        self.neighbours.stages.insert(node, next);
    }

    /// Asks a few other members to ask one.
    fn ask_others(&mut self, now: Instant, target: Identity) {
        let mut others: Vec<Identity> = self
            .table
            .alive()
            .map(|member| member.identity)
            .filter(|other| *other != target)
            .collect();
        for _ in 0..self.config.indirect_probes.min(others.len()) {
            let chosen = others.swap_remove(self.rng.random_range(0..others.len()));
            let ask = Message::PingReq {
                target,
                probe_number: PROBE_NUMBER,
            };
            self.send_message(now, chosen, ask);
        }
    }

    fn send_message(&mut self, now: Instant, to: Identity, message: Message<Identity>) {
        let packet = Packet {
            header: Header {
                src: self.identity,
                src_incarnation: self.incarnation,
                dst: to,
                message,
            },
            members: Vec::new(),
        };
        let mut bytes = Vec::new();
        packet.write(&mut bytes);
        self.send_packet(now, to, Bytes::from(bytes).slice(PREAMBLE_LEN..));
    }

    /// Begins to suspect a member, as foca does after a probe that failed.
    fn suspect(&mut self, now: Instant, identity: Identity, incarnation: u16) {
        let suspicion = MemberState {
            identity,
            incarnation,
            state: State::Suspect,
        };
        let mut effects = Effects::default();
        let claims = std::iter::once(suspicion.to_foca());
        note_refusal(self.foca.apply_many(claims, true, &mut effects));
        self.absorb(now, effects, Cause::default());
        if self.plan_tell(now, identity, incarnation) {
            self.stats.suspected += 1;
        }
        if self.config.mutated.has(Mutation::EndNoSuspicion) {
            return;
        }
        // foca ends no suspicion that it did not begin.
        let end = Duty::EndSuspicion(identity, incarnation);
        self.duties.add(now + self.config.suspect_for, end);
    }

    /// Takes a member for down that we began to suspect, unless it has refuted.
    pub(super) fn end_suspicion(&mut self, now: Instant, suspect: (Identity, u16)) {
        let (identity, incarnation) = suspect;
        if !self.is_suspect(&identity, incarnation) {
            return;
        }
        let is_alone = self.is_cut_off(now);
        let down = MemberState {
            identity,
            incarnation,
            state: State::Down,
        };
        let mut effects = Effects::default();
        let claims = std::iter::once(down.to_foca());
        note_refusal(self.foca.apply_many(claims, !is_alone, &mut effects));
        let cause = Cause {
            known_elsewhere: is_alone,
            ..Cause::default()
        };
        self.absorb(now, effects, cause);
        if is_alone {
            self.doubt();
        }
    }
}
