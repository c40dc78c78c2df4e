//! Why a use case was refused, and who must act.

use std::{fmt, net::IpAddr};

use crate::{
    core::{
        allocator::AllocatorError,
        ipam::NoAddress,
        model::{LabelError, LimitError, Name, NetworkId, NodeId},
        netdb::WriteError,
    },
    driver::{DriverError, IpamError, RegistryError, SourceError},
    raft::ProposeError,
    runtime::{PutError, Stopped},
    store::StoreError,
};

/// Why a use case was refused. What it had begun was taken back, so the caller may try again.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// No network has that name or id.
    #[error("there is no network {0}")]
    NoSuchNetwork(String),
    /// Choose another name.
    #[error("network {0} exists already")]
    NetworkExists(Name),
    /// Remove its endpoints first.
    #[error("network {network} is in use by {}", by.join(", "))]
    NetworkInUse {
        /// The network.
        network: Name,
        /// Its endpoints, each as `name@node`; a few of them.
        by: Vec<String>,
    },
    /// The network is known, but its driver is not there yet on this node; it passes by itself, or `reason` says what to do.
    #[error("network {network} is not set up on this node: {reason}")]
    NetworkNotReady {
        /// The network.
        network: Name,
        /// What it waits for.
        reason: String,
    },
    /// The network's driver did not allocate what the network needs: it is not there, and `reason` says what to do.
    #[error("network {network} was not created: {reason}")]
    NotAllocated {
        /// The network.
        network: Name,
        /// What its allocator, or the way to it, was not up to.
        reason: String,
    },
    /// The network is known, but this node does not carry it yet; it passes by itself.
    #[error("this node has not attached to network {0} yet: try again")]
    NotAttached(NetworkId),
    /// No endpoint of the network has that name or id.
    #[error("network {network} has no endpoint {endpoint}")]
    NoSuchEndpoint {
        /// The network.
        network: Name,
        /// What the caller called it.
        endpoint: String,
    },
    /// Choose another name.
    #[error("this node has an endpoint {name} in network {network} already")]
    EndpointExists {
        /// The network.
        network: Name,
        /// The name.
        name: Name,
    },
    /// Choose another address, or none.
    #[error("address {address} is in use by another endpoint")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// The network has no addresses to give.
    #[error("network {network} has no subnet, so an endpoint cannot have address {address}")]
    NoSubnet {
        /// The network.
        network: Name,
        /// The address asked for.
        address: IpAddr,
    },
    /// Choose a network with a subnet.
    #[error("network {0} has no subnet, so it has no addresses to hold")]
    NoAddresses(Name),
    /// The engine must ask Weft for the address, so the network needs Weft's IPAM driver.
    #[error("address {address} was not handed out by Weft")]
    NotHeld {
        /// The address.
        address: IpAddr,
    },
    /// Ask the node that has it.
    #[error("it belongs to node {owner}: only there it can be changed")]
    NotOwner {
        /// Whose it is.
        owner: Owner,
    },
    /// No member has that name or id.
    #[error("the cluster has no member {0}")]
    NoSuchMember(String),
    /// A node leaves by itself.
    #[error("{0} is the node you ask: `weft leave` lets it go in order")]
    Oneself(Name),
    /// Nobody could lead without it.
    #[error(
        "{0} alone votes: `weft leave` on it lets another vote in its place first; if it is lost, see `weft cluster recover`"
    )]
    OnlyVoter(String),
    /// A table entry of that key is there.
    #[error("the entry exists already, owned by node {owner}")]
    EntryExists {
        /// Whose it is.
        owner: Owner,
    },
    /// No table entry has that key.
    #[error("there is no such entry")]
    NoSuchEntry,
    /// The table is kept by Weft or by the network's driver.
    #[error("table {0} is kept by Weft itself or by the network's driver, and cannot be written")]
    ReservedTable(String),
    /// A name, key or value is over its limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The labels are too many.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The node holds as much as it may; try again later.
    #[error("the node has too much unsent: try again later")]
    Backpressure,
    /// The cluster cannot agree now; it passes when most voters are back.
    #[error("the cluster has no leader at the moment: nothing new can be agreed")]
    NoLeader,
    /// It passes when most voters are back, or when addresses have rested.
    #[error("no leader can lease this node more addresses of network {network}, and {reason}")]
    NoAddressAlone {
        /// The network.
        network: Name,
        /// What this node has left.
        reason: NoAddress,
    },
    /// It passes when most voters are back.
    #[error(
        "no leader can say which addresses of network {0} this node still has since it was started: its endpoints keep theirs"
    )]
    LeasesUnknown(Name),
    /// Try again.
    #[error(
        "others changed the ring of datagram keys meanwhile, or retired the new one: try again"
    )]
    Overtaken,
    /// The operator must act where the leader runs; nothing was changed.
    #[error("{leader} leads, and cannot make another authority: {reason}")]
    NoAuthority {
        /// Who leads.
        leader: Owner,
        /// What its authority or its machine is not up to, and what to do.
        reason: String,
    },
    /// The leader did not answer in time; it may have been done, so look before trying again.
    #[error(transparent)]
    Timeout(ProposeError),
    /// The leader refused; the text says what the caller must change.
    #[error(transparent)]
    Refused(AllocatorError),
    /// The driver refused.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The IPAM driver refused.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// There is no such driver, or its plugin does not work.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The host's plugins cannot be listed; the text says what must be mended.
    #[error("the plugins of this host are not known: {0}")]
    Plugins(#[from] SourceError),
    /// The disk refused; the operator must act.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A program error that the log has more of.
    #[error("{0}")]
    Broken(&'static str),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopped,
}

/// Whose something is that nobody else may change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// Its name, if it is known.
    pub name: Option<Name>,
}

impl From<NodeId> for Owner {
    fn from(node: NodeId) -> Self {
        Self { node, name: None }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.node),
            None => write!(f, "{}", self.node),
        }
    }
}

impl From<Stopped> for ControllerError {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<PutError> for ControllerError {
    fn from(refused: PutError) -> Self {
        match refused {
            PutError::Write(refused) => refused.into(),
            PutError::Stopped(stopped) => stopped.into(),
        }
    }
}

impl From<WriteError> for ControllerError {
    fn from(refused: WriteError) -> Self {
        match refused {
            WriteError::AlreadyExists { owner } => Self::EntryExists {
                owner: owner.into(),
            },
            WriteError::NotFound => Self::NoSuchEntry,
            WriteError::NotAttached(network) => Self::NotAttached(network),
            WriteError::NotOwner { owner } => Self::NotOwner {
                owner: owner.into(),
            },
            WriteError::Limit(limit) => Self::Limit(limit),
            WriteError::Backpressure => Self::Backpressure,
        }
    }
}
