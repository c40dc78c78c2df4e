//! Publishing an endpoint and taking it back: what is on disk first, then what the DB shows.

use super::{Controller, ControllerError, removal::Place};
use crate::{
    core::{
        model::{EndpointId, Key, NAMES_TABLE, TableEntry, TableName, Value},
        netdb::{PutMode, WriteError},
        wire::codec,
    },
    runtime::PutError,
    store::StoredEndpoint,
};

impl Controller {
    /// Writes an endpoint that has joined: on disk, then its entries to the DB. What it had before and has no longer goes.
    ///
    /// When one entry is refused, all are taken back: then nothing is published, and the endpoint is on disk as created.
    pub(super) async fn publish(
        &self,
        before: &StoredEndpoint,
        now: StoredEndpoint,
    ) -> Result<(), ControllerError> {
        check_tables(&now)?;
        let record = now.clone();
        self.disk(move |store| store.put_endpoint(&record)).await?;
        if let Err(refused) = self.assert(&now).await {
            self.retract(before).await;
            self.retract(&now).await;
            let created = created(now);
            self.disk(move |store| store.put_endpoint(&created)).await?;
            return Err(refused);
        }
        self.remove_stale(before, &now).await;
        Ok(())
    }

    /// Takes out of the DB what an endpoint had and has no longer.
    async fn remove_stale(&self, before: &StoredEndpoint, now: &StoredEndpoint) {
        let wanted = places(now);
        let stale = places(before)
            .into_iter()
            .filter(|place| !wanted.contains(place));
        self.remove_all(stale.collect()).await;
    }

    /// Writes an endpoint under its new names. When they are refused, it keeps the ones it had.
    pub(super) async fn publish_names(
        &self,
        before: &StoredEndpoint,
        now: StoredEndpoint,
    ) -> Result<(), ControllerError> {
        let record = now.clone();
        self.disk(move |store| store.put_endpoint(&record)).await?;
        if let Err(refused) = self.assert(&now).await {
            let record = before.clone();
            self.disk(move |store| store.put_endpoint(&record)).await?;
            return Err(refused);
        }
        self.remove_stale(before, &now).await;
        Ok(())
    }

    /// Writes a joined endpoint's entries to the DB.
    pub(super) async fn assert(&self, endpoint: &StoredEndpoint) -> Result<(), ControllerError> {
        let network = endpoint.record.network;
        for entry in entries(endpoint) {
            let place = (network, entry.table.clone(), entry.key.clone());
            self.desk.removals.settle(&place);
            let entry = (entry.table, entry.key, entry.value);
            self.parts
                .handle
                .put(network, entry, PutMode::Upsert)
                .await?;
        }
        Ok(())
    }

    /// Takes an endpoint's entries out of the DB. Those that will not go now are tried again until they have.
    pub(super) async fn retract(&self, endpoint: &StoredEndpoint) {
        self.remove_all(places(endpoint)).await;
    }

    /// Removes each of these; one that fails keeps no other.
    async fn remove_all(&self, places: Vec<Place>) {
        let mut failed = Vec::new();
        for place in places {
            if !self.remove(&place).await {
                failed.push(place);
            }
        }
        self.desk.removals.add(failed);
    }

    /// Removes an entry; returns whether it is gone.
    pub(super) async fn remove(&self, place: &Place) -> bool {
        let (network, table, key) = place.clone();
        let Err(refused) = self.parts.handle.delete(network, table, key).await else {
            return true;
        };
        match refused {
            // Not there, or not ours: what was ours is gone. A node that stops takes its entries along.
            PutError::Write(
                WriteError::NotFound | WriteError::NotAttached(_) | WriteError::NotOwner { .. },
            )
            | PutError::Stopped(_) => true,
            PutError::Write(
                error @ (WriteError::AlreadyExists { .. }
                | WriteError::Limit(_)
                | WriteError::Backpressure),
            ) => {
                tracing::warn!(?place, %error, "an entry was not removed; it is tried again");
                false
            }
        }
    }
}

/// The same endpoint, not joined.
pub(super) fn created(endpoint: StoredEndpoint) -> StoredEndpoint {
    StoredEndpoint {
        joined: false,
        entries: Vec::new(),
        ..endpoint
    }
}

/// What the DB shows of an endpoint: its record and its driver's entries, once it has joined.
fn entries(endpoint: &StoredEndpoint) -> Vec<TableEntry> {
    if !endpoint.joined {
        return Vec::new();
    }
    let record = TableEntry {
        table: endpoints_table(),
        key: endpoint_key(endpoint.record.id),
        value: Value::new(codec::encode(&endpoint.record))
            .expect("an endpoint's record is far below the limit"),
    };
    // The name comes last: whoever hears it has heard of the way.
    let others = endpoint.entries.iter().cloned();
    others.chain([record]).collect()
}

/// Where the entries of an endpoint are, in the order in which they go: its name first.
pub(super) fn places(endpoint: &StoredEndpoint) -> Vec<Place> {
    let network = endpoint.record.network;
    let entries = entries(endpoint).into_iter().rev();
    entries
        .map(|entry| (network, entry.table, entry.key))
        .collect()
}

fn check_tables(endpoint: &StoredEndpoint) -> Result<(), ControllerError> {
    let reserved = |entry: &&TableEntry| entry.table == endpoints_table();
    match endpoint.entries.iter().find(reserved) {
        Some(entry) => Err(ControllerError::ReservedTable(entry.table.to_string())),
        None => Ok(()),
    }
}

pub(super) fn endpoints_table() -> TableName {
    TableName::new("endpoints").expect("letters are a table name")
}

pub(super) fn names_table() -> TableName {
    TableName::new(NAMES_TABLE).expect("letters are a table name")
}

pub(super) fn endpoint_key(endpoint: EndpointId) -> Key {
    Key::new(endpoint.0.to_be_bytes().to_vec()).expect("16 bytes are a key")
}
