//! The event feed: tells a driver what other nodes have in its tables of interest.
//!
//! It lists what is visible, then reads every change of the node's history in order. One that lags lists again, and the
//! driver still hears exactly the difference. A batch that the driver does not take is given again; meanwhile the history
//! keeps what is new, or the feed lags.

mod heard;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use self::heard::Heard;
use crate::{
    core::{model::NetworkId, netdb::SyncState, watch::Filter},
    driver::{Driver, TableEvent, TableInterest},
    runtime::{Handle, Stopped},
};

/// How many changes are read at once, and how many events a driver gets at once at most.
const BATCH_MAX: usize = 256;
/// How long a driver that did not take a batch is left alone, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// One driver's feed of one network.
pub(super) struct Feed {
    handle: Handle,
    driver: Arc<dyn Driver>,
    network: NetworkId,
    heard: Heard,
    /// Told once the driver has heard of all that was there when the network had come whole.
    told: Option<oneshot::Sender<()>>,
}

impl Feed {
    /// Prepares the feed of a driver that has just been told of the network.
    pub(super) fn new(
        handle: Handle,
        driver: Arc<dyn Driver>,
        network: NetworkId,
        interests: Vec<TableInterest>,
        told: oneshot::Sender<()>,
    ) -> Self {
        let tables: BTreeSet<_> = interests
            .into_iter()
            .map(|interest| interest.table)
            .collect();
        Self {
            handle,
            driver,
            network,
            heard: Heard::new(network, tables),
            told: Some(told),
        }
    }

    /// Feeds the driver until the node stops.
    pub(super) async fn run(mut self) -> Result<(), Stopped> {
        loop {
            let (visible, revision) = self.handle.list_filtered(self.filter()).await?;
            let events = self.heard.handle_snapshot(visible);
            self.tell(&events).await;
            self.follow(revision).await?;
            tracing::debug!(network = %self.network, "a driver's feed lagged and lists again");
        }
    }

    /// Reads the changes after a revision until some are no longer kept.
    async fn follow(&mut self, mut after: u64) -> Result<(), Stopped> {
        let mut newest = self.handle.revision();
        let mut synced = self.handle.synced();
        loop {
            let state = synced.borrow_and_update().get(&self.network).copied();
            let until = *newest.borrow_and_update();
            let heard = self.handle.changes(after, self.filter(), BATCH_MAX).await?;
            let Ok(heard) = heard else { return Ok(()) };
            let changes = heard.changes.into_iter();
            let events: Vec<TableEvent> = changes
                .filter_map(|revised| self.heard.handle_change(revised.change))
                .collect();
            self.tell(&events).await;
            let has_read_all = heard.next == after && until <= after;
            after = heard.next;
            if !has_read_all {
                continue;
            }
            if state == Some(SyncState::Synced)
                && let Some(told) = self.told.take()
            {
                // Who waits for it may have gone.
                let _ = told.send(());
            }
            let changed = tokio::select! {
                changed = newest.changed() => changed,
                changed = synced.changed(), if self.told.is_some() => changed,
            };
            changed.map_err(|_closed| Stopped)?;
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            network: Some(self.network),
            ..Filter::default()
        }
    }

    async fn tell(&self, events: &[TableEvent]) {
        for batch in events.chunks(BATCH_MAX) {
            let (mut pause, longest) = RETRY;
            while let Err(error) = self.driver.event_notify(batch).await {
                tracing::warn!(network = %self.network, %error, "a driver did not take events; they are given again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}
