//! The data plane: makes the kernel hold what an overlay desires.
//!
//! Level-triggered: [`reconcile`] lists what is there, computes the steps to what is desired, takes them, and lists again
//! when one fails. A restarted daemon therefore adopts what it finds, and what is stale goes.

mod linux;
mod memory;
mod steps;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use futures_util::future::{self, BoxFuture};
use serde::{Deserialize, Serialize};

pub use linux::{Kernel, Missing};
pub use memory::Memory;
pub use steps::{Step, steps};

use crate::core::{
    model::{EndpointId, Mac, NetworkId, Prefix, Vni, Vtep},
    overlay::{Plane, Underlay},
};

/// Why the kernel does not hold what is desired. The next reconciliation begins by listing what it does hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The link that a forwarding entry, a neighbour or a port needs is not there: something else removed it.
    #[error("the data plane of network {0} was changed from outside")]
    LinkGone(NetworkId),
    /// The kernel refused; the operator must act if it does not pass.
    #[error("cannot {what}: {reason}")]
    Refused {
        /// What it was asked for.
        what: String,
        /// What it said.
        reason: String,
    },
    /// Something else on this host has a tunnel of that VNI on that port; the operator must remove it, or give the network
    /// another port.
    #[error(
        "VXLAN id {vni} on UDP port {port} is taken on this host by {by}: remove that, or create the network with -o vxlan_port=…"
    )]
    Taken {
        /// The VNI.
        vni: Vni,
        /// The port on the underlay.
        port: u16,
        /// What has it, as far as that can be seen.
        by: String,
    },
    /// What was named as a sandbox is none; whoever named it must name another.
    #[error("{path} is no network namespace: {reason}")]
    Sandbox {
        /// What was named.
        path: PathBuf,
        /// Why it is none.
        reason: String,
    },
    /// This node carries no packets, so there is nothing that could be moved.
    #[error("this node runs without a data plane: see its log for why")]
    NoLinks,
}

/// How an endpoint is to look in a sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Placement {
    /// The endpoint; its link has been made.
    pub endpoint: EndpointId,
    /// Its MAC address, by which it is found again.
    pub mac: Mac,
    /// Its addresses with their subnets' prefix lengths.
    pub addresses: Vec<Prefix>,
    /// The name that it gets; nothing: the first that is free of `prefix` and a number.
    pub name: Option<String>,
    /// What a name that nobody has chosen begins with.
    #[serde(default = "usual_prefix")]
    pub prefix: String,
    /// Where to send packets for other prefixes, and through which hop, unless they are on the link; a prefix of length 0 is the
    /// default route.
    pub routes: Vec<(Prefix, Option<std::net::IpAddr>)>,
}

fn usual_prefix() -> String {
    "eth".to_owned()
}

/// An endpoint that we have moved into a sandbox. It is remembered for as long as the host runs: a daemon that starts again
/// looks after it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Placed {
    /// Where the sandbox was named.
    pub path: PathBuf,
    /// Which one it was: another one may be there later.
    pub sandbox: SandboxId,
    /// The name of its link in the host's namespace.
    #[serde(default)]
    pub link: String,
    /// How the endpoint looks in it.
    pub placement: Placement,
}

/// Which of the host's network namespaces it is: the number that `/proc/PID/ns/net` shows. It may be given out again once the
/// namespace is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SandboxId(pub u64);

/// Something that holds planes: the kernel, or memory.
pub trait Dataplane: Send + Sync {
    /// Lists what it holds for a network.
    fn list(&self, network: NetworkId) -> BoxFuture<'_, Result<Plane, DataplaneError>>;

    /// Takes steps, in an order that leads to the same end as the order in which they are given.
    fn apply(
        &self,
        network: NetworkId,
        steps: Vec<Step>,
    ) -> BoxFuture<'_, Result<(), DataplaneError>>;

    /// Removes what it holds of all networks but these, whoever made it.
    fn keep_only<'a>(
        &'a self,
        _networks: &'a BTreeSet<NetworkId>,
    ) -> BoxFuture<'a, Result<(), DataplaneError>> {
        Box::pin(future::ready(Ok(())))
    }

    /// Returns whether packets flow through what it holds, so that a sandbox can be given a link.
    fn has_links(&self) -> bool {
        false
    }

    /// Returns the name of an endpoint's link in the host's namespace, as it was made.
    fn link_name(&self, _network: NetworkId, endpoint: EndpointId) -> String {
        link_name(endpoint)
    }

    /// Waits until somebody else seems to have changed what it holds, and returns for which network.
    fn changed(&self) -> BoxFuture<'_, NetworkId> {
        Box::pin(future::pending())
    }

    /// Has what is remembered of it asked for again the next time: somebody else may have changed it unnoticed.
    fn doubt(&self) -> BoxFuture<'_, ()> {
        Box::pin(future::ready(()))
    }

    /// Returns what carries the tunnels to this end now; nothing where that cannot be seen.
    fn underlay(&self, _vtep: Vtep) -> BoxFuture<'_, Result<Option<Underlay>, DataplaneError>> {
        Box::pin(future::ready(Ok(None)))
    }

    /// Waits until what carries the tunnels may have changed.
    fn underlay_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(future::pending())
    }

    /// Returns which sandbox the path leads to; nothing if it leads to none.
    fn sandbox(&self, _path: &Path) -> Result<Option<SandboxId>, DataplaneError> {
        Ok(None)
    }

    /// Returns the endpoints that a former run has moved into sandboxes, and that have not left since.
    fn remembered(&self, _network: NetworkId) -> Vec<Placed> {
        Vec::new()
    }

    /// Remembers that an endpoint was moved into a sandbox, beyond the end of this process.
    fn remember(&self, _network: NetworkId, _placed: &Placed) -> Result<(), DataplaneError> {
        Ok(())
    }

    /// Forgets an endpoint that has left.
    fn forget(&self, _network: NetworkId, _endpoint: EndpointId) {}

    /// Moves a link of the host's namespace into a sandbox and sets it up there; returns its name. It may be called again.
    fn place<'a>(
        &'a self,
        _link: &'a str,
        _sandbox: &'a Path,
        _placement: &'a Placement,
    ) -> BoxFuture<'a, Result<String, DataplaneError>> {
        Box::pin(future::ready(Err(DataplaneError::NoLinks)))
    }

    /// Moves a link back out of its sandbox, under the name that it had before. It may be called again, and for a sandbox that is
    /// gone.
    fn withdraw<'a>(&'a self, _placed: &'a Placed) -> BoxFuture<'a, Result<(), DataplaneError>> {
        Box::pin(future::ready(Ok(())))
    }
}

/// Returns whether an endpoint's sandbox is still there. One that cannot be looked at may be.
pub fn is_there(dataplane: &dyn Dataplane, placed: &Placed) -> bool {
    let found = dataplane.sandbox(&placed.path);
    found.map_or(true, |found| found == Some(placed.sandbox))
}

/// How often [`reconcile`] lists again after a failed step before it gives the failure to its caller.
const ATTEMPTS: usize = 3;

/// Makes `dataplane` hold `desired` for a network, and returns in how many steps. It may be called again after any failure.
pub async fn reconcile(
    dataplane: &dyn Dataplane,
    network: NetworkId,
    desired: &Plane,
) -> Result<usize, DataplaneError> {
    let (mut outcome, mut count) = (Ok(()), 0);
    for _ in 0..ATTEMPTS {
        let actual = dataplane.list(network).await?;
        let steps = steps(&actual, desired);
        if steps.is_empty() {
            return Ok(count);
        }
        tracing::trace!(%network, ?steps, "data plane");
        count += steps.len();
        outcome = dataplane.apply(network, steps).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome.map(|()| count)
}

/// The name of an endpoint's link, unless another one's begins alike: at most 15 bytes, as Linux wants it (`IFNAMSIZ`).
pub fn link_name(endpoint: EndpointId) -> String {
    let id = endpoint.to_string();
    format!("weft{}", id.get(..11).unwrap_or(&id))
}

#[cfg(test)]
mod tests;
