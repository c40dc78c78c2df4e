//! What the node's loop tells of the members: as they are, and what became of them.

use std::{net::SocketAddr, time::Duration};

use tokio::sync::watch;

use super::handle::{Handle, Stopped};
use crate::core::{
    membership::{Config, Health, Membership, Missed, State, Transition, Tuned},
    model::{Boot, Instant, NodeId, Now, UnixMillis},
    node::Node,
};

/// A member, as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberView {
    /// The node.
    pub node: NodeId,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// How it is thought to be.
    pub state: State,
    /// Since when, on this node's wall clock of now.
    pub since: UnixMillis,
    /// Which start of its program.
    pub boot: Boot,
    /// How often this start was held for down although it lived, and returned.
    pub rejoin: u16,
    /// How often it refuted a suspicion since then.
    pub incarnation: u16,
    /// How it answers our probes.
    pub health: Health,
    /// What became of it last, and why.
    pub last: Option<TransitionView>,
    /// It is this node.
    pub ours: bool,
}

/// A transition of a member, with its time on the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransitionView {
    /// Its place among those of all members; only to a watcher.
    pub revision: Option<u64>,
    /// What happened.
    pub transition: Transition,
    /// When.
    pub at: UnixMillis,
}

/// The figures of membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembershipView {
    /// As they are set.
    pub config: Config,
    /// What follows from the size of the cluster.
    pub tuned: Tuned,
}

impl Handle {
    /// Returns every known member and this node, by id, and the revision after which what becomes of them is news.
    pub async fn members_at(&self) -> Result<(Vec<MemberView>, u64), Stopped> {
        self.ask(|node, now| {
            let membership = node.membership();
            let ours = membership.identity().node;
            let others = membership.members();
            let mut members: Vec<MemberView> = others
                .filter(|member| member.identity.node != ours)
                .map(|member| view(membership, member.identity.node, now))
                .chain([view(membership, ours, now)])
                .flatten()
                .collect();
            members.sort_by_key(|member| member.node);
            (members, membership.revision())
        })
        .await
    }

    /// Returns every known member and this node, by id.
    pub async fn members(&self) -> Result<Vec<MemberView>, Stopped> {
        Ok(self.members_at().await?.0)
    }

    /// Returns what became of a member, oldest first, and how many earlier transitions are not kept; nothing if it is not known.
    pub async fn trail(&self, of: NodeId) -> Result<Option<(Vec<TransitionView>, u64)>, Stopped> {
        self.ask(move |node, now| {
            let trail = node.membership().trail(of)?;
            let transitions = trail.transitions.into_iter().map(|one| dated(one, now));
            Some((transitions.collect(), trail.dropped))
        })
        .await
    }

    /// Returns what became of the members after a revision, no more than `limit` transitions.
    pub async fn transitions(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Result<Vec<TransitionView>, Missed>, Stopped> {
        self.ask(move |node, now| {
            let revised = node.membership().transitions(after, limit)?.into_iter();
            let views = revised.map(|revised| TransitionView {
                revision: Some(revised.revision),
                ..dated(revised.transition, now)
            });
            Ok(views.collect())
        })
        .await
    }

    /// Returns a receiver that wakes whenever something became of a member.
    pub fn transitions_changed(&self) -> watch::Receiver<u64> {
        self.transitions.clone()
    }

    /// Returns the figures of membership.
    pub async fn membership(&self) -> Result<MembershipView, Stopped> {
        let view = |node: &mut Node, _| MembershipView {
            config: node.membership().config().clone(),
            tuned: node.membership().tuned(),
        };
        self.ask(view).await
    }
}

fn view(membership: &Membership, node: NodeId, now: Now) -> Option<MemberView> {
    let us = membership.as_member();
    let ours = us.identity.node == node;
    let (told, since) = match membership.member(node).filter(|_| !ours) {
        Some(member) => (member.told(), member.since),
        None if ours => (us, Instant::default()),
        None => return None,
    };
    Some(MemberView {
        node,
        addr: told.identity.addr,
        state: told.state,
        since: wall(since, now),
        boot: told.identity.boot,
        rejoin: told.identity.rejoin,
        incarnation: told.incarnation,
        health: membership.health(node),
        last: membership
            .last_transition(node)
            .map(|last| dated(last, now)),
        ours,
    })
}

fn dated(transition: Transition, now: Now) -> TransitionView {
    TransitionView {
        revision: None,
        transition,
        at: wall(transition.at, now),
    }
}

/// Returns the time on the wall clock, as that stands now.
fn wall(at: Instant, now: Now) -> UnixMillis {
    let ago: Duration = now.instant.saturating_duration_since(at);
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(now.wall.0.saturating_sub(ago))
}
