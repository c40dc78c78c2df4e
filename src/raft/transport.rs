//! How Raft reaches other nodes: one request, one answer, within a deadline.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::core::model::NodeId;

/// What a request is for, so that the other side knows who answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// Messages between voters and learners: [`super::Raft::handle_raft`] answers.
    Raft,
    /// Proposals: [`super::Raft::handle_propose`] answers.
    Propose,
}

/// Why there was no answer. It passes by itself, or the node is gone.
///
/// After [`Self::Broken`] and [`Self::TimedOut`] the request may have been carried out; after all others it was not.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No address is known for the node.
    #[error("no address is known for node {0}")]
    NoAddress(NodeId),
    /// There was no connection to the node: nothing was sent.
    #[error("node {node} cannot be reached: {reason}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What went wrong.
        reason: String,
    },
    /// The connection broke once the request was under way, or the answer made no sense.
    #[error("the connection to node {node} broke: {reason}")]
    Broken {
        /// The node.
        node: NodeId,
        /// What went wrong.
        reason: String,
    },
    /// It took too long. The node may have got the request.
    #[error("node {0} did not answer in time")]
    TimedOut(NodeId),
    /// The node answered that it will not.
    #[error("node {node} refused: {reason}")]
    Refused {
        /// The node.
        node: NodeId,
        /// What it said.
        reason: String,
    },
}

/// A way to reach other nodes, authenticated on both sides.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and returns the answer. It gives up at the deadline.
    fn call(
        &self,
        to: NodeId,
        service: Service,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>>;
}
