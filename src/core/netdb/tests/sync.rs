//! Anti-entropy and joining: what it costs, who is believed, what becomes of members that do not answer.

use std::time::Duration;

use super::net::{APP, Net};
use crate::core::{
    model::{Boot, Generation, Hlc, NetworkId, NodeId, Now},
    netdb::{Config, LogId, NetDb, SyncState, have::RANGES_MAX, message::WireDot, receive::Taken},
};

/// Gives one node many logs of its network, each of one dot, as of so many owners.
fn fill(db: &mut NetDb, net: &Net, owners: std::ops::Range<u64>, seqs: u64) {
    for owner in owners {
        let log = log_of(owner);
        db.accept(net.now.instant, &log).unwrap();
        for seq in 1..=seqs {
            let key = format!("{owner}/{seq}");
            let dot = WireDot {
                seq,
                written: Hlc::default().tick(net.now.wall),
                table: "t",
                key: key.as_bytes(),
                value: Some(b"v"),
            };
            assert_eq!(db.take_dot(log, &dot, RANGES_MAX), Taken::New);
        }
    }
}

/// Gives node 2 a log that node 1 lacks.
fn fill_one_more(net: &mut Net) {
    let mut db = net.dbs.remove(&2).unwrap();
    fill(&mut db, net, 90..91, 1);
    net.dbs.insert(2, db);
}

fn log_of(owner: u64) -> LogId {
    LogId {
        network: APP,
        owner: NodeId(owner),
        generation: Generation(1),
        epoch: 1,
    }
}

/// Lets two nodes compare, and returns how many bytes went each way on streams.
fn reconcile(net: &mut Net) -> (usize, usize) {
    let now = net.now;
    let (mut asked, mut answered) = (0, 0);
    let mut asker = net.dbs.remove(&1).unwrap();
    asker.want_sync(NodeId(2), APP);
    asker.start_sync(now.instant, NodeId(2));
    while let Some(call) = asker.poll_stream() {
        asked += call.request.len();
        let reply = net
            .dbs
            .get_mut(&2)
            .unwrap()
            .handle_stream(NodeId(1), &call.request)
            .unwrap();
        answered += reply.len();
        asker.handle_stream_reply(now, call.id, &reply).unwrap();
    }
    net.dbs.insert(1, asker);
    (asked, answered)
}

fn pair_with_logs(logs: u64, seqs: u64) -> Net {
    let mut net = Net::new(2);
    net.attach([1, 2], APP);
    for owner in 10..10 + logs {
        for db in net.dbs.values_mut() {
            db.handle_member_up(NodeId(owner), Boot(1));
        }
    }
    for node in [1, 2] {
        let mut db = net.dbs.remove(&node).unwrap();
        fill(&mut db, &net, 10..10 + logs, seqs);
        net.dbs.insert(node, db);
    }
    net
}

#[test]
fn the_cost_of_anti_entropy_is_that_of_the_difference() {
    let mut net = pair_with_logs(5_000, 1);
    let mut other = net.dbs.remove(&2).unwrap();
    let dot = WireDot {
        seq: 2,
        written: Hlc::default().tick(net.now.wall),
        table: "t",
        key: b"late",
        value: Some(b"v"),
    };
    assert_eq!(other.take_dot(log_of(4_321), &dot, RANGES_MAX), Taken::New);
    net.dbs.insert(2, other);
    assert_ne!(net.root(1), net.root(2));

    let (asked, answered) = reconcile(&mut net);

    assert_eq!(net.root(1), net.root(2));
    // 64 sums of 9 bytes, then about 80 logs of a bucket at some 12 bytes each.
    assert!(asked < 4_000, "{asked} bytes asked");
    assert!(answered < 400, "{answered} bytes answered");
}

#[test]
fn a_late_answer_is_not_taken_for_that_to_a_later_request() {
    let mut net = pair_with_logs(10, 1);
    let now = net.now;
    fill_one_more(&mut net);
    let mut asker = net.dbs.remove(&1).unwrap();
    let answering = net.dbs.get_mut(&2).unwrap();
    // The member is down while it answers for a part of the logs, and is then asked for all.
    asker.want_log(NodeId(2), log_of(90));
    asker.start_sync(now.instant, NodeId(2));
    let former = asker.poll_stream().unwrap();
    let late = answering.handle_stream(NodeId(1), &former.request).unwrap();
    asker.handle_member_down(now.instant, NodeId(2));
    asker.handle_member_up(NodeId(2), Boot(1));
    asker.want_sync(NodeId(2), APP);
    asker.start_sync(now.instant, NodeId(2));
    let call = asker.poll_stream().unwrap();
    let held = |db: &NetDb| db.logs().filter(|log| log.0.network == APP).count();
    let before = held(&asker);

    asker.handle_stream_reply(now, former.id, &late).unwrap();

    assert_eq!(held(&asker), before);
    let reply = answering.handle_stream(NodeId(1), &call.request).unwrap();
    asker.handle_stream_reply(now, call.id, &reply).unwrap();
    assert_eq!(held(&asker), before + 1);
}

#[test]
fn an_answer_to_what_was_asked_before_a_log_was_forgotten_is_asked_for_again() {
    let mut net = pair_with_logs(10, 1);
    let (start, owner) = (net.now, NodeId(15));
    let dot = WireDot {
        seq: 2,
        written: Hlc::default().tick(start.wall),
        table: "t",
        key: b"late",
        value: Some(b"v"),
    };
    let other = net.dbs.get_mut(&2).unwrap();
    assert_eq!(other.take_dot(log_of(15), &dot, RANGES_MAX), Taken::New);
    let mut asker = net.dbs.remove(&1).unwrap();
    asker.handle_member_down(start.instant, owner);
    let forgotten = Now {
        instant: start.instant + Config::default().retention,
        ..start
    };
    asker.want_sync(NodeId(2), APP);
    asker.start_sync(forgotten.instant, NodeId(2));
    let call = asker.poll_stream().unwrap();
    let answering = net.dbs.get_mut(&2).unwrap();
    let reply = answering.handle_stream(NodeId(1), &call.request).unwrap();

    // What was there when it asked is gone when the answer comes.
    asker.handle_timeout(forgotten);
    asker.handle_member_up(owner, Boot(1));
    asker
        .handle_stream_reply(forgotten, call.id, &reply)
        .unwrap();

    let held = |db: &NetDb| db.get(APP, "t", b"15/1").is_some();
    assert!(!held(&asker));
    while let Some(call) = asker.poll_stream() {
        let reply = answering.handle_stream(NodeId(1), &call.request).unwrap();
        asker
            .handle_stream_reply(forgotten, call.id, &reply)
            .unwrap();
    }
    assert!(held(&asker));
}

/// Gives node 2 a log of owner 10 of which every other dot but the last is superseded, and node 1 asks for it.
fn fetch_log_with_gaps(dots: u64, value: &[u8]) -> Net {
    let mut net = pair_with_logs(1, 1);
    let mut other = net.dbs.remove(&2).unwrap();
    for seq in 2..=dots {
        let unique = format!("{seq}");
        let dot = WireDot {
            seq,
            written: Hlc::default().tick(net.now.wall),
            table: "t",
            key: if seq % 2 == 0 {
                b"again"
            } else {
                unique.as_bytes()
            },
            value: Some(value),
        };
        assert_eq!(other.take_dot(log_of(10), &dot, RANGES_MAX), Taken::New);
    }
    net.dbs.insert(2, other);
    reconcile(&mut net);
    net
}

#[test]
fn a_log_of_more_gaps_than_a_replica_keeps_ranges_comes_whole() {
    let mut net = fetch_log_with_gaps(4 * RANGES_MAX as u64, b"v");

    assert_eq!(net.root(1), net.root(2));
    assert_eq!(net.dbs[&1].len(), net.dbs[&2].len());
}

#[test]
fn a_log_of_many_gaps_that_takes_several_pages_comes_whole() {
    let mut net = fetch_log_with_gaps(20_000, &[7; 100]);

    assert_eq!(net.root(1), net.root(2));
    assert_eq!(net.dbs[&1].len(), net.dbs[&2].len());
    assert!(net.dbs[&1].stats().refused.is_empty());
}

#[test]
fn a_network_of_which_something_was_refused_is_not_synced() {
    let mut net = Net::new(2);
    net.attach([1], APP);
    net.run(Duration::from_secs(5));
    assert_eq!(net.state(1), SyncState::Synced);
    // Its clock is two minutes ahead of that of whoever joins.
    net.now.wall.0 += 120_000;
    net.put(1, "k", "v");
    net.now.wall.0 -= 120_000;

    net.attach([2], APP);
    net.run(Duration::from_secs(2));

    assert_eq!(net.seen(2, "k"), None);
    assert_eq!(net.state(2), SyncState::Syncing);
}

#[test]
fn an_answer_to_what_was_asked_before_a_detach_is_not_taken() {
    let mut net = pair_with_logs(10, 1);
    let now = net.now;
    fill_one_more(&mut net);
    let mut asker = net.dbs.remove(&1).unwrap();
    asker.want_sync(NodeId(2), APP);
    asker.start_sync(now.instant, NodeId(2));
    let call = asker.poll_stream().unwrap();
    let answering = net.dbs.get_mut(&2).unwrap();
    let reply = answering.handle_stream(NodeId(1), &call.request).unwrap();

    asker.detach(now, APP).unwrap();
    asker.attach(now, APP).unwrap();
    asker.handle_stream_reply(now, call.id, &reply).unwrap();

    assert_eq!(asker.logs().filter(|log| log.0.network == APP).count(), 0);
}

#[test]
fn many_differences_among_many_logs_are_found_by_comparing_parts() {
    let mut net = pair_with_logs(20_000, 1);
    let mut other = net.dbs.remove(&2).unwrap();
    for owner in (10..20_010).step_by(1_000) {
        let dot = WireDot {
            seq: 2,
            written: Hlc::default().tick(net.now.wall),
            table: "t",
            key: b"late",
            value: Some(b"v"),
        };
        assert_eq!(other.take_dot(log_of(owner), &dot, RANGES_MAX), Taken::New);
    }
    net.dbs.insert(2, other);

    let (asked, answered) = reconcile(&mut net);

    assert_eq!(net.root(1), net.root(2));
    // 20,000 summaries would be 250 kB.
    assert!(asked < 20_000, "{asked} bytes asked");
    assert!(answered < 4_000, "{answered} bytes answered");
}

#[test]
fn a_state_of_many_pages_comes_whole() {
    let mut net = pair_with_logs(300, 1);
    let mut other = net.dbs.remove(&2).unwrap();
    fill(&mut other, &net, 1_000..1_003, 30_000);
    net.dbs.insert(2, other);
    for owner in 1_000..1_003 {
        let db = net.dbs.get_mut(&1).unwrap();
        db.handle_member_up(NodeId(owner), Boot(1));
    }
    for owner in 1_000..1_003 {
        let db = net.dbs.get_mut(&2).unwrap();
        db.handle_member_up(NodeId(owner), Boot(1));
    }

    let (_, answered) = reconcile(&mut net);

    assert!(answered > 1_000_000, "{answered} bytes: several pages");
    assert_eq!(net.root(1), net.root(2));
}

#[test]
fn a_newcomer_asks_its_neighbours_each_for_a_share_and_is_synced_then() {
    let mut net = Net::new(3);
    net.attach([1, 2], APP);
    net.run(Duration::from_secs(4));
    for n in 0..50 {
        net.put(1, &format!("a{n}"), "v");
        net.put(2, &format!("b{n}"), "v");
    }
    net.changes(3);

    net.attach([3], APP);
    net.run(Duration::from_millis(100));

    assert_eq!(net.state(3), SyncState::Synced);
    assert_eq!(net.dbs[&3].list(APP, None).len(), 100);
    let syncs = net.dbs[&3].stats().syncs;
    assert!(syncs <= 4, "{syncs} requests");
}

#[test]
fn who_is_new_is_not_believed_by_who_is_new() {
    let mut net = Net::new(3);
    net.attach([1], APP);
    net.run(Duration::from_secs(4));
    net.put(1, "k", "v");
    // The only member that has something cannot be reached, and is not yet known to be down.
    net.cut.push(1);

    net.attach([2, 3], APP);
    net.run(Duration::from_secs(1));

    assert_ne!(net.state(2), SyncState::Synced);
    assert_ne!(net.state(3), SyncState::Synced);
}

#[test]
fn a_member_that_does_not_answer_degrades_and_another_is_asked() {
    let mut net = Net::new(3);
    net.attach([1, 2], APP);
    net.run(Duration::from_secs(4));
    net.put(2, "k", "v");
    net.cut.push(1);

    net.attach([3], APP);
    net.run(Duration::from_secs(3));

    let states: Vec<SyncState> = net.states(3);
    assert!(states.contains(&SyncState::Degraded), "{states:?}");
    assert_eq!(states.last(), Some(&SyncState::Synced));
    assert_eq!(net.seen(3, "k").as_deref(), Some("v"));
}

#[test]
fn a_node_that_does_not_know_who_is_a_member_does_not_hold_itself_for_the_only_one() {
    let mut net = Net::new(3);
    net.attach([1, 2], APP);
    net.run(Duration::from_secs(4));
    net.put(2, "k", "v");
    net.cut.push(3);
    net.restart(3, 2);

    net.attach([3], APP);
    net.run(Duration::from_secs(8));
    assert_ne!(net.state(3), SyncState::Synced);
    net.cut.clear();
    net.run(Duration::from_secs(4));

    assert_eq!(net.state(3), SyncState::Synced);
    assert_eq!(net.seen(3, "k").as_deref(), Some("v"));
}

#[test]
fn the_first_node_of_a_cluster_is_synced_once_it_could_have_heard_of_others() {
    let mut net = Net::new(1);

    assert_eq!(net.state_of(1, NetworkId::CLUSTER), SyncState::Syncing);
    net.run(Duration::from_secs(5));

    assert_eq!(net.state_of(1, NetworkId::CLUSTER), SyncState::Synced);
    net.attach([1], APP);
    assert_eq!(net.state(1), SyncState::Synced);
}
