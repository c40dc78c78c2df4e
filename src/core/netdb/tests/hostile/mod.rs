//! What an authentic node that lies may send: it is refused, counted by its reason, its sender named, and nobody else's
//! entries go.

mod answers;

use std::time::Duration;

use super::net::{APP, Net};
use crate::core::{
    model::{Boot, Generation, Hlc, NetworkId, NodeId, UnixMillis},
    netdb::{
        LogId, NetDb, PutMode, Refusal, Version,
        have::Have,
        message::{
            Ask, Complete, Deltas, Digest, Ihave, LogDelta, Pull, PushHead, Reached, Root, SEQ_MAX,
            SyncAnswer, SyncReply, WireDot,
        },
    },
    wire::{codec, record::RecordKind},
};

/// Who lies, who is lied to, and whose entries are lied about.
const LIAR: NodeId = NodeId(2);
const VICTIM: u64 = 3;

/// Three nodes in one network; the third has written two entries.
fn three() -> Net {
    let mut net = Net::new(3);
    net.attach([1, 2, 3], APP);
    net.put(VICTIM, "a", "1");
    net.put(VICTIM, "b", "2");
    net
}

fn victims_log(net: &Net) -> LogId {
    net.dbs[&VICTIM].our_log(APP).unwrap()
}

fn our_log(net: &Net) -> LogId {
    net.dbs[&1].our_log(APP).unwrap()
}

/// Node 1 is sent a record by the liar.
fn say(net: &mut Net, kind: RecordKind, body: &[u8]) -> Result<(), Refusal> {
    let now = net.now;
    let db = net.dbs.get_mut(&1).unwrap();
    db.handle_record(now, LIAR, kind, body)
}

fn push(head: PushHead, dots: &[(u64, Hlc)]) -> Vec<u8> {
    let mut body = codec::encode(&head);
    body.extend(encoded(dots));
    body
}

fn encoded(dots: &[(u64, Hlc)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (seq, written) in dots {
        let key = format!("forged {seq}");
        let dot = WireDot {
            seq: *seq,
            written: *written,
            table: "t",
            key: key.as_bytes(),
            value: Some(b"v"),
        };
        codec::encode_into(&dot, &mut bytes);
    }
    bytes
}

/// Node 1 asks the liar for the network, and this is the answer.
fn answer(net: &mut Net, answer: SyncAnswer) -> Result<(), Refusal> {
    let now = net.now;
    let db = net.dbs.get_mut(&1).unwrap();
    db.want_sync(LIAR, APP);
    db.start_sync(now.instant, LIAR);
    let call = db.poll_stream().unwrap();
    let reply = codec::encode(&SyncReply {
        network: APP,
        answer,
    });
    db.handle_stream_reply(now, call.id, &reply)
}

fn page(log: LogId, dots: &[(u64, Hlc)], complete: Option<Complete>) -> SyncAnswer {
    let delta = LogDelta {
        log,
        dots: encoded(dots),
        complete,
    };
    pages(vec![delta], None)
}

fn pages(logs: Vec<LogDelta>, next: Option<LogId>) -> SyncAnswer {
    SyncAnswer::Deltas(Deltas {
        synced: true,
        next,
        logs,
    })
}

fn complete(prefix: u64, floor: u64, kept: Option<Vec<(u64, u64)>>) -> Complete {
    Complete {
        have: Have::up_to(prefix),
        floor,
        kept,
    }
}

fn refused(db: &NetDb, refusal: Refusal) -> u64 {
    db.stats().refused.get(&refusal).copied().unwrap_or(0)
}

/// Checks that so much was refused for that reason, that the liar was named, and that the victim's entries stand.
fn assert_refused(net: &Net, refusal: Refusal, count: u64) {
    let stats = net.dbs[&1].stats();
    assert_eq!(refused(&net.dbs[&1], refusal), count, "{stats:?}");
    assert_eq!(stats.refused_last.get(&refusal), Some(&LIAR), "{stats:?}");
    assert_eq!(stats.faulty.contains_key(&LIAR), refusal.is_fault());
    assert_stands(net);
}

fn assert_stands(net: &Net) {
    assert_eq!(net.seen(1, "a").as_deref(), Some("1"));
    assert_eq!(net.seen(1, "b").as_deref(), Some("2"));
}

#[test]
fn absurd_ranges_are_refused() {
    let mut net = three();
    let log = victims_log(&net);
    let ranges = [
        vec![(0, 5)],
        vec![(9, 3)],
        vec![(5, 7), (6, 9)],
        vec![(1, u64::MAX)],
        vec![(1, 1); 300],
    ];

    for ranges in &ranges {
        let (log, ranges) = (log, ranges.clone());
        let ihave = Ihave {
            log,
            ranges: ranges.clone(),
            large: false,
        };
        let said = [
            say(&mut net, RecordKind::IHAVE, &codec::encode(&ihave)),
            say(
                &mut net,
                RecordKind::PULL,
                &codec::encode(&Pull { log, ranges }),
            ),
        ];
        assert_eq!(said, [Err(Refusal::Malformed); 2]);
    }

    assert_refused(&net, Refusal::Malformed, 2 * ranges.len() as u64);
}

#[test]
fn numbers_that_no_log_reaches_are_refused_wherever_they_are_named() {
    let mut net = three();
    let log = victims_log(&net);
    let beyond = SEQ_MAX + 1;
    let far = LogId {
        epoch: beyond,
        ..log
    };

    let head = PushHead { log, floor: 0 };
    let dot = [(beyond, Hlc::default())];
    let said = [
        say(&mut net, RecordKind::PUSH, &push(head, &dot)),
        say(
            &mut net,
            RecordKind::PUSH,
            &push(
                PushHead {
                    log,
                    floor: u64::MAX,
                },
                &[],
            ),
        ),
        say(
            &mut net,
            RecordKind::PUSH,
            &push(PushHead { log: far, floor: 0 }, &[(1, Hlc::default())]),
        ),
        say(
            &mut net,
            RecordKind::ASK,
            &codec::encode(&Ask { log, seq: beyond }),
        ),
        answer(&mut net, page(log, &[], Some(complete(beyond, 0, None)))),
    ];

    assert_eq!(said, [Err(Refusal::Malformed); 5]);
    assert_refused(&net, Refusal::Malformed, 5);
}

#[test]
fn an_attachment_that_no_dot_made_is_refused() {
    let mut net = three();
    let log = LogId {
        epoch: 0,
        ..victims_log(&net)
    };

    let said = say(
        &mut net,
        RecordKind::PUSH,
        &push(PushHead { log, floor: 0 }, &[(1, Hlc::default())]),
    );

    assert_eq!(said, Err(Refusal::Malformed));
    assert_refused(&net, Refusal::Malformed, 1);
}

#[test]
fn dots_of_our_own_log_that_we_never_wrote_are_forged() {
    let mut net = three();
    net.put(1, "ours", "v");
    let log = our_log(&net);
    let head = PushHead { log, floor: 0 };
    let ihave = Ihave {
        log,
        ranges: vec![(7, 9)],
        large: false,
    };
    let newer = LogId {
        generation: Generation(2),
        ..log
    };
    let elsewhere = LogId {
        epoch: log.epoch + 50,
        ..log
    };

    let said = [
        say(
            &mut net,
            RecordKind::PUSH,
            &push(head, &[(2, Hlc::default())]),
        ),
        say(&mut net, RecordKind::IHAVE, &codec::encode(&ihave)),
        say(
            &mut net,
            RecordKind::PUSH,
            &push(PushHead { log: newer, ..head }, &[]),
        ),
        say(
            &mut net,
            RecordKind::PUSH,
            &push(
                PushHead {
                    log: elsewhere,
                    ..head
                },
                &[],
            ),
        ),
    ];
    let known = say(
        &mut net,
        RecordKind::PUSH,
        &push(head, &[(1, Hlc::default())]),
    );
    answer(&mut net, page(log, &[], Some(complete(9, 0, None)))).unwrap();

    assert_eq!(said, [Err(Refusal::Forged); 4]);
    assert_eq!(known, Err(Refusal::Over), "it is ours, and no lie");
    assert_refused(&net, Refusal::Forged, 5);
    assert_eq!(net.seen(1, "ours").as_deref(), Some("v"));
}

#[test]
fn a_clock_far_ahead_is_refused_and_one_less_far_ahead_spoils_no_write_of_ours() {
    let mut net = three();
    let log = LogId {
        owner: LIAR,
        ..net.dbs[&2].our_log(APP).unwrap()
    };
    let head = PushHead { log, floor: 0 };
    let ahead = |millis: u64| Hlc((net.now.wall.0 + millis) << 16);
    let (far, near) = (ahead(60_001), ahead(59_999));

    let said = say(&mut net, RecordKind::PUSH, &push(head, &[(1, far)]));
    say(&mut net, RecordKind::PUSH, &push(head, &[(1, near)])).unwrap();
    let Version { written, .. } = net.try_put(1, "ours", "v", PutMode::Create).unwrap();

    assert_eq!(said, Err(Refusal::AheadOfTime));
    assert_refused(&net, Refusal::AheadOfTime, 1);
    let slower = UnixMillis(net.now.wall.0 - 20_000);
    assert!(!written.is_too_far_ahead(slower), "{written:?}");
}

#[test]
fn a_floor_that_goes_back_changes_nothing() {
    let mut net = three();
    net.put(VICTIM, "c", "3");
    net.delete(VICTIM, "c").unwrap();
    net.run(Duration::from_secs(5));
    let log = victims_log(&net);
    let floor = |net: &Net| net.dbs[&1].replicas[&APP].log(&log).unwrap().floor;
    let before = floor(&net);
    assert!(before > 0);

    say(
        &mut net,
        RecordKind::PUSH,
        &push(PushHead { log, floor: 0 }, &[]),
    )
    .unwrap();
    answer(&mut net, page(log, &[], Some(complete(4, 1, None)))).unwrap();

    assert_eq!(floor(&net), before);
    assert_stands(&net);
}

#[test]
fn who_claims_to_have_more_of_our_log_than_we_do_is_refused() {
    let mut net = three();
    net.put(1, "ours", "v");
    let log = our_log(&net);

    let said = say(
        &mut net,
        RecordKind::REACHED,
        &codec::encode(&Reached { log, prefix: 2 }),
    );

    assert_eq!(said, Err(Refusal::Inconsistent));
    assert_refused(&net, Refusal::Inconsistent, 1);
}

#[test]
fn owners_that_are_made_up_take_bounded_memory_and_keep_no_member_out() {
    let mut net = three();
    let now = net.now;
    let log = victims_log(&net);
    let db = net.dbs.get_mut(&1).unwrap();
    db.owners.strangers_max = 500;
    let mut taken = 0;
    for owner in 100..2_100 {
        let made_up = LogId {
            owner: NodeId(owner),
            ..log
        };
        let head = PushHead {
            log: made_up,
            floor: 0,
        };
        let body = push(head, &[(1, Hlc::default())]);
        taken += u64::from(db.handle_record(now, LIAR, RecordKind::PUSH, &body).is_ok());
    }
    let (held, owners) = (db.len(), db.owners.len());

    db.handle_member_up(NodeId(90_000), Boot(1));
    let member = PushHead {
        log: LogId {
            owner: NodeId(90_000),
            ..log
        },
        floor: 0,
    };
    let body = push(member, &[(1, Hlc::default())]);
    let said = db.handle_record(now, NodeId(90_000), RecordKind::PUSH, &body);

    assert_eq!(said, Ok(()));
    assert!(
        owners < 600 && held < 600,
        "{owners} owners, {held} entries"
    );
    assert_refused(&net, Refusal::NoRoom, 2_000 - taken);
    let db = net.dbs.get_mut(&1).unwrap();
    db.handle_member_left(NodeId(90_000), Boot(1));
    db.expire_owners(now.instant + Duration::from_mins(11));
    assert!(net.dbs[&1].len() < 10);
    assert_stands(&net);
}

#[test]
fn generations_that_follow_fast_leave_two_of_an_owner() {
    let mut net = three();
    let log = net.dbs[&2].our_log(APP).unwrap();

    for generation in 2..500 {
        let log = LogId {
            generation: Generation(generation),
            ..log
        };
        let head = PushHead { log, floor: 0 };
        say(
            &mut net,
            RecordKind::PUSH,
            &push(head, &[(1, Hlc::default())]),
        )
        .unwrap();
    }

    let of_liar = net.dbs[&1].logs().filter(|(log, ..)| log.owner == LIAR);
    assert!(of_liar.count() <= 4, "two a network");
    assert_stands(&net);
}

#[test]
fn who_is_no_member_is_neither_called_nor_remembered() {
    let mut net = three();
    let digest = codec::encode(&Digest {
        roots: vec![Root {
            network: APP,
            hash: 12_345,
            synced: true,
        }],
        answer: false,
    });
    let now = net.now;
    let db = net.dbs.get_mut(&1).unwrap();

    for stranger in 1_000..2_000 {
        db.handle_record(now, NodeId(stranger), RecordKind::DIGEST, &digest)
            .unwrap();
    }

    assert!(db.poll_stream().is_none());
    assert_eq!(db.stats().queued, 0);
    assert_eq!(db.poll_transmit(), None);
    assert_stands(&net);
}
