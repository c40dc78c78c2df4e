//! What a daemon that died had drivers do, which outlive it: the next one takes it back.

use tempfile::tempdir;

use super::rig::{Node, Rig, Spy, name};
use crate::{
    controller::ControllerError,
    core::model::{EndpointId, EndpointRecord, Mac, NetworkId},
    store::{Asked, Store},
};

#[tokio::test]
async fn an_endpoint_that_was_begun_and_not_written_is_taken_back() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let intended = record(NetworkId(1));
    Store::open(disk.path())
        .unwrap()
        .intend_endpoint(&intended)
        .unwrap();
    let spy = older();
    let a = rig.start(1, &disk, spy.clone()).await;

    rig.network("app", &[&a]).await;
    a.controller.ready_network("app").await.unwrap();

    assert_eq!(spy.called("delete_endpoint"), 1);
    let store = &a.controller.parts.store;
    assert_eq!(store.intended_endpoints().unwrap(), []);
    let asked = store.intended_networks(Asked::SetUp).unwrap();
    assert_eq!(asked, [(NetworkId(1), name("spy"))]);

    // An endpoint that was made is not intended any more.
    let made = a.controller.endpoint_create("app", name("web"), None).await;
    made.unwrap();
    assert_eq!(store.intended_endpoints().unwrap(), []);
    assert_eq!(spy.called("delete_endpoint"), 1);
}

/// The network is gone too, so its driver is known from what this node had asked only.
#[tokio::test]
async fn what_is_left_of_a_network_that_was_removed_meanwhile_is_taken_back() {
    let rig = Rig::new();
    let disk = tempdir().unwrap();
    let gone = NetworkId(9);
    let store = Store::open(disk.path()).unwrap();
    store.intend_endpoint(&record(gone)).unwrap();
    for asked in [Asked::SetUp, Asked::Allocate] {
        store.intend_network((asked, gone), &name("spy")).unwrap();
    }
    drop(store);
    let spy = older();
    let a = rig.start(1, &disk, spy.clone()).await;
    rig.found(&a).await;
    a.until_led().await;

    a.controller.sweep_now().await.unwrap();

    assert_eq!(spy.called("delete_endpoint"), 1);
    assert!(spy.called("delete_network") >= 1);
    let store = &a.controller.parts.store;
    assert_eq!(store.intended_endpoints().unwrap(), []);
    for asked in [Asked::SetUp, Asked::Allocate] {
        assert_eq!(store.intended_networks(asked).unwrap(), []);
    }
}

/// A driver of this process forgets with it: nothing is written for it.
#[tokio::test]
async fn a_driver_that_ends_with_the_daemon_is_not_written_down() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.network("app", &[&a]).await;
    a.controller.ready_network("app").await.unwrap();

    let store = &a.controller.parts.store;
    assert_eq!(store.intended_networks(Asked::SetUp).unwrap(), []);
}

/// The options that say how far an allocation has come are no person's to give.
#[tokio::test]
async fn the_stage_of_an_allocation_is_not_a_persons_to_choose() {
    let rig = Rig::new();
    let disk = tempdir().unwrap();
    let a: Node = rig.start(1, &disk, Spy::new().0).await;
    let request = crate::controller::NetworkRequest {
        name: name("app"),
        driver: name("spy"),
        options: [("weft.allocation".to_owned(), "made".to_owned())].into(),
        subnets: Vec::new(),
        ipv6: false,
    };

    let refused = a.controller.network_create(request).await;

    assert!(matches!(refused, Err(ControllerError::Driver(_))));
}

fn older() -> Spy {
    Spy {
        is_older: true,
        ..Spy::new().0
    }
}

fn record(network: NetworkId) -> EndpointRecord {
    EndpointRecord {
        id: EndpointId(7),
        network,
        name: name("lost"),
        address: None,
        second: None,
        mac: Mac([2, 0, 0, 0, 0, 7]),
    }
}
