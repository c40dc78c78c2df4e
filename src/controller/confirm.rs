//! How fresh a read is: what this node has heard of what was agreed, beside what the leader confirms.

use std::time::Duration;

use super::{Controller, ControllerError};
use crate::core::model::NodeId;

/// How fresh this node's reads are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freshness {
    /// Who confirmed it.
    pub leader: Option<NodeId>,
    /// How many events of the cluster log this node has.
    pub here: u64,
    /// How many there are, as the leader confirms; nothing: nobody says.
    pub agreed: Option<u64>,
}

impl Controller {
    /// Asks the leader what was agreed by now, and waits until this node has heard of all of it, at most for `limit`. What is
    /// read afterwards is as fresh as that.
    pub async fn confirm(&self, limit: Duration) -> Result<Freshness, ControllerError> {
        let (raft, handle) = (&self.parts.raft, &self.parts.handle);
        let agreed = raft.confirmed().await;
        let mut revision = handle.revision();
        let reached = async {
            loop {
                revision.borrow_and_update();
                let here = handle.agreed().await?;
                if agreed.is_none_or(|agreed| here >= agreed) || revision.changed().await.is_err() {
                    return Ok::<u64, ControllerError>(here);
                }
            }
        };
        let here = match tokio::time::timeout(limit, reached).await {
            Ok(here) => here?,
            Err(_late) => handle.agreed().await?,
        };
        Ok(Freshness {
            leader: raft.leader().filter(|_| agreed.is_some()),
            here,
            agreed,
        })
    }
}
