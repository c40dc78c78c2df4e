//! The registry: which driver a name means.
//!
//! A name that nobody registered is asked of the [`DriverSource`], with a deadline and with no lock held. A name the
//! source does not know is not asked again for [`NOT_FOUND_FOR`], so a caller in a loop cannot keep it busy.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{Capability, Driver, IpamDriver, Null, Overlay};
use crate::{
    core::model::{Instant, LimitError, Name},
    plugin,
};

/// How long a miss is believed. Short: a person who has just installed a plugin tries again at once.
pub const NOT_FOUND_FOR: Duration = Duration::from_secs(2);

/// How long the source may take to find and activate a driver: the 15 s that the plugin getter is patient with a plugin that
/// is starting, and the 5 s of its last attempt. Less would cut it off before it can say what is wrong.
pub const SOURCE_DEADLINE: Duration = Duration::from_secs(20);

/// How many misses are remembered. At the bound all are forgotten, which costs one question each.
const MISSES_MAX: usize = 256;

/// Where a driver comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It is part of Weft; its name is its own.
    BuiltIn,
    /// It is a plugin; one that comes again takes the place of the one before.
    Plugin,
}

/// What the leader allocates for a driver's networks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allocation {
    /// Subnets from the cluster's pools.
    pub subnets: bool,
    /// A VXLAN id for each subnet.
    pub vxlan: bool,
}

/// Why a driver was not registered or not found.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name is blank or has characters that no name has.
    #[error("driver: {0}")]
    Name(#[from] LimitError),
    /// A built-in driver has the name; choose another.
    #[error("driver {0} is built in and cannot be replaced")]
    BuiltIn(Name),
    /// The one who is told of every driver does not want this one.
    #[error("driver {name} was not accepted: {reason}")]
    Vetoed {
        /// The driver.
        name: Name,
        /// Why.
        reason: String,
    },
    /// Neither built in nor a plugin.
    #[error("there is no driver {0}: it is not built in, and no plugin of that name was found")]
    NotFound(Name),
    /// A plugin of that name is there, but it does not work.
    #[error("driver plugin {name}: {reason}")]
    Plugin {
        /// The driver.
        name: Name,
        /// Why.
        reason: String,
    },
    /// A plugin took too long to answer.
    #[error("driver plugin {name} did not answer within {deadline:?}")]
    Slow {
        /// The driver.
        name: Name,
        /// How long it had.
        deadline: Duration,
    },
}

/// Why a source gave no driver.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceError {
    /// It knows no driver of that name.
    #[error("not found")]
    NotFound,
    /// It knows one that does not work.
    #[error("{0}")]
    Broken(String),
}

/// Finds drivers that are not built in.
pub trait DriverSource: Send + Sync {
    /// Finds and activates the driver of that name.
    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Arc<dyn Driver>, SourceError>>;

    /// Finds and activates the IPAM driver of that name.
    fn get_ipam<'a>(
        &'a self,
        _name: &'a Name,
    ) -> BoxFuture<'a, Result<Arc<dyn IpamDriver>, SourceError>> {
        Box::pin(std::future::ready(Err(SourceError::NotFound)))
    }

    /// Shows everything there is to get drivers from, whether or not it is in use.
    fn list(&self) -> BoxFuture<'_, Result<Vec<plugin::Listed>, SourceError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// Why a registration was refused by [`Notify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Veto(pub String);

/// Is told of every driver before it is registered, and may refuse it. It must not block; it may use the registry.
pub type Notify = Arc<dyn Fn(&Name, Capability) -> Result<(), Veto> + Send + Sync>;

#[derive(Clone)]
struct Registration {
    origin: Origin,
    driver: Arc<dyn Driver>,
}

#[derive(Default)]
struct Contents {
    drivers: BTreeMap<Name, Registration>,
    ipams: BTreeMap<Name, (Origin, Arc<dyn IpamDriver>)>,
    allocations: BTreeMap<Name, Allocation>,
    misses: BTreeMap<(Kind, Name), Instant>,
}

/// What kind of driver was looked for: a name may be one's and not the other's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Network,
    Ipam,
}

/// Network drivers and IPAM drivers by name, and what the leader allocates for the former: three maps, none needs another.
#[derive(Default)]
pub struct Registry {
    contents: Mutex<Contents>,
    source: Option<Arc<dyn DriverSource>>,
    notify: Option<Notify>,
}

impl Registry {
    /// Starts with no driver and nobody to ask.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts with the built-in drivers.
    pub fn built_in(overlay: Arc<Overlay>) -> Self {
        let registry = Self::new();
        let needs = Allocation {
            subnets: true,
            vxlan: true,
        };
        registry
            .register("overlay", Origin::BuiltIn, overlay)
            .and_then(|()| registry.register("null", Origin::BuiltIn, Arc::new(Null)))
            .and_then(|()| registry.register_allocation("overlay", needs))
            .and_then(|()| registry.register_allocation("null", Allocation::default()))
            .expect("an empty registry takes valid names");
        registry
    }

    /// Asks `source` for names that are not registered.
    pub fn with_source(mut self, source: Arc<dyn DriverSource>) -> Self {
        self.source = Some(source);
        self
    }

    /// Tells `notify` of every driver first.
    pub fn with_notify(mut self, notify: Notify) -> Self {
        self.notify = Some(notify);
        self
    }

    /// Registers a driver. A built-in one keeps its name; a plugin's is taken over by its next registration.
    pub fn register(
        &self,
        name: &str,
        origin: Origin,
        driver: Arc<dyn Driver>,
    ) -> Result<(), RegistryError> {
        let name = Name::new(name)?;
        self.check_free(&name)?;
        self.announce(&name, &*driver)?;
        // Again, now for good: `notify` ran without the lock.
        let mut contents = self.contents();
        check_free(&contents, &name)?;
        contents.misses.remove(&(Kind::Network, name.clone()));
        contents
            .drivers
            .insert(name, Registration { origin, driver });
        Ok(())
    }

    /// Registers what the leader allocates for networks of the driver `name`, whether or not that driver is here.
    pub fn register_allocation(
        &self,
        name: &str,
        allocation: Allocation,
    ) -> Result<(), RegistryError> {
        let name = Name::new(name)?;
        self.contents().allocations.insert(name, allocation);
        Ok(())
    }

    /// Returns the driver, if it is registered.
    pub fn driver(&self, name: &Name) -> Option<Arc<dyn Driver>> {
        let contents = self.contents();
        Some(contents.drivers.get(name.as_str())?.driver.clone())
    }

    /// Returns what the leader allocates for the driver's networks; nothing if that was never said.
    pub fn allocation(&self, name: &Name) -> Option<Allocation> {
        self.contents().allocations.get(name.as_str()).copied()
    }

    /// Returns whether a driver or an allocation of that name is registered.
    pub fn has(&self, name: &Name) -> bool {
        let contents = self.contents();
        contents.drivers.contains_key(name.as_str())
            || contents.allocations.contains_key(name.as_str())
    }

    /// Returns where a registered driver comes from.
    pub fn origin(&self, name: &Name) -> Option<Origin> {
        Some(self.contents().drivers.get(name.as_str())?.origin)
    }

    /// Shows every driver until `visit` breaks. It sees those of the moment of the call, and may use the registry.
    pub fn walk(&self, mut visit: impl FnMut(&Name, &Arc<dyn Driver>) -> ControlFlow<()>) {
        let snapshot = self.contents().drivers.clone();
        for (name, registration) in &snapshot {
            if visit(name, &registration.driver).is_break() {
                break;
            }
        }
    }

    /// Shows everything that the source could get drivers from.
    pub async fn plugins(&self) -> Result<Vec<plugin::Listed>, SourceError> {
        match &self.source {
            Some(source) => source.list().await,
            None => Ok(Vec::new()),
        }
    }

    /// Returns the driver, asking the source if it is not registered.
    pub async fn get(&self, name: &Name, now: Instant) -> Result<Arc<dyn Driver>, RegistryError> {
        if let Some(driver) = self.living(name) {
            return Ok(driver);
        }
        let driver = self
            .ask(Kind::Network, name, now, |source| source.get(name))
            .await?;
        self.keep(name, driver)
    }

    /// Registers an IPAM driver, by the same rules as a network driver.
    pub fn register_ipam(
        &self,
        name: &str,
        origin: Origin,
        driver: Arc<dyn IpamDriver>,
    ) -> Result<(), RegistryError> {
        let name = Name::new(name)?;
        let mut contents = self.contents();
        if let Some((Origin::BuiltIn, _)) = contents.ipams.get(name.as_str()) {
            return Err(RegistryError::BuiltIn(name));
        }
        contents.misses.remove(&(Kind::Ipam, name.clone()));
        contents.ipams.insert(name, (origin, driver));
        Ok(())
    }

    /// Returns the IPAM driver, asking the source if it is not registered or has lost what it was told.
    pub async fn ipam(
        &self,
        name: &Name,
        now: Instant,
    ) -> Result<Arc<dyn IpamDriver>, RegistryError> {
        let held = |contents: &Contents| {
            let (_, driver) = contents.ipams.get(name.as_str())?;
            (!driver.life().is_cancelled()).then(|| driver.clone())
        };
        let known = held(&self.contents());
        if let Some(driver) = known {
            driver.look().await;
            if !driver.life().is_cancelled() {
                return Ok(driver);
            }
        }
        let driver = self
            .ask(Kind::Ipam, name, now, |source| source.get_ipam(name))
            .await?;
        let mut contents = self.contents();
        // Somebody who asked at the same time may have been first.
        if let Some(first) = held(&contents) {
            return Ok(first);
        }
        contents
            .ipams
            .insert(name.clone(), (Origin::Plugin, driver.clone()));
        Ok(driver)
    }

    /// Asks the source, with a deadline, unless it did not know the name a moment ago.
    async fn ask<'a, T>(
        &'a self,
        kind: Kind,
        name: &Name,
        now: Instant,
        question: impl FnOnce(&'a dyn DriverSource) -> BoxFuture<'a, Result<T, SourceError>>,
    ) -> Result<T, RegistryError> {
        let not_found = || RegistryError::NotFound(name.clone());
        let source = self.source.as_deref().ok_or_else(not_found)?;
        if self.was_missed(kind, name, now) {
            return Err(not_found());
        }
        let answer = tokio::time::timeout(SOURCE_DEADLINE, question(source)).await;
        let answer = answer.map_err(|_elapsed| RegistryError::Slow {
            name: name.clone(),
            deadline: SOURCE_DEADLINE,
        })?;
        answer.map_err(|refused| match refused {
            SourceError::NotFound => {
                self.remember_miss(kind, name, now);
                not_found()
            }
            SourceError::Broken(reason) => RegistryError::Plugin {
                name: name.clone(),
                reason,
            },
        })
    }

    /// Returns the driver, unless it has lost all that it was told: then the source has another.
    fn living(&self, name: &Name) -> Option<Arc<dyn Driver>> {
        let driver = self.driver(name)?;
        (!driver.life().is_cancelled()).then_some(driver)
    }

    fn announce(&self, name: &Name, driver: &dyn Driver) -> Result<(), RegistryError> {
        let Some(notify) = &self.notify else {
            return Ok(());
        };
        notify(name, driver.capability()).map_err(|Veto(reason)| RegistryError::Vetoed {
            name: name.clone(),
            reason,
        })
    }

    /// Registers what the source found, unless somebody who asked at the same time has: they get one driver, since a
    /// remote one remembers what its plugin has done.
    fn keep(&self, name: &Name, driver: Arc<dyn Driver>) -> Result<Arc<dyn Driver>, RegistryError> {
        self.announce(name, &*driver)?;
        let mut contents = self.contents();
        contents.misses.remove(&(Kind::Network, name.clone()));
        if let Some(held) = contents.drivers.get(name.as_str())
            && !held.driver.life().is_cancelled()
        {
            return Ok(held.driver.clone());
        }
        let origin = Origin::Plugin;
        let registration = Registration {
            origin,
            driver: driver.clone(),
        };
        contents.drivers.insert(name.clone(), registration);
        Ok(driver)
    }

    fn was_missed(&self, kind: Kind, name: &Name, now: Instant) -> bool {
        let contents = self.contents();
        let missed = contents.misses.get(&(kind, name.clone()));
        missed.is_some_and(|at| now.saturating_duration_since(*at) < NOT_FOUND_FOR)
    }

    fn remember_miss(&self, kind: Kind, name: &Name, now: Instant) {
        let mut contents = self.contents();
        if contents.misses.len() >= MISSES_MAX {
            contents.misses.clear();
        }
        contents.misses.insert((kind, name.clone()), now);
    }

    fn check_free(&self, name: &Name) -> Result<(), RegistryError> {
        check_free(&self.contents(), name)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_free(contents: &Contents, name: &Name) -> Result<(), RegistryError> {
    match contents.drivers.get(name.as_str()).map(|held| held.origin) {
        Some(Origin::BuiltIn) => Err(RegistryError::BuiltIn(name.clone())),
        Some(Origin::Plugin) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
