//! What this node knows of the others, and the ring they form.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Bound,
    time::Duration,
};

use rand::{Rng, RngExt};

use super::{Identity, Member, MemberState, State};
use crate::core::model::{self, Instant, NetworkId, NodeId, mix};

/// How many members are known at most, ourselves not counted. Unknown ones are refused at the bound.
pub(super) const MEMBERS_MAX: usize = 16_384;

/// How many members that are down or have left are remembered. At the bound the one longest gone is forgotten.
pub(super) const GONE_MAX: usize = 4_096;

/// How many on either side of a member on the ring tell it that it is suspect, once they have heard.
const NEAR: usize = 4;

/// Within what time a member that returns to an address it had before is taken for two nodes with one id.
const ALTERNATION: Duration = Duration::from_mins(1);

/// A member as this room sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) member: Member,
}

impl Row {
    /// Returns whether `told` is what is known already. That a member left, foca only knows as down.
    pub(super) fn agrees_with(&self, told: &MemberState) -> bool {
        let member = &self.member;
        let same_state = member.state == told.state
            || (member.state == State::Left && told.state == State::Down);
        member.identity == told.identity && member.incarnation == told.incarnation && same_state
    }

    /// Returns what to tell others.
    pub(super) fn told(&self) -> MemberState {
        self.member.told()
    }
}

/// How a row changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) before: Option<Member>,
    pub(super) after: Member,
    /// Where it was shortly before, if it has just gone back there: two nodes share its id.
    pub(super) alternates_with: Option<SocketAddr>,
}

/// All other members.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<NodeId, Row>,
    /// Where members were before they moved, and until when. Hardly any ever does.
    moved_from: BTreeMap<NodeId, (SocketAddr, Instant)>,
    /// Those alive, in the order of their hashes: the same on every node, without a word.
    ring: BTreeSet<(u64, NodeId)>,
    /// Those that are down for all we know, though we may have been cut off.
    doubted: BTreeSet<NodeId>,
    /// The hashes of all lives that are alive, combined.
    lives: u64,
}

impl Table {
    pub(super) fn get(&self, node: NodeId) -> Option<&Row> {
        self.rows.get(&node)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Returns those that count as alive, by id.
    pub(super) fn alive(&self) -> impl Iterator<Item = &Member> {
        self.rows
            .values()
            .map(|row| &row.member)
            .filter(|member| member.state.is_alive())
    }

    pub(super) fn alive_count(&self) -> usize {
        self.ring.len()
    }

    /// Returns those that are down and not doubted to be.
    pub(super) fn certainly_down(&self) -> impl Iterator<Item = Identity> {
        let members = self.rows.values().map(|row| &row.member);
        members
            .filter(|member| member.state == State::Down)
            .map(|member| member.identity)
            .filter(|identity| !self.is_doubted(identity.node))
    }

    pub(super) fn has_doubts(&self) -> bool {
        !self.doubted.is_empty()
    }

    pub(super) fn is_doubted(&self, node: NodeId) -> bool {
        self.doubted.contains(&node)
    }

    /// Doubts that a member is down, until more is known of it.
    pub(super) fn doubt(&mut self, node: NodeId) {
        self.doubted.insert(node);
    }

    /// Doubts no longer that a member is down.
    pub(super) fn be_certain(&mut self, node: NodeId) {
        self.doubted.remove(&node);
    }

    /// Writes what is known of a member from now on, and says what changed.
    pub(super) fn set(&mut self, now: Instant, told: MemberState) -> Change {
        let node = told.identity.node;
        let before = self.rows.get(&node).copied();
        let same_state = before.is_some_and(|row| row.member.state == told.state);
        let after = Member {
            identity: told.identity,
            state: told.state,
            incarnation: told.incarnation,
            since: before
                .filter(|_| same_state)
                .map_or(now, |row| row.member.since),
        };
        let moved = before.filter(|row| row.member.identity.addr != told.identity.addr);
        let alternates_with = moved.filter(|_| {
            self.moved_from.get(&node).is_some_and(|(addr, until)| {
                *addr == told.identity.addr && now.saturating_duration_since(*until) < ALTERNATION
            })
        });
        if let Some(row) = moved {
            self.moved_from
                .insert(node, (row.member.identity.addr, now));
        }
        self.rows.insert(node, Row { member: after });
        self.leave_ring(before.as_ref());
        self.be_certain(node);
        if told.state.is_alive() {
            self.ring.insert(place(node));
            self.lives ^= hash_of_life(&told.identity);
        }
        Change {
            before: before.map(|row| row.member),
            after,
            alternates_with: alternates_with.map(|row| row.member.identity.addr),
        }
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        let row = self.rows.remove(&node);
        self.moved_from.remove(&node);
        self.leave_ring(row.as_ref());
        self.be_certain(node);
    }

    fn leave_ring(&mut self, row: Option<&Row>) {
        if let Some(member) = row.map(|row| &row.member)
            && member.state.is_alive()
        {
            let node = member.identity.node;
            self.ring.remove(&place(node));
            self.lives ^= hash_of_life(&member.identity);
        }
    }

    /// Returns those that are certainly gone, most recently first, not before `since`, up to `limit`.
    pub(super) fn gone_since(&self, since: Instant, limit: usize) -> Vec<MemberState> {
        let mut gone: Vec<&Row> = self
            .rows
            .values()
            .filter(|row| !row.member.state.is_alive() && row.member.since >= since)
            .filter(|row| !self.is_doubted(row.member.identity.node))
            .collect();
        gone.sort_by_key(|row| (Reverse(row.member.since), row.member.identity.node));
        gone.iter().take(limit).map(|row| row.told()).collect()
    }

    /// Returns who is to be forgotten: gone for longer than `memory`, or the longest gone of too many.
    pub(super) fn overdue(&self, now: Instant, memory: Duration) -> Vec<Identity> {
        let mut gone: Vec<&Member> = self
            .rows
            .values()
            .map(|row| &row.member)
            .filter(|member| !member.state.is_alive())
            .collect();
        gone.sort_by_key(|member| (member.since, member.identity.node));
        let too_many = gone.len().saturating_sub(GONE_MAX);
        gone.iter()
            .enumerate()
            .filter(|(place, member)| {
                *place < too_many || now.saturating_duration_since(member.since) >= memory
            })
            .map(|(_, member)| member.identity)
            .collect()
    }

    pub(super) fn gone_count(&self) -> usize {
        self.rows.len() - self.ring.len()
    }

    /// Returns both neighbours of `us` on the ring; one if they are the same.
    pub(super) fn neighbours(&self, us: NodeId) -> impl Iterator<Item = NodeId> {
        let here = place(us);
        let mut after = self.ring.range(here..).chain(&self.ring);
        let mut before = self.ring.range(..here).rev().chain(self.ring.iter().rev());
        let after = after.next().map(|(_, node)| *node);
        let before = before.next().map(|(_, node)| *node);
        let second = before.filter(|before| Some(*before) != after);
        after.into_iter().chain(second)
    }

    /// Returns to whom `us` pushes news: both neighbours on the ring and `random` others, `except` one.
    pub(super) fn push_targets(
        &self,
        us: NodeId,
        except: Option<NodeId>,
        random: usize,
        rng: &mut impl Rng,
    ) -> BTreeSet<NodeId> {
        let mut targets: BTreeSet<NodeId> = self.neighbours(us).collect();
        for _ in 0..random {
            // Whoever follows a random point: not quite evenly chosen, but without walking the ring.
            let point = (rng.random(), NodeId(0));
            let mut following = self.ring.range(point..).chain(&self.ring);
            let chosen = following
                .by_ref()
                .take(8)
                .map(|(_, node)| *node)
                .find(|node| !targets.contains(node) && Some(*node) != except);
            targets.extend(chosen);
        }
        targets.retain(|node| Some(*node) != except);
        targets
    }

    /// Returns whether `us` is among the nearest of a member on the ring: [`NEAR`] on either side.
    pub(super) fn is_near(&self, us: NodeId, node: NodeId) -> bool {
        let (here, there) = (place(us), place(node));
        let (low, high) = (here.min(there), here.max(there));
        let between = self
            .ring
            .range((Bound::Excluded(low), Bound::Excluded(high)));
        let after = self.ring.range((Bound::Excluded(high), Bound::Unbounded));
        let around = self.ring.range(..low).chain(after);
        between.take(NEAR).count() < NEAR || around.take(NEAR).count() < NEAR
    }

    /// Returns a number that is equal where the same members are alive in the same lives.
    pub(super) fn hash_with(&self, us: Option<&Identity>) -> u64 {
        self.lives ^ us.map_or(0, hash_of_life)
    }
}

fn hash_of_life(identity: &Identity) -> u64 {
    let life = (u64::from(identity.boot.0) << 16) | u64::from(identity.rejoin);
    mix(mix(identity.node.0) ^ life)
}

/// Where a node stands on the ring: where it stands on that of the network DB's cluster scope, so that neighbours here hear
/// each other's digests.
fn place(node: NodeId) -> (u64, NodeId) {
    model::place(NetworkId::CLUSTER, node)
}
