//! Looking at nodes through their control API, all at the same time, until what is waited for is there.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::{StepError, nodes::Nodes};
use crate::{
    api::client::{Client, ClientError},
    core::model::EndpointId,
};

/// How often it is checked that no node has ended by itself.
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// The table in which the overlay driver finds its peers.
const PEERS: &str = "overlay_peers";

/// What one look at a node showed.
pub(super) enum Seen {
    /// What is waited for.
    Good,
    /// Something else.
    Not(String),
}

/// Returns what was seen; `what` says it if it is not good.
pub(super) fn seen(good: bool, what: impl FnOnce() -> String) -> Seen {
    if good { Seen::Good } else { Seen::Not(what()) }
}

/// Until when to look, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    began: Instant,
    deadline: Instant,
    every: Duration,
}

impl Patience {
    /// Looks every millisecond or two, to measure.
    pub(super) fn keen(within: Duration) -> Self {
        Self::new(within, Duration::from_millis(1))
    }

    /// Looks a few times a second, at what takes its time.
    pub(super) fn calm(within: Duration) -> Self {
        Self::new(within, Duration::from_millis(20))
    }

    fn new(within: Duration, every: Duration) -> Self {
        let began = Instant::now();
        Self {
            began,
            deadline: began + within,
            every,
        }
    }

    /// Waits until the next look, or returns what was seen last if there shall be none.
    pub(super) async fn wait(&self, seen: impl FnOnce() -> String) -> Result<(), StepError> {
        if Instant::now() >= self.deadline {
            return Err(StepError::NotSeen {
                after: self.began.elapsed(),
                seen: seen(),
            });
        }
        sleep(self.every).await;
        Ok(())
    }
}

/// Looks at these nodes until each shows what is waited for, and returns when each did.
pub(super) async fn until<F, A>(
    nodes: &mut Nodes,
    places: &[usize],
    patience: Patience,
    look: F,
) -> Result<Vec<(String, Instant)>, StepError>
where
    F: Fn(Client) -> A,
    A: Future<Output = Result<Seen, ClientError>>,
{
    let looks = places.iter().map(|place| {
        let (name, client) = (
            nodes.get(*place).name.clone(),
            nodes.get(*place).client.clone(),
        );
        let look = &look;
        async move {
            loop {
                let last = match look(client.clone()).await {
                    Ok(Seen::Good) => return Ok((name, Instant::now())),
                    Ok(Seen::Not(what)) => what,
                    Err(error) => error.to_string(),
                };
                patience.wait(|| format!("on {name}, {last}")).await?;
            }
        }
    });
    let looks = try_join_all(looks.collect::<Vec<_>>());
    tokio::select! {
        biased;
        times = looks => times,
        ended = until_one_ends(nodes) => Err(ended),
    }
}

async fn until_one_ends(nodes: &mut Nodes) -> StepError {
    loop {
        if let Err(ended) = nodes.check() {
            return ended;
        }
        sleep(CHECK_EVERY).await;
    }
}

/// What endpoints' entries should be on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// All are there.
    There,
    /// None is there.
    Gone,
}

/// Looks for the entries of endpoints, in a node's overlay driver and in its table.
pub(super) async fn entries(
    client: Client,
    network: &str,
    endpoints: &[EndpointId],
    want: Want,
) -> Result<Seen, ClientError> {
    let detail = client.network(network).await?;
    let peers = detail.driver_state["peers"].as_array();
    let in_driver = |endpoint: &&EndpointId| {
        let mut peers = peers.into_iter().flatten();
        peers.any(|peer| peer["endpoint"] == endpoint.to_string())
    };
    let listed = client.entries(network, PEERS).await?;
    let in_table = |endpoint: &&EndpointId| {
        let key = endpoint.0.to_be_bytes();
        listed.iter().any(|entry| *entry.key.0 == key)
    };
    let driver = endpoints.iter().filter(in_driver).count();
    let table = endpoints.iter().filter(in_table).count();
    let wanted = match want {
        Want::There => endpoints.len(),
        Want::Gone => 0,
    };
    Ok(seen(driver == wanted && table == wanted, || {
        let all = endpoints.len();
        format!("{driver} of {all} entries in the driver, {table} in the table")
    }))
}
