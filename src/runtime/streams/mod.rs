//! Streams: mutually authenticated calls over TCP and TLS 1.3, one request and one answer at a time on a connection.
//!
//! A request is `version u8 | service u8 | length u32 | body`, an answer `version u8 | status u8 | length u32 | body`,
//! numbers in network order. Both sides prove who they are with certificates of the cluster's own authority; the client
//! insists on the node it asked for. A caller without a certificate may call [`Service::Join`] and nothing else.
//!
//! **Invariants:** nothing allocates by a length that was only claimed; every wait has a deadline; every connection,
//! call and idle connection is counted against a limit; what is dropped is counted by reason ([`Reason`]).

mod connection;
mod counters;
mod dialer;
pub mod frame;
mod listener;
mod tls;

#[cfg(test)]
mod authority_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
pub(in crate::runtime) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod version_tests;

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::core::{
    model::NodeId,
    wire::versions::{NEWEST, OLDEST},
};

pub(in crate::runtime) use connection::Connection;
pub use counters::{Reason, StreamStats};
pub use dialer::Dialer;
pub use frame::{BODY_MAX, STRANGER_BODY_MAX};
pub use listener::{serve, serve_within};
pub use tls::{Tls, check_seed};
pub(in crate::runtime) use {counters::Counters, tls::pinned};

/// What a call is for. The number is on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Service {
    /// The network DB's repair.
    Sync = 1,
    /// Raft between voters.
    Raft = 2,
    /// A proposal to the leader.
    Propose = 3,
    /// A newcomer, or a member on a newcomer's behalf.
    Join = 4,
    /// The ring of datagram keys.
    Keys = 5,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 5] = [
        Self::Sync,
        Self::Raft,
        Self::Propose,
        Self::Join,
        Self::Keys,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|service| *service as u8 == code)
    }

    fn is_open_to_strangers(self) -> bool {
        self == Self::Join
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::Raft => "raft",
            Self::Propose => "propose",
            Self::Join => "join",
            Self::Keys => "keys",
        })
    }
}

/// Who calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The node its certificate names; nothing for a newcomer without one.
    pub node: Option<NodeId>,
    /// Where the call comes from. The port is the caller's choice of the moment.
    pub addr: SocketAddr,
}

/// Why the called node refuses: a line that the caller gets to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Answers calls. It may be called from many connections at once.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call. A caller without a node only ever gets here with [`Service::Join`].
    ///
    /// The answer is dropped if it takes longer than [`Limits::answer_within`].
    fn call(
        &self,
        caller: Caller,
        service: Service,
        request: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>>;
}

/// What a node's streams may take. The default is for production; tests shorten the waits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections from others at once; a further one is dropped.
    pub connections: usize,
    /// Of those, how many may be without a certificate or amid the handshake; a further one is dropped.
    pub strangers: usize,
    /// How long a caller may take for its handshake.
    pub handshake_within: Duration,
    /// How long a caller without a certificate may take for its one request, after the handshake.
    pub stranger_within: Duration,
    /// How long a request may take from its first byte to its last, and an answer to be taken off our hands.
    pub frame_within: Duration,
    /// How long a handler may take.
    pub answer_within: Duration,
    /// How long a caller may keep a connection without calling. Longer than `idle_for`, so that callers hang up first.
    pub silent_for: Duration,
    /// How long calls under way may go on after the shutdown has begun.
    pub grace: Duration,
    /// Calls to [`Service::Join`] by strangers: how many at once.
    pub join_burst: u32,
    /// And how many a second in the long run; what is above gets "busy".
    pub joins_per_second: u32,
    /// Calls we make at once for each service; a further one waits, within its deadline.
    pub calls: usize,
    /// Idle connections we keep to each node; a further one is closed.
    pub idle_per_node: usize,
    /// Idle connections we keep in all; the one idle for longest is closed for a further one.
    pub idle_in_all: usize,
    /// How long we keep an idle connection.
    pub idle_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            strangers: 256,
            handshake_within: Duration::from_secs(5),
            stranger_within: Duration::from_secs(5),
            frame_within: Duration::from_secs(30),
            answer_within: Duration::from_secs(30),
            silent_for: Duration::from_secs(75),
            grace: Duration::from_secs(1),
            join_burst: 64,
            joins_per_second: 16,
            calls: 128,
            idle_per_node: 2,
            idle_in_all: 256,
            idle_for: Duration::from_secs(60),
        }
    }
}

/// Why a call has no answer.
///
/// After [`Self::Lost`], [`Self::Late`] and [`Self::Overdue`] the request may have been carried out; after all others
/// it was not.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Nothing listens there, or the network does not lead there. It may pass.
    #[error(
        "{addr} cannot be reached: {source}; check that the node is up and that its port is open for TCP"
    )]
    Unreachable {
        /// Where we called.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke. It may pass.
    #[error("the connection to {addr} broke: {reason}")]
    Lost {
        /// Where we called.
        addr: SocketAddr,
        /// What broke it.
        reason: String,
    },
    /// No connection was to be had within the deadline, so nothing was sent. It may pass.
    #[error(
        "no connection to {addr} within {deadline:?}; check that the node is up and that its port is open for TCP"
    )]
    NotSent {
        /// Where we called.
        addr: SocketAddr,
        /// How long the caller was willing to wait.
        deadline: Duration,
    },
    /// No answer came within the deadline. It may pass.
    #[error("{addr} did not answer within {deadline:?}")]
    Late {
        /// Where we called.
        addr: SocketAddr,
        /// How long the caller was willing to wait.
        deadline: Duration,
    },
    /// The called node gave up on the answer before we did. It may pass.
    #[error("{addr} could not finish the answer in time")]
    Overdue {
        /// Where we called.
        addr: SocketAddr,
    },
    /// The called node has too much to do. It passes.
    #[error("{addr} is busy")]
    Busy {
        /// Where we called.
        addr: SocketAddr,
    },
    /// Another node of the cluster has that address now.
    #[error("{addr} is not the node that was asked for: its address is out of date")]
    WrongNode {
        /// Where we called.
        addr: SocketAddr,
    },
    /// The node there is of another cluster, or of none.
    #[error(
        "{addr} is of another cluster, or has an authority that replaced the one this node knows: check the address; if it is right, start this node with --join HOST:PORT --token TOKEN"
    )]
    ForeignCluster {
        /// Where we called.
        addr: SocketAddr,
    },
    /// A certificate is not valid at this time: the operator must look at the clocks.
    #[error(
        "the certificate of {addr} is not valid now: check the clocks of both nodes; if they are right it has run out and the node must join again"
    )]
    NotValidNow {
        /// Where we called.
        addr: SocketAddr,
    },
    /// The node there does not take our certificate.
    #[error(
        "{addr} refuses this node's certificate ({alert}): check that both are of one cluster and the clocks of both; a node that was removed, or that slept through a change of the authority, must join again"
    )]
    CertificateRefused {
        /// Where we called.
        addr: SocketAddr,
        /// What it said.
        alert: String,
    },
    /// TLS failed otherwise: what is there is most likely not Weft.
    #[error("{addr} does not speak Weft: {reason}; check the address and the port")]
    NotWeft {
        /// Where we called.
        addr: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The node there speaks another version of the protocol.
    #[error(
        "{addr} speaks version {theirs} of the stream protocol, this node {OLDEST} to {NEWEST}: upgrade the older one"
    )]
    Version {
        /// Where we called.
        addr: SocketAddr,
        /// What it speaks.
        theirs: u8,
    },
    /// The node there does not offer the service, or not to us.
    #[error("{addr} does not offer {service} to this node: {why}")]
    NotOffered {
        /// Where we called.
        addr: SocketAddr,
        /// What we called for.
        service: Service,
        /// What it said.
        why: &'static str,
    },
    /// The node there refused, with its reason.
    #[error("{0}")]
    Refused(Refusal),
    /// The request is too long. The caller must send less at once.
    #[error("a request of {len} bytes is too long: at most {limit} are allowed")]
    TooLarge {
        /// How long it is.
        len: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The answer breaks the protocol.
    #[error("the answer of {addr} is not valid: {reason}")]
    BadAnswer {
        /// Where we called.
        addr: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
}
