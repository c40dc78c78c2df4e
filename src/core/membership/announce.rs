//! Making oneself heard: announcing while nobody answers, asking those that are down, setting others right.

use std::time::Duration;

use rand::RngExt;

use super::{
    Identity, MemberState, Membership, State,
    effects::Effects,
    machine::{Duty, note_refusal},
    news::PUSH_MEMBERS_MAX,
};
use crate::core::model::{Instant, Mutation, NodeId};

/// How many members are asked at once.
const ANNOUNCE_TO: usize = 3;

/// How many acks in a row must name other members than ours before we ask: while news spreads they differ for a moment.
const DIFFERENCES: u32 = 2;

/// Who is gone for longer than this is not told to a member that asks: it would know by now.
const GONE_LATELY: Duration = Duration::from_mins(10);

/// How often one node is set right at most.
const CORRECT_EVERY: Duration = Duration::from_secs(1);

/// How many nodes are remembered as set right. At the bound nobody else is, for the moment.
const CORRECTED_MAX: usize = 1_024;

/// How often the memory of gone members is looked through.
const FORGET_EVERY: Duration = Duration::from_mins(1);

/// Into how many parts a suspect's time is cut: it is told once in each.
const TELLS: u32 = 8;

impl Membership {
    /// Announces this node to a few members that it knows, alive ones or else those that are down, and pushes itself as
    /// news. It is repeated until somebody answers.
    pub fn announce(&mut self, now: Instant) {
        if self.left {
            return;
        }
        let mut known: Vec<Identity> = self.table.alive().map(|member| member.identity).collect();
        if known.is_empty() {
            known = self.down().collect();
        }
        for _ in 0..ANNOUNCE_TO.min(known.len()) {
            let chosen = known.swap_remove(self.rng.random_range(0..known.len()));
            self.announce_to(now, chosen);
        }
        let us = self.as_member();
        self.push(now, None, &[us]);
        self.plan_retry(now);
    }

    /// Returns the half of the hash that acks carry.
    pub(super) fn short_hash(&self) -> u32 {
        self.hash() as u32
    }

    /// Compares our members with those of a node that has answered. If they stay different, asks it for its members:
    /// SWIM's updates die out, so a node may have missed one.
    pub(super) fn compare_hash(&mut self, now: Instant, from: NodeId, hash: u32) {
        if hash == self.short_hash() || self.config.mutated.has(Mutation::RepairNothing) {
            self.differences = 0;
            return;
        }
        self.differences += 1;
        let from = self.table.get(from).map(|row| row.member.identity);
        if let Some(from) = from.filter(|_| self.differences >= DIFFERENCES) {
            self.differences = 0;
            self.stats.repairs += 1;
            self.announce_to(now, from);
        }
    }

    /// Tells a member that asks for members, though we know each other, who is gone: foca only answers who is alive.
    pub(super) fn tell_who_is_gone(&mut self, now: Instant, asker: Identity) {
        let since = Instant::from_start(now.since_start().saturating_sub(GONE_LATELY));
        let gone = self.table.gone_since(since, PUSH_MEMBERS_MAX);
        if !gone.is_empty() {
            self.send_members(now, asker.node, asker.addr, &gone);
        }
    }

    pub(super) fn announce_to_one_down(&mut self, now: Instant) {
        let down: Vec<Identity> = self.down().collect();
        if !down.is_empty() && self.table.alive_count() > 0 {
            let chosen = down[self.rng.random_range(0..down.len())];
            self.announce_to(now, chosen);
        }
    }

    fn announce_to(&mut self, now: Instant, member: Identity) {
        let mut effects = Effects::default();
        note_refusal(self.foca.announce(member, &mut effects));
        self.carry_out(now, effects);
    }

    fn down(&self) -> impl Iterator<Item = Identity> {
        self.table
            .rows()
            .filter(|row| row.member.state == State::Down)
            .map(|row| row.member.identity)
    }

    fn is_alone(&self) -> bool {
        !self.answered || self.table.alive_count() == 0
    }

    /// Plans to announce again if nobody answers, unless that is planned or there is nobody to ask.
    pub(super) fn plan_retry(&mut self, now: Instant) {
        if self.table.alive_count() == 0 {
            self.answered = false;
        }
        if self.left || !self.is_alone() || self.retries.is_some() || self.table.len() == 0 {
            return;
        }
        self.retries = Some(0);
        self.add_retry(now, 0);
    }

    pub(super) fn retry_announce(&mut self, now: Instant) {
        let retries = self.retries.unwrap_or(0);
        if !self.is_alone() {
            self.retries = None;
            return;
        }
        self.announce(now);
        let retries = retries.saturating_add(1);
        self.retries = Some(retries);
        self.add_retry(now, retries);
    }

    fn add_retry(&mut self, now: Instant, retries: u32) {
        let slower = 1 << retries.min(3);
        let after = self.spread(self.config.announce_retry * slower);
        self.duties.add(now + after, Duty::AnnounceRetry);
    }

    pub(super) fn plan_announce_down(&mut self, now: Instant) {
        let after = self.spread(self.config.announce_down_every);
        self.duties.add(now + after, Duty::AnnounceDown);
    }

    pub(super) fn plan_forgetting(&mut self, now: Instant) {
        self.duties.add(now + FORGET_EVERY, Duty::Forget);
    }

    /// Returns an interval, spread by a quarter so that nodes do not fall in step.
    fn spread(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.random_range(0.75..1.25))
    }

    /// Plans to tell a suspect that it is one, unless that is done already.
    pub(super) fn plan_tell(&mut self, now: Instant, identity: Identity, incarnation: u16) -> bool {
        let is_new = self.telling.insert((identity, incarnation));
        if is_new {
            let until = now + self.config.suspect_for;
            let tell = Duty::TellSuspect(identity, incarnation, until);
            self.duties.add(now, tell);
        }
        is_new
    }

    /// Tells a suspect that it is one, again and again until it refutes or its time is over.
    pub(super) fn tell_suspect(&mut self, now: Instant, suspect: (Identity, u16), until: Instant) {
        let (identity, incarnation) = suspect;
        let tells_none = self.config.mutated.has(Mutation::TellNoSuspect);
        if tells_none || now >= until || !self.is_suspect(&identity, incarnation) {
            self.telling.remove(&suspect);
            return;
        }
        let suspicion = MemberState {
            identity,
            incarnation,
            state: State::Suspect,
        };
        self.send_members(now, identity.node, identity.addr, &[suspicion]);
        let after = self.config.suspect_for / TELLS;
        let again = Duty::TellSuspect(identity, incarnation, until);
        self.duties.add(now + after, again);
    }

    pub(super) fn tell_that_we_left(&mut self, now: Instant, node: NodeId) {
        if let Some(addr) = self.address(node)
            && self.may_correct(now, node)
        {
            let goodbye = self.as_member();
            self.send_members(now, node, addr, &[goodbye]);
        }
    }

    /// Tells a node what is so, unless it was told something a moment ago.
    pub(super) fn correct(&mut self, now: Instant, who: Identity, what: MemberState) -> bool {
        let may = self.may_correct(now, who.node);
        if may {
            self.send_members(now, who.node, who.addr, &[what]);
        }
        may
    }

    pub(super) fn may_correct(&mut self, now: Instant, node: NodeId) -> bool {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < CORRECT_EVERY;
        if self.corrected.get(&node).is_some_and(lately) {
            return false;
        }
        if self.corrected.len() >= CORRECTED_MAX {
            self.corrected.retain(|_, at| lately(at));
        }
        if self.corrected.len() >= CORRECTED_MAX {
            return false;
        }
        self.corrected.insert(node, now);
        true
    }
}
