//! The members: who is there, what became of each and why, as it happens too.

use std::{collections::BTreeMap, vec};

use tokio::sync::watch;

use super::{Controller, ControllerError, MemberView};
use crate::{
    core::{
        membership::Why,
        model::{Name, NodeId},
    },
    runtime::{self, MembershipView, Stopped},
};

/// How many transitions are taken at once.
const LOOK_AT: usize = 512;

/// What became of a member, with names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransitionView {
    /// What happened, when and why.
    pub view: runtime::TransitionView,
    /// The member's name, if it is known.
    pub name: Option<Name>,
    /// The node whose word or probe it was: this one for what it found out itself.
    pub by: Option<NodeId>,
    /// That node's name.
    pub by_name: Option<Name>,
}

/// A member, and what is kept of what became of it.
#[derive(Clone, Debug)]
pub struct MemberHistory {
    /// The member.
    pub member: MemberView,
    /// What became of it, oldest first.
    pub transitions: Vec<TransitionView>,
    /// How many earlier transitions are not kept any more.
    pub dropped: u64,
}

/// What a watcher of the members is told.
#[derive(Clone, Debug)]
pub enum MemberNews {
    /// All members at `revision`; what becomes of them after it follows.
    Members {
        /// The members.
        members: Vec<MemberView>,
        /// Where the transitions go on.
        revision: u64,
    },
    /// Something became of a member.
    Transition(TransitionView),
    /// More became of the members than is kept for one who lags: a list follows.
    Lagged,
}

/// Follows the members. It holds nothing but its place, and what it has read and not yet told.
pub struct MemberWatch {
    controller: Controller,
    changed: watch::Receiver<u64>,
    /// Nothing while a list is due.
    at: Option<u64>,
    read: vec::IntoIter<TransitionView>,
}

impl MemberWatch {
    /// Waits for what is next. It may be cancelled without losing any.
    pub async fn next(&mut self) -> Result<MemberNews, ControllerError> {
        loop {
            if let Some(transition) = self.read.next() {
                return Ok(MemberNews::Transition(transition));
            }
            let Some(at) = self.at else {
                let (members, revision) = self.controller.members_at().await?;
                self.at = Some(revision);
                return Ok(MemberNews::Members { members, revision });
            };
            // What comes after the look wakes us again.
            self.changed.mark_unchanged();
            let handle = &self.controller.parts.handle;
            let Ok(transitions) = handle.transitions(at, LOOK_AT).await? else {
                self.at = None;
                return Ok(MemberNews::Lagged);
            };
            if transitions.is_empty() {
                let changed = self.changed.changed().await;
                changed.map_err(|_gone| Stopped)?;
                continue;
            }
            let named = self.controller.named(transitions).await?;
            self.at = named.last().and_then(|last| last.view.revision);
            self.read = named.into_iter();
        }
    }
}

impl Controller {
    /// Lists the members, this node included.
    pub async fn members(&self) -> Result<Vec<MemberView>, ControllerError> {
        Ok(self.members_at().await?.0)
    }

    async fn members_at(&self) -> Result<(Vec<MemberView>, u64), ControllerError> {
        let (members, revision) = self.parts.handle.members_at().await?;
        let records = self.node_records().await?;
        let mut labels = self.node_labels().await?;
        let mut capabilities = self.node_capabilities().await?;
        let names = self.member_names().await?;
        let (leader, raft) = (self.parts.raft.leader(), self.parts.raft.status());
        let views = members.into_iter().map(|member| MemberView {
            name: names.get(&member.node).cloned(),
            version: records
                .get(&member.node)
                .map(|record| record.version.clone()),
            labels: labels.remove(&member.node).unwrap_or_default(),
            capabilities: capabilities.remove(&member.node).unwrap_or_default(),
            leads: leader == Some(member.node),
            votes: raft.voters.contains(&member.node),
            last: member.last.map(|last| self.named_one(last, &names)),
            member,
        });
        Ok((views.collect(), revision))
    }

    /// Shows a member, and what became of it.
    pub async fn member_history(&self, which: &str) -> Result<MemberHistory, ControllerError> {
        let id: Option<NodeId> = which.parse().ok();
        let is_it = |view: &MemberView| {
            let name = view.name.as_ref();
            name.is_some_and(|name| name.as_str() == which) || Some(view.member.node) == id
        };
        let unknown = || ControllerError::NoSuchMember(which.to_owned());
        let members = self.members().await?;
        // A name that was given anew is that of the living.
        let rank = |view: &&MemberView| u8::from(!view.member.state.is_alive());
        let found = members.iter().filter(|view| is_it(view)).min_by_key(rank);
        let member = found.cloned().ok_or_else(unknown)?;
        let trail = self.parts.handle.trail(member.member.node).await?;
        let (transitions, dropped) = trail.ok_or_else(unknown)?;
        Ok(MemberHistory {
            member,
            transitions: self.named(transitions).await?,
            dropped,
        })
    }

    /// Follows the members: first as they are, or what became of them since a revision.
    pub fn watch_members(&self, from: Option<u64>) -> MemberWatch {
        MemberWatch {
            controller: self.clone(),
            changed: self.parts.handle.transitions_changed(),
            at: from,
            read: Vec::new().into_iter(),
        }
    }

    /// Shows the figures of membership.
    pub async fn membership(&self) -> Result<MembershipView, ControllerError> {
        Ok(self.parts.handle.membership().await?)
    }

    /// Returns the names of the members. What a node says of itself is hidden while it is down; what it was admitted as is not.
    async fn member_names(&self) -> Result<BTreeMap<NodeId, Name>, ControllerError> {
        let mut names = self.admitted_names().await?;
        names.extend(self.node_names().await?);
        Ok(names)
    }

    async fn named(
        &self,
        transitions: Vec<runtime::TransitionView>,
    ) -> Result<Vec<TransitionView>, ControllerError> {
        let names = self.member_names().await?;
        let named = transitions.into_iter();
        Ok(named.map(|view| self.named_one(view, &names)).collect())
    }

    fn named_one(
        &self,
        view: runtime::TransitionView,
        names: &BTreeMap<NodeId, Name>,
    ) -> TransitionView {
        let node = view.transition.identity.node;
        let by = match view.transition.why {
            Why::Itself => Some(node),
            Why::Told(by) => Some(by),
            Why::Accused(by) | Why::SaidOfUs(by) => by,
            Why::NoAck { .. } | Why::NotRefuted => Some(self.parts.node),
            Why::Started | Why::Listed | Why::Removed | Why::Outlived => None,
        };
        TransitionView {
            view,
            name: names.get(&node).cloned(),
            by,
            by_name: by.and_then(|by| names.get(&by).cloned()),
        }
    }
}
