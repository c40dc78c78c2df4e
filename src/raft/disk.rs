//! The disk under the log, the vote and the snapshots: waited for where waiting is allowed, and while it is full.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::AnyError;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

/// How often a full disk is tried again.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// The data file, as the agreement writes to it. Clones share it.
///
/// **Invariant:** what is not on the disk is not answered. While the disk is full the engine stands still: it neither votes nor
/// acknowledges, so others elect another leader; once there is room it goes on where it was.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    store: Store,
    full: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Disk {
    /// Waits no longer for room once `stop` is cancelled.
    pub(super) fn new(store: Store, stop: CancellationToken) -> Self {
        Self {
            store,
            full: Arc::default(),
            stop,
        }
    }

    /// Returns whether it is full, so that this node takes no part for now.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Runs `work` on a thread that may wait, again and again while there is no space left.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&Store) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, AnyError> {
        let work = Arc::new(work);
        loop {
            let (store, once) = (self.store.clone(), Arc::clone(&work));
            let done = match tokio::task::spawn_blocking(move || once(&store)).await {
                Ok(done) => done,
                Err(stopped) => return Err(AnyError::new(&stopped)),
            };
            match done {
                Err(error @ StoreError::Full { .. }) => self.wait_for_room(error).await?,
                Err(error) => return Err(AnyError::new(&error)),
                Ok(done) => {
                    if self.full.swap(false, Ordering::Relaxed) {
                        tracing::info!("there is room on the disk again: taking part again");
                    }
                    return Ok(done);
                }
            }
        }
    }

    async fn wait_for_room(&self, error: StoreError) -> Result<(), AnyError> {
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "taking no part in the agreement until there is room");
        }
        tokio::select! {
            () = self.stop.cancelled() => Err(AnyError::new(&error)),
            () = tokio::time::sleep(TRY_EVERY) => Ok(()),
        }
    }
}
