//! openraft's requests over the transport, and their answers.

use std::{sync::Arc, time::Duration};

use openraft::{
    EmptyNode, RaftNetwork, RaftNetworkFactory,
    error::{
        Fatal, InstallSnapshotError, RPCError, RaftError, RemoteError, SnapshotMismatch,
        Unreachable,
    },
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};

use super::{
    transport::{Service, Transport, TransportError},
    types::Types,
    wire::{self, Message, Reply, WireError},
};
use crate::core::model::NodeId;

/// Makes a [`Link`] to each node that openraft speaks to.
pub(super) struct Network {
    transport: Arc<dyn Transport>,
}

impl Network {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Link {
        Link {
            target: NodeId(target),
            transport: Arc::clone(&self.transport),
        }
    }
}

/// The way to one node.
pub(super) struct Link {
    target: NodeId,
    transport: Arc<dyn Transport>,
}

type Failure<E> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

/// Why a request had no answer that makes sense.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the answer cannot be read")]
    Wire(#[from] WireError),
    #[error("node {0} answers something else")]
    Unexpected(NodeId),
    #[error("node {0} refused: {1}")]
    Refused(NodeId, String),
}

impl Link {
    async fn ask<E: std::error::Error>(
        &self,
        message: &Message,
        deadline: Duration,
    ) -> Result<Reply, Failure<E>> {
        let request = wire::seal(message);
        let answer = self
            .transport
            .call(self.target, Service::Raft, request, deadline);
        let bytes = answer.await.map_err(|error| unreachable(error.into()))?;
        let reply = wire::open(&bytes).map_err(|error| unreachable(error.into()))?;
        if let Reply::Stopped = reply {
            let stopped = RaftError::Fatal(Fatal::Stopped);
            return Err(RPCError::RemoteError(RemoteError::new(
                self.target.0,
                stopped,
            )));
        }
        if let Reply::Refused(reason) = reply {
            return Err(unreachable(LinkError::Refused(self.target, reason)));
        }
        Ok(reply)
    }

    fn unexpected<E: std::error::Error>(&self) -> Failure<E> {
        unreachable(LinkError::Unexpected(self.target))
    }
}

/// Whatever went wrong, openraft shall wait a little before it tries again.
fn unreachable<E: std::error::Error>(error: LinkError) -> Failure<E> {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure<openraft::error::Infallible>> {
        let reply = self
            .ask(&Message::append(request), option.hard_ttl())
            .await?;
        match reply {
            Reply::Appended => Ok(AppendEntriesResponse::Success),
            Reply::AppendedUpTo(matching) => Ok(AppendEntriesResponse::PartialSuccess(
                matching.map(Into::into),
            )),
            Reply::Conflict => Ok(AppendEntriesResponse::Conflict),
            Reply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            Reply::Vote { .. }
            | Reply::Snapshot(_)
            | Reply::SnapshotMismatch(..)
            | Reply::Noted
            | Reply::Voters(_)
            | Reply::PreVote { .. }
            | Reply::Confirmed(_)
            | Reply::Stopped
            | Reply::Refused(_) => Err(self.unexpected()),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failure<InstallSnapshotError>> {
        let reply = self
            .ask(&Message::snapshot(request), option.hard_ttl())
            .await?;
        match reply {
            Reply::Snapshot(vote) => Ok(InstallSnapshotResponse { vote: vote.into() }),
            Reply::SnapshotMismatch(expect, got) => {
                let mismatch = SnapshotMismatch {
                    expect: wire::segment(expect),
                    got: wire::segment(got),
                };
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(
                    self.target.0,
                    error,
                )))
            }
            Reply::Appended
            | Reply::AppendedUpTo(_)
            | Reply::Conflict
            | Reply::HigherVote(_)
            | Reply::Vote { .. }
            | Reply::Noted
            | Reply::Voters(_)
            | Reply::PreVote { .. }
            | Reply::Confirmed(_)
            | Reply::Stopped
            | Reply::Refused(_) => Err(self.unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure<openraft::error::Infallible>> {
        let reply = self
            .ask(&Message::vote(&request), option.hard_ttl())
            .await?;
        match reply {
            Reply::Vote {
                vote,
                granted,
                last,
            } => Ok(VoteResponse {
                vote: vote.into(),
                vote_granted: granted,
                last_log_id: last.map(Into::into),
            }),
            Reply::Appended
            | Reply::AppendedUpTo(_)
            | Reply::Conflict
            | Reply::HigherVote(_)
            | Reply::Snapshot(_)
            | Reply::SnapshotMismatch(..)
            | Reply::Noted
            | Reply::Voters(_)
            | Reply::PreVote { .. }
            | Reply::Confirmed(_)
            | Reply::Stopped
            | Reply::Refused(_) => Err(self.unexpected()),
        }
    }
}
