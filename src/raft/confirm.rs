//! How far the cluster log goes, as its leader confirms: whoever has that much of it has all that was agreed before it asked.

use std::time::Duration;

use super::{
    Inner, Raft,
    transport::Service,
    wire::{self, Message, Reply},
};

/// How long the leader may take to answer.
const LEADER_DEADLINE: Duration = Duration::from_secs(2);

impl Raft {
    /// Asks the leader how far the cluster log goes, once a majority has told it that it leads still (Ongaro, §6.4). Nothing: it
    /// does not say, or there is none.
    pub async fn confirmed(&self) -> Option<u64> {
        let inner = &self.inner;
        let leader = inner.leader()?;
        if leader == inner.node {
            return inner.confirm().await;
        }
        let request = wire::seal(&Message::Confirm);
        let asked = inner
            .transport
            .call(leader, Service::Raft, request, LEADER_DEADLINE);
        let reply: Reply = wire::open(&asked.await.ok()?).ok()?;
        reply.confirmed()
    }
}

impl Inner {
    /// Confirms how far the cluster log goes, if this node leads.
    pub(super) async fn confirm(&self) -> Option<u64> {
        let confirmed = tokio::time::timeout(LEADER_DEADLINE, self.raft.ensure_linearizable());
        confirmed.await.ok()?.ok()?;
        Some(self.shared.lock().allocator.last_dot())
    }
}
