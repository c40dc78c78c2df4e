//! The barrier: it ends when every live member has the write, and not before.

use std::{collections::BTreeSet, time::Duration};

use super::net::{APP, Net};
use crate::core::{
    model::NodeId,
    netdb::{Applied, BarrierId, PutMode, Version},
};

fn wait(net: &mut Net, node: u64, version: Version, limit: Duration) -> BarrierId {
    let now = net.now;
    net.dbs
        .get_mut(&node)
        .unwrap()
        .applied(now, version, now.instant + limit)
}

fn ended(net: &mut Net, node: u64) -> Option<(BarrierId, Applied)> {
    let db = net.dbs.get_mut(&node)?;
    db.poll_barrier()
}

fn with_members(nodes: u64) -> Net {
    let mut net = Net::new(nodes);
    for node in 1..=nodes {
        net.attach([node], APP);
    }
    net.run(Duration::from_secs(4));
    net
}

#[test]
fn a_barrier_ends_when_everyone_has_the_write() {
    let mut net = with_members(4);
    let version = net.try_put(1, "k", "v", PutMode::Create).unwrap();

    let id = wait(&mut net, 1, version, Duration::from_secs(5));
    net.run(Duration::from_millis(20));

    assert_eq!(ended(&mut net, 1), Some((id, Applied::Everywhere)));
    assert_eq!(net.seen(4, "k").as_deref(), Some("v"));
}

#[test]
fn a_barrier_waits_for_a_member_that_lacks_the_write_and_names_it_at_the_deadline() {
    let mut net = with_members(3);
    net.cut.push(3);
    let version = net.try_put(1, "k", "v", PutMode::Create).unwrap();

    let id = wait(&mut net, 1, version, Duration::from_millis(300));
    net.run(Duration::from_millis(200));
    assert_eq!(ended(&mut net, 1), None);
    net.run(Duration::from_millis(200));

    let lacking = BTreeSet::from([NodeId(3)]);
    assert_eq!(ended(&mut net, 1), Some((id, Applied::NotBy(lacking))));
}

#[test]
fn a_barrier_does_not_wait_for_a_member_that_goes_down_or_detaches() {
    let mut net = with_members(4);
    net.cut.push(3);
    net.cut.push(4);
    let version = net.try_put(1, "k", "v", PutMode::Create).unwrap();
    let id = wait(&mut net, 1, version, Duration::from_secs(5));
    net.run(Duration::from_millis(100));
    assert_eq!(ended(&mut net, 1), None);

    net.down(3);
    net.down(4);

    assert_eq!(ended(&mut net, 1), Some((id, Applied::Everywhere)));
}

#[test]
fn a_member_that_lacks_the_write_pulls_it_when_asked() {
    let mut net = with_members(3);
    net.hold = true;
    let version = net.try_put(1, "k", "v", PutMode::Create).unwrap();
    net.held.clear();
    net.hold = false;

    wait(&mut net, 1, version, Duration::from_secs(5));
    net.run(Duration::from_millis(60));

    assert!(matches!(ended(&mut net, 1), Some((_, Applied::Everywhere))));
    assert_eq!(net.seen(3, "k").as_deref(), Some("v"));
}

#[test]
fn another_than_the_owner_can_wait_for_a_write() {
    let mut net = with_members(3);
    let version = net.try_put(1, "k", "v", PutMode::Create).unwrap();

    let id = wait(&mut net, 2, version, Duration::from_secs(5));
    net.run(Duration::from_millis(60));

    assert_eq!(ended(&mut net, 2), Some((id, Applied::Everywhere)));
}

#[test]
fn a_lonely_node_does_not_wait() {
    let mut net = with_members(1);
    let version = net.try_put(1, "k", "v", PutMode::Create).unwrap();

    let id = wait(&mut net, 1, version, Duration::from_secs(5));

    assert_eq!(ended(&mut net, 1), Some((id, Applied::Everywhere)));
}
