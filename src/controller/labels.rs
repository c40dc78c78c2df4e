//! What a node says of itself beside its name: labels, which may change at any time, and capabilities, which come with a start.
//!
//! Each is an entry of the node's own in the cluster scope, so it goes when the node does. Labels that somebody set are on
//! disk; those that the daemon was started with are not, and go before the ones on disk.

use std::collections::BTreeMap;

use super::{
    Controller, ControllerError,
    run::{cluster_table, node_key},
};
use crate::{
    core::{
        model::{
            CAPABILITIES_TABLE, CapabilitiesRecord, Key, LABELS_TABLE, LabelChange, Labels,
            LabelsRecord, Name, NetworkId, NodeId, TableEntry, TableName, Value,
        },
        netdb::EntryView,
        wire::codec,
    },
    runtime::PutError,
};

/// How many capabilities of a node are shown: more than any version has.
const CAPABILITIES_MAX: usize = 64;

impl Controller {
    /// Returns the labels of this node.
    pub async fn labels(&self) -> Result<Labels, ControllerError> {
        let mut kept = self.desk.labels.lock().await;
        self.labels_in(&mut kept).await
    }

    /// Returns the labels of all live nodes that have any, this one included, as this node knows them.
    pub async fn node_labels(&self) -> Result<BTreeMap<NodeId, Labels>, ControllerError> {
        let listed = self.list_said(LABELS_TABLE).await?;
        let labels = listed.into_iter().filter_map(|entry| {
            let record: LabelsRecord = codec::decode(entry.value.as_bytes()).ok()?;
            Some((entry.owner, record.labels))
        });
        Ok(labels.collect())
    }

    /// Returns the capabilities of all live nodes.
    pub(super) async fn node_capabilities(
        &self,
    ) -> Result<BTreeMap<NodeId, Vec<Name>>, ControllerError> {
        let listed = self.list_said(CAPABILITIES_TABLE).await?;
        let capabilities = listed.into_iter().filter_map(|entry| {
            let record: CapabilitiesRecord = codec::decode(entry.value.as_bytes()).ok()?;
            let mut capabilities = record.capabilities;
            capabilities.truncate(CAPABILITIES_MAX);
            Some((entry.owner, capabilities))
        });
        Ok(capabilities.collect())
    }

    /// Changes labels of this node, one after the other, all or none; returns what it has then.
    pub async fn change_labels(
        &self,
        changes: Vec<LabelChange>,
    ) -> Result<Labels, ControllerError> {
        let this = self.clone();
        self.finish(async move { this.change_labels_now(&changes).await })
            .await
    }

    async fn change_labels_now(&self, changes: &[LabelChange]) -> Result<Labels, ControllerError> {
        let mut kept = self.desk.labels.lock().await;
        let before = self.labels_in(&mut kept).await?;
        let after = before.after(changes)?;
        if after != before {
            self.remember_labels(after.clone()).await?;
            if let Err(refused) = self.publish_labels(&after).await {
                self.remember_labels(before).await?;
                return Err(refused);
            }
            tracing::info!(labels = %after, "this node's labels have changed");
            *kept = Some(after.clone());
        }
        Ok(after)
    }

    /// Returns what this node's labels are, from the disk if nobody has asked before.
    async fn labels_in(&self, kept: &mut Option<Labels>) -> Result<Labels, ControllerError> {
        if kept.is_none() {
            let on_disk = self.disk(|store| store.labels()).await?;
            *kept = Some(self.parts.labels.clone().over(&on_disk));
        }
        Ok(kept.clone().unwrap_or_default())
    }

    /// Writes to disk what the next start shall not forget.
    async fn remember_labels(&self, labels: Labels) -> Result<(), ControllerError> {
        let comes_anew = |key: &str, value: &str| self.parts.labels.get(key) == Some(value);
        let gone: Vec<LabelChange> = labels
            .iter()
            .filter(|(key, value)| comes_anew(key, value))
            .map(|(key, _)| LabelChange::Remove(key.to_owned()))
            .collect();
        let kept = labels.after(&gone)?;
        self.disk(move |store| store.set_labels(&kept)).await
    }

    async fn publish_labels(&self, labels: &Labels) -> Result<(), ControllerError> {
        let Some(TableEntry { table, key, value }) = self.labels_entry(labels) else {
            let (table, key) = (labels_table(), node_key(self.parts.node));
            let place = (NetworkId::CLUSTER, table, key);
            return match self.remove(&place).await {
                true => Ok(()),
                false => Err(ControllerError::Backpressure),
            };
        };
        self.put_own(table, key, value).await.map_err(Into::into)
    }

    fn labels_entry(&self, labels: &Labels) -> Option<TableEntry> {
        let labels = labels.clone();
        (!labels.is_empty()).then(|| TableEntry {
            table: labels_table(),
            key: node_key(self.parts.node),
            value: Value::new(codec::encode(&LabelsRecord { labels }))
                .expect("labels are few and short"),
        })
    }

    /// Returns the entries that say what this node is, to be written at its start.
    pub(super) async fn said_at_start(&self) -> Result<Vec<TableEntry>, ControllerError> {
        let labels = self.labels().await?;
        let record = CapabilitiesRecord {
            capabilities: self.parts.capabilities.clone(),
        };
        let capabilities = TableEntry {
            table: table(CAPABILITIES_TABLE),
            key: node_key(self.parts.node),
            value: Value::new(codec::encode(&record)).expect("capabilities are few and short"),
        };
        let labels = self.labels_entry(&labels);
        Ok(labels.into_iter().chain([capabilities]).collect())
    }

    async fn list_said(&self, of: &str) -> Result<Vec<EntryView>, ControllerError> {
        let listed = self.parts.handle.list_filtered(cluster_table(table(of)));
        let own_key = |entry: &EntryView| entry.key == node_key(entry.owner);
        Ok(listed.await?.0.into_iter().filter(own_key).collect())
    }

    async fn put_own(&self, table: TableName, key: Key, value: Value) -> Result<(), PutError> {
        let entry = (table, key, value);
        let put = self.parts.handle.put(
            NetworkId::CLUSTER,
            entry,
            crate::core::netdb::PutMode::Upsert,
        );
        put.await.map(|_version| ())
    }
}

fn labels_table() -> TableName {
    table(LABELS_TABLE)
}

fn table(name: &str) -> TableName {
    TableName::new(name).expect("letters are a table name")
}
