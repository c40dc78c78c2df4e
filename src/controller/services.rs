//! What other nodes may call on this one, and newcomers: each service goes to the room that answers it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::Controller;
use crate::{
    core::model::NodeId,
    raft::{self, Transport, TransportError},
    runtime::{
        Handle,
        streams::{Caller, Dialer, Handler, Refusal, Service, StreamError},
    },
};

/// What a node that was removed gets to read, whatever it asks.
const REMOVED: &str = "the node was removed from the cluster";

/// Returns whether a node refused because the cluster has removed this one.
pub fn says_removed(error: &StreamError) -> bool {
    matches!(error, StreamError::Refused(Refusal(why)) if why == REMOVED)
}

impl Handler for Controller {
    fn call(
        &self,
        caller: Caller,
        service: Service,
        request: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async move {
            if caller
                .node
                .is_some_and(|node| self.is_shut_out(node, service))
            {
                return Err(Refusal(REMOVED.to_owned()));
            }
            if service == Service::Join {
                return Ok(self.answer_join(caller, &request).await);
            }
            let Some(node) = caller.node else {
                return Err(Refusal(format!("{service} is for members")));
            };
            self.answer_member(node, service, request).await
        })
    }
}

impl Controller {
    /// Returns whether the node was removed. One that still votes may speak to the other voters, to hand its vote over.
    fn is_shut_out(&self, node: NodeId, service: Service) -> bool {
        let raft = &self.parts.raft;
        let votes = || raft.status().voters.contains(&node);
        let is_removed = raft.read(|state| state.is_removed(node)) || self.is_removed(node);
        is_removed && !(service == Service::Raft && votes())
    }

    async fn answer_member(
        &self,
        from: NodeId,
        service: Service,
        request: Bytes,
    ) -> Result<Bytes, Refusal> {
        match service {
            Service::Sync => {
                let answer = self.parts.handle.answer(from, request).await;
                let answer = answer.map_err(|stopped| Refusal(stopped.to_string()))?;
                let answer = answer.map_err(|refused| Refusal(refused.to_string()))?;
                Ok(answer.into())
            }
            Service::Raft => Ok(self.parts.raft.handle_raft(from, request).await),
            Service::Propose => Ok(self.parts.raft.handle_propose(from, request).await),
            Service::Keys => self.answer_keys(from, &request).await,
            Service::Join => Err(Refusal("join was answered before".to_owned())),
        }
    }
}

/// The agreement's way to other nodes: by the addresses that membership knows, over the node's streams.
#[derive(Clone, Debug)]
pub struct Streams {
    handle: Handle,
    dialer: Dialer,
    removed: CancellationToken,
}

impl Streams {
    /// Makes it; both must be of the same node.
    pub fn new(handle: Handle, dialer: Dialer) -> Self {
        Self {
            handle,
            dialer,
            removed: CancellationToken::new(),
        }
    }

    /// Returns what is cancelled once another voter says that this node was removed.
    pub fn removed(&self) -> CancellationToken {
        self.removed.clone()
    }
}

impl Transport for Streams {
    fn call(
        &self,
        to: NodeId,
        service: raft::Service,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let service = match service {
            raft::Service::Raft => Service::Raft,
            raft::Service::Propose => Service::Propose,
        };
        Box::pin(async move {
            let addr = self.handle.address(to).await.ok().flatten();
            let addr = addr.ok_or(TransportError::NoAddress(to))?;
            let call = self.dialer.call(to, addr, service, request, deadline);
            call.await.map_err(|error| {
                if says_removed(&error) {
                    self.removed.cancel();
                }
                failure(to, &error)
            })
        })
    }
}

/// Tells apart what was surely not carried out: whoever asked is told so.
fn failure(node: NodeId, error: &StreamError) -> TransportError {
    let reason = error.to_string();
    match error {
        StreamError::Late { .. } | StreamError::Overdue { .. } => TransportError::TimedOut(node),
        StreamError::Lost { .. } | StreamError::BadAnswer { .. } => {
            TransportError::Broken { node, reason }
        }
        StreamError::Unreachable { .. } | StreamError::NotSent { .. } => {
            TransportError::Unreachable { node, reason }
        }
        StreamError::Busy { .. }
        | StreamError::WrongNode { .. }
        | StreamError::ForeignCluster { .. }
        | StreamError::NotValidNow { .. }
        | StreamError::CertificateRefused { .. }
        | StreamError::NotWeft { .. }
        | StreamError::Version { .. }
        | StreamError::NotOffered { .. }
        | StreamError::Refused(_)
        | StreamError::TooLarge { .. } => TransportError::Refused { node, reason },
    }
}
