//! Looking closely: at drivers, at what they may come from, and at one endpoint with all that others know of it.

use std::{ops::ControlFlow, time::Duration};

use super::{
    Controller, ControllerError, DriverCapability, DriverView, EndpointDetail, EntryDetail,
    PluginView, ipam::Ipam, publish::places,
};
use crate::{
    core::{
        model::{Name, NetworkRecord, TableEntry},
        netdb::EntryView,
    },
    driver::{DEFAULT_IPAM, DataplaneView, Driver, IpamCapability, NULL_IPAM, RegistryError},
    store::StoredEndpoint,
};

/// How many entries a driver is asked to explain.
const EXPLAINED_MAX: usize = 64;

impl Controller {
    /// Lists the drivers that this node has, of all kinds: the built-in ones, and the plugins that are in use.
    pub async fn driver_list(&self) -> Result<Vec<DriverView>, ControllerError> {
        let networks = self.network_list().await?;
        let using = |uses: &dyn Fn(&NetworkRecord) -> bool| -> Vec<Name> {
            let all = networks.iter().filter(|network| uses(network));
            all.map(|network| network.name.clone()).collect()
        };
        let ipam_of = |network: &NetworkRecord| Ipam::of(network).map(|ipam| ipam.driver);
        let registry = &self.parts.registry;
        let mut views = Vec::new();
        registry.walk(|name, driver| {
            views.push(DriverView {
                name: name.clone(),
                address: driver.address(),
                is_alive: !driver.life().is_cancelled(),
                capability: DriverCapability::Network(driver.capability()),
                networks: using(&|network| network.driver == *name),
                state: driver.describe(),
            });
            ControlFlow::Continue(())
        });
        let leader = using(&|network| ipam_of(network).is_none() && !network.subnets.is_empty());
        let nobody = using(&|network| network.subnets.is_empty());
        for (name, networks) in [(DEFAULT_IPAM, leader), (NULL_IPAM, nobody)] {
            views.push(DriverView {
                name: Name::new(name).expect("letters are a name"),
                address: None,
                is_alive: true,
                capability: DriverCapability::Ipam(IpamCapability::default()),
                networks,
                state: serde_json::Value::Null,
            });
        }
        registry.walk_ipams(|name, driver| {
            let spaces = driver.spaces();
            views.push(DriverView {
                name: name.clone(),
                address: driver.address(),
                is_alive: !driver.life().is_cancelled(),
                capability: DriverCapability::Ipam(driver.capability()),
                networks: using(&|network| ipam_of(network).as_ref() == Some(name)),
                state: serde_json::json!({ "spaces": spaces }),
            });
            ControlFlow::Continue(())
        });
        registry.walk_allocators(|name, allocator| {
            views.push(DriverView {
                name: name.clone(),
                address: allocator.address(),
                is_alive: !allocator.life().is_cancelled(),
                capability: DriverCapability::Allocator {
                    agreed: allocator.needs(),
                    is_asked: allocator.is_asked(),
                },
                networks: using(&|network| network.driver == *name),
                state: serde_json::Value::Null,
            });
            ControlFlow::Continue(())
        });
        Ok(views)
    }

    /// Shows what a name stands for, of each kind; a plugin that is not in use yet is activated.
    pub async fn driver_inspect(&self, name: &Name) -> Result<Vec<DriverView>, ControllerError> {
        let registry = &self.parts.registry;
        let network = registry.get(name, self.now()).await;
        let is_built_in = matches!(&network, Ok(driver) if driver.address().is_none());
        let refused = match network {
            Ok(_) if is_built_in => None,
            network => match (network.err(), registry.ipam(name, self.now()).await.err()) {
                // The one that was found and does not work says more.
                (Some(RegistryError::NotFound(_)), Some(ipam)) => Some(ipam),
                (Some(network), Some(_)) => Some(network),
                _ => None,
            },
        };
        let mut found = self.driver_list().await?;
        found.retain(|view| view.name == *name);
        match refused {
            Some(refused) if found.is_empty() => Err(refused.into()),
            _ => Ok(found),
        }
    }

    /// Lists what drivers may come from on this host, in use or not.
    pub async fn plugin_list(&self) -> Result<Vec<PluginView>, ControllerError> {
        Ok(self.parts.registry.plugins().await?)
    }

    /// Shows what the kernel should hold beside what it does hold: of one network, or of all whose drivers say so.
    pub async fn dataplane(
        &self,
        network: Option<&str>,
    ) -> Result<Vec<(NetworkRecord, DataplaneView)>, ControllerError> {
        let networks = match network {
            Some(network) => vec![self.network(network).await?],
            None => self.network_list().await?,
        };
        let mut views = Vec::new();
        for record in networks {
            let Some(driver) = self.parts.registry.driver(&record.driver) else {
                continue;
            };
            let view = driver.dataplane(record.id).await;
            views.extend(view.map(|view| (record, view)));
        }
        Ok(views)
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
