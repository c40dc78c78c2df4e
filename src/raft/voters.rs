//! Who votes and why, asked on any node: the leader knows, and answers the others.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Inner, Raft, VotersReport, Wait,
    autopilot::{of_leader, unled},
    transport::Service,
    wire::{self, Message, Reply},
};

/// How long the leader may take to answer.
const LEADER_DEADLINE: Duration = Duration::from_secs(2);

impl Raft {
    /// Asks the leader who votes and why. Without one, this node says what it knows.
    pub async fn voters(&self) -> VotersReport {
        let inner = &self.inner;
        let leader = inner.leader();
        let answer = match leader {
            Some(leader) if leader == inner.node => inner.voters(),
            Some(leader) => {
                let request = wire::seal(&Message::Voters);
                let asked = inner
                    .transport
                    .call(leader, Service::Raft, request, LEADER_DEADLINE);
                let answer = asked.await.ok();
                let reply = answer.and_then(|bytes| wire::open::<Reply>(&bytes).ok());
                reply.and_then(Reply::voters)
            }
            None => None,
        };
        answer.unwrap_or_else(|| inner.voters_unled())
    }

    /// Returns what this node waits for before it changes who votes, if it leads.
    pub fn voters_wait(&self) -> Option<Wait> {
        self.inner.voters().map(|report| report.wait)
    }
}

impl Inner {
    /// Returns who votes and why, if this node leads and has looked.
    pub(super) fn voters(&self) -> Option<VotersReport> {
        if self.leader() != Some(self.node) {
            return None;
        }
        let look = self.seen.borrow();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        Some(of_leader(look.as_ref()?, &metrics, Instant::now()))
    }

    fn voters_unled(&self) -> VotersReport {
        let members = self.members.borrow().clone();
        let metrics = self.raft.metrics();
        unled(&members, &metrics.borrow(), self.wanted)
    }
}
