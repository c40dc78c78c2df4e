//! Cases of libnetwork's network DB, by their numbers, and the defects it is known for (W): what each of them comes to here.
//!
//! Not here: N2, N4, N5, N13, N16, N19, N22, N32 to N34, W1, W5, W6 and W8 stand with the rest of the behaviour; N20 and N21 are
//! membership's; N43 to N51 are runs of the simulator, from N46 on in `cluster-tests/tests/loads.rs`. N6, N7 and N18 are about
//! threads, of which the DB has none: one caller at a time writes, and of twenty creates of one key the first succeeds (N2). N17
//! asks a member that is down: nobody does here, it is told what differs when it is back (N33). N9 is the ring's, N29 the watch's;
//! N31 cannot be, only its owner updates an entry. W7 is the controller's, W10 has no wait to cancel.

use std::{collections::BTreeSet, time::Duration};

use super::{
    net::{APP, Net, key, table},
    *,
};
use crate::core::model::{Boot, Key, Value};

/// Another network, whose number begins like that of [`APP`].
const OTHER: NetworkId = NetworkId(10);

impl Net {
    fn db(&mut self, node: u64) -> &mut NetDb {
        self.dbs.get_mut(&node).unwrap()
    }

    fn detach(&mut self, node: u64, network: NetworkId) {
        let now = self.now;
        self.db(node).detach(now, network).unwrap();
        self.settle();
    }

    fn put_in(&mut self, node: u64, network: NetworkId, name: &[u8], value: &str) {
        let now = self.now;
        let (key, value) = (
            Key::new(name.to_vec()).unwrap(),
            Value::new(value.as_bytes().to_vec()),
        );
        let value = value.unwrap();
        let address = (network, &table(), &key);
        self.db(node)
            .put(now, address, &value, PutMode::Create)
            .unwrap();
        self.settle();
    }

    /// What one node says while `f` runs does not arrive before it is delivered.
    fn holding(&mut self, f: impl FnOnce(&mut Self)) -> Vec<(u64, Outgoing)> {
        self.hold = true;
        f(self);
        self.hold = false;
        std::mem::take(&mut self.held)
    }

    fn kinds(&mut self, node: u64) -> Vec<ChangeKind> {
        self.changes(node)
            .into_iter()
            .map(|change| change.kind)
            .collect()
    }

    fn members(&self, node: u64, network: NetworkId) -> BTreeSet<NodeId> {
        self.dbs[&node].attached(network).collect()
    }
}

#[test]
fn n1_n3_what_was_put_is_read_until_it_is_deleted() {
    let mut net = Net::new(1);
    net.attach([1], APP);

    net.put(1, "k", "v1");
    assert_eq!(net.seen(1, "k").as_deref(), Some("v1"));

    net.delete(1, "k").unwrap();
    assert_eq!(net.seen(1, "k"), None);
}

#[test]
fn n8_an_attach_twice_changes_nothing_and_a_detach_lets_one_attach_again_at_once() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "k", "v");
    let log = net.dbs[&1].written(APP).unwrap().log;

    net.attach([1], APP);
    assert_eq!(net.dbs[&1].written(APP).unwrap().log, log);

    net.detach(1, APP);
    net.attach([1], APP);
    assert_ne!(net.dbs[&1].written(APP).unwrap().log, log);
    assert_eq!(net.seen(2, "k"), None);
}

#[test]
fn n10_members_see_each_write_and_others_none() {
    let mut net = Net::new(3);
    net.attach([1, 2], APP);

    net.put(1, "k", "v");
    assert_eq!(net.seen(2, "k").as_deref(), Some("v"));
    net.try_put(1, "k", "w", PutMode::Update).unwrap();
    assert_eq!(net.seen(2, "k").as_deref(), Some("w"));
    net.delete(1, "k").unwrap();
    assert_eq!(net.seen(2, "k"), None);

    assert!(net.dbs[&3].logs().all(|(log, ..)| log.network != APP));
}

#[test]
fn n11_attachments_to_twenty_networks_are_seen_to_come_and_go() {
    let mut net = Net::new(2);
    for n in 0..10 {
        net.attach([1], NetworkId(100 + n));
        net.attach([2], NetworkId(200 + n));
    }
    let attached = |net: &Net, node: u64, by: u64, from: u32| {
        (from..from + 10).all(|n| net.members(node, NetworkId(n)) == BTreeSet::from([NodeId(by)]))
    };
    assert!(attached(&net, 1, 2, 200));
    assert!(attached(&net, 2, 1, 100));

    for n in 0..10 {
        net.detach(1, NetworkId(100 + n));
        net.detach(2, NetworkId(200 + n));
    }
    for n in 0..10 {
        assert!(net.members(1, NetworkId(200 + n)).is_empty());
        assert!(net.members(2, NetworkId(100 + n)).is_empty());
    }
}

#[test]
fn n12_what_two_nodes_write_and_delete_both_see_come_and_go() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    for (node, n) in (1..=2).flat_map(|node| (0..10).map(move |n| (node, n))) {
        net.put(node, &format!("{node}/{n}"), "v");
    }
    assert_eq!(net.dbs[&1].list(APP, None).len(), 20);
    assert_eq!(net.dbs[&2].list(APP, None).len(), 20);

    for (node, n) in (1..=2).flat_map(|node| (0..10).map(move |n| (node, n))) {
        net.delete(node, &format!("{node}/{n}")).unwrap();
    }
    assert!(net.dbs[&1].list(APP, None).is_empty());
    assert!(net.dbs[&2].list(APP, None).is_empty());
}

#[test]
fn n14_of_a_clean_leave_watchers_are_told_once() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "k", "v");
    net.changes(2);

    net.db(2).handle_member_left(NodeId(1), Boot(1));
    net.db(2).handle_member_left(NodeId(1), Boot(1));

    assert_eq!(net.kinds(2), [ChangeKind::Deleted(Reason::OwnerLeft)]);
}

#[test]
fn n15_four_that_attach_at_once_and_ask_the_same_member_all_come_whole() {
    let mut net = Net::new(5);
    net.attach([1], APP);
    for n in 0..50 {
        net.put(1, &format!("k{n}"), "v");
    }
    let now = net.now;
    for node in 2..=5 {
        net.db(node).attach(now, APP).unwrap();
    }
    net.settle();
    net.run(Duration::from_secs(5));

    for node in 2..=5 {
        assert_eq!(net.dbs[&node].list(APP, None).len(), 50);
        assert_eq!(net.state(node), SyncState::Synced);
    }
}

#[test]
fn n23_n24_a_delete_again_is_no_change_and_what_is_written_after_it_is_new() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "k", "a");
    let deleted = net.holding(|net| {
        net.delete(1, "k").unwrap();
    });
    net.changes(2);

    net.deliver(deleted.clone());
    net.deliver(deleted);
    assert_eq!(net.kinds(2), [ChangeKind::Deleted(Reason::Removed)]);

    net.put(1, "k", "d");
    assert_eq!(net.kinds(2), [ChangeKind::Created]);
}

#[test]
fn n25_an_update_that_overtakes_its_create_is_the_create() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    let created = net.holding(|net| net.put(1, "k", "a"));
    let updated = net.holding(|net| {
        net.try_put(1, "k", "b", PutMode::Update).unwrap();
    });

    net.deliver(updated);
    net.deliver(created);

    let changes = net.changes(2);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].kind, ChangeKind::Created);
    assert_eq!(net.seen(2, "k").as_deref(), Some("b"));
}

#[test]
fn n26_an_update_of_what_was_never_seen_is_a_create_and_the_next_an_update() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    drop(net.holding(|net| net.put(1, "k", "a")));

    net.try_put(1, "k", "b", PutMode::Update).unwrap();
    net.try_put(1, "k", "c", PutMode::Update).unwrap();

    assert_eq!(net.kinds(2), [ChangeKind::Created, ChangeKind::Updated]);
}

#[test]
fn n27_a_delete_that_overtakes_its_create_shows_nothing_at_all() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    let created = net.holding(|net| net.put(1, "k", "a"));
    let deleted = net.holding(|net| {
        net.delete(1, "k").unwrap();
    });

    net.deliver(deleted);
    net.deliver(created);

    assert_eq!(net.kinds(2), []);
    assert_eq!(net.seen(2, "k"), None);
}

#[test]
fn n28_n39_a_list_has_no_deleted_and_no_hidden_entry_and_has_our_own() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    net.put(1, "deleted", "v");
    net.delete(1, "deleted").unwrap();
    net.put(1, "theirs", "v");
    net.put(2, "ours", "v");
    net.put(3, "hidden", "v");
    net.down(3);

    let listed = net.dbs[&2].list(APP, None);

    let keys: Vec<(&[u8], bool)> = listed.iter().map(|e| (e.key.as_bytes(), e.ours)).collect();
    assert_eq!(keys, [(&b"ours"[..], true), (&b"theirs"[..], false)]);
}

#[test]
fn n30_a_key_that_is_written_again_after_a_quick_leave_and_join_is_there() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "k", "v");
    let left = net.holding(|net| {
        net.detach(1, APP);
        net.attach([1], APP);
    });

    let again = net.holding(|net| net.put(1, "k", "v"));
    net.deliver(again);
    net.deliver(left);

    assert_eq!(net.seen(2, "k").as_deref(), Some("v"));
}

#[test]
fn n35_what_is_relayed_of_a_node_that_is_down_is_kept_and_shown_as_it_is_then() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    let said = net.holding(|net| {
        net.put(3, "k", "a");
        net.try_put(3, "k", "b", PutMode::Update).unwrap();
    });
    net.changes(1);
    net.db(1).handle_member_down(Instant::default(), NodeId(3));

    net.deliver(said);
    assert_eq!(net.seen(1, "k"), None);
    assert_eq!(net.seen(2, "k").as_deref(), Some("b"));
    net.db(1).handle_member_up(NodeId(3), Boot(1));

    let changes = net.changes(1);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].kind, ChangeKind::Created);
    assert_eq!(net.seen(1, "k").as_deref(), Some("b"));
}

#[test]
fn n36_what_was_deleted_while_its_owner_was_held_for_down_stays_so() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    net.put(3, "k", "v");
    net.changes(1);
    net.db(1).handle_member_down(Instant::default(), NodeId(3));

    net.delete(3, "k").unwrap();
    net.db(1).handle_member_up(NodeId(3), Boot(1));

    assert_eq!(net.kinds(1), [ChangeKind::Deleted(Reason::OwnerDown)]);
    assert_eq!(net.seen(1, "k"), None);
}

#[test]
fn n37_of_a_leave_after_a_down_nobody_is_told_again() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(2, "k", "v");
    net.changes(1);
    net.down(2);

    net.db(1).handle_member_left(NodeId(2), Boot(1));

    assert_eq!(net.kinds(1), [ChangeKind::Deleted(Reason::OwnerDown)]);
    assert!(net.dbs[&1].logs().all(|(log, ..)| log.owner != NodeId(2)));
}

#[test]
fn n38_n42_after_the_retention_nothing_is_left_of_a_node_and_it_brings_its_entries_itself() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(2, "k", "v");
    net.cut(2);

    net.run(Config::default().retention + Duration::from_secs(1));
    let of_node = |net: &Net| {
        net.dbs[&1]
            .logs()
            .filter(|(log, ..)| log.owner == NodeId(2))
            .count()
    };
    assert_eq!(of_node(&net), 0);
    assert_eq!(net.members(1, APP), BTreeSet::from([NodeId(1)]));

    net.heal(2);
    net.run(Duration::from_secs(5));
    assert_eq!(net.seen(1, "k").as_deref(), Some("v"));
}

#[test]
fn n40_what_a_node_held_for_down_tells_of_others_is_taken() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    let lost = net.holding(|net| net.put(3, "k", "v"));
    net.deliver(
        lost.into_iter()
            .filter(|(_, said)| said.to == NodeId(2))
            .collect(),
    );
    net.db(1).handle_member_down(Instant::default(), NodeId(2));

    net.run(Duration::from_secs(5));

    assert_eq!(net.seen(1, "k").as_deref(), Some("v"));
}

#[test]
fn n41_a_key_that_is_hidden_may_be_taken_and_stays_with_the_later_write() {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    net.put(3, "k", "theirs");
    net.down(3);

    assert_eq!(
        net.try_put(1, "k", "w", PutMode::Update),
        Err(WriteError::NotFound)
    );
    assert_eq!(net.delete(1, "k"), Err(WriteError::NotFound));
    net.put(1, "k", "ours");
    net.up(3, 1);

    assert_eq!(net.seen(2, "k").as_deref(), Some("ours"));
    let owner = NodeId(1);
    assert_eq!(
        net.try_put(2, "k", "w", PutMode::Upsert),
        Err(WriteError::NotOwner { owner })
    );
}

#[test]
fn w2_a_network_whose_number_begins_like_anothers_is_another() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.attach([1, 2], OTHER);
    net.put_in(1, APP, b"k", "v");
    net.put_in(1, OTHER, b"k", "v");

    net.detach(1, APP);

    assert!(net.dbs[&2].get(APP, "t", b"k").is_none());
    assert!(net.dbs[&2].get(OTHER, "t", b"k").is_some());
}

#[test]
fn w3_any_bytes_are_a_key_and_prefixes_of_it_are_others() {
    let keys: [&[u8]; 6] = [b"a", b"a/", b"a/b", b"/", &[0], &[0, 255, 0]];
    let mut net = Net::new(2);
    net.attach([1], APP);
    for (at, key) in keys.iter().enumerate() {
        net.put_in(1, APP, key, &at.to_string());
    }

    net.attach([2], APP);

    for (at, key) in keys.iter().enumerate() {
        let entry = net.dbs[&2].get(APP, "t", key).unwrap();
        assert_eq!(entry.value.as_bytes(), at.to_string().as_bytes());
    }
    net.delete(1, "a/").unwrap();
    assert_eq!(net.dbs[&2].list(APP, None).len(), keys.len() - 1);
    assert!(net.dbs[&2].get(APP, "t", key("a/b").as_bytes()).is_some());
}

#[test]
fn w4_a_sync_that_was_not_answered_is_not_a_success() {
    let mut net = Net::new(2);
    net.attach([1], APP);
    net.put(1, "k", "v");
    net.cut.push(1);

    net.attach([2], APP);
    net.run(Duration::from_secs(2));

    assert_eq!(net.state(2), SyncState::Degraded);
    assert_eq!(net.seen(2, "k"), None);
}

#[test]
fn w9_on_a_detach_a_watcher_is_told_of_the_end_of_what_it_was_told_of() {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    net.put(1, "ours", "v");
    net.put(2, "theirs", "v");
    net.put(1, "deleted", "v");
    net.delete(1, "deleted").unwrap();
    let told: Vec<_> = net
        .changes(1)
        .into_iter()
        .map(|c| (c.key, c.kind))
        .collect();
    assert_eq!(told.len(), 4);

    net.detach(1, APP);

    let gone: BTreeSet<Key> = net
        .changes(1)
        .into_iter()
        .map(|change| change.key)
        .collect();
    assert_eq!(gone, BTreeSet::from([key("ours"), key("theirs")]));
}
