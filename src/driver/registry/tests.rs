//! The registry's cases R1 to R7 of libnetwork, each named at its test.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::driver::{AddressRequest, IpamCapability, IpamError, Pool, PoolRequest, Spaces};

/// R1.
#[test]
fn a_blank_name_is_refused() {
    let registry = Registry::new();

    for blank in ["", " ", "\t"] {
        let refused = registry.register(blank, Origin::Plugin, Arc::new(Null));
        assert!(matches!(refused, Err(RegistryError::Name(_))));
    }
}

/// R2.
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

/// R3.
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

/// R4.
#[test]
fn a_vetoed_driver_is_not_registered() {
    let veto: Notify = Arc::new(|_, _| Err(Veto("no room".to_owned())));
    let registry = Registry::new().with_notify(veto);

    let refused = registry.register("wire", Origin::Plugin, Arc::new(Null));

    assert!(matches!(refused, Err(RegistryError::Vetoed { .. })));
    assert!(registry.driver(&name("wire")).is_none());
}

/// R5.
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

/// R6; R1 to R3 of allocators.
#[test]
fn a_driver_and_an_allocator_of_one_name_do_not_need_each_other() {
    let registry = Registry::new();
    let overlay = Arc::new(Agreed::OVERLAY);
    let origin = Origin::BuiltIn;

    registry
        .register_allocator("overlay", origin, overlay.clone())
        .unwrap();

    assert!(registry.has(&name("overlay")));
    assert!(registry.driver(&name("overlay")).is_none());
    let found = registry.allocator(&name("overlay")).unwrap();
    assert_eq!(found.needs(), Agreed::OVERLAY.0);
    assert!(registry.allocator(&name("null")).is_none());
    let blank = registry.register_allocator(" ", Origin::Plugin, overlay.clone());
    assert!(matches!(blank, Err(RegistryError::Name(_))));
    let taken = registry.register_allocator("overlay", Origin::Plugin, overlay.clone());
    assert!(matches!(taken, Err(RegistryError::BuiltIn(_))));
    let (first, second) = (
        Arc::new(Agreed::OVERLAY),
        overlay as Arc<dyn NetworkAllocator>,
    );
    for allocator in [first, second.clone()] {
        registry
            .register_allocator("wire", Origin::Plugin, allocator)
            .unwrap();
    }
    assert!(Arc::ptr_eq(
        &registry.allocator(&name("wire")).unwrap(),
        &second
    ));
}

/// R6, R7: what a plugin is comes in one answer, and each part is found by itself.
#[tokio::test]
async fn a_plugin_that_allocates_is_found_as_an_allocator_too() {
    let source = Arc::new(Source::new(Ok(())));
    let registry = Registry::new().with_source(source.clone());

    let allocator = registry.get_allocator(&name("wire"), at(0)).await.unwrap();
    let driver = registry.get(&name("wire"), at(0)).await;

    assert!(allocator.is_some_and(|allocator| allocator.needs() == Agreed::OVERLAY.0));
    assert!(driver.is_ok());
    assert_eq!(source.asked(), 1);
}

/// R7.
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

/// R7.
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
    fn get<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Found, SourceError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.clone().map(|()| Found {
            driver: plugin(),
            allocator: Some(Arc::new(Agreed::OVERLAY)),
        });
        Box::pin(async {
            // Others may ask meanwhile.
            tokio::task::yield_now().await;
            answer
        })
    }
}

fn plugin() -> Arc<dyn Driver> {
    let vtep = crate::core::model::Vtep("192.0.2.1".parse().unwrap());
    let underlay = crate::core::overlay::Underlay::assumed(vtep);
    let memory = Arc::new(crate::dataplane::Memory::default());
    Arc::new(Overlay::new(underlay, memory))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(seconds))
}

/// R1, R2, R3 and R7 of IPAM drivers; R6: a network driver of the same name is another matter.
#[tokio::test]
async fn ipam_drivers_have_a_map_of_their_own() {
    let registry = Registry::new();
    let (built_in, first, second) = (ipam(), ipam(), ipam());
    registry
        .register_ipam("leader", Origin::BuiltIn, built_in)
        .unwrap();
    let default = registry.register_ipam(DEFAULT_IPAM, Origin::Plugin, ipam());
    assert!(matches!(default, Err(RegistryError::BuiltIn(_))));
    registry
        .register_ipam("pools", Origin::Plugin, first.clone())
        .unwrap();
    registry
        .register_ipam("pools", Origin::Plugin, second.clone())
        .unwrap();

    let blank = registry.register_ipam(" ", Origin::Plugin, ipam());
    let taken = registry.register_ipam("leader", Origin::Plugin, ipam());
    let found = registry.ipam(&name("pools"), at(0)).await.unwrap();
    let missing = registry.ipam(&name("nope"), at(0)).await.err();

    assert!(matches!(blank, Err(RegistryError::Name(_))));
    assert!(matches!(taken, Err(RegistryError::BuiltIn(_))));
    assert!(Arc::ptr_eq(&found, &second));
    assert!(matches!(missing, Some(RegistryError::NotFound(_))));
    assert!(registry.driver(&name("pools")).is_none());

    // One that has lost what it was told is no more.
    second.life().cancel();
    let gone = registry.ipam(&name("pools"), at(0)).await.err();
    assert!(matches!(gone, Some(RegistryError::NotFound(_))));
}

/// A miss of one kind says nothing of the other.
#[tokio::test]
async fn a_name_that_is_no_network_driver_may_be_an_ipam_driver() {
    let source = Arc::new(Source::new(Err(SourceError::NotFound)));
    let registry = Registry::new().with_source(source);

    let missing = registry.get(&name("pools"), at(0)).await.err();
    registry
        .register_ipam("pools", Origin::Plugin, ipam())
        .unwrap();

    assert!(matches!(missing, Some(RegistryError::NotFound(_))));
    assert!(registry.ipam(&name("pools"), at(0)).await.is_ok());
}

fn ipam() -> Arc<dyn IpamDriver> {
    Arc::new(Empty::default())
}

/// An IPAM driver that has nothing.
#[derive(Default)]
struct Empty {
    life: CancellationToken,
}

impl Empty {
    fn nothing<T: Send + 'static>() -> BoxFuture<'static, Result<T, IpamError>> {
        Box::pin(std::future::ready(Err(IpamError::Overlap { tried: 0 })))
    }
}

impl IpamDriver for Empty {
    fn capability(&self) -> IpamCapability {
        IpamCapability::default()
    }

    fn spaces(&self) -> Spaces {
        Spaces::default()
    }

    fn request_pool<'a>(&'a self, _: &'a PoolRequest) -> BoxFuture<'a, Result<Pool, IpamError>> {
        Self::nothing()
    }

    fn release_pool<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), IpamError>> {
        Self::nothing()
    }

    fn request_address<'a>(
        &'a self,
        _: &'a Pool,
        _: AddressRequest,
    ) -> BoxFuture<'a, Result<IpAddr, IpamError>> {
        Self::nothing()
    }

    fn release_address<'a>(
        &'a self,
        _: &'a str,
        _: IpAddr,
    ) -> BoxFuture<'a, Result<(), IpamError>> {
        Self::nothing()
    }

    fn holds(&self, _: &str) -> bool {
        false
    }

    fn life(&self) -> CancellationToken {
        self.life.clone()
    }

    fn look(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
