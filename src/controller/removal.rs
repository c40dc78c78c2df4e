//! Table entries that are to go and have not gone yet: each is tried again until it has.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::core::model::{Key, NetworkId, TableName};

/// How long a failed removal waits the first time; then twice as long, and so on.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(50);
/// How long it waits at most.
pub(super) const LAST_RETRY: Duration = Duration::from_secs(5);

/// An entry of this node.
pub(super) type Place = (NetworkId, TableName, Key);

/// What is still to go. No more than this node's own entries, so it has the bound of the DB.
///
/// **Invariant:** a place is in it only while its network's endpoints are not being changed, or by whoever changes them:
/// so a removal never takes away what a later join has put.
#[derive(Debug, Default)]
pub(super) struct Removals {
    places: Mutex<BTreeSet<Place>>,
    added: Notify,
}

impl Removals {
    /// Adds what could not be removed.
    pub(super) fn add(&self, places: impl IntoIterator<Item = Place>) {
        let mut held = self.places();
        let before = held.len();
        held.extend(places);
        if held.len() > before {
            self.added.notify_one();
        }
    }

    /// Takes out a place: it is gone, or it is wanted again.
    pub(super) fn settle(&self, place: &Place) {
        self.places().remove(place);
    }

    /// Returns whether a place is still to go.
    pub(super) fn holds(&self, place: &Place) -> bool {
        self.places().contains(place)
    }

    /// Returns all that is still to go.
    pub(super) fn pending(&self) -> Vec<Place> {
        self.places().iter().cloned().collect()
    }

    /// Returns how many are still to go.
    pub(super) fn len(&self) -> usize {
        self.places().len()
    }

    /// Waits until something was added.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    fn places(&self) -> MutexGuard<'_, BTreeSet<Place>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
