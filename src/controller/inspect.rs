//! Looking closely: at drivers, at what they may come from, and at one endpoint with all that others know of it.

use std::{ops::ControlFlow, time::Duration};

use super::{
    Controller, ControllerError, DriverView, EndpointDetail, EntryDetail, PluginView,
    publish::places,
};
use crate::{
    core::{
        model::{Name, TableEntry},
        netdb::EntryView,
    },
    driver::{Driver, Origin},
    store::StoredEndpoint,
};

/// How many entries a driver is asked to explain.
const EXPLAINED_MAX: usize = 64;

impl Controller {
    /// Lists the drivers that this node has: the built-in ones, and the plugins that are in use.
    pub async fn driver_list(&self) -> Result<Vec<DriverView>, ControllerError> {
        let networks = self.network_list().await?;
        let mut views = Vec::new();
        self.parts.registry.walk(|name, driver| {
            let of_driver = networks.iter().filter(|network| network.driver == *name);
            let networks = of_driver.map(|network| network.name.clone()).collect();
            views.push(self.view_driver(name, &**driver, networks));
            ControlFlow::Continue(())
        });
        Ok(views)
    }

    /// Shows one driver; a plugin that is not in use yet is activated.
    pub async fn driver_inspect(&self, name: &Name) -> Result<DriverView, ControllerError> {
        let driver = self.parts.registry.get(name, self.now()).await?;
        let mut networks = self.network_list().await?;
        networks.retain(|network| network.driver == *name);
        let networks = networks.into_iter().map(|network| network.name).collect();
        Ok(self.view_driver(name, &*driver, networks))
    }

    fn view_driver(&self, name: &Name, driver: &dyn Driver, networks: Vec<Name>) -> DriverView {
        DriverView {
            name: name.clone(),
            is_built_in: self.parts.registry.origin(name) == Some(Origin::BuiltIn),
            capability: driver.capability(),
            networks,
            state: driver.describe(),
        }
    }

    /// Lists what drivers may come from on this host, in use or not.
    pub async fn plugin_list(&self) -> Result<Vec<PluginView>, ControllerError> {
        Ok(self.parts.registry.plugins().await?)
    }

    /// Shows an endpoint, the table entries that are its, and, for one of this node, who may not have them.
    pub async fn endpoint_inspect(
        &self,
        network: &str,
        endpoint: &str,
    ) -> Result<EndpointDetail, ControllerError> {
        let network = self.network(network).await?;
        let all = self.endpoints_of(network.id).await?;
        let by_name = |ours: bool| {
            all.iter().find(|one| {
                (one.node == self.parts.node) == ours && one.record.name.as_str() == endpoint
            })
        };
        let by_id = || all.iter().find(|one| one.record.id.to_string() == endpoint);
        let found = by_name(true).or_else(|| by_name(false)).or_else(by_id);
        let view = found
            .cloned()
            .ok_or_else(|| ControllerError::NoSuchEndpoint {
                network: network.name.clone(),
                endpoint: endpoint.to_owned(),
            })?;
        let own = self.own_endpoints(network.id).await?;
        let stored = own.into_iter().find(|own| own.record.id == view.record.id);
        let applied = match &stored {
            Some(_) => Some(self.barrier(network.id, Duration::ZERO).await?),
            None => None,
        };
        let driver = self.driver(&network).await.ok();
        let mut entries = Vec::new();
        for entry in self.parts.handle.list(network.id, None).await? {
            let explained = match &driver {
                Some(driver) if entries.len() < EXPLAINED_MAX => explain(&**driver, &entry).await,
                Some(_) | None => None,
            };
            let is_its = match &stored {
                Some(stored) => is_of(stored, &entry),
                None => {
                    let key = view.record.id.0.to_be_bytes();
                    let says_so = explained
                        .as_ref()
                        .is_some_and(|explained| explained.endpoint == Some(view.record.id));
                    entry.owner == view.node && (says_so || *entry.key.as_bytes() == key)
                }
            };
            if is_its {
                entries.push(EntryDetail { entry, explained });
            }
        }
        Ok(EndpointDetail {
            view,
            driver: network.driver,
            entries,
            applied,
        })
    }
}

/// What a driver says of an entry; one that cannot say it now says nothing.
async fn explain(driver: &dyn Driver, entry: &EntryView) -> Option<crate::driver::Decoded> {
    let asked = TableEntry {
        table: entry.table.clone(),
        key: entry.key.clone(),
        value: entry.value.clone(),
    };
    match driver.decode(&asked).await {
        Ok(explained) => explained,
        Err(error) => {
            tracing::debug!(%error, "a driver did not explain an entry");
            None
        }
    }
}

fn is_of(stored: &StoredEndpoint, entry: &EntryView) -> bool {
    let place = (entry.network, entry.table.clone(), entry.key.clone());
    entry.ours && places(stored).contains(&place)
}
