//! The contract between Weft and a network allocator: who hands out, once for the whole cluster, what the networks of a driver need
//! before any node sets them up. It is apart from the driver, which every node has: only the leader's node asks an allocator.

use std::collections::BTreeMap;

use futures_util::future::{self, BoxFuture};
use tokio_util::sync::CancellationToken;

use super::DriverError;
use crate::core::model::{NetworkId, NetworkRecord};

/// What the cluster's agreed allocator (`core::allocator`) hands out for a network, in one step with its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allocation {
    /// Subnets from the cluster's pools.
    pub subnets: bool,
    /// A VXLAN id for each subnet.
    pub vxlan: bool,
}

/// Options of a network, by name.
pub type Options = BTreeMap<String, String>;

/// A network allocator.
///
/// **Invariant:** one node asks at a time, the one that leads, and nothing new is asked before [`Self::restore`] was told of
/// every network of the driver that has its share. So what an allocator keeps need not outlive it, nor be shared by nodes.
pub trait NetworkAllocator: Send + Sync {
    /// Says what is agreed for each of its networks without anybody asking it.
    fn needs(&self) -> Allocation;

    /// Says where it listens; nothing for one that is built in.
    fn address(&self) -> Option<String> {
        None
    }

    /// Returns whether it must be asked beyond that.
    fn is_asked(&self) -> bool {
        false
    }

    /// Allocates what a network needs that has its id and its subnets, and answers options. They are agreed as options of the
    /// network, in place of others of the same name, and every node's driver gets them with the network.
    ///
    /// The same network again gets the same answer. A refusal leaves nothing allocated.
    fn allocate<'a>(
        &'a self,
        _network: &'a NetworkRecord,
    ) -> BoxFuture<'a, Result<Options, DriverError>> {
        Box::pin(future::ready(Ok(Options::new())))
    }

    /// Hears of a network that has what it needs since another node led, or since before it was restarted.
    fn restore<'a>(
        &'a self,
        _network: &'a NetworkRecord,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(future::ready(Ok(())))
    }

    /// Takes back what a network had. One that has nothing is done.
    fn free(&self, _network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(future::ready(Ok(())))
    }

    /// Returns whether it has allocated for this network, or has heard that somebody has, in this life of it.
    fn holds(&self, _network: NetworkId) -> bool {
        true
    }

    /// Is cancelled when it has lost all that it was told. Then the registry has another one of its name.
    fn life(&self) -> CancellationToken {
        CancellationToken::new()
    }
}

/// The built-in allocator: all that its networks need is agreed with them. The overlay's VNIs come from here, one a subnet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed(pub Allocation);

impl Agreed {
    /// What the overlay needs: subnets, and a VXLAN id for each.
    pub const OVERLAY: Self = Self(Allocation {
        subnets: true,
        vxlan: true,
    });
}

impl NetworkAllocator for Agreed {
    fn needs(&self) -> Allocation {
        self.0
    }
}
