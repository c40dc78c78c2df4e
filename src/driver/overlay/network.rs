//! One network on this node, and how its part of the kernel is kept as it should be.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, Notify},
    time::Instant,
};

use super::sandboxes::Sandboxes;
use crate::{
    core::{
        model::{EndpointId, EndpointRecord, NetworkId, NetworkRecord},
        overlay::{self, Plane},
    },
    dataplane::{Dataplane, DataplaneError, Placed, is_there, reconcile},
    driver::{DataplaneView, DriverError, Reconciled, Why},
};

pub(super) struct Network {
    pub(super) record: NetworkRecord,
    /// Held across a reconciliation, so that an older desired state is never applied over a newer one.
    pub(super) state: Mutex<State>,
    /// Told when an endpoint has vanished with its sandbox.
    pub(super) has_vanished: Notify,
}

pub(super) struct State {
    id: NetworkId,
    dataplane: Arc<dyn Dataplane>,
    pub(super) overlay: overlay::Overlay,
    pub(super) endpoints: BTreeMap<EndpointId, EndpointRecord>,
    /// The sandboxes that we have moved endpoints into.
    sandboxes: Sandboxes,
    /// Peer records that could not be used.
    pub(super) refused: u64,
    /// Whether the kernel was asked what a former run has left in it.
    has_adopted: bool,
    /// Set by `delete_network`: a call that still holds the network must not program it again.
    pub(super) gone: bool,
    last: Option<Last>,
    counts: Counts,
}

/// The last reconciliation.
struct Last {
    at: Instant,
    took: Duration,
    why: Why,
    outcome: Result<usize, DataplaneError>,
}

#[derive(Default)]
struct Counts {
    reconciliations: u64,
    steps: u64,
    failures: u64,
}

impl Network {
    pub(super) fn new(
        record: &NetworkRecord,
        overlay: overlay::Overlay,
        dataplane: Arc<dyn Dataplane>,
    ) -> Self {
        let state = State {
            id: record.id,
            dataplane,
            overlay,
            endpoints: BTreeMap::new(),
            sandboxes: Sandboxes::default(),
            refused: 0,
            has_adopted: false,
            gone: false,
            last: None,
            counts: Counts::default(),
        };
        Self {
            record: record.clone(),
            state: Mutex::new(state),
            has_vanished: Notify::new(),
        }
    }

    /// Makes the kernel as it should be, whoever has changed it.
    pub(super) async fn mend(&self, why: Why) {
        let mut state = self.state.lock().await;
        state.mend(why).await;
        self.tell_of_vanished(&state);
    }

    /// Has whoever waits for it hear that endpoints have vanished with their sandboxes.
    pub(super) fn tell_of_vanished(&self, state: &State) {
        if state.sandboxes.has_vanished() {
            self.has_vanished.notify_one();
        }
    }

    pub(super) async fn next_vanished(&self) -> EndpointId {
        loop {
            let next = self.state.lock().await.sandboxes.next_vanished();
            match next {
                Some(endpoint) => return endpoint,
                None => self.has_vanished.notified().await,
            }
        }
    }
}

impl State {
    /// Makes the kernel hold what is desired.
    pub(super) async fn apply(&mut self, why: Why) -> Result<(), DriverError> {
        let at = Instant::now();
        let outcome = self.reconcile().await;
        self.counts.reconciliations += 1;
        match &outcome {
            Ok(steps) => self.counts.steps += *steps as u64,
            Err(_) => self.counts.failures += 1,
        }
        let failed = outcome.clone().map(drop);
        self.last = Some(Last {
            at,
            took: at.elapsed(),
            why,
            outcome,
        });
        failed.map_err(|error| match error {
            DataplaneError::Taken { .. } => DriverError::Taken(error),
            DataplaneError::LinkGone(_)
            | DataplaneError::Refused { .. }
            | DataplaneError::Sandbox { .. }
            | DataplaneError::NoLinks => error.into(),
        })
    }

    async fn reconcile(&mut self) -> Result<usize, DataplaneError> {
        if !self.has_adopted {
            let left = self.dataplane.list(self.id).await?;
            self.remember_sandboxes(&left);
            self.overlay.adopt(left);
            self.has_adopted = true;
        }
        let desired = self.desired();
        reconcile(&*self.dataplane, self.id, &desired).await
    }

    fn desired(&self) -> Plane {
        match self.gone {
            true => Plane::default(),
            false => self.overlay.desired(),
        }
    }

    /// Takes the sandboxes of a former run: endpoints whose sandbox has gone since leave.
    fn remember_sandboxes(&mut self, left: &Plane) {
        for placed in self.dataplane.remembered(self.id) {
            self.sandboxes.remember(placed);
        }
        let dataplane = self.dataplane.clone();
        for endpoint in self
            .sandboxes
            .look(left, |placed| is_there(&*dataplane, placed))
        {
            tracing::info!(network = %self.id, %endpoint, "an endpoint's sandbox has gone while nobody looked");
        }
    }

    async fn mend(&mut self, why: Why) {
        let before = self.problem();
        let mended = async {
            self.look_for_sandboxes().await?;
            self.apply(why).await?;
            while let Some(placed) = self.sandboxes.next_lost() {
                let link = self.dataplane.link_name(self.id, placed.placement.endpoint);
                let placed = self.dataplane.place(&link, &placed.path, &placed.placement);
                placed.await?;
            }
            Ok::<_, DriverError>(())
        };
        match mended.await {
            Err(error) if before != Some(error.to_string()) => {
                tracing::warn!(network = %self.id, %error, "the data plane is not as it should be; it is tried again");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn problem(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        last.outcome.as_ref().err().map(ToString::to_string)
    }

    /// Looks after the endpoints that are in sandboxes of which we know, and have no link any more: their sandbox is gone, and
    /// they go with it, or somebody has removed the link, and they are placed again.
    async fn look_for_sandboxes(&mut self) -> Result<(), DriverError> {
        if self.sandboxes.is_empty() {
            return Ok(());
        }
        let actual = self.dataplane.list(self.id).await?;
        let dataplane = self.dataplane.clone();
        for endpoint in self
            .sandboxes
            .look(&actual, |placed| is_there(&*dataplane, placed))
        {
            tracing::info!(network = %self.id, %endpoint, "an endpoint's sandbox is gone");
            self.overlay.handle_leave(endpoint);
        }
        Ok(())
    }

    /// Takes that an endpoint was moved into a sandbox.
    pub(super) fn remember(&mut self, placed: Placed) {
        if let Err(error) = self.dataplane.remember(self.id, &placed) {
            tracing::warn!(network = %self.id, %error, "after a restart of this daemon an endpoint will not leave with its sandbox");
        }
        self.sandboxes.remember(placed);
    }

    /// Takes that an endpoint has left.
    pub(super) async fn leave(&mut self, endpoint: EndpointId) -> Result<(), DriverError> {
        self.overlay.handle_leave(endpoint);
        self.sandboxes.forget(endpoint);
        self.apply(Why::Leave).await?;
        self.dataplane.forget(self.id, endpoint);
        Ok(())
    }

    /// Forgets all sandboxes: the network is gone.
    pub(super) fn forget_sandboxes(&mut self) {
        for placed in self.dataplane.remembered(self.id) {
            self.dataplane.forget(self.id, placed.placement.endpoint);
        }
        self.sandboxes = Sandboxes::default();
    }

    /// Shows desired beside actual.
    pub(super) async fn view(&self) -> DataplaneView {
        let actual = self.dataplane.list(self.id).await;
        let problem = actual.as_ref().err().map(ToString::to_string);
        DataplaneView {
            carries_packets: self.dataplane.has_links(),
            compared: overlay::compare(&self.desired(), &actual.unwrap_or_default()),
            problem,
            last: self.last.as_ref().map(|last| Reconciled {
                ago: last.at.elapsed(),
                took: last.took,
                why: last.why,
                outcome: last.outcome.clone().map_err(|error| error.to_string()),
            }),
            reconciliations: self.counts.reconciliations,
            steps: self.counts.steps,
            failures: self.counts.failures,
        }
    }
}
