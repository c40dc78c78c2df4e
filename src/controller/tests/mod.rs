//! The life of endpoints and their entries, on nodes that really run. D1 to D12 are libnetwork's cases, those without a test here:
//!
//! D5, an object type that is none: `driver::contract`, and of a plugin `driver::remote::tests::tables`. D6, a table that nobody
//! asked for: `feed::heard`. D9, an update to the same value: `feed::heard`, and to the same peer `core::overlay`. D10, what the
//! leader allocates: `core::allocator` and `agreement`, and of a plugin `driver::remote::tests::allocator` and, on nodes of their own,
//! the process tests `allocators`; it comes to every driver with the network's record. D11, what an entry
//! means: `driver::overlay` and `driver::remote::tests::tables`. D12, a gateway that is not of its subnet: `driver::contract`, and of
//! an IPAM plugin `driver::remote::tests::ipam`.

mod agreement;
mod engine;
mod intents;
mod keys;
mod labels;
mod rig;
mod waiting;

use tempfile::tempdir;

use self::rig::{Rig, Spy, key, name};
use super::{ControllerError, EndpointState};
use crate::{
    core::{
        model::{TableEntry, TableName, Value},
        netdb::{PutMode, WriteError},
    },
    driver::Scope,
    runtime::PutError,
};

/// D1, D2: an entry is told once on every other node, and so is its end, without a driver's doing.
#[tokio::test]
async fn other_nodes_drivers_hear_of_a_join_and_a_leave_once() {
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let (spies, mut ears) = (Spy::new(), Spy::new());
    let (ours, mut our_ear) = spies;
    let a = rig.start(1, &disks.0, ours).await;
    let b = rig.start(2, &disks.1, ears.0.clone()).await;
    b.meet(&a).await;
    rig.network("app", &[&a, &b]).await;
    let web = a.controller.endpoint_create("app", name("web"), None).await;
    let web = web.unwrap();

    a.controller.endpoint_join("app", "web").await.unwrap();

    let created = ears.1.next().await;
    assert_eq!(created.previous, None);
    assert_eq!(created.key, key("web"));
    assert_eq!(created.owner, web.node);

    a.controller.endpoint_leave("app", "web").await.unwrap();

    let deleted = ears.1.next().await;
    assert_eq!((deleted.previous, deleted.value), (created.value, None));
    assert!(ears.1.heard_nothing());
    assert!(our_ear.heard_nothing());
}

/// D3: a node that stops takes its entries with it; D4: who comes later hears of what is there.
#[tokio::test]
async fn entries_of_a_node_that_dies_go_and_come_back_with_it() {
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    let network = rig.network("app", &[&a]).await;
    join(&a, "web").await;
    let (spy, mut ear) = Spy::new();
    let b = rig.start(2, &disks.1, spy).await;
    b.meet(&a).await;
    rig.publish(&[&b]).await;
    let existing = ear.next().await;
    assert_eq!((existing.key, existing.previous), (key("web"), None));

    a.stop().await;

    assert_eq!(ear.next().await.value, None);

    let a = rig.start(1, &disks.0, Spy::new().0).await;
    a.meet(&b).await;
    rig.publish(&[&a]).await;

    let back = ear.next().await;
    assert_eq!((back.previous, back.value), (None, existing.value));
    b.until(network.id, "endpoints", |entries| entries == 1)
        .await;
}

/// What a driver leaves of a batch comes again, and nothing of it twice.
#[tokio::test]
async fn a_driver_that_takes_one_event_at_a_time_hears_each_once() {
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    rig.network("app", &[&a]).await;
    for name in ["a", "b", "c"] {
        join(&a, name).await;
    }
    let (spy, mut ear) = Spy::new();
    let slow = Spy { takes: 1, ..spy };
    let b = rig.start(2, &disks.1, slow).await;
    b.meet(&a).await;
    rig.publish(&[&b]).await;

    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(ear.next().await.key);
    }
    a.controller.endpoint_leave("app", "b").await.unwrap();
    let gone = ear.next().await;

    heard.sort();
    assert_eq!(heard, [key("a"), key("b"), key("c")]);
    assert_eq!((gone.key, gone.value), (key("b"), None));
    assert!(ear.heard_nothing());
}

/// A restart that is over before anybody misses the node is no event anywhere.
#[tokio::test]
async fn a_quick_restart_is_heard_of_by_nobody() {
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    let (spy, mut ear) = Spy::new();
    let b = rig.start(2, &disks.1, spy).await;
    b.meet(&a).await;
    let network = rig.network("app", &[&a, &b]).await;
    join(&a, "web").await;
    ear.next().await;

    a.stop().await;
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    a.meet(&b).await;
    rig.lease(&network, &a).await;
    rig.publish(&[&a]).await;
    join(&a, "db").await;

    // The next thing heard is the next thing done.
    assert_eq!(ear.next().await.key, key("db"));
    assert!(ear.heard_nothing());
}

/// D7.
#[tokio::test]
async fn a_driver_that_is_local_by_nature_publishes_nothing_and_hears_nothing() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let (spy, _ear) = Spy::new();
    let local = Spy {
        scope: Scope::Local,
        ..spy
    };
    let a = rig.start(1, &disk, local).await;
    let network = rig.network("app", &[&a]).await;

    join(&a, "web").await;

    let tables = a.controller.table_list("app").await.unwrap();
    let tables: Vec<_> = tables.iter().map(|view| view.table.as_str()).collect();
    assert_eq!(tables, ["endpoints"]);
    a.until(network.id, "spied", |entries| entries == 0).await;
}

/// D8: the second entry is refused, since another node holds its key; the first goes too.
#[tokio::test]
async fn a_join_whose_entry_is_refused_leaves_nothing_published() {
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let (spy, _ear) = Spy::new();
    let a = rig.start(1, &disks.0, spy.clone()).await;
    let b = rig.start(2, &disks.1, Spy::new().0).await;
    b.meet(&a).await;
    let network = rig.network("app", &[&a, &b]).await;
    b.controller.ready_network("app").await.unwrap();
    let taken = (
        TableName::new("spied").unwrap(),
        key("web"),
        Value::new(&b"theirs"[..]).unwrap(),
    );
    // Past the controller, which keeps everybody out of a driver's tables.
    let handle = &b.controller.parts.handle;
    let put = handle.put(network.id, taken, PutMode::Create);
    put.await.unwrap();
    a.until(network.id, "spied", |entries| entries == 1).await;
    let made = a.controller.endpoint_create("app", name("web"), None);
    made.await.unwrap();

    let refused = a.controller.endpoint_join("app", "web").await;

    assert!(matches!(refused, Err(ControllerError::NotOwner { .. })));
    assert_eq!(spy.called("leave"), 1);
    a.until(network.id, "endpoints", |entries| entries == 0)
        .await;
    let after = a.controller.endpoint_list(Some("app")).await.unwrap();
    assert_eq!(after[0].state, EndpointState::Created);
}

#[tokio::test]
async fn a_driver_may_not_write_the_table_of_endpoints() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let (spy, _ear) = Spy::new();
    let greedy = Spy {
        table: "endpoints",
        ..spy
    };
    let a = rig.start(1, &disk, greedy).await;
    rig.network("app", &[&a]).await;
    let made = a.controller.endpoint_create("app", name("web"), None);
    made.await.unwrap();

    let refused = a.controller.endpoint_join("app", "web").await;

    assert!(matches!(refused, Err(ControllerError::ReservedTable(_))));
}

#[tokio::test]
async fn every_step_of_an_endpoint_may_be_taken_twice() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.network("app", &[&a]).await;
    let made = a.controller.endpoint_create("app", name("web"), None);
    made.await.unwrap();

    let first = a.controller.endpoint_join("app", "web").await.unwrap();
    let again = a.controller.endpoint_join("app", "web").await.unwrap();

    assert_eq!(first, again);
    assert_eq!(first.state, EndpointState::Joined);
    for _ in 0..2 {
        let left = a.controller.endpoint_leave("app", "web").await.unwrap();
        assert_eq!(left.state, EndpointState::Created);
    }
    a.controller.endpoint_remove("app", "web").await.unwrap();
    let gone = a.controller.endpoint_remove("app", "web").await;
    assert!(matches!(gone, Err(ControllerError::NoSuchEndpoint { .. })));
}

#[tokio::test]
async fn names_addresses_and_owners_are_kept_apart() {
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    let b = rig.start(2, &disks.1, Spy::new().0).await;
    b.meet(&a).await;
    let network = rig.network("app", &[&a, &b]).await;
    let web = join(&a, "web").await;
    let address = web.record.address.unwrap().0.addr();
    b.until(network.id, "endpoints", |entries| entries == 1)
        .await;

    let same_name = a.controller.endpoint_create("app", name("web"), None);
    assert!(matches!(
        same_name.await,
        Err(ControllerError::EndpointExists { .. })
    ));
    let same_address = a
        .controller
        .endpoint_create("app", name("db"), Some(address));
    assert!(matches!(
        same_address.await,
        Err(ControllerError::AddressInUse { .. })
    ));
    let elsewhere = b.controller.endpoint_leave("app", "web").await;
    assert!(
        matches!(elsewhere, Err(ControllerError::NotOwner { owner }) if owner.node == web.node)
    );
    let other = b.controller.endpoint_create("app", name("web"), None);
    assert_ne!(other.await.unwrap().record.address, web.record.address);
}

#[tokio::test]
async fn a_network_that_is_removed_takes_its_endpoints_with_it() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let (spy, _ear) = Spy::new();
    let a = rig.start(1, &disk, spy.clone()).await;
    let network = rig.network("app", &[&a]).await;
    join(&a, "web").await;
    let mut setups = a.controller.desk.setups.subscribe();

    rig.remove_network(network.id, &[&a]).await;

    setups
        .wait_for(|setups| !setups.contains_key(&network.id))
        .await
        .unwrap();
    assert_eq!(spy.called("delete_endpoint"), 1);
    assert_eq!(spy.called("delete_network"), 1);
    let left = a.controller.own_endpoints(network.id).await.unwrap();
    assert_eq!(left, []);
    let gone = a.controller.network_inspect("app").await;
    assert!(matches!(gone, Err(ControllerError::NoSuchNetwork(_))));
}

#[tokio::test]
async fn a_removal_that_failed_is_tried_again_until_the_entry_is_gone() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let a = rig.start(1, &disk, Spy::new().0).await;
    let network = rig.network("app", &[&a]).await;
    a.controller.ready_network("app").await.unwrap();
    let entry = TableEntry {
        table: TableName::new("t").unwrap(),
        key: key("k"),
        value: Value::new(&b"v"[..]).unwrap(),
    };
    let put = a
        .controller
        .table_put("app", entry.clone(), PutMode::Create);
    put.await.unwrap();

    let place = (network.id, entry.table, entry.key);
    a.controller.desk.removals.add([place]);

    a.until(network.id, "t", |entries| entries == 0).await;
}

#[tokio::test]
async fn a_node_that_holds_all_it_may_refuses_more_and_keeps_nothing_of_it() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let a = rig.start(1, &disk, Spy::new().0).await;
    let network = rig.network("app", &[&a]).await;
    a.controller.ready_network("app").await.unwrap();
    let entry = |n: u32| TableEntry {
        table: TableName::new(&format!("t{n}")).unwrap(),
        key: key("k"),
        value: Value::new(&b"v"[..]).unwrap(),
    };
    // Past the controller, which writes each to disk first.
    let mut n = 0;
    loop {
        let TableEntry { table, key, value } = entry(n);
        let put = (table, key, value);
        let handle = &a.controller.parts.handle;
        match handle.put(network.id, put, PutMode::Create).await {
            Ok(_version) => n += 1,
            Err(refused) => {
                assert_eq!(refused, PutError::Write(WriteError::Backpressure));
                break;
            }
        }
    }

    let refused = a.controller.table_put("app", entry(n), PutMode::Upsert);

    assert!(matches!(refused.await, Err(ControllerError::Backpressure)));
    assert_eq!(a.controller.parts.store.entries().unwrap(), []);
}

#[tokio::test]
async fn an_entry_written_by_hand_outlives_a_restart_and_an_endpoints_is_not_touched_by_hand() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let a = rig.start(1, &disk, Spy::new().0).await;
    let network = rig.network("app", &[&a]).await;
    join(&a, "web").await;
    let entry = TableEntry {
        table: TableName::new("t").unwrap(),
        key: key("k"),
        value: Value::new(&b"v"[..]).unwrap(),
    };
    let put = a
        .controller
        .table_put("app", entry.clone(), PutMode::Create);
    put.await.unwrap();
    let again = a.controller.table_put("app", entry, PutMode::Create).await;
    assert!(matches!(again, Err(ControllerError::EntryExists { .. })));
    let spied = TableName::new("spied").unwrap();
    let touched = a.controller.table_remove("app", spied, key("web")).await;
    assert!(matches!(touched, Err(ControllerError::ReservedTable(_))));

    a.stop().await;
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.publish(&[&a]).await;

    a.until(network.id, "t", |entries| entries == 1).await;
    a.controller.ready_network("app").await.unwrap();
    let removed = a
        .controller
        .table_remove("app", TableName::new("t").unwrap(), key("k"));
    removed.await.unwrap();
    a.until(network.id, "t", |entries| entries == 0).await;
}

/// Makes an endpoint and joins it.
async fn join(node: &rig::Node, endpoint: &str) -> super::EndpointView {
    let made = node.controller.endpoint_create("app", name(endpoint), None);
    made.await.unwrap();
    let joined = node.controller.endpoint_join("app", endpoint);
    joined.await.unwrap()
}
