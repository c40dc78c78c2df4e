//! Answers and requests on streams that lie.

use std::time::Duration;

use super::*;
use crate::core::netdb::{
    message::{Fetch, LogSummary, SyncAsk, SyncRequest},
    sync::Step,
    tree::Scope,
};

#[test]
fn a_request_that_claims_to_have_everything_is_refused_and_breaks_nothing() {
    let mut net = three();
    net.delete(1, "none").unwrap_err();
    let log = our_log(&net);
    let fetch = Fetch {
        scope: Scope::whole(),
        from: None,
        through: None,
        logs: vec![LogSummary {
            log,
            have: Have::up_to(u64::MAX),
            floor: 0,
        }],
    };
    let request = codec::encode(&SyncRequest {
        network: APP,
        ask: SyncAsk::Fetch(fetch),
    });

    let answered = net.dbs.get_mut(&1).unwrap().handle_stream(LIAR, &request);

    assert_eq!(answered, Err(Refusal::Malformed));
    assert_refused(&net, Refusal::Malformed, 1);
}

#[test]
fn snapshots_that_contradict_themselves_are_refused_and_take_nothing_away() {
    let mut net = three();
    let log = victims_log(&net);
    let now = Hlc::default();
    let malformed = [
        complete(2, 3, Some(vec![])),
        complete(9, 5, Some(vec![(4, 3)])),
        complete(9, 5, Some(vec![(1, 2), (2, 3)])),
        complete(9, 5, Some(vec![(4, 6)])),
        complete(9, 5, Some(vec![(0, 2)])),
    ];
    let inconsistent = [
        // Above a floor that we are below, and not a word on what stands there.
        (vec![], complete(9, 5, None)),
        // Dots that it does not have itself.
        (vec![(7, now)], complete(5, 0, None)),
        // A dot that it says is gone.
        (vec![(4, now)], complete(9, 5, Some(vec![(1, 3)]))),
    ];

    let said = malformed.map(|complete| {
        net.run(Duration::from_secs(1));
        answer(&mut net, page(log, &[], Some(complete)))
    });
    for (dots, complete) in &inconsistent {
        net.run(Duration::from_secs(1));
        answer(&mut net, page(log, dots, Some(complete.clone()))).unwrap();
    }

    assert_eq!(said, [Err(Refusal::Malformed); 5]);
    assert_refused(&net, Refusal::Inconsistent, inconsistent.len() as u64);
    assert_eq!(net.dbs[&1].replicas[&APP].log(&log).unwrap().floor, 0);
}

#[test]
fn an_answer_about_what_was_not_asked_is_refused() {
    let mut net = three();
    let log = victims_log(&net);
    let other = LogId {
        network: NetworkId::CLUSTER,
        epoch: 0,
        ..log
    };
    let twice = LogDelta {
        log,
        dots: Vec::new(),
        complete: None,
    };

    let elsewhere = answer(&mut net, page(other, &[], None));
    net.run(Duration::from_secs(1));
    let twice = answer(&mut net, pages(vec![twice.clone(), twice], None));

    assert_eq!([elsewhere, twice], [Err(Refusal::Inconsistent); 2]);
    assert_refused(&net, Refusal::Inconsistent, 2);
}

#[test]
fn pages_that_never_end_are_given_up_and_the_sync_rests() {
    let mut net = three();
    let log = victims_log(&net);
    let now = net.now;
    let db = net.dbs.get_mut(&1).unwrap();
    db.want_sync(LIAR, APP);
    db.start_sync(now.instant, LIAR);
    let mut asked = 0;
    let mut epoch = 0;

    let end = loop {
        let Some(call) = db.poll_stream() else {
            panic!("not asked, and not refused");
        };
        asked += 1;
        epoch += 1;
        assert!(asked < 1_000, "for ever");
        let next = Some(LogId {
            owner: NodeId(u64::MAX),
            epoch,
            ..log
        });
        let reply = SyncReply {
            network: APP,
            answer: pages(Vec::new(), next),
        };
        if let Err(refusal) = db.handle_stream_reply(now, call.id, &codec::encode(&reply)) {
            break refusal;
        }
    };

    assert_eq!(end, Refusal::Endless);
    assert!(db.poll_stream().is_none());
    assert_refused(&net, Refusal::Endless, 1);
}

#[test]
fn a_tree_that_lies_costs_an_exchange_a_digest_and_changes_nothing() {
    let mut net = three();
    let digest = codec::encode(&Digest {
        roots: vec![
            Root {
                network: APP,
                hash: 12_345,
                synced: true,
            };
            80
        ],
        answer: false,
    });
    let before = net.dbs[&1].stats().syncs;

    for _ in 0..100 {
        say(&mut net, RecordKind::DIGEST, &digest).unwrap();
    }
    let under_way = net.dbs[&1].stats().syncs - before;
    net.settle();

    assert_eq!(under_way, 1, "one call a member at a time");
    assert_eq!(net.root(1), net.root(3));
    assert_stands(&net);
    let log = our_log(&net);
    let head = net.dbs[&1].own_head(&log);
    assert!(net.dbs[&1].floors.reached(APP, LIAR) <= head);
}

#[test]
fn parts_of_the_tree_that_were_not_compared_are_not_fetched() {
    let mut net = three();
    let now = net.now;
    let db = net.dbs.get_mut(&1).unwrap();
    db.go_on(LIAR, APP, Step::CompareParts(Scope::share(0, 2)));
    db.start_sync(now.instant, LIAR);
    let call = db.poll_stream().unwrap();
    let reply = codec::encode(&SyncReply {
        network: APP,
        answer: SyncAnswer::Differs(Scope::share(1, 2)),
    });

    let said = db.handle_stream_reply(now, call.id, &reply);

    assert_eq!(said, Err(Refusal::Inconsistent));
    assert_refused(&net, Refusal::Inconsistent, 1);
}
