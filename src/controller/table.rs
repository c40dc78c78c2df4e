//! Tables: what is in them, and entries that people write by hand, which live as long as this node is a member.

use std::collections::BTreeMap;

use super::{
    Controller, ControllerError, TableView,
    publish::{endpoints_table, names_table, places},
};
use crate::{
    core::{
        model::{Key, NetworkId, TableEntry, TableName, Value},
        netdb::{EntryView, PutMode},
        watch::Filter,
    },
    runtime::Watcher,
};

impl Controller {
    /// Lists the tables of a network that have entries.
    pub async fn table_list(&self, network: &str) -> Result<Vec<TableView>, ControllerError> {
        let network = self.network(network).await?;
        let mut tables: BTreeMap<TableName, usize> = BTreeMap::new();
        for entry in self.parts.handle.list(network.id, None).await? {
            *tables.entry(entry.table).or_default() += 1;
        }
        let views = tables
            .into_iter()
            .map(|(table, entries)| TableView { table, entries });
        Ok(views.collect())
    }

    /// Lists the entries of a table.
    pub async fn table_entries(
        &self,
        network: &str,
        table: TableName,
    ) -> Result<Vec<EntryView>, ControllerError> {
        let network = self.network(network).await?;
        Ok(self.parts.handle.list(network.id, Some(table)).await?)
    }

    /// Returns one entry.
    pub async fn table_get(
        &self,
        network: &str,
        table: TableName,
        key: Key,
    ) -> Result<EntryView, ControllerError> {
        let network = self.network(network).await?;
        let found = self.parts.handle.get(network.id, table, key).await?;
        found.ok_or(ControllerError::NoSuchEntry)
    }

    /// Writes an entry of this node, to disk and then to the DB.
    pub async fn table_put(
        &self,
        network: &str,
        entry: TableEntry,
        mode: PutMode,
    ) -> Result<(), ControllerError> {
        // Only then is it known which tables are its driver's.
        let network = self.ready_network(network).await?.id;
        let this = self.clone();
        self.finish(async move { this.put(network, entry, mode).await })
            .await
    }

    /// Removes an entry of this node.
    pub async fn table_remove(
        &self,
        network: &str,
        table: TableName,
        key: Key,
    ) -> Result<(), ControllerError> {
        let network = self.network(network).await?.id;
        let this = self.clone();
        self.finish(async move { this.remove_entry(network, table, key).await })
            .await
    }

    /// Watches a network, a table of it, or keys of a table, from a revision or from now on.
    pub async fn watch(
        &self,
        network: &str,
        table: Option<TableName>,
        prefix: Vec<u8>,
        from: Option<u64>,
    ) -> Result<Watcher, ControllerError> {
        let network = self.network(network).await?.id;
        let filter = Filter {
            network: Some(network),
            table,
            prefix,
        };
        Ok(self.parts.handle.watch(filter, from))
    }

    async fn put(
        &self,
        network: NetworkId,
        entry: TableEntry,
        mode: PutMode,
    ) -> Result<(), ControllerError> {
        let _hand = self.desk.hands.hold(network).await;
        self.check_writable(network, &entry.table, &entry.key)
            .await?;
        let before = self.stored_entry(network, &entry).await?;
        let stored = entry.clone();
        self.disk(move |store| store.put_entry(network, &stored))
            .await?;
        let TableEntry { table, key, value } = entry.clone();
        let put = self.parts.handle.put(network, (table, key, value), mode);
        if let Err(refused) = put.await {
            self.restore(network, entry, before).await?;
            return Err(refused.into());
        }
        let place = (network, entry.table, entry.key);
        self.desk.removals.settle(&place);
        Ok(())
    }

    async fn remove_entry(
        &self,
        network: NetworkId,
        table: TableName,
        key: Key,
    ) -> Result<(), ControllerError> {
        let _hand = self.desk.hands.hold(network).await;
        self.check_writable(network, &table, &key).await?;
        let place = (table.clone(), key.clone());
        self.parts.handle.delete(network, table, key).await?;
        let (table, key) = place;
        self.disk(move |store| store.remove_entry(network, &table, &key))
            .await
    }

    /// Refuses what Weft or an endpoint's driver keeps.
    async fn check_writable(
        &self,
        network: NetworkId,
        table: &TableName,
        key: &Key,
    ) -> Result<(), ControllerError> {
        let place = (network, table.clone(), key.clone());
        let own = self.own_endpoints(network).await?;
        let kept = own.iter().any(|endpoint| places(endpoint).contains(&place));
        let of_driver = {
            let tables = self.desk.driver_tables.borrow();
            tables
                .get(&network)
                .is_some_and(|tables| tables.contains(table))
        };
        let is_ours = [endpoints_table(), names_table()].contains(table);
        if kept || of_driver || is_ours {
            return Err(ControllerError::ReservedTable(table.to_string()));
        }
        Ok(())
    }

    async fn stored_entry(
        &self,
        network: NetworkId,
        entry: &TableEntry,
    ) -> Result<Option<Value>, ControllerError> {
        let stored = self.disk(|store| store.entries()).await?;
        let same = stored.into_iter().find(|(of, stored)| {
            *of == network && stored.table == entry.table && stored.key == entry.key
        });
        Ok(same.map(|(_, stored)| stored.value))
    }

    async fn restore(
        &self,
        network: NetworkId,
        entry: TableEntry,
        before: Option<Value>,
    ) -> Result<(), ControllerError> {
        let TableEntry { table, key, .. } = entry;
        self.disk(move |store| match before {
            Some(value) => store.put_entry(network, &TableEntry { table, key, value }),
            None => store.remove_entry(network, &table, &key),
        })
        .await
    }
}
