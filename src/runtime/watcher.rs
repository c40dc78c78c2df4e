//! A watcher: a place in the node's history of changes, followed by one task.

use tokio::sync::watch;

use super::handle::{Handle, Stopped};
use crate::core::{
    netdb::EntryView,
    watch::{Filter, Revised},
};

/// How many changes are looked at in one go.
const LOOK_AT: usize = 512;

/// What a watcher is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// All that is visible at `revision`; changes after it follow.
    Snapshot {
        /// The entries.
        entries: Vec<EntryView>,
        /// Where the changes go on.
        revision: u64,
    },
    /// One change.
    Change(Revised),
    /// Changes were lost, since more came than are kept: a snapshot follows.
    Lagged,
}

/// Follows the entries that pass a filter. It holds nothing but its place and what it has read and not yet told.
#[derive(Debug)]
pub struct Watcher {
    handle: Handle,
    revision: watch::Receiver<u64>,
    filter: Filter,
    /// Nothing while a snapshot is due.
    at: Option<u64>,
    read: std::vec::IntoIter<Revised>,
}

impl Watcher {
    pub(super) fn new(handle: Handle, filter: Filter, from: Option<u64>) -> Self {
        let revision = handle.revision();
        Self {
            handle,
            revision,
            filter,
            at: from,
            read: Vec::new().into_iter(),
        }
    }

    /// Waits for what is next.
    pub async fn next(&mut self) -> Result<WatchEvent, Stopped> {
        loop {
            if let Some(change) = self.read.next() {
                return Ok(WatchEvent::Change(change));
            }
            let Some(at) = self.at else {
                let (entries, revision) = self.handle.list_filtered(self.filter.clone()).await?;
                self.at = Some(revision);
                return Ok(WatchEvent::Snapshot { entries, revision });
            };
            let newest = *self.revision.borrow_and_update();
            match self
                .handle
                .changes(at, self.filter.clone(), LOOK_AT)
                .await?
            {
                Err(_lagged) => {
                    self.at = None;
                    return Ok(WatchEvent::Lagged);
                }
                Ok(heard) => {
                    self.at = Some(heard.next);
                    self.read = heard.changes.into_iter();
                    if heard.next == at && newest <= at {
                        self.revision.changed().await.map_err(|_stopped| Stopped)?;
                    }
                }
            }
        }
    }
}
