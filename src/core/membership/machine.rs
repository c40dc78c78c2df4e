//! The machine: records and deadlines in; records, events and one deadline out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use foca::{Foca, NoCustomBroadcast, Timer};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    Config, Event, Identity, Member, MemberState, MembershipError, Outgoing, PacketError, State,
    Stats,
    answers::Answers,
    copies::RecentRecords,
    effects::Effects,
    history::{History, Origin, What, Why},
    neighbours::Neighbours,
    packet::{self, PREAMBLE_LEN, Packet, PacketCodec},
    schedule::Schedule,
    stream_ping::Probe,
    table::{MEMBERS_MAX, Table},
    tuning::foca_config,
};
use crate::core::{
    model::{Instant, Mutation, NodeId},
    wire::record::BODY_MAX,
};

/// Something to do at its deadline.
#[derive(Debug, Clone)]
pub(super) enum Duty {
    /// Hand a timer back to foca.
    Foca(Timer<Identity>),
    /// Tell a suspect that it is one, unless it has refuted, until then.
    TellSuspect(Identity, u16, Instant),
    /// Believe that a member is down, unless it has refuted.
    EndHearing(Identity, u16),
    /// Look who of the neighbours on the ring is silent.
    MindNeighbours,
    /// Take a neighbour for down that we suspect, unless it has refuted.
    EndSuspicion(Identity, u16),
    /// Ask known members to answer, unless somebody is alive and has.
    AnnounceRetry,
    /// Ask a member that is down whether it returned.
    AnnounceDown,
    /// Forget members that have been gone for long.
    Forget,
}

/// What a call into foca was about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cause<'a> {
    /// Who told us: does not hear the news from us.
    pub(super) from: Option<NodeId>,
    /// Who left, of those that foca now takes for down.
    pub(super) left: &'a [Identity],
    /// Whether others know it already, so that it is not pushed.
    pub(super) known_elsewhere: bool,
    /// Whether no member can have changed.
    pub(super) quiet: bool,
    /// Where it comes from if nobody told us.
    pub(super) origin: Origin,
}

/// Who is in the cluster, as this node sees it. After any `handle_*`, `apply`, `announce` or `leave`, drain the polls:
/// events are never dropped, so they grow by what one call brings.
pub struct Membership {
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) incarnation: u16,
    pub(super) left: bool,
    pub(super) foca: Foca<Identity, PacketCodec, StdRng, NoCustomBroadcast>,
    pub(super) tuned_for: usize,
    pub(super) table: Table,
    pub(super) duties: Schedule<Duty>,
    pub(super) copies: Schedule<(Outgoing, u8)>,
    recent: RecentRecords,
    pub(super) probe: Probe,
    pub(super) neighbours: Neighbours,
    pub(super) answers: Answers,
    pub(super) history: History,
    /// Suspects that we tell so, with the incarnation they have to raise.
    pub(super) telling: BTreeSet<(Identity, u16)>,
    /// Suspects that somebody takes for down, with the incarnation they have to raise, and who does.
    pub(super) hearings: BTreeMap<(Identity, u16), Option<NodeId>>,
    /// Whom nobody listens to any more.
    pub(super) removed: BTreeSet<NodeId>,
    /// Whom we set right, and when: at most once a second each.
    pub(super) corrected: BTreeMap<NodeId, Instant>,
    /// When anybody was heard last.
    pub(super) heard: Instant,
    /// Whether anybody has answered since nobody was alive.
    pub(super) answered: bool,
    /// How often nobody answered; nothing while we do not ask.
    pub(super) retries: Option<u32>,
    /// How many acks in a row named other members than ours.
    pub(super) differences: u32,
    last_stall: Option<Instant>,
    pub(super) outgoing: VecDeque<Outgoing>,
    pub(super) events: VecDeque<Event>,
    pub(super) rng: StdRng,
    pub(super) stats: Stats,
    scratch: Vec<u8>,
}

impl Membership {
    /// Makes the machine of a node that knows nobody yet. The same seed and inputs give the same outputs.
    pub fn new(config: Config, identity: Identity, seed: u64, now: Instant) -> Self {
        let identity = Identity {
            // Flow and scope do not travel.
            addr: SocketAddr::new(identity.addr.ip(), identity.addr.port()),
            ..identity
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let foca = Foca::new(
            identity,
            foca_config(&config, 1),
            StdRng::from_rng(&mut rng),
            PacketCodec,
        );
        let mut machine = Self {
            recent: RecentRecords::new(config.copy_gap.end * 3),
            config,
            identity,
            incarnation: 0,
            left: false,
            foca,
            tuned_for: 1,
            table: Table::default(),
            probe: Probe::default(),
            neighbours: Neighbours::default(),
            answers: Answers::default(),
            history: History::of_boot(identity.boot),
            duties: Schedule::new(),
            copies: Schedule::new(),
            telling: BTreeSet::new(),
            hearings: BTreeMap::new(),
            removed: BTreeSet::new(),
            corrected: BTreeMap::new(),
            heard: now,
            answered: false,
            retries: None,
            differences: 0,
            last_stall: None,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            rng,
            stats: Stats::default(),
            scratch: Vec::with_capacity(PREAMBLE_LEN + BODY_MAX),
        };
        machine.record_ourselves(now, What::Joined, Why::Started);
        machine.plan_announce_down(now);
        machine.plan_forgetting(now);
        machine.mind_neighbours(now);
        machine
    }

    /// Returns whether datagrams are lost on the way here, as the missing copies of records tell.
    pub fn is_lossy(&self) -> bool {
        self.config.copies > 1 && self.recent.lacks_copies()
    }

    /// Handles a SWIM packet that `from` has proved to have sent.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: NodeId,
        body: &[u8],
    ) -> Result<(), MembershipError> {
        if self.left {
            self.tell_that_we_left(now, from);
            return Ok(());
        }
        if self.recent.is_copy(now, from, body) {
            self.stats.copies_dropped += 1;
            return Ok(());
        }
        let (body, hash) = split_hash(body)?;
        let mut packet = self.read_packet(from, body)?;
        self.stats.packets += 1;
        if !self.accept(now, &packet)? {
            self.stats.stale += 1;
            return Ok(());
        }
        self.answered = true;
        self.heard = now;
        self.hear_packet(now, &packet.header);
        self.answers
            .hear(now, &packet.header, self.config.probe_period);
        if packet.header.message == foca::Message::TurnUndead {
            self.doubt();
        }

        let sifted = self.sift(now, Some(from), packet.members.clone());
        if packet.members != sifted {
            packet.members = sifted;
            self.scratch.clear();
            packet.write(&mut self.scratch);
        }
        let cause = Cause {
            from: Some(from),
            left: &[],
            known_elsewhere: packet.header.message == foca::Message::Feed,
            quiet: self.is_known(&packet),
            origin: Origin::default(),
        };
        let mut effects = Effects::default();
        let handled = self.foca.handle_data(&self.scratch, &mut effects);
        note_refusal(handled);
        self.absorb(now, effects, cause);
        if let Some(hash) = hash {
            self.compare_hash(now, from, hash);
        }
        if packet.header.message == foca::Message::Announce && cause.quiet {
            self.tell_who_is_gone(now, packet.header.src);
        }
        Ok(())
    }

    /// Handles a push of news that `from` has proved to have sent. What is news to us is passed on.
    pub fn handle_update(
        &mut self,
        now: Instant,
        from: NodeId,
        body: &[u8],
    ) -> Result<(), MembershipError> {
        if self.left {
            self.tell_that_we_left(now, from);
            return Ok(());
        }
        if self.recent.is_copy(now, from, body) {
            self.stats.copies_dropped += 1;
            return Ok(());
        }
        let told = packet::read_members(body)?;
        self.answered = true;
        self.heard = now;
        if told.iter().any(|claim| self.is_our_end(claim)) {
            self.doubt();
        }
        if let Some(row) = self.table.get(from)
            && row.member.state == State::Down
            && !self.table.is_doubted(from)
        {
            // It lives: once it knows, it returns under a new identity.
            let (sender, told) = (row.member.identity, row.told());
            self.correct(now, sender, told);
        }
        self.take_in(now, Some(from), told);
        Ok(())
    }

    /// Takes in a list of members from a stream, or from disk; it is not passed on. A node that nobody has answered yet
    /// then announces itself to them.
    pub fn apply(&mut self, now: Instant, members: Vec<MemberState>) {
        if self.left {
            return;
        }
        self.take_in(now, None, members);
        if !self.answered {
            self.announce(now);
        }
    }

    /// Returns what is known of every member, this node included: for streams, and for the disk.
    pub fn list(&self) -> Vec<MemberState> {
        self.table
            .rows()
            .map(|row| row.told())
            .chain([self.as_member()])
            .collect()
    }

    /// Returns the other members, those that are down or have left included.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.rows().map(|row| &row.member)
    }

    /// Returns another member, even if it is down or has left.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.table.get(node).map(|row| &row.member)
    }

    /// Returns the other members that count as alive.
    pub fn alive(&self) -> impl Iterator<Item = NodeId> {
        self.table.alive().map(|member| member.identity.node)
    }

    /// Returns where a known node is.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        if node == self.identity.node {
            return Some(self.identity.addr);
        }
        self.table.get(node).map(|row| row.member.identity.addr)
    }

    /// Returns whether a node counts as alive. This node does, until it leaves.
    pub fn is_alive(&self, node: NodeId) -> bool {
        if node == self.identity.node {
            return !self.left;
        }
        self.table
            .get(node)
            .is_some_and(|row| row.member.state.is_alive())
    }

    /// Returns who this node is now.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns a number that is equal on nodes that think the same members alive.
    pub fn hash(&self) -> u64 {
        self.table.hash_with((!self.left).then_some(&self.identity))
    }

    /// Returns what was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Takes a node for gone for good: it has left, and whatever is said of it, it does not come back.
    pub fn remove(&mut self, now: Instant, node: NodeId) {
        self.removed.insert(node);
        let Some(member) = self.member(node).filter(|member| member.state.is_alive()) else {
            return;
        };
        let gone = MemberState {
            identity: member.identity,
            incarnation: member.incarnation,
            state: State::Left,
        };
        self.take_in(now, None, vec![gone]);
    }

    /// Returns whether a node was [removed](Self::remove).
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node)
    }

    /// Says goodbye to everyone alive. From now on nothing is probed or believed; who still asks is told again.
    pub fn leave(&mut self, now: Instant) {
        if self.left {
            return;
        }
        self.left = true;
        self.record_ourselves(now, What::Left, Why::Itself);
        self.duties.clear();
        let goodbye = [self.as_member()];
        let everyone: Vec<Identity> = self.table.alive().map(|member| member.identity).collect();
        for identity in everyone {
            self.send_members(now, identity.node, identity.addr, &goodbye);
        }
    }

    /// Returns the next record to send.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    /// Returns the next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.duties.next(), self.copies.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.mind_stall(now);
        while let Some((outgoing, more)) = self.copies.take(now) {
            self.plan_copy(now, &outgoing, more);
            self.enqueue(outgoing);
        }
        while let Some(duty) = self.duties.take(now) {
            match duty {
                Duty::Foca(timer) => self.run_timer(now, timer),
                Duty::TellSuspect(identity, incarnation, until) => {
                    self.tell_suspect(now, (identity, incarnation), until);
                }
                Duty::EndHearing(identity, incarnation) => {
                    let state = State::Down;
                    let accused = MemberState {
                        identity,
                        incarnation,
                        state,
                    };
                    self.end_hearing(now, accused);
                }
                Duty::MindNeighbours => self.mind_neighbours(now),
                Duty::EndSuspicion(identity, incarnation) => {
                    self.end_suspicion(now, (identity, incarnation));
                }
                Duty::AnnounceRetry => self.retry_announce(now),
                Duty::AnnounceDown => {
                    self.announce_to_one_down(now);
                    self.plan_announce_down(now);
                }
                Duty::Forget => {
                    self.forget(now);
                    self.plan_forgetting(now);
                }
            }
        }
    }

    /// If this node was late itself, gives the others the time that it lost: their answers may still wait to be read.
    ///
    /// Once in a few probes only, or a node that is always late would never probe.
    fn mind_stall(&mut self, now: Instant) {
        let Some(late) = self
            .duties
            .next()
            .map(|deadline| now.saturating_duration_since(deadline))
        else {
            return;
        };
        let lately = self
            .last_stall
            .is_some_and(|last| now.saturating_duration_since(last) < self.config.probe_period * 4);
        let minds = !self.config.mutated.has(Mutation::IgnoreStalls);
        if minds && late > self.config.probe_timeout && !lately {
            self.last_stall = Some(now);
            self.stats.stalls += 1;
            let delay = late + self.config.probe_timeout;
            self.duties.postpone(delay);
            self.neighbours.postpone(delay);
        }
    }

    fn run_timer(&mut self, now: Instant, timer: Timer<Identity>) {
        let mut is_alone = false;
        if let Timer::ChangeSuspectToDown {
            member_id,
            incarnation,
            ..
        } = &timer
        {
            is_alone = self.is_cut_off(now);
            self.telling.remove(&(*member_id, *incarnation));
            let guarded = !self.config.mutated.has(Mutation::RunRefutedTimer);
            if guarded && !self.is_suspect(member_id, *incarnation) {
                // foca 2.0 would leave the member alone and tell it that it is down all the same.
                self.stats.refuted += 1;
                return;
            }
            if self.config.mutated.has(Mutation::EndNoSuspicion) {
                return;
            }
        }
        let is_quiet = matches!(
            timer,
            Timer::SendIndirectProbe { .. } | Timer::PeriodicGossip(_) | Timer::PeriodicAnnounce(_)
        );
        let is_probe = matches!(timer, Timer::ProbeRandomMember(_));
        if let Timer::SendIndirectProbe { probed_id, .. } = &timer
            && self.config.stream_ping
        {
            self.probe.fall_back(*probed_id);
        }
        let mut effects = Effects::default();
        let handled = self.foca.handle_timer(timer, &mut effects);
        note_refusal(handled);
        if is_alone {
            // Who is cut off tells nobody, not even the member.
            effects.packets.clear();
        }
        // Who did not answer the last probe is suspect, and that gets a timer.
        let quiet = is_quiet || (is_probe && !effects.suspects());
        let cause = Cause {
            quiet,
            known_elsewhere: is_alone,
            ..Cause::default()
        };
        self.absorb(now, effects, cause);
        if is_alone {
            self.doubt();
        }
    }

    pub(super) fn is_suspect(&self, identity: &Identity, incarnation: u16) -> bool {
        self.member(identity.node).is_some_and(|member| {
            member.identity == *identity
                && member.incarnation == incarnation
                && member.state == State::Suspect
        })
    }

    /// Reads a packet, with its preamble, into the scratch that foca reads it from.
    fn read_packet(&mut self, from: NodeId, body: &[u8]) -> Result<Packet, PacketError> {
        if body.len() > BODY_MAX {
            return Err(PacketError::Trailing(body.len() - BODY_MAX));
        }
        self.scratch.clear();
        packet::write_preamble(&mut self.scratch, from, self.identity);
        self.scratch.extend_from_slice(body);
        let packet = Packet::read(&self.scratch)?;
        let about_us = packet
            .third()
            .is_some_and(|third| third.node == self.identity.node);
        if from == self.identity.node || about_us {
            return Err(PacketError::Circular);
        }
        Ok(packet)
    }

    /// Returns whether foca cannot learn anything from the packet.
    fn is_known(&self, packet: &Packet) -> bool {
        let sender = MemberState {
            identity: packet.header.src,
            incarnation: packet.header.src_incarnation,
            state: State::Alive,
        };
        packet.header.message != foca::Message::TurnUndead
            && self.agrees_with(&sender)
            && packet.members.iter().all(|told| self.agrees_with(told))
    }

    /// Returns whether what is told of another member is known already.
    pub(super) fn agrees_with(&self, told: &MemberState) -> bool {
        let row = self.table.get(told.identity.node);
        row.is_some_and(|row| row.agrees_with(told))
    }

    /// Does what foca wants done, and finds out what it has changed.
    pub(super) fn absorb(&mut self, now: Instant, effects: Effects, cause: Cause<'_>) {
        self.carry_out(now, effects);
        if *self.foca.identity() != self.identity {
            self.renewed(now, cause.from);
        }
        if !cause.quiet {
            self.compare(now, cause);
        }
        self.retune();
        self.plan_retry(now);
    }

    /// Returns this node, as others should see it.
    pub fn as_member(&self) -> MemberState {
        MemberState {
            identity: self.identity,
            incarnation: self.incarnation,
            state: if self.left { State::Left } else { State::Alive },
        }
    }

    /// Returns an error if `node` is not known and no more may be.
    pub(super) fn check_room(&self, node: NodeId) -> Result<(), MembershipError> {
        let known = self.table.len();
        if known >= MEMBERS_MAX && self.table.get(node).is_none() {
            return Err(MembershipError::TooMany(known));
        }
        Ok(())
    }
}

/// Splits the hash off an ack.
fn split_hash(body: &[u8]) -> Result<(&[u8], Option<u32>), PacketError> {
    if !packet::is_ack(body) {
        return Ok((body, None));
    }
    let (body, hash) = body.split_last_chunk().ok_or(PacketError::CutOff)?;
    Ok((body, Some(u32::from_be_bytes(*hash))))
}

/// Notes what foca refused. Packets are checked before foca sees them, so this is a late timer or nothing.
pub(super) fn note_refusal(handled: Result<(), foca::Error>) {
    if let Err(refusal) = handled {
        tracing::debug!(%refusal, "foca refused its input");
    }
}
