//! Finds remote drivers with the plugin getter.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;

use super::{Remote, RemoteIpam, link::brief};
use crate::{
    core::model::Name,
    dataplane::Dataplane,
    driver::{DriverSource, Found, IpamDriver, Kind, SourceError},
    plugin::{self, GetError, Getter, Mode, Origin},
};

/// Finds remote drivers with the plugin getter.
#[derive(Clone)]
pub struct Plugins {
    getter: Getter,
    links: Arc<dyn Dataplane>,
    /// The ids of the managed plugins that are in use, one a user.
    users: Arc<Mutex<Users>>,
}

type Users = BTreeMap<(Kind, Name), Vec<String>>;

impl Plugins {
    /// Asks this getter; `links` moves the links that its plugins make.
    pub fn new(getter: Getter, links: Arc<dyn Dataplane>) -> Self {
        Self {
            getter,
            links,
            users: Arc::default(),
        }
    }

    async fn find(&self, name: &Name) -> Result<Found, SourceError> {
        let plugin = self
            .plugin(name, plugin::Capability::NETWORK_DRIVER, Mode::Lookup)
            .await?;
        let has_tables = plugin.can(plugin::Capability::TABLE_DRIVER);
        let remote = Remote::connect(name, plugin.client, has_tables).await;
        let remote = remote.map_err(|error| SourceError::Broken(brief(error.to_string())))?;
        Ok(remote.moved_by(self.links.clone()).found())
    }

    async fn find_ipam(&self, name: &Name) -> Result<Arc<dyn IpamDriver>, SourceError> {
        let capability = plugin::Capability::IPAM_DRIVER;
        let plugin = self.plugin(name, capability, Mode::Lookup).await?;
        let remote = RemoteIpam::connect(name, plugin.client).await;
        let remote = remote.map_err(|error| SourceError::Broken(brief(error.to_string())))?;
        Ok(Arc::new(remote))
    }

    async fn plugin(
        &self,
        name: &Name,
        capability: plugin::Capability,
        mode: Mode,
    ) -> Result<plugin::Plugin, SourceError> {
        let found = self.getter.get(name.as_str(), capability, mode);
        found.await.map_err(|error| match error {
            GetError::NotFound(_) => SourceError::NotFound,
            other @ (GetError::Ambiguous(_)
            | GetError::NotImplemented { .. }
            | GetError::Disabled(_)
            | GetError::Engine(_)
            | GetError::Discovery(_)
            | GetError::Activation { .. }) => SourceError::Broken(brief(other.to_string())),
        })
    }

    fn with_users<T>(&self, act: impl FnOnce(&mut Users) -> T) -> T {
        // Every change is one push or pop: nobody who panicked left it half done.
        act(&mut self.users.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl DriverSource for Plugins {
    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Found, SourceError>> {
        Box::pin(self.find(name))
    }

    fn get_ipam<'a>(
        &'a self,
        name: &'a Name,
    ) -> BoxFuture<'a, Result<Arc<dyn IpamDriver>, SourceError>> {
        Box::pin(self.find_ipam(name))
    }

    fn acquire<'a>(&'a self, kind: Kind, name: &'a Name) -> BoxFuture<'a, Result<(), SourceError>> {
        let capability = match kind {
            Kind::Network | Kind::Allocator => plugin::Capability::NETWORK_DRIVER,
            Kind::Ipam => plugin::Capability::IPAM_DRIVER,
        };
        Box::pin(async move {
            let plugin = self.plugin(name, capability, Mode::Acquire).await?;
            if let Origin::Managed(id) = plugin.origin {
                self.with_users(|users| users.entry((kind, name.clone())).or_default().push(id));
            }
            Ok(())
        })
    }

    fn release(&self, kind: Kind, name: &Name) {
        let of = (kind, name.clone());
        if let Some(id) = self.with_users(|users| users.get_mut(&of)?.pop()) {
            self.getter.release(&id);
        }
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<plugin::Listed>, SourceError>> {
        Box::pin(async {
            let listed = self.getter.list().await;
            listed.map_err(|error| SourceError::Broken(brief(error.to_string())))
        })
    }
}
