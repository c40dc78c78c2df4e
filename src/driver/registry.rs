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

use super::{Capability, Driver, Null, Overlay};
use crate::{
    core::model::{Instant, LimitError, Name, Vtep},
    dataplane::Dataplane,
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
    allocations: BTreeMap<Name, Allocation>,
    misses: BTreeMap<Name, Instant>,
}

/// Drivers by name, and what the leader allocates for them: two maps, neither needs the other.
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

    /// Starts with the built-in drivers. `vtep` is this node's address on the underlay.
    pub fn built_in(vtep: Vtep, dataplane: Arc<dyn Dataplane>) -> Self {
        let registry = Self::new();
        let overlay = Arc::new(Overlay::new(vtep, dataplane));
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
        contents.misses.remove(&name);
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

    /// Returns the driver, asking the source if it is not registered.
    pub async fn get(&self, name: &Name, now: Instant) -> Result<Arc<dyn Driver>, RegistryError> {
        if let Some(driver) = self.living(name) {
            return Ok(driver);
        }
        let not_found = || RegistryError::NotFound(name.clone());
        let source = self.source.as_ref().ok_or_else(not_found)?;
        if self.was_missed(name, now) {
            return Err(not_found());
        }
        let answer = tokio::time::timeout(SOURCE_DEADLINE, source.get(name)).await;
        let answer = answer.map_err(|_elapsed| RegistryError::Slow {
            name: name.clone(),
            deadline: SOURCE_DEADLINE,
        })?;
        match answer {
            Ok(driver) => self.keep(name, driver),
            Err(SourceError::NotFound) => {
                self.remember_miss(name, now);
                Err(not_found())
            }
            Err(SourceError::Broken(reason)) => Err(RegistryError::Plugin {
                name: name.clone(),
                reason,
            }),
        }
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
        contents.misses.remove(name.as_str());
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

    fn was_missed(&self, name: &Name, now: Instant) -> bool {
        let contents = self.contents();
        let missed = contents.misses.get(name.as_str());
        missed.is_some_and(|at| now.saturating_duration_since(*at) < NOT_FOUND_FOR)
    }

    fn remember_miss(&self, name: &Name, now: Instant) {
        let mut contents = self.contents();
        if contents.misses.len() >= MISSES_MAX {
            contents.misses.clear();
        }
        contents.misses.insert(name.clone(), now);
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_blank_name_is_refused() {
        let registry = Registry::new();

        for blank in ["", " ", "\t"] {
            let refused = registry.register(blank, Origin::Plugin, Arc::new(Null));
            assert!(matches!(refused, Err(RegistryError::Name(_))));
        }
    }

    #[test]
    fn a_built_in_name_is_never_given_twice() {
        let registry = Registry::new();
        registry
            .register("null", Origin::BuiltIn, Arc::new(Null))
            .unwrap();

        for origin in [Origin::BuiltIn, Origin::Plugin] {
            let refused = registry.register("null", origin, Arc::new(Null));
            assert!(matches!(refused, Err(RegistryError::BuiltIn(_))));
        }
    }

    #[test]
    fn a_plugin_that_comes_again_takes_the_place_of_the_one_before() {
        let registry = Registry::new();
        let (first, second) = (plugin(), plugin());
        registry
            .register("wire", Origin::Plugin, first.clone())
            .unwrap();

        registry
            .register("wire", Origin::Plugin, second.clone())
            .unwrap();

        let found = registry.driver(&name("wire")).unwrap();
        assert!(Arc::ptr_eq(&found, &second));
        assert!(!Arc::ptr_eq(&found, &first));
    }

    #[test]
    fn a_vetoed_driver_is_not_registered() {
        let veto: Notify = Arc::new(|_, _| Err(Veto("no room".to_owned())));
        let registry = Registry::new().with_notify(veto);

        let refused = registry.register("wire", Origin::Plugin, Arc::new(Null));

        assert!(matches!(refused, Err(RegistryError::Vetoed { .. })));
        assert!(registry.driver(&name("wire")).is_none());
    }

    #[test]
    fn a_walk_sees_a_snapshot_and_may_register() {
        let registry = Registry::new();
        for text in ["a", "b", "c"] {
            registry
                .register(text, Origin::Plugin, Arc::new(Null))
                .unwrap();
        }
        let mut seen = Vec::new();

        registry.walk(|name, driver| {
            seen.push(name.to_string());
            let next = format!("{name}-2");
            registry
                .register(&next, Origin::Plugin, driver.clone())
                .unwrap();
            match seen.len() {
                2 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });

        assert_eq!(seen, ["a", "b"]);
        assert!(registry.has(&name("b-2")));
    }

    #[test]
    fn a_driver_and_an_allocation_of_one_name_do_not_need_each_other() {
        let registry = Registry::new();
        let vxlan = Allocation {
            subnets: true,
            vxlan: true,
        };

        registry.register_allocation("overlay", vxlan).unwrap();

        assert!(registry.has(&name("overlay")));
        assert!(registry.driver(&name("overlay")).is_none());
        assert_eq!(registry.allocation(&name("overlay")), Some(vxlan));
        assert_eq!(registry.allocation(&name("null")), None);
    }

    #[tokio::test]
    async fn a_name_nobody_registered_is_asked_of_the_source_and_kept() {
        let source = Arc::new(Source::new(Ok(())));
        let registry = Registry::new().with_source(source.clone());

        registry.get(&name("wire"), at(0)).await.unwrap();
        registry.get(&name("wire"), at(0)).await.unwrap();

        assert_eq!(source.asked(), 1);
    }

    #[tokio::test]
    async fn callers_that_ask_at_the_same_time_get_one_driver() {
        let source = Arc::new(Source::new(Ok(())));
        let registry = Registry::new().with_source(source.clone());
        let wire = name("wire");

        let (one, other) = tokio::join!(registry.get(&wire, at(0)), registry.get(&wire, at(0)));

        assert_eq!(source.asked(), 2);
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert!(Arc::ptr_eq(&one, &registry.driver(&wire).unwrap()));
    }

    #[tokio::test]
    async fn a_miss_is_believed_for_a_while() {
        let source = Arc::new(Source::new(Err(SourceError::NotFound)));
        let registry = Registry::new().with_source(source.clone());

        for (second, asked) in [(0, 1), (1, 1), (2, 2)] {
            let missing = registry.get(&name("wire"), at(second)).await.err();

            assert!(matches!(missing, Some(RegistryError::NotFound(_))));
            assert_eq!(source.asked(), asked);
        }
    }

    #[tokio::test]
    async fn a_plugin_that_does_not_work_is_not_reported_as_missing() {
        let source = Source::new(Err(SourceError::Broken("refused".to_owned())));
        let registry = Registry::new().with_source(Arc::new(source));

        let broken = registry.get(&name("wire"), at(0)).await.err();

        assert!(matches!(broken, Some(RegistryError::Plugin { .. })));
    }

    #[tokio::test]
    async fn without_a_source_an_unknown_name_is_not_found() {
        let missing = Registry::new().get(&name("wire"), at(0)).await.err();

        assert!(matches!(missing, Some(RegistryError::NotFound(_))));
    }

    struct Source {
        answer: Result<(), SourceError>,
        asked: AtomicUsize,
    }

    impl Source {
        fn new(answer: Result<(), SourceError>) -> Self {
            Self {
                answer,
                asked: AtomicUsize::new(0),
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    impl DriverSource for Source {
        fn get<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Arc<dyn Driver>, SourceError>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.answer.clone().map(|()| plugin());
            Box::pin(async {
                // Others may ask meanwhile.
                tokio::task::yield_now().await;
                answer
            })
        }
    }

    fn plugin() -> Arc<dyn Driver> {
        let vtep = Vtep("192.0.2.1".parse().unwrap());
        let memory = Arc::new(crate::dataplane::Memory::default());
        Arc::new(Overlay::new(vtep, memory))
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }
}
