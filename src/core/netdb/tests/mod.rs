//! Behaviour of the DB among a few nodes that hand each other their messages.

mod barrier;
mod cases;
mod hostile;
mod lossy;
mod net;
mod sync;

use std::time::Duration;

use net::{APP, Net, key, table};

use super::*;
use crate::core::model::{Boot, Dot, Key, Value};

#[test]
fn a_put_is_seen_by_every_attached_node_and_by_no_other() {
    let mut net = Net::new(3);
    net.attach([1, 2], APP);

    net.put(1, "k", "v");

    assert_eq!(net.seen(2, "k"), Some("v".into()));
    assert_eq!(net.seen(3, "k"), None);
}

#[test]
fn n2_a_create_of_a_visible_key_is_refused_and_changes_nothing() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "k", "v");

    let refused = net.try_put(2, "k", "w", PutMode::Create);

    assert_eq!(refused, Err(WriteError::AlreadyExists { owner: NodeId(1) }));
    assert_eq!(net.seen(2, "k"), Some("v".into()));
}

#[test]
fn n4_a_deleted_key_may_be_created_again() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "k", "v1");
    net.delete(1, "k").unwrap();

    net.put(1, "k", "v2");

    assert_eq!(net.seen(2, "k"), Some("v2".into()));
    assert!(net.try_put(1, "k", "v3", PutMode::Create).is_err());
}

#[test]
fn n5_a_deleted_key_can_be_neither_updated_nor_deleted() {
    let mut net = Net::new(1);
    net.attach([1], APP);
    net.put(1, "k", "v1");
    net.delete(1, "k").unwrap();

    assert_eq!(
        net.try_put(1, "k", "v2", PutMode::Update),
        Err(WriteError::NotFound)
    );
    assert_eq!(net.delete(1, "k"), Err(WriteError::NotFound));
}

#[test]
fn only_its_owner_changes_an_entry() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "k", "v");

    let owner = NodeId(1);
    assert_eq!(
        net.try_put(2, "k", "w", PutMode::Upsert),
        Err(WriteError::NotOwner { owner })
    );
    assert_eq!(net.delete(2, "k"), Err(WriteError::NotOwner { owner }));
}

#[test]
fn a_write_to_a_network_that_was_not_attached_is_refused() {
    let mut net = Net::new(1);

    assert_eq!(
        net.try_put(1, "k", "v", PutMode::Upsert),
        Err(WriteError::NotAttached(APP))
    );
}

#[test]
fn n13_who_attaches_later_gets_what_was_written_before() {
    let mut net = Net::new(3);
    net.attach([1, 2], APP);
    for n in 0..1_000 {
        net.put(1, &format!("k{n}"), "v");
    }

    net.attach([3], APP);

    assert_eq!(net.dbs[&3].list(APP, None).len(), 1_000);
    assert_eq!(net.root(3), net.root(1));
}

#[test]
fn a_late_write_does_not_undo_a_deletion() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "k", "v");
    net.hold = true;
    net.try_put(1, "k", "w", PutMode::Update).unwrap();
    let late = std::mem::take(&mut net.held);
    net.hold = false;
    net.delete(1, "k").unwrap();
    net.run(Duration::from_secs(5));
    net.dbs.get_mut(&2).unwrap().changes.clear();

    net.deliver(late);

    assert_eq!(net.seen(2, "k"), None);
    assert_eq!(net.changes(2), []);
}

#[test]
fn n22_a_watcher_is_told_what_was_visible_and_what_is() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.changes(2);

    net.put(1, "k", "a");
    net.try_put(1, "k", "b", PutMode::Update).unwrap();
    net.try_put(1, "k", "b", PutMode::Update).unwrap();
    net.delete(1, "k").unwrap();

    let kinds: Vec<_> = net
        .changes(2)
        .into_iter()
        .map(|c| (c.kind, c.previous, c.value))
        .collect();
    let value = |text: &str| Some(Value::new(text.as_bytes().to_vec()).unwrap());
    assert_eq!(
        kinds,
        [
            (ChangeKind::Created, None, value("a")),
            (ChangeKind::Updated, value("a"), value("b")),
            (ChangeKind::Deleted(Reason::Removed), value("b"), None),
        ]
    );
}

#[test]
fn w1_two_writers_at_the_same_instant_do_not_diverge() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    net.hold = true;
    net.put(1, "k", "one");
    net.put(2, "k", "two");
    net.hold = false;
    let held = std::mem::take(&mut net.held);

    net.deliver(held);

    let winner = net.seen(1, "k");
    assert_eq!(
        winner,
        Some("two".into()),
        "equal times: the greater owner wins"
    );
    assert_eq!(net.seen(2, "k"), winner);
    assert_eq!(net.seen(3, "k"), winner);
}

#[test]
fn the_loser_shows_when_the_winner_goes() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.hold = true;
    net.put(1, "k", "one");
    net.put(2, "k", "two");
    net.hold = false;
    let held = std::mem::take(&mut net.held);
    net.deliver(held);

    net.delete(2, "k").unwrap();

    assert_eq!(net.seen(1, "k"), Some("one".into()));
}

#[test]
fn w8_an_empty_value_is_a_value() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.changes(2);

    net.put(1, "k", "");

    assert_eq!(net.seen(2, "k"), Some(String::new()));
    assert_eq!(net.changes(2)[0].kind, ChangeKind::Created);
}

#[test]
fn n32_n33_a_node_that_is_down_is_hidden_and_shown_again_with_nothing_resent() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    net.put(3, "k", "v");
    net.changes(1);

    net.down(3);
    let hidden = net.changes(1);
    net.up(3, 1);

    assert_eq!(hidden[0].kind, ChangeKind::Deleted(Reason::OwnerDown));
    assert_eq!(net.changes(1)[0].kind, ChangeKind::Created);
    assert_eq!(net.seen(2, "k"), Some("v".into()));
}

#[test]
fn n34_a_node_that_leaves_takes_its_entries_with_it_for_good() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(2, "k", "v");

    net.dbs
        .get_mut(&1)
        .unwrap()
        .handle_member_left(NodeId(2), Boot(1));

    assert_eq!(net.seen(1, "k"), None);
    assert_eq!(
        net.changes(1).last().unwrap().kind,
        ChangeKind::Deleted(Reason::OwnerLeft)
    );
    assert_eq!(net.dbs[&1].replicas[&APP].logs().count(), 0);
}

#[test]
fn a_node_that_leaves_in_a_boot_that_nobody_was_told_of_takes_that_boots_logs_with_it() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(2, "k", "v");
    net.settle();
    let db = net.dbs.get_mut(&1).unwrap();

    db.handle_member_left(NodeId(2), Boot(7));

    assert!(db.logs().all(|(log, ..)| log.owner != NodeId(2)));
}

#[test]
fn a_leave_of_a_former_life_takes_nothing_of_the_one_that_is_known() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.restart(2, 3);
    net.attach([2], APP);
    net.put(2, "k", "new");
    net.ready(2);
    net.down(2);
    let db = net.dbs.get_mut(&1).unwrap();

    db.handle_member_left(NodeId(2), Boot(1));
    db.handle_member_up(NodeId(2), Boot(3));

    assert_eq!(net.seen(1, "k").as_deref(), Some("new"));
}

#[test]
fn a_log_of_an_attachment_that_ended_is_over_even_where_nobody_remembers_its_end() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    net.put(1, "k", "v");
    let former = net.dbs[&1].written(APP).unwrap().log;
    let now = net.now;
    net.dbs.get_mut(&1).unwrap().detach(now, APP).unwrap();
    net.run(Duration::from_secs(10));
    net.restart(2, 2);
    net.attach([2], APP);
    net.run(Duration::from_secs(5));
    let db = net.dbs.get_mut(&2).unwrap();
    let scope = LogId {
        network: NetworkId::CLUSTER,
        epoch: 0,
        ..former
    };
    let log = db.replicas[&NetworkId::CLUSTER].log(&scope).unwrap();
    assert!(log.tombstones.is_empty() && log.have.contains(former.epoch));

    // Somebody who held the owner for down has kept it, and tells.
    assert_eq!(db.accept(now.instant, &former), Err(Refusal::Over));

    net.attach([1], APP);
    net.put(1, "k", "again");
    assert_eq!(net.seen(2, "k").as_deref(), Some("again"));
}

#[test]
fn a_leave_that_is_heard_of_after_the_next_start_takes_nothing_of_that_start() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.restart_unheard(2, 3);
    net.attach([2], APP);
    net.put(2, "k", "new");
    net.ready(2);
    let db = net.dbs.get_mut(&1).unwrap();

    db.handle_member_left(NodeId(2), Boot(1));
    db.handle_member_up(NodeId(2), Boot(3));

    assert_eq!(net.seen(1, "k").as_deref(), Some("new"));
}

#[test]
fn a_detach_removes_the_nodes_entries_everywhere_and_others_here() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "one", "v");
    net.put(2, "two", "v");

    let now = net.now;
    net.dbs.get_mut(&2).unwrap().detach(now, APP).unwrap();
    net.settle();

    assert_eq!(net.seen(1, "two"), None);
    assert_eq!(net.seen(2, "one"), None);
    assert_eq!(net.seen(1, "one"), Some("v".into()));
}

#[test]
fn n16_a_quick_leave_and_rejoin_never_mixes_epochs() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.hold = true;
    net.put(2, "old", "v");
    let late = std::mem::take(&mut net.held);
    let now = net.now;
    net.dbs.get_mut(&2).unwrap().detach(now, APP).unwrap();
    net.dbs.get_mut(&2).unwrap().attach(now, APP).unwrap();
    net.hold = false;
    net.settle();
    net.put(2, "new", "v");

    net.deliver(late);

    assert_eq!(net.seen(1, "old"), None);
    assert_eq!(net.seen(1, "new"), Some("v".into()));
}

#[test]
fn w5_a_write_that_overtakes_its_writers_attach_is_taken() {
    let mut net = Net::new(2);
    net.attach([1], APP);
    net.hold = true;
    net.attach([2], APP);
    net.held.clear();
    net.put(2, "k", "v");
    net.hold = false;
    let push: Vec<_> = std::mem::take(&mut net.held);

    net.deliver(push);
    net.run(Duration::from_secs(3));

    assert_eq!(net.seen(1, "k"), Some("v".into()));
}

#[test]
fn a_restart_that_writes_the_same_again_makes_no_event() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(2, "kept", "v");
    net.put(2, "lost", "v");
    net.changes(1);

    net.restart(2, 2);
    net.attach([2], APP);
    net.put(2, "kept", "v");
    let before_ready = net.changes(1);
    net.ready(2);

    assert_eq!(before_ready, []);
    let after: Vec<_> = net
        .changes(1)
        .into_iter()
        .map(|c| (c.kind, c.key))
        .collect();
    let lost = Key::new(b"lost".to_vec()).unwrap();
    assert_eq!(after, [(ChangeKind::Deleted(Reason::Removed), lost)]);
    assert_eq!(net.seen(1, "kept"), Some("v".into()));
}

#[test]
fn a_generation_that_is_never_ready_stands_alone_after_the_grace() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(2, "lost", "v");
    net.restart(2, 2);
    net.attach([2], APP);
    net.put(2, "new", "v");

    net.run(Duration::from_secs(9));
    let within = net.seen(1, "lost");
    net.run(Duration::from_secs(2));

    assert_eq!(within, Some("v".into()));
    assert_eq!(net.seen(1, "lost"), None);
    assert_eq!(net.seen(1, "new"), Some("v".into()));
}

#[test]
fn tombstones_go_when_every_member_has_them() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    for n in 0..50 {
        net.put(1, &format!("k{n}"), "v");
    }
    for n in 0..50 {
        net.delete(1, &format!("k{n}")).unwrap();
    }

    net.run(Duration::from_secs(5));

    for node in 1..=3 {
        assert_eq!(net.dbs[&node].replicas[&APP].len(), 0, "node {node}");
    }
}

#[test]
fn n19_a_node_below_the_floor_gets_a_snapshot_and_nothing_comes_back() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    net.put(1, "gone", "v");
    net.put(1, "stays", "v");
    net.cut(3);
    net.delete(1, "gone").unwrap();
    net.run(Duration::from_secs(5));

    net.heal(3);
    net.run(Duration::from_secs(5));

    assert_eq!(net.seen(3, "gone"), None);
    assert_eq!(net.seen(1, "gone"), None);
    assert_eq!(net.seen(3, "stays"), Some("v".into()));
    assert_eq!(net.root(3), net.root(1));
}

#[test]
fn w6_an_entry_larger_than_a_datagram_arrives() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    let large = "x".repeat(60_000);

    net.put(1, "k", &large);
    net.run(Duration::from_millis(100));

    assert!(net.seen(2, "k").as_ref() == Some(&large));
    assert!(net.seen(3, "k").as_ref() == Some(&large));
}

#[test]
fn a_push_that_was_lost_comes_by_digest() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.hold = true;
    net.put(1, "k", "v");
    net.held.clear();
    net.hold = false;

    net.run(Duration::from_secs(2));

    assert_eq!(net.seen(2, "k"), Some("v".into()));
}

#[test]
fn a_gap_is_pulled_at_once() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.hold = true;
    net.put(1, "lost", "v");
    net.held.clear();
    net.hold = false;

    net.put(1, "next", "v");
    net.run(Duration::from_millis(10));

    assert_eq!(net.seen(2, "lost"), Some("v".into()));
}

#[test]
fn the_cluster_log_is_the_same_whoever_serves_it() {
    let mut net = Net::new(3);
    let now = net.now;
    let log = [
        dot(1, "a", Some("1")),
        dot(2, "b", Some("2")),
        dot(3, "a", None),
    ];

    net.dbs
        .get_mut(&1)
        .unwrap()
        .handle_cluster_log(now, &log, 0, 3);
    net.dbs
        .get_mut(&2)
        .unwrap()
        .handle_cluster_log(now, &log[1..], 0, 3);
    net.settle();
    net.run(Duration::from_secs(3));

    let listed = net.dbs[&3].list(NetworkId::CLUSTER, Some(&table()));
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].owner, NodeId::CLUSTER);
}

#[test]
fn what_speaks_in_our_name_or_from_the_future_is_refused_and_counted() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    let now = net.now;
    let forged = LogId {
        network: APP,
        owner: NodeId(1),
        generation: Generation(9),
        epoch: 1,
    };
    let ahead = LogId {
        owner: NodeId(2),
        generation: Generation(1),
        ..forged
    };
    let db = net.dbs.get_mut(&1).unwrap();

    let refused = [
        db.handle_record(
            now,
            NodeId(2),
            RecordKind::PUSH,
            &push(forged, 1, Hlc::default()),
        ),
        db.handle_record(
            now,
            NodeId(2),
            RecordKind::PUSH,
            &push(ahead, 2, Hlc(u64::MAX)),
        ),
        db.handle_record(now, NodeId(2), RecordKind::PUSH, b"\xff\xff\xff"),
    ];

    assert_eq!(
        refused,
        [
            Err(Refusal::Forged),
            Err(Refusal::AheadOfTime),
            Err(Refusal::Malformed)
        ]
    );
    assert_eq!(db.stats().refused.values().sum::<u64>(), 3);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_db_panic(kind in 0u8..8, body in proptest::collection::vec(0u8.., 0..200)) {
        let mut net = Net::new(2);
        net.attach([1, 2], APP);
        let now = net.now;
        let db = net.dbs.get_mut(&1).unwrap();

        let _ = db.handle_record(now, NodeId(2), RecordKind(kind), &body);
        let _ = db.handle_stream(NodeId(2), &body);
        db.sync_with(now.instant, NodeId(2));
        if let Some(call) = db.poll_stream() {
            let _ = db.handle_stream_reply(now, call.id, &body);
        }
    }
}

fn dot(seq: u64, name: &str, value: Option<&str>) -> Dot {
    let value = value.map(|text| Value::new(text.as_bytes().to_vec()).unwrap());
    Dot {
        seq,
        written: Hlc(seq),
        table: table(),
        key: key(name),
        value,
    }
}

fn push(log: LogId, seq: u64, written: Hlc) -> Vec<u8> {
    let mut body = crate::core::wire::codec::encode(&message::PushHead { log, floor: 0 });
    let dot = message::WireDot {
        seq,
        written,
        table: "t",
        key: b"k",
        value: Some(b"v"),
    };
    crate::core::wire::codec::encode_into(&dot, &mut body);
    body
}
