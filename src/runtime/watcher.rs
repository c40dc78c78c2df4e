//! A watcher: a place in the node's history of changes, followed by one task.

use tokio::sync::watch;

use super::handle::{Handle, Stopped, SyncStates};
use crate::core::{
    model::NetworkId,
    netdb::{EntryView, SyncState},
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
    /// How far the filter's network has come: at first, and whenever it changes.
    State {
        /// The network.
        network: NetworkId,
        /// How far; nothing if this node does not carry it.
        state: Option<SyncState>,
    },
    /// Changes were lost, since more came than are kept: a snapshot follows.
    Lagged,
}

/// Follows the entries that pass a filter. It holds nothing but its place and what it has read and not yet told.
///
/// **Invariant:** a state is told after all changes that came before it, so who is told `Synced` has been told all entries.
#[derive(Debug)]
pub struct Watcher {
    handle: Handle,
    revision: watch::Receiver<u64>,
    synced: watch::Receiver<SyncStates>,
    filter: Filter,
    /// Nothing while a snapshot is due.
    at: Option<u64>,
    read: std::vec::IntoIter<Revised>,
    /// The state told last; nothing while one is due.
    told: Option<Option<SyncState>>,
}

impl Watcher {
    pub(super) fn new(handle: Handle, filter: Filter, from: Option<u64>) -> Self {
        Self {
            revision: handle.revision(),
            synced: handle.synced(),
            handle,
            told: None,
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
            // What comes after the look wakes us again.
            self.revision.mark_unchanged();
            self.synced.mark_unchanged();
            let (heard, state) = self.handle.look(at, self.filter.clone(), LOOK_AT).await?;
            let Ok(heard) = heard else {
                self.at = None;
                self.told = None;
                return Ok(WatchEvent::Lagged);
            };
            self.at = Some(heard.next);
            self.read = heard.changes.into_iter();
            if heard.next != at {
                continue;
            }
            if let Some(network) = self.filter.network
                && self.told != Some(state)
            {
                self.told = Some(state);
                return Ok(WatchEvent::State { network, state });
            }
            self.changed().await?;
        }
    }

    /// Waits until there may be more to tell.
    async fn changed(&mut self) -> Result<(), Stopped> {
        let changed = tokio::select! {
            changed = self.revision.changed() => changed,
            changed = self.synced.changed() => changed,
        };
        changed.map_err(|_stopped| Stopped)
    }
}
