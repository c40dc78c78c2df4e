//! Replacing a leader that is known to be gone sooner than its silence alone would tell.

use std::{sync::Arc, time::Duration};

use openraft::ServerState;

use super::Inner;
use crate::core::model::NodeId;

/// How long after the lease has run out a follower stands: the others' leases may have begun a little later.
const MARGIN: Duration = Duration::from_millis(50);

/// How often the lease is looked at before the hint is taken for wrong.
const LOOKS_MAX: usize = 3;

impl Inner {
    /// Stands for election as soon as the other voters may grant it, unless `node` does not lead or is heard of again.
    ///
    /// Before the lease of the last heartbeat has run out a vote would be refused, and would only raise the term.
    pub(super) async fn replace_leader(self: Arc<Self>, node: NodeId) {
        for _ in 0..LOOKS_MAX {
            let is_stale = || {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow();
                metrics.current_leader != Some(node.0) || metrics.state != ServerState::Follower
            };
            if is_stale() {
                return;
            }
            let silence = self
                .raft
                .with_raft_state(|state| state.vote_last_modified().map(|at| at.elapsed()));
            let Ok(silence) = silence.await else {
                return;
            };
            let lease = self.timings.lease() + MARGIN;
            let left = lease.saturating_sub(silence.unwrap_or(lease));
            if left.is_zero() {
                tracing::info!(leader = %node, "the leader is gone: standing for election");
                if let Err(error) = self.raft.trigger().elect().await {
                    tracing::debug!(%error, "not standing");
                }
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(left) => {}
            }
        }
        tracing::debug!(leader = %node, "the leader is heard of: not standing");
    }
}
