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

use super::{Agreed, Allocation, Capability, Driver, IpamDriver, NetworkAllocator, Null, Overlay};
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

/// What kind of driver: a name may be one's and not the other's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Carries networks.
    Network,
    /// Hands out pools and addresses.
    Ipam,
    /// Hands out what networks need in the whole cluster.
    Allocator,
}

/// The built-in IPAM: the cluster's agreed pools, and each node's blocks of them. It is no object of its own, but its name is.
pub const DEFAULT_IPAM: &str = "default";
/// The name of the IPAM driver that hands out nothing: the network has no subnets, and its driver may give addresses itself.
pub const NULL_IPAM: &str = "null";

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

/// What a source has found by the name of a driver.
pub struct Found {
    /// The driver.
    pub driver: Arc<dyn Driver>,
    /// Who allocates for its networks; nothing if they need nothing that all nodes must agree on.
    pub allocator: Option<Arc<dyn NetworkAllocator>>,
}

/// Finds drivers that are not built in.
pub trait DriverSource: Send + Sync {
    /// Finds and activates the driver of that name.
    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Found, SourceError>>;

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

    /// Hears that a network of this node uses a driver from here.
    fn acquire<'a>(
        &'a self,
        _kind: Kind,
        _name: &'a Name,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Hears that a network does so no longer.
    fn release(&self, _kind: Kind, _name: &Name) {}
}

/// Why a registration was refused by [`Notify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Veto(pub String);

/// Is told of every driver before it is registered, and may refuse it. It must not block; it may use the registry.
pub type Notify = Arc<dyn Fn(&Name, Capability) -> Result<(), Veto> + Send + Sync>;

/// A driver of any kind, and where it comes from.
struct Registration<T: ?Sized> {
    origin: Origin,
    driver: Arc<T>,
}

impl<T: ?Sized> Clone for Registration<T> {
    fn clone(&self) -> Self {
        let (origin, driver) = (self.origin, self.driver.clone());
        Self { origin, driver }
    }
}

type Registrations<T> = BTreeMap<Name, Registration<T>>;

#[derive(Default)]
struct Contents {
    drivers: Registrations<dyn Driver>,
    ipams: Registrations<dyn IpamDriver>,
    allocators: Registrations<dyn NetworkAllocator>,
    misses: BTreeMap<(Kind, Name), Instant>,
}

/// Network drivers, IPAM drivers and network allocators by name: three maps, none needs another.
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
        let nothing = Agreed(Allocation::default());
        registry
            .register("overlay", Origin::BuiltIn, overlay)
            .and_then(|()| registry.register("null", Origin::BuiltIn, Arc::new(Null)))
            .and_then(|()| {
                let origin = Origin::BuiltIn;
                registry.register_allocator("overlay", origin, Arc::new(Agreed::OVERLAY))?;
                registry.register_allocator("null", origin, Arc::new(nothing))
            })
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
        check_free(&self.contents().drivers, &name)?;
        self.announce(&name, &*driver)?;
        // Again, now for good: `notify` ran without the lock.
        let mut contents = self.contents();
        check_free(&contents.drivers, &name)?;
        contents.misses.remove(&(Kind::Network, name.clone()));
        contents
            .drivers
            .insert(name, Registration { origin, driver });
        Ok(())
    }

    /// Registers a network allocator, by the same rules, whether or not a driver of that name is here.
    pub fn register_allocator(
        &self,
        name: &str,
        origin: Origin,
        driver: Arc<dyn NetworkAllocator>,
    ) -> Result<(), RegistryError> {
        let name = Name::new(name)?;
        let mut contents = self.contents();
        check_free(&contents.allocators, &name)?;
        let registration = Registration { origin, driver };
        contents.allocators.insert(name, registration);
        Ok(())
    }

    /// Returns the driver, if it is registered.
    pub fn driver(&self, name: &Name) -> Option<Arc<dyn Driver>> {
        let contents = self.contents();
        Some(contents.drivers.get(name.as_str())?.driver.clone())
    }

    /// Returns the network allocator, if it is registered and has not lost what it was told.
    pub fn allocator(&self, name: &Name) -> Option<Arc<dyn NetworkAllocator>> {
        let contents = self.contents();
        let found = &contents.allocators.get(name.as_str())?.driver;
        (!found.life().is_cancelled()).then(|| found.clone())
    }

    /// Returns whether a driver or an allocator of that name is registered.
    pub fn has(&self, name: &Name) -> bool {
        let contents = self.contents();
        contents.drivers.contains_key(name.as_str())
            || contents.allocators.contains_key(name.as_str())
    }

    /// Shows every driver until `visit` breaks. It sees those of the moment of the call, and may use the registry.
    pub fn walk(&self, visit: impl FnMut(&Name, &Arc<dyn Driver>) -> ControlFlow<()>) {
        let snapshot = self.contents().drivers.clone();
        walk(&snapshot, visit);
    }

    /// As [`Self::walk`], IPAM drivers.
    pub fn walk_ipams(&self, visit: impl FnMut(&Name, &Arc<dyn IpamDriver>) -> ControlFlow<()>) {
        let snapshot = self.contents().ipams.clone();
        walk(&snapshot, visit);
    }

    /// As [`Self::walk`], network allocators.
    pub fn walk_allocators(
        &self,
        visit: impl FnMut(&Name, &Arc<dyn NetworkAllocator>) -> ControlFlow<()>,
    ) {
        let snapshot = self.contents().allocators.clone();
        walk(&snapshot, visit);
    }

    /// Counts a network of this node as a user of a driver: one from a source hears of it.
    pub async fn acquire(&self, kind: Kind, name: &Name) -> Result<(), SourceError> {
        match &self.source {
            Some(source) if !self.is_built_in(kind, name) => source.acquire(kind, name).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Counts one user less.
    pub fn release(&self, kind: Kind, name: &Name) {
        if let Some(source) = &self.source {
            source.release(kind, name);
        }
    }

    fn is_built_in(&self, kind: Kind, name: &Name) -> bool {
        let contents = self.contents();
        let origin = match kind {
            Kind::Network => origin(&contents.drivers, name),
            Kind::Ipam => origin(&contents.ipams, name),
            Kind::Allocator => origin(&contents.allocators, name),
        };
        origin == Some(Origin::BuiltIn)
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
        let found = self
            .ask(Kind::Network, name, now, |source| source.get(name))
            .await?;
        self.keep(name, found)
    }

    /// Returns who allocates for a driver's networks, asking the source if it is not registered; nobody if they need nothing.
    pub async fn get_allocator(
        &self,
        name: &Name,
        now: Instant,
    ) -> Result<Option<Arc<dyn NetworkAllocator>>, RegistryError> {
        if let Some(allocator) = self.allocator(name) {
            return Ok(Some(allocator));
        }
        self.get(name, now).await?;
        Ok(self.allocator(name))
    }

    /// Registers an IPAM driver, by the same rules as a network driver.
    pub fn register_ipam(
        &self,
        name: &str,
        origin: Origin,
        driver: Arc<dyn IpamDriver>,
    ) -> Result<(), RegistryError> {
        let name = Name::new(name)?;
        if [DEFAULT_IPAM, NULL_IPAM].contains(&name.as_str()) {
            return Err(RegistryError::BuiltIn(name));
        }
        let mut contents = self.contents();
        check_free(&contents.ipams, &name)?;
        contents.misses.remove(&(Kind::Ipam, name.clone()));
        contents.ipams.insert(name, Registration { origin, driver });
        Ok(())
    }

    /// Returns the IPAM driver, asking the source if it is not registered or has lost what it was told.
    pub async fn ipam(
        &self,
        name: &Name,
        now: Instant,
    ) -> Result<Arc<dyn IpamDriver>, RegistryError> {
        let held = |contents: &Contents| {
            let driver = &contents.ipams.get(name.as_str())?.driver;
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
        let registration = Registration {
            origin: Origin::Plugin,
            driver: driver.clone(),
        };
        contents.ipams.insert(name.clone(), registration);
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
    fn keep(&self, name: &Name, found: Found) -> Result<Arc<dyn Driver>, RegistryError> {
        let Found { driver, allocator } = found;
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
        // A built-in allocator stays what it is: a driver need not bring its own.
        if check_free(&contents.allocators, name).is_ok() {
            contents.allocators.remove(name);
            if let Some(driver) = allocator {
                let registration = Registration { origin, driver };
                contents.allocators.insert(name.clone(), registration);
            }
        }
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

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_free<T: ?Sized>(held: &Registrations<T>, name: &Name) -> Result<(), RegistryError> {
    match origin(held, name) {
        Some(Origin::BuiltIn) => Err(RegistryError::BuiltIn(name.clone())),
        Some(Origin::Plugin) | None => Ok(()),
    }
}

fn origin<T: ?Sized>(held: &Registrations<T>, name: &Name) -> Option<Origin> {
    held.get(name.as_str()).map(|held| held.origin)
}

fn walk<T: ?Sized>(
    snapshot: &Registrations<T>,
    mut visit: impl FnMut(&Name, &Arc<T>) -> ControlFlow<()>,
) {
    for (name, registration) in snapshot {
        if visit(name, &registration.driver).is_break() {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
