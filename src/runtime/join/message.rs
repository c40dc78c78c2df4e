//! What a newcomer and the cluster say to each other.

use std::{fmt, net::SocketAddr};

use bincode::{Decode, Encode};
use zeroize::Zeroize;

use crate::core::{
    model::{ClusterId, Name, NodeId},
    wire::{codec, keyring::AgreedRing},
};

/// The version of the request and the reply.
pub const VERSION: u8 = 1;

/// What a newcomer says of itself. Its Debug output keeps the secret to itself.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct JoinRequest {
    /// The version of this request: first, so that every later version can read it.
    pub version: u8,
    /// The newcomer.
    pub node: NodeId,
    /// The name a person gave it.
    pub name: Name,
    /// Its certificate request.
    pub csr_der: Vec<u8>,
    /// The token's secret.
    pub secret: [u8; 16],
    /// Where it listens. An unspecified address means: the one it calls from.
    pub listen: SocketAddr,
}

impl JoinRequest {
    /// Reads a request; one of another version or none at all gets the refusal it deserves.
    pub fn decode(bytes: &[u8]) -> Result<Self, JoinRefusal> {
        match codec::decode::<Self>(bytes) {
            _ if bytes.first().is_some_and(|version| *version != VERSION) => {
                Err(JoinRefusal::Version { ours: VERSION })
            }
            Ok(request) => Ok(request),
            Err(error) => Err(JoinRefusal::Malformed {
                reason: error.to_string(),
            }),
        }
    }

    /// Returns where the newcomer can be reached, given where its call came from.
    pub fn address(&self, called_from: SocketAddr) -> SocketAddr {
        if self.listen.ip().is_unspecified() {
            SocketAddr::new(called_from.ip().to_canonical(), self.listen.port())
        } else {
            self.listen
        }
    }
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("version", &self.version)
            .field("node", &self.node)
            .field("name", &self.name)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl Drop for JoinRequest {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// What the cluster says to a newcomer.
pub type JoinReply = Result<Joined, JoinRefusal>;

/// What makes a newcomer a member.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// The certificate of the cluster's authority.
    pub ca_cert_der: Vec<u8>,
    /// The newcomer's certificate.
    pub cert_der: Vec<u8>,
    /// The keys of the cluster's datagrams.
    pub ring: AgreedRing,
    /// The members, as membership encodes them.
    pub members: Vec<u8>,
    /// Who leads.
    pub leader: Option<NodeId>,
}

/// Why the cluster does not let the newcomer in. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum JoinRefusal {
    /// The token's secret is not the cluster's, or no longer.
    #[error("the token is not this cluster's: run `weft token` on a member")]
    WrongToken,
    /// Another member has the name.
    #[error("a member is already named {name}: choose another with --name")]
    NameTaken {
        /// The name.
        name: Name,
    },
    /// Another member has the id.
    #[error(
        "this node's id belongs to a living member: was its data directory copied? start with an empty one"
    )]
    IdTaken,
    /// Nobody leads at this moment. It passes.
    #[error(
        "the cluster has no leader at this moment: it lets nobody in until a majority of its voters is up"
    )]
    NoLeader,
    /// Too many join at once. It passes.
    #[error("too many nodes join at once")]
    Busy,
    /// The newcomer's program is too old or too new.
    #[error(
        "the cluster speaks version {ours} of the join protocol, this node {VERSION}: use the cluster's version of weft"
    )]
    Version {
        /// What the cluster speaks.
        ours: u8,
    },
    /// The request makes no sense to the cluster.
    #[error(
        "the cluster cannot read this node's request: {reason}; use the cluster's version of weft"
    )]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

impl JoinRefusal {
    /// Returns whether to try again is of no use.
    pub fn is_final(&self) -> bool {
        match self {
            Self::WrongToken
            | Self::NameTaken { .. }
            | Self::IdTaken
            | Self::Version { .. }
            | Self::Malformed { .. } => true,
            Self::NoLeader | Self::Busy => false,
        }
    }
}
