//! Waiting: until others have heard, and until a network has come whole.

use std::time::Duration;

use tempfile::{TempDir, tempdir};
use tokio_util::sync::CancellationToken;

use super::rig::{Node, Rig, Spy, key, name};
use crate::{
    controller::{EndpointState, Setup},
    core::{
        model::{NetworkId, NetworkRecord, NodeId, TableName, Value},
        netdb::{PutMode, SyncState},
        watch::Filter,
    },
    runtime::{WatchEvent, Watcher},
};

/// Longer than anything waited for takes.
const LONG: Duration = Duration::from_secs(10);
/// Shorter than a silent node is noticed.
const SHORT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn an_awaited_leave_is_known_everywhere_when_it_is_answered() {
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let (spy, _ear) = Spy::new();
    let (a, b, network) = two(&disks, &spy).await;
    super::join(&a, "web").await;
    b.until(network.id, "endpoints", |entries| entries == 1)
        .await;

    let leave = a.controller.endpoint_leave_applied("app", "web", LONG);
    let (left, applied) = leave.await.unwrap();

    assert_eq!(left.state, EndpointState::Created);
    assert_eq!(applied.lacking, []);
    // Both deletes, of the endpoint and of its driver's entry, came after both puts.
    assert_eq!(applied.version.seq, 4);
    let there = b.controller.endpoint_list(Some("app")).await.unwrap();
    assert_eq!(there, []);
    assert_eq!(spy.called("leave"), 1);
}

#[tokio::test]
async fn who_does_not_answer_is_named_and_the_leave_stands() {
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let (spy, _ear) = Spy::new();
    let (a, b, _network) = two(&disks, &spy).await;
    super::join(&a, "web").await;
    a.controller.applied("app", LONG).await.unwrap();
    b.fall_silent();

    let leave = a.controller.endpoint_leave_applied("app", "web", SHORT);
    let (left, applied) = leave.await.unwrap();

    assert_eq!(applied.lacking, [(NodeId(2), Some(name("n2")))]);
    assert_eq!(left.state, EndpointState::Created);
    assert_eq!(spy.called("leave"), 1);
    // Once it is down, nobody waits for it.
    let applied = a.controller.applied("app", LONG).await.unwrap();
    assert_eq!(applied.lacking, []);
}

#[tokio::test]
async fn an_entry_that_is_still_to_go_has_gone_nowhere() {
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let (a, b, network) = two(&disks, &Spy::new().0).await;
    let t = TableName::new("t").unwrap();
    let entry = (t.clone(), key("k"), Value::new(&b"v"[..]).unwrap());
    let handle = &a.controller.parts.handle;
    handle
        .put(network.id, entry, PutMode::Create)
        .await
        .unwrap();
    a.controller.applied("app", LONG).await.unwrap();
    let hand = a.controller.desk.hands.hold(network.id).await;
    let place = (network.id, t, key("k"));
    a.controller.desk.removals.add([place]);

    let early = a.controller.applied("app", SHORT).await.unwrap();
    drop(hand);
    let late = a.controller.applied("app", LONG).await.unwrap();

    assert_eq!(early.lacking, [(NodeId(2), Some(name("n2")))]);
    assert_eq!(late.lacking, []);
    assert_eq!(late.version.seq, early.version.seq + 1);
    let there = b.controller.parts.handle.list(network.id, None).await;
    assert_eq!(there.unwrap(), []);
}

#[tokio::test]
async fn an_endpoint_that_joins_again_while_its_leave_is_awaited_stays() {
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let (spy, _ear) = Spy::new();
    let (a, b, network) = two(&disks, &spy).await;
    super::join(&a, "web").await;
    a.controller.applied("app", LONG).await.unwrap();
    b.fall_silent();

    let leave = a.controller.endpoint_leave_applied("app", "web", LONG);
    let join_again = async {
        a.until(network.id, "endpoints", |entries| entries == 0)
            .await;
        a.controller.endpoint_join("app", "web").await
    };
    let (left, joined) = tokio::join!(leave, join_again);

    assert_eq!(joined.unwrap().state, EndpointState::Joined);
    let (left, _applied) = left.unwrap();
    assert_eq!(left.state, EndpointState::Joined);
    assert_eq!(spy.called("leave"), 0);
    let there = a.controller.endpoint_list(Some("app")).await.unwrap();
    assert_eq!(there[0].state, EndpointState::Joined);
}

#[tokio::test]
async fn a_watch_is_told_that_all_has_come_after_it_was_told_all() {
    const ENTRIES: usize = 40;
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    let network = rig.network("app", &[&a]).await;
    a.controller.ready_network("app").await.unwrap();
    for n in 0..ENTRIES {
        let value = Value::new(&b"v"[..]).unwrap();
        let entry = (TableName::new("t").unwrap(), key(&format!("k{n}")), value);
        let handle = &a.controller.parts.handle;
        let put = handle.put(network.id, entry, PutMode::Create);
        put.await.unwrap();
    }
    let b = rig.start(2, &disks.1, Spy::new().0).await;
    let filter = Filter {
        network: Some(network.id),
        ..Filter::default()
    };
    let mut watch = b.controller.parts.handle.watch(filter, None);
    assert!(
        matches!(next(&mut watch).await, WatchEvent::Snapshot { entries, .. } if entries.is_empty())
    );
    assert_eq!(next(&mut watch).await, state(&network, None));

    b.meet(&a).await;
    rig.publish(&[&b]).await;

    let mut told = 0;
    loop {
        match next(&mut watch).await {
            WatchEvent::Change(_) => told += 1,
            WatchEvent::State {
                state: Some(SyncState::Synced),
                ..
            } => break,
            event @ (WatchEvent::State { .. }
            | WatchEvent::Snapshot { .. }
            | WatchEvent::Lagged) => {
                assert_eq!(event, state(&network, Some(SyncState::Syncing)));
            }
        }
    }
    assert_eq!(told, ENTRIES);
    let seen = b.controller.network_until_synced("app", LONG).await;
    let seen = seen.unwrap();
    assert_eq!(
        (seen.setup, seen.sync),
        (Setup::Ready, Some(SyncState::Synced))
    );
    let listed = b.controller.network_states().await.unwrap();
    assert_eq!(listed[0].sync, Some(SyncState::Synced));
}

#[tokio::test]
async fn a_watch_is_told_when_its_node_no_longer_carries_the_network() {
    let mut rig = Rig::new();
    let disk = tempdir().unwrap();
    let a = rig.start(1, &disk, Spy::new().0).await;
    let network = rig.network("app", &[&a]).await;
    let ready = a.controller.network_until_synced("app", LONG).await;
    assert_eq!(ready.unwrap().sync, Some(SyncState::Synced));
    let watch = a.controller.watch("app", None, Vec::new(), None).await;
    let mut watch = watch.unwrap();
    assert!(matches!(
        next(&mut watch).await,
        WatchEvent::Snapshot { .. }
    ));
    assert_eq!(
        next(&mut watch).await,
        state(&network, Some(SyncState::Synced))
    );

    rig.remove_network(network.id, &[&a]).await;

    assert_eq!(next(&mut watch).await, state(&network, None));
}

#[tokio::test]
async fn a_network_that_is_removed_before_it_was_attached_to_is_taken_down() {
    let rig = Rig::new();
    let disk = tempdir().unwrap();
    let a = rig.start(1, &disk, Spy::new().0).await;

    // Which of its two futures a select looks at first is left to chance.
    for id in 100..110 {
        let record = NetworkRecord {
            id: NetworkId(id),
            name: name("brief"),
            driver: name("spy"),
            options: Default::default(),
            subnets: Vec::new(),
        };
        let removed = CancellationToken::new();
        removed.cancel();
        let attend = a.controller.clone().attend(record, removed);
        tokio::time::timeout(LONG, attend).await.unwrap();
    }

    let carried = a.controller.parts.handle.networks().await.unwrap();
    assert_eq!(carried.len(), 1);
}

/// Two nodes that know each other and have set up network `app`, on which all entries have come.
async fn two(disks: &(TempDir, TempDir), spy: &Spy) -> (Node, Node, NetworkRecord) {
    let mut rig = Rig::new();
    let a = rig.start(1, &disks.0, spy.clone()).await;
    let b = rig.start(2, &disks.1, Spy::new().0).await;
    b.meet(&a).await;
    let network = rig.network("app", &[&a, &b]).await;
    for node in [&a, &b] {
        let view = node.controller.network_until_synced("app", LONG).await;
        assert_eq!(view.unwrap().sync, Some(SyncState::Synced));
        // Each knows that the other has attached.
        let attached = async {
            let handle = &node.controller.parts.handle;
            let mut revision = handle.revision();
            while handle.attached(network.id).await.unwrap().len() < 2 {
                revision.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LONG, attached).await.unwrap();
    }
    (a, b, network)
}

async fn next(watch: &mut Watcher) -> WatchEvent {
    let event = tokio::time::timeout(LONG, watch.next());
    event.await.expect("nothing was told").unwrap()
}

fn state(network: &NetworkRecord, state: Option<SyncState>) -> WatchEvent {
    WatchEvent::State {
        network: network.id,
        state,
    }
}
