//! The event feed: tells a driver what other nodes have in its tables of interest.
//!
//! It lists what is visible, then reads every change of the node's history in order. One that lags lists again, and the
//! driver still hears exactly the difference. A batch that the driver does not take is given again; meanwhile the history
//! keeps what is new, or the feed lags.
//!
//! It outlives its driver: a plugin that was restarted and has kept what it heard goes on where it was, and one that has not
//! hears of all that is there.

mod heard;
mod outbox;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use self::{
    heard::Heard,
    outbox::{Lost, Outbox},
};
use crate::{
    core::{
        model::{NetworkId, TableName},
        netdb::SyncState,
        watch::Filter,
    },
    driver::{Driver, TableEvent, TableInterest},
    runtime::{Handle, Stopped, clock},
};

/// How many changes are read at once.
const READ_MAX: usize = 256;
/// How long a driver that may know of entries already waits for those of other nodes.
const SYNC_MAX: Duration = Duration::from_secs(2);
/// How long a driver that did not take a batch is left alone, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// One driver's feed of one network.
pub(super) struct Feed {
    handle: Handle,
    network: NetworkId,
    tables: BTreeSet<TableName>,
    heard: Heard,
    outbox: Outbox,
    /// Through which revision of the node's history changes were read; nothing: list first.
    read: Option<u64>,
    fed: Fed,
}

/// Through which revision of the node's history each network's driver has taken what it was told.
pub(super) type Fed = watch::Sender<BTreeMap<NetworkId, u64>>;

impl Feed {
    /// Prepares the feed of a network for a driver that has heard of nothing; `fed` is shown how far it comes.
    pub(super) fn new(handle: Handle, network: NetworkId, fed: Fed) -> Self {
        Self {
            handle,
            network,
            tables: BTreeSet::new(),
            heard: Heard::new(network, BTreeSet::new()),
            outbox: Outbox::new(clock::seed()),
            read: None,
            fed,
        }
    }

    /// Feeds a driver that has just been told of the network, until the node stops.
    ///
    /// It may be dropped at any point: what the driver has not been seen to take is told to the next one.
    ///
    /// `told` hears once the driver has heard of all that was there when the network had come whole.
    pub(super) async fn run(
        &mut self,
        driver: &dyn Driver,
        interests: &[TableInterest],
        told: oneshot::Sender<()>,
    ) -> Result<(), Stopped> {
        let mut told = Some(told);
        let tables = interests.iter().map(|interest| interest.table.clone());
        let tables: BTreeSet<TableName> = tables.collect();
        if tables != self.tables || self.outbox.resume(driver.position(self.network)).is_err() {
            self.tables = tables;
            self.restart();
        }
        loop {
            if self.read.is_none() {
                if driver.is_older_than_us() {
                    self.until_synced().await;
                }
                let (visible, revision) = self.handle.list_filtered(self.filter()).await?;
                self.outbox.push(self.heard.handle_snapshot(visible));
                self.read = Some(revision);
            }
            self.deliver(driver).await;
            self.show_fed();
            self.follow(driver, &mut told).await?;
        }
    }

    /// Waits a while for what other nodes have: what a driver in another process has set up for them, it would take down for
    /// the moment until their entries have come.
    async fn until_synced(&self) {
        let mut states = self.handle.synced();
        let synced = states.wait_for(|states| {
            let state = states.get(&self.network);
            state.is_some_and(|state| *state != SyncState::Syncing)
        });
        let _ = tokio::time::timeout(SYNC_MAX, synced).await;
    }

    /// Begins anew: with all that is there.
    fn restart(&mut self) {
        self.heard = Heard::new(self.network, self.tables.clone());
        self.outbox = Outbox::new(clock::seed());
        self.read = None;
    }

    /// Reads the changes after what was read, until some are no longer kept.
    async fn follow(
        &mut self,
        driver: &dyn Driver,
        told: &mut Option<oneshot::Sender<()>>,
    ) -> Result<(), Stopped> {
        let mut newest = self.handle.revision();
        let mut synced = self.handle.synced();
        while let Some(after) = self.read {
            let state = synced.borrow_and_update().get(&self.network).copied();
            let until = *newest.borrow_and_update();
            let heard = self.handle.changes(after, self.filter(), READ_MAX).await?;
            let Ok(heard) = heard else {
                tracing::debug!(network = %self.network, "a driver's feed lagged and lists again");
                self.read = None;
                return Ok(());
            };
            let changes = heard.changes.into_iter();
            let events: Vec<TableEvent> = changes
                .filter_map(|revised| self.heard.handle_change(revised.change))
                .collect();
            self.outbox.push(events);
            self.read = Some(heard.next);
            self.deliver(driver).await;
            self.show_fed();
            let has_read_all = heard.next == after && until <= after;
            if !has_read_all || self.read.is_none() {
                continue;
            }
            if state == Some(SyncState::Synced)
                && let Some(told) = told.take()
            {
                // Who waits for it may have gone.
                let _ = told.send(());
            }
            let changed = tokio::select! {
                changed = newest.changed() => changed,
                changed = synced.changed(), if told.is_some() => changed,
            };
            changed.map_err(|_closed| Stopped)?;
        }
        Ok(())
    }

    fn show_fed(&self) {
        if let Some(read) = self.read {
            self.fed
                .send_if_modified(|fed| fed.insert(self.network, read) != Some(read));
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            network: Some(self.network),
            ..Filter::default()
        }
    }

    /// Gives the driver what waits for it, until it has taken all or has lost what it knew.
    async fn deliver(&mut self, driver: &dyn Driver) {
        let (mut pause, longest) = RETRY;
        while let Some(batch) = self.outbox.next(self.network) {
            let last = batch.last();
            let taken = match driver.event_batch(batch).await {
                Ok(progress) => {
                    let before = self.outbox.taken();
                    if let Err(Lost) = self.outbox.handle_taken(progress.through) {
                        tracing::info!(network = %self.network, "a driver has lost what it heard, and hears all again");
                        return self.restart();
                    }
                    if let Some(wanted) = progress.pause {
                        tokio::time::sleep(wanted).await;
                    }
                    self.outbox.taken() > before || self.outbox.taken() == last
                }
                Err(error) => {
                    tracing::warn!(network = %self.network, %error, "a driver did not take events; they are given again");
                    false
                }
            };
            if taken {
                pause = RETRY.0;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}
