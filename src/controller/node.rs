//! The node among its members: status, members, the join token, leaving.

use std::{collections::BTreeMap, time::Duration};

use super::{Controller, ControllerError, StatusView, entropy};
use crate::{
    core::{
        allocator::{Action, MEMBERS_TABLE, MemberRecord, TokenSecret},
        model::{Name, NetworkId, NodeId, NodeRecord, TableName},
        wire::codec,
    },
    runtime::trust::Token,
};

/// How long a node goes on serving after its farewell, so that everybody hears it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the others may take to replace this node's vote, and how often it is looked at.
const VOTE_DEADLINE: Duration = Duration::from_secs(10);
const VOTE_LOOK_EVERY: Duration = Duration::from_millis(100);

/// The version of the program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Controller {
    /// Shows the node at a glance.
    pub async fn status(&self) -> Result<StatusView, ControllerError> {
        let endpoints = self.disk(|store| store.endpoints()).await?.len();
        let problems = self.desk.engine_problems.borrow().clone();
        let networks = self.network_list().await?.into_iter();
        let engine_problems = networks.filter_map(|network| {
            let problem = problems.get(&network.id)?.clone();
            Some((network.name, problem))
        });
        Ok(StatusView {
            node: self.parts.node,
            name: self.parts.name.clone(),
            cluster: self.parts.cluster,
            version: VERSION,
            leader: self.parts.raft.leader(),
            raft: self.parts.raft.status(),
            runtime: self.parts.handle.status().await?,
            networks: self.desk.setups.borrow().clone(),
            endpoints,
            removals: self.desk.removals.len(),
            certificate: self.certificate(),
            engine: self.desk.engine.borrow().clone(),
            engine_problems: engine_problems.collect(),
        })
    }

    /// Adds the owner's name to a refusal that has only its id.
    pub(super) async fn name_owner(&self, mut refused: ControllerError) -> ControllerError {
        if let ControllerError::NotOwner { owner } | ControllerError::EntryExists { owner } =
            &mut refused
            && let Ok(mut names) = self.node_names().await
        {
            owner.name = names.remove(&owner.node);
        }
        refused
    }

    /// Returns the names of the nodes, as they say them themselves.
    pub async fn node_names(&self) -> Result<BTreeMap<NodeId, Name>, ControllerError> {
        let records = self.node_records().await?.into_iter();
        Ok(records.map(|(node, record)| (node, record.name)).collect())
    }

    /// Returns the names under which the members were admitted.
    pub(super) async fn admitted_names(&self) -> Result<BTreeMap<NodeId, Name>, ControllerError> {
        let table = TableName::new(MEMBERS_TABLE).expect("letters are a table name");
        let listed = self
            .parts
            .handle
            .list(NetworkId::CLUSTER, Some(table))
            .await?;
        let names = listed.into_iter().filter_map(|entry| {
            let node = entry
                .key
                .as_bytes()
                .try_into()
                .map(u64::from_be_bytes)
                .ok()?;
            let record: MemberRecord = codec::decode(entry.value.as_bytes()).ok()?;
            Some((NodeId(node), record.name))
        });
        Ok(names.collect())
    }

    pub(super) async fn node_records(
        &self,
    ) -> Result<BTreeMap<NodeId, NodeRecord>, ControllerError> {
        let table = Some(nodes_table());
        let listed = self.parts.handle.list(NetworkId::CLUSTER, table).await?;
        let records = listed.into_iter().filter_map(|entry| {
            let record = codec::decode(entry.value.as_bytes()).ok()?;
            Some((entry.owner, record))
        });
        Ok(records.collect())
    }

    /// Returns the join token, with a new secret if `rotate`: then the token before is worth nothing.
    pub async fn token(&self, rotate: bool) -> Result<Token, ControllerError> {
        if rotate {
            let token = Token::random(self.signing_authority().await?, &mut entropy());
            let secret = TokenSecret(token.secret);
            self.propose(Action::RotateToken { secret }).await?;
            return Ok(token);
        }
        self.ask_token().await
    }

    /// Leaves the cluster for good: endpoints first, then the name and the id, then the disk. Afterwards the daemon must end;
    /// see [`Self::left`].
    pub async fn leave(&self) -> Result<(), ControllerError> {
        let this = self.clone();
        self.finish(async move { this.leave_now().await }).await
    }

    /// Waits until this node has left the cluster.
    pub async fn left(&self) {
        self.desk.left.cancelled().await;
    }

    async fn leave_now(&self) -> Result<(), ControllerError> {
        for network in self.network_list().await? {
            let _hand = self.desk.hands.hold(network.id).await;
            for endpoint in self.own_endpoints(network.id).await? {
                self.unpublish(endpoint).await?;
            }
        }
        let node = self.parts.node;
        let members = self.parts.handle.members().await?;
        let others = members.iter().filter(|member| member.node != node);
        self.desk.leaving.cancel();
        if others.filter(|member| member.state.is_alive()).count() > 0 {
            if self.parts.raft.status().voters.len() > 1 && !self.parts.raft.relieve(node).await {
                tracing::warn!("no other voter could take the lead before this node leaves");
            }
            match self.propose(Action::RemoveMember { node }).await {
                Ok(_done) => self.hand_over_vote().await,
                Err(error) => {
                    tracing::warn!(%error, "the cluster could not agree that this node leaves: its name stays taken");
                }
            }
        }
        self.parts.handle.leave().await?;
        tokio::time::sleep(FAREWELL).await;
        self.parts.raft.shutdown().await;
        self.withdraw_from_drivers().await;
        self.disk(|store| store.clear()).await?;
        self.desk.left.cancel();
        Ok(())
    }

    /// Waits until other nodes vote in this one's place, lest a cluster of two lose its only voter.
    async fn hand_over_vote(&self) {
        let mut ticks = tokio::time::interval(VOTE_LOOK_EVERY);
        let handed_over = async {
            while self.parts.raft.status().voters.contains(&self.parts.node) {
                ticks.tick().await;
            }
        };
        if tokio::time::timeout(VOTE_DEADLINE, handed_over)
            .await
            .is_err()
        {
            tracing::warn!("this node leaves with its vote: the others replace it once it is gone");
        }
    }
}

pub(super) fn nodes_table() -> TableName {
    TableName::new("nodes").expect("letters are a table name")
}
