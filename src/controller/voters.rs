//! Who votes and why, with the names of the nodes.

use std::collections::BTreeMap;

use super::{Controller, ControllerError};
use crate::core::model::{Name, NodeId};

pub use crate::raft::{Standing, VoterReport, VoterRole, VotersReport, Wait};

impl Controller {
    /// Asks the leader who votes and why, and adds the names of the nodes as far as they are known.
    pub async fn voters(&self) -> Result<(VotersReport, BTreeMap<NodeId, Name>), ControllerError> {
        let report = self.parts.raft.voters().await;
        let mut names = self.admitted_names().await?;
        names.extend(self.node_names().await?);
        Ok((report, names))
    }

    /// Returns what this node waits for before it changes who votes, if it leads.
    pub fn voters_wait(&self) -> Option<Wait> {
        self.parts.raft.voters_wait()
    }
}
