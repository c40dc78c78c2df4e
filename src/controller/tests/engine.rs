//! Endpoints whose address and id an engine gives.

use tempfile::tempdir;

use super::rig::{Rig, Spy, name};
use crate::{
    controller::{ControllerError, Held, HeldEndpoint},
    core::model::{EndpointId, Family},
};

const ENDPOINT: EndpointId = EndpointId(5);

#[tokio::test]
async fn an_endpoint_is_found_by_all_names_of_its_container_until_it_goes() {
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    let b = rig.start(2, &disks.1, Spy::new().0).await;
    b.meet(&a).await;
    let network = rig.network("app", &[&a, &b]).await.id;
    let held = a
        .controller
        .address_hold(network, (Family::V4, None))
        .await
        .unwrap();
    let wish = HeldEndpoint {
        id: ENDPOINT,
        name: name("0a1b2c3d4e5f"),
        addresses: vec![held.0.addr()],
        mac: None,
    };
    let create = a.controller.held_endpoint_create(network, wish);
    create.await.unwrap();
    let join = a.controller.held_endpoint_join(network, ENDPOINT);
    join.await.unwrap();
    let give = async |names: &[&str], are_all| {
        let names = names.iter().map(|text| name(text)).collect();
        let given = a
            .controller
            .endpoint_name((network, ENDPOINT), names, are_all);
        given.await.unwrap();
    };

    give(&["web", "www"], true).await;
    b.until(network, "names", |entries| entries == 1).await;
    // Not all are known yet: the alias stays.
    give(&["site"], false).await;
    let named = async || b.controller.endpoint_list(Some("app")).await.unwrap();
    while named().await[0].record.name != name("site") {}
    b.until(network, "names", |entries| entries == 1).await;
    give(&["site"], true).await;
    b.until(network, "names", |entries| entries == 0).await;
    a.controller
        .held_endpoint_remove(network, ENDPOINT)
        .await
        .unwrap();
    b.until(network, "endpoints", |entries| entries == 0).await;
}

#[tokio::test]
async fn a_held_address_is_free_only_when_it_is_given_back_and_no_endpoint_has_it() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let node = rig.start(1, &disk, Spy::new().0).await;
    let network = rig.network("app", &[&node]).await.id;
    let controller = &node.controller;
    let address = controller
        .address_hold(network, (Family::V4, None))
        .await
        .unwrap()
        .0
        .addr();
    let wish = |id| HeldEndpoint {
        id,
        name: name(&format!("e{id}")),
        addresses: vec![address],
        mac: None,
    };
    let made = controller.held_endpoint_create(network, wish(ENDPOINT));
    made.await.unwrap();

    let second = controller.held_endpoint_create(network, wish(EndpointId(6)));
    let second = second.await.unwrap_err();
    let early = controller.address_free(network, address).await.unwrap_err();
    let remove = controller.held_endpoint_remove(network, ENDPOINT);
    remove.await.unwrap();
    let held = controller.held().await.unwrap();
    let again = controller
        .address_hold(network, (Family::V4, Some(address)))
        .await;
    controller.address_free(network, address).await.unwrap();
    let foreign = controller.held_endpoint_create(network, wish(EndpointId(7)));
    let foreign = foreign.await.unwrap_err();

    let in_use = |error: &ControllerError| matches!(error, ControllerError::AddressInUse { .. });
    assert!(in_use(&second) && in_use(&early), "{second} {early}");
    let without = Held {
        network,
        address,
        endpoint: None,
    };
    assert_eq!(held, [without]);
    assert!(in_use(&again.unwrap_err()));
    assert!(matches!(foreign, ControllerError::NotHeld { .. }));
    let free = controller
        .address_hold(network, (Family::V4, Some(address)))
        .await;
    assert_eq!(free.unwrap().0.addr(), address);
    // Asked for once more, what is gone is gone.
    let remove = controller.held_endpoint_remove(network, ENDPOINT);
    remove.await.unwrap();
}
