//! The data plane: makes the kernel hold what an overlay desires.
//!
//! Level-triggered: [`reconcile`] lists what is there, computes the steps to what is desired, takes them, and lists again
//! when one fails. A restarted daemon therefore adopts what it finds, and what is stale goes.

mod memory;
mod steps;

use futures_util::future::BoxFuture;

pub use memory::Memory;
pub use steps::{Step, steps};

use crate::core::{model::NetworkId, overlay::Plane};

/// Why the kernel does not hold what is desired. The next reconciliation begins by listing what it does hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The link that a forwarding entry, a neighbour or a port needs is not there: something else removed it.
    #[error("the data plane of network {0} was changed from outside")]
    LinkGone(NetworkId),
}

/// Something that holds planes: the kernel, or memory.
pub trait Dataplane: Send + Sync {
    /// Lists what it holds for a network.
    fn list(&self, network: NetworkId) -> BoxFuture<'_, Result<Plane, DataplaneError>>;

    /// Takes one step.
    fn take(&self, network: NetworkId, step: Step) -> BoxFuture<'_, Result<(), DataplaneError>>;
}

/// How often [`reconcile`] lists again after a failed step before it gives the failure to its caller.
const ATTEMPTS: usize = 3;

/// Makes `dataplane` hold `desired` for a network. It may be called again after any failure.
pub async fn reconcile(
    dataplane: &dyn Dataplane,
    network: NetworkId,
    desired: &Plane,
) -> Result<(), DataplaneError> {
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        let actual = dataplane.list(network).await?;
        outcome = take_all(dataplane, network, steps(&actual, desired)).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

async fn take_all(
    dataplane: &dyn Dataplane,
    network: NetworkId,
    steps: Vec<Step>,
) -> Result<(), DataplaneError> {
    for step in steps {
        tracing::trace!(%network, ?step, "data plane");
        dataplane.take(network, step).await?;
    }
    Ok(())
}
