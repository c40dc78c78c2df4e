//! Table entries that are to go and have not gone yet: each is tried again until it has.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::watch;

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
    places: watch::Sender<BTreeSet<Place>>,
}

impl Removals {
    /// Adds what could not be removed.
    pub(super) fn add(&self, places: impl IntoIterator<Item = Place>) {
        self.places.send_if_modified(|held| {
            let before = held.len();
            held.extend(places);
            held.len() > before
        });
    }

    /// Takes out a place: it is gone, or it is wanted again.
    pub(super) fn settle(&self, place: &Place) {
        self.places.send_if_modified(|held| held.remove(place));
    }

    /// Returns whether a place is still to go.
    pub(super) fn holds(&self, place: &Place) -> bool {
        self.places.borrow().contains(place)
    }

    /// Returns all that is still to go.
    pub(super) fn pending(&self) -> Vec<Place> {
        self.places.borrow().iter().cloned().collect()
    }

    /// Returns how many are still to go.
    pub(super) fn len(&self) -> usize {
        self.places.borrow().len()
    }

    /// Waits until something is still to go.
    pub(super) async fn some(&self) {
        self.until(|places| !places.is_empty()).await;
    }

    /// Waits until nothing of a network is still to go.
    pub(super) async fn settled(&self, network: NetworkId) {
        self.until(|places| places.iter().all(|(of, ..)| *of != network))
            .await;
    }

    async fn until(&self, is_so: impl Fn(&BTreeSet<Place>) -> bool) {
        let mut places = self.places.subscribe();
        // It cannot close: we hold the sender.
        let _ = places.wait_for(|places| is_so(places)).await;
    }
}
