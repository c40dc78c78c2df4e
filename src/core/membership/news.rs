//! What others say and what became of it: claims are sifted, changes become events, and news is pushed.

use foca::Timer;

use super::{
    Event, Identity, Member, MemberState, Membership, MembershipError, State,
    effects::Effects,
    history::{Origin, What, Why},
    machine::{Cause, note_refusal},
    packet::{MEMBER_LEN_MAX, Packet},
    table::{Change, GONE_MAX},
};
use crate::core::{
    model::{Instant, Mutation, NodeId},
    wire::record::BODY_MAX,
};

/// How many members one push carries.
pub(super) const PUSH_MEMBERS_MAX: usize = BODY_MAX / MEMBER_LEN_MAX;

/// How many random members hear news besides both neighbours on the ring.
const RANDOM_TARGETS: usize = 2;

impl Membership {
    /// Takes in what somebody told of members. Nobody in particular: it is not news to others.
    pub(super) fn take_in(&mut self, now: Instant, from: Option<NodeId>, told: Vec<MemberState>) {
        let sifted = self.sift(now, from, told);
        if sifted.iter().all(|member| self.agrees_with(member)) {
            // To look for what foca has made of it would cost a walk through all members.
            return self.plan_retry(now);
        }
        let left: Vec<Identity> = sifted
            .iter()
            .filter(|member| member.state == State::Left)
            .map(|member| member.identity)
            .collect();
        let (gone, others): (Vec<_>, Vec<_>) = sifted
            .into_iter()
            .partition(|member| member.state == State::Left);
        let mut effects = Effects::default();
        let others = others.into_iter().map(MemberState::to_foca);
        let spread = from.is_some();
        note_refusal(self.foca.apply_many(others, spread, &mut effects));
        // foca would spread a leave as a down, which is less.
        let gone = gone.into_iter().map(MemberState::to_foca);
        note_refusal(self.foca.apply_many(gone, false, &mut effects));
        let cause = Cause {
            from,
            left: &left,
            known_elsewhere: from.is_none(),
            quiet: false,
            origin: Origin::List,
        };
        self.absorb(now, effects, cause);
    }

    /// Returns whether a packet is from the life of its sender that we know or a newer one, and meant for this life of
    /// ours. If it is not, its sender is told.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        packet: &Packet,
    ) -> Result<bool, MembershipError> {
        let src = packet.header.src;
        self.check_room(src.node)?;
        if let Some(row) = self.table.get(src.node) {
            let (known, told) = (row.member.identity, row.told());
            let cloned = known.boot == src.boot && known.addr != src.addr;
            if cloned || (known.boot, known.rejoin) > (src.boot, src.rejoin) {
                if self.correct(now, src, told) && cloned {
                    self.report_clash(known, src);
                }
                return Ok(false);
            }
        }
        let dst = packet.header.dst;
        if dst != self.identity && packet.header.message != foca::Message::Announce {
            let us = self.as_member();
            self.correct(now, src, us);
            return Ok(false);
        }
        Ok(true)
    }

    /// Drops the claims that foca must not see, and answers them; what is left is weighed.
    pub(super) fn sift(
        &mut self,
        now: Instant,
        from: Option<NodeId>,
        mut told: Vec<MemberState>,
    ) -> Vec<MemberState> {
        told.retain_mut(|claim| {
            if claim.identity.node == self.identity.node {
                self.hear_of_ourselves(now, from, *claim);
                return false;
            }
            let is_over = self.removed.contains(&claim.identity.node) && claim.state.is_alive();
            let has_room = self.check_room(claim.identity.node).is_ok();
            let may_be = !is_over && has_room && self.believe(now, claim);
            if may_be {
                *claim = self.weigh(now, from, *claim);
            }
            may_be
        });
        told
    }

    /// Returns whether a claim of another member may be true.
    fn believe(&mut self, now: Instant, claim: &MemberState) -> bool {
        let Some(row) = self.table.get(claim.identity.node) else {
            return true;
        };
        let (known, told) = (row.member, row.told());
        let boot = claim.identity.boot;
        if known.identity.boot == boot && known.identity.addr != claim.identity.addr {
            if claim.state.is_alive() && self.correct(now, claim.identity, told) {
                self.report_clash(known.identity, claim.identity);
            }
            return false;
        }
        let over = known.state == State::Down && known.identity == claim.identity;
        if over && !claim.state.is_alive() {
            // Others say so too.
            self.table.be_certain(claim.identity.node);
        }
        if over && !self.table.is_doubted(claim.identity.node) && claim.state.is_alive() {
            // Somebody still hears it: if it lives, it must return under a new identity.
            self.correct(now, claim.identity, told);
            return false;
        }
        true
    }

    /// Hears what others say of this node.
    fn hear_of_ourselves(&mut self, now: Instant, from: Option<NodeId>, claim: MemberState) {
        let (claimed, ours) = (claim.identity, self.identity);
        if self.is_our_end(&claim) {
            self.doubt();
        }
        if claimed == ours {
            if claim.state == State::Alive {
                return;
            }
            // A suspicion is refuted; if it is too late for that, this node renews its identity.
            let mut effects = Effects::default();
            let claims = std::iter::once(claim.to_foca());
            note_refusal(self.foca.apply_many(claims, true, &mut effects));
            let cause = Cause {
                from,
                ..Cause::default()
            };
            let before = self.incarnation;
            self.absorb(now, effects, cause);
            if self.identity == ours && self.incarnation != before {
                self.record_ourselves(now, What::Refuted, Why::SaidOfUs(from));
            }
            if let Some((node, addr)) = from.and_then(|node| Some((node, self.address(node)?))) {
                let us = self.as_member();
                self.send_members(now, node, addr, &[us]);
            }
        } else if !claimed.is_newer_than(&ours) {
            // A life of ours that is over.
        } else if (claimed.boot, claimed.addr) == (ours.boot, ours.addr) {
            // A rejoin of ours that we do not remember: go beyond it.
            let rejoin = claimed.rejoin.saturating_add(1);
            let mut effects = Effects::default();
            let beyond = Identity { rejoin, ..ours };
            note_refusal(self.foca.change_identity(beyond, &mut effects));
            let cause = Cause {
                from,
                ..Cause::default()
            };
            self.absorb(now, effects, cause);
        } else if claim.state.is_alive() && self.may_correct(now, ours.node) {
            self.report_clash(claimed, ours);
        }
    }

    /// Returns under a new identity: to whoever said that the old one is over, and to everyone.
    pub(super) fn renewed(&mut self, now: Instant, from: Option<NodeId>) {
        self.identity = *self.foca.identity();
        self.incarnation = 0;
        self.record_ourselves(now, What::Returned, Why::SaidOfUs(from));
        self.events.push_back(Event::Renewed(self.identity));
        let mut effects = Effects::default();
        // foca counts as connected again only after an update, even an empty one.
        note_refusal(
            self.foca
                .apply_many(std::iter::empty(), false, &mut effects),
        );
        let teller = from.and_then(|node| Some(self.table.get(node)?.member.identity));
        if let Some(teller) = teller {
            note_refusal(self.foca.announce(teller, &mut effects));
        }
        self.carry_out(now, effects);
        let us = self.as_member();
        self.push(now, None, &[us]);
    }

    /// Compares foca's members with ours; what changed becomes events and news.
    pub(super) fn compare(&mut self, now: Instant, cause: Cause<'_>) {
        let ours = self.identity.node;
        let changed: Vec<MemberState> = self
            .foca
            .iter_membership_state()
            .map(MemberState::from_foca)
            .filter(|told| told.identity.node != ours)
            .filter(|told| {
                let row = self.table.get(told.identity.node);
                !row.is_some_and(|row| row.agrees_with(told))
            })
            .collect();
        let mut news = Vec::new();
        for mut told in changed {
            if told.state == State::Down && cause.left.contains(&told.identity) {
                told.state = State::Left;
            }
            self.note(now, told, cause, &mut news);
        }
        for identity in cause.left {
            let row = self.table.get(identity.node);
            if let Some(mut told) = row.map(|row| row.told())
                && told.identity == *identity
                && told.state == State::Down
            {
                told.state = State::Left;
                self.note(now, told, cause, &mut news);
            }
        }
        if !news.is_empty() {
            self.find_neighbours(now);
        }
        if !cause.known_elsewhere {
            self.push(now, cause.from, &news);
        }
        if self.table.gone_count() > GONE_MAX {
            self.forget(now);
        }
    }

    /// Notes a change: reports it, and adds it to the news if others should hear of it.
    fn note(
        &mut self,
        now: Instant,
        told: MemberState,
        cause: Cause<'_>,
        news: &mut Vec<MemberState>,
    ) {
        let change = self.table.set(now, told);
        let Change { before, after, .. } = change;
        let told_by = (cause.from, cause.origin);
        self.record_change(now, (before.as_ref(), &after), told_by);
        let node = after.identity.node;
        if let Some(other) = change.alternates_with {
            self.events.push_back(Event::Clash {
                node,
                holder: after.identity.addr,
                other,
            });
        }
        let was_alive = before.is_some_and(|before| before.state.is_alive());
        let is_alive = after.state.is_alive();
        let moved = is_alive && before.is_some_and(|before| place(&before) != place(&after));
        if moved {
            let addr = after.identity.addr;
            self.events.push_back(Event::Moved(node, addr));
        }
        if is_alive && !was_alive {
            self.events.push_back(Event::Up(node));
        }
        let known = before.is_some();
        match after.state {
            State::Down if was_alive => self.events.push_back(Event::Down(node)),
            State::Left if known => self.events.push_back(Event::Left(node)),
            State::Suspect if self.table.is_near(self.identity.node, node) => {
                self.plan_tell(now, after.identity, after.incarnation);
            }
            State::Alive | State::Suspect | State::Down | State::Left => {}
        }
        let renamed = before.is_some_and(|before| before.identity != after.identity);
        let refuted = after.state == State::Alive
            && before.is_some_and(|before| before.state == State::Suspect);
        let left = known && after.state == State::Left;
        if was_alive != is_alive || (is_alive && renamed) || refuted || left {
            news.push(told);
        }
    }

    /// Pushes news along the ring and to random members.
    pub(super) fn push(&mut self, now: Instant, except: Option<NodeId>, news: &[MemberState]) {
        if self.config.mutated.has(Mutation::PushNoNews) {
            return;
        }
        let us = self.identity.node;
        for chunk in news.chunks(PUSH_MEMBERS_MAX) {
            let targets = self
                .table
                .push_targets(us, except, RANDOM_TARGETS, &mut self.rng);
            for node in targets {
                if let Some(addr) = self.address(node) {
                    self.stats.pushes += 1;
                    self.send_members(now, node, addr, chunk);
                }
            }
        }
    }

    fn report_clash(&mut self, holder: Identity, other: Identity) {
        self.events.push_back(Event::Clash {
            node: holder.node,
            holder: holder.addr,
            other: other.addr,
        });
    }

    /// Forgets members that have been gone for long, or too many.
    pub(super) fn forget(&mut self, now: Instant) {
        for identity in self.table.overdue(now, self.config.remember_down_for) {
            let timer = Timer::RemoveDown(identity);
            note_refusal(self.foca.handle_timer(timer, Effects::default()));
            self.table.remove(identity.node);
            self.answers.forget(identity.node);
            self.record_forgotten(now, identity);
        }
    }
}

/// Returns what makes a member another one to reach: its address and its boot.
fn place(member: &Member) -> (std::net::SocketAddr, crate::core::model::Boot) {
    (member.identity.addr, member.identity.boot)
}
