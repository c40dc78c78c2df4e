//! Calls over loopback: who may speak to whom, over which connection, and for how long.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use rustls::pki_types::CertificateDer;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};

use super::{
    BODY_MAX, Caller, Connection, Counters, Dialer, Handler, Limits, Reason, Refusal, Service,
    StreamError, Tls, pinned,
    testing::{Answer, Cluster, Listening, PATIENCE, now, until},
};
use crate::{
    core::model::{NodeId, UnixMillis},
    runtime::trust::{Credentials, TrustError},
};

#[tokio::test]
async fn a_member_is_answered_and_known_by_its_certificate() {
    let cluster = Cluster::new(1);
    let tell = Answer(|caller: Caller, service, request: Bytes| {
        Ok(format!("{:?} {service} {request:?}", caller.node).into())
    });
    let server = Listening::start(cluster.tls(2), tell, Limits::default()).await;

    let answer = call(&cluster.dialer(5), 2, server.addr, Service::Raft, "hello").await;

    let expected = format!("{:?} raft {:?}", Some(NodeId(5)), Bytes::from("hello"));
    assert_eq!(answer.unwrap(), expected);
}

#[tokio::test]
async fn a_caller_without_a_certificate_may_only_join() {
    let cluster = Cluster::new(1);
    let tell = Answer(|caller: Caller, _, _| Ok(format!("{:?}", caller.node).into()));
    let server = Listening::start(cluster.tls(2), tell, Limits::default()).await;

    let joined = stranger(&cluster, server.addr, Service::Join).await;
    for service in [Service::Sync, Service::Raft, Service::Propose] {
        let refused = stranger(&cluster, server.addr, service).await;

        assert!(
            matches!(refused, Err(StreamError::NotOffered { .. })),
            "{refused:?}"
        );
    }

    assert_eq!(joined.unwrap(), "None");
    until(|| refused(&server, Reason::CertificateNeeded) == 3).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_by_the_caller() {
    let (ours, other) = (Cluster::new(1), Cluster::new(1));
    let server = Listening::echo(other.tls(2), Limits::default()).await;

    let answer = call(&ours.dialer(5), 2, server.addr, Service::Raft, "").await;

    assert!(
        matches!(answer, Err(StreamError::ForeignCluster { .. })),
        "{answer:?}"
    );
    until(|| refused(&server, Reason::RefusedByCaller) == 1).await;
}

#[tokio::test]
async fn a_caller_of_another_cluster_is_refused_by_the_node() {
    let (ours, other) = (Cluster::new(1), Cluster::new(1));
    let server = Listening::echo(ours.tls(2), Limits::default()).await;
    let impostor = Credentials {
        ca_cert_der: ours.ca.cert_der.clone(),
        ..other.credentials(5)
    };
    let dialer = Dialer::new(Tls::new(&impostor).unwrap(), &Limits::default());

    let answer = call(&dialer, 2, server.addr, Service::Raft, "").await;

    assert!(
        matches!(answer, Err(StreamError::CertificateRefused { .. })),
        "{answer:?}"
    );
    until(|| refused(&server, Reason::ForeignCertificate) == 1).await;
}

#[tokio::test]
async fn a_node_that_is_not_the_one_asked_for_is_refused() {
    let cluster = Cluster::new(1);
    let server = Listening::echo(cluster.tls(2), Limits::default()).await;

    let answer = call(&cluster.dialer(5), 3, server.addr, Service::Raft, "").await;

    assert!(
        matches!(answer, Err(StreamError::WrongNode { .. })),
        "{answer:?}"
    );
    assert_eq!(server.tls.stats().answered, 0);
}

#[tokio::test]
async fn a_certificate_that_has_run_out_is_refused_on_either_side() {
    let cluster = Cluster::new(1);
    let expired = || Tls::new(&cluster.credentials_at(2, UnixMillis(0))).unwrap();
    let old_server = Listening::echo(expired(), Limits::default()).await;
    let server = Listening::echo(cluster.tls(3), Limits::default()).await;
    let old_dialer = Dialer::new(expired(), &Limits::default());

    let of_server = call(&cluster.dialer(5), 2, old_server.addr, Service::Raft, "").await;
    let of_caller = call(&old_dialer, 3, server.addr, Service::Raft, "").await;

    assert!(
        matches!(of_server, Err(StreamError::NotValidNow { .. })),
        "{of_server:?}"
    );
    assert!(
        matches!(of_caller, Err(StreamError::CertificateRefused { .. })),
        "{of_caller:?}"
    );
}

#[tokio::test]
async fn replaced_credentials_are_used_by_the_next_connection_and_the_old_ones_by_none() {
    let cluster = Cluster::new(1);
    let caller = cluster.tls(5);
    let dialer = Dialer::new(caller.clone(), &Limits::default());
    let server = Listening::echo(cluster.tls(2), Limits::default()).await;
    let called = || call(&dialer, 2, server.addr, Service::Raft, "");
    called().await.unwrap();

    server.tls.replace(&cluster.credentials(2)).unwrap();
    called().await.unwrap();
    assert_eq!(
        caller.stats().dialed,
        1,
        "the called side's open ones go on"
    );
    caller.replace(&cluster.credentials(5)).unwrap();
    called().await.unwrap();
    assert_eq!(caller.stats().dialed, 2);
    let run_out = cluster.credentials_at(5, UnixMillis(0));
    caller.replace(&run_out).unwrap();
    let refused = called().await;
    assert!(
        matches!(refused, Err(StreamError::CertificateRefused { .. })),
        "{refused:?}"
    );

    let refused = caller.replace(&cluster.credentials(6));
    assert!(
        matches!(refused, Err(TrustError::BadCredentials(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_session_is_not_resumed_by_a_certificate_that_has_run_out_meanwhile() {
    let cluster = Cluster::new(1);
    let tls = cluster.tls(2);
    let cert = |at| CertificateDer::from(cluster.credentials_at(5, at).cert_der);

    assert_eq!(tls.caller(&cert(now())), Ok(NodeId(5)));
    let refused = Err(Reason::CertificateNotValidNow);
    assert_eq!(tls.caller(&cert(UnixMillis(0))), refused);
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_and_the_connection_stays() {
    let cluster = Cluster::new(1);
    let refuse = Answer(|_, _, _| Err(Refusal("not today".to_owned())));
    let server = Listening::start(cluster.tls(2), refuse, Limits::default()).await;
    let dialer = cluster.dialer(5);

    let answer = call(&dialer, 2, server.addr, Service::Propose, "").await;

    assert_eq!(answer.unwrap_err().to_string(), "not today");
    assert_eq!(dialer.idle(), 1);
}

#[tokio::test]
async fn calls_in_turn_share_one_connection() {
    let cluster = Cluster::new(1);
    let server = Listening::echo(cluster.tls(2), Limits::default()).await;
    let tls = cluster.tls(5);
    let dialer = Dialer::new(tls.clone(), &Limits::default());

    for number in 0..10 {
        let text = number.to_string();
        let answer = call(&dialer, 2, server.addr, Service::Raft, &text).await;
        assert_eq!(answer.unwrap(), text);
    }

    assert_eq!((tls.stats().dialed, tls.stats().reused), (1, 9));
    assert_eq!(server.tls.stats().accepted, 1);
}

#[tokio::test]
async fn many_calls_at_once_are_each_answered_and_few_connections_are_kept() {
    let cluster = Cluster::new(1);
    let server = Listening::echo(cluster.tls(2), Limits::default()).await;
    let dialer = cluster.dialer(5);
    let mut calls = JoinSet::new();

    for number in 0..64 {
        let (dialer, addr) = (dialer.clone(), server.addr);
        calls.spawn(async move {
            let text = number.to_string();
            let answer = call(&dialer, 2, addr, Service::Sync, &text).await;
            assert_eq!(answer.unwrap(), text);
        });
    }
    let answered = calls.join_all().await.len();

    assert_eq!(answered, 64);
    assert!(dialer.idle() <= 2, "{}", dialer.idle());
    until(|| server.tls.stats().open <= 2).await;
}

#[tokio::test]
async fn the_longest_body_passes_and_a_longer_one_is_refused_at_home() {
    let cluster = Cluster::new(1);
    let server = Listening::echo(cluster.tls(2), Limits::default()).await;
    let dialer = cluster.dialer(5);
    let longest = Bytes::from(vec![7; BODY_MAX]);
    let longer = Bytes::from(vec![7; BODY_MAX + 1]);

    let answer = dialer
        .call(
            NodeId(2),
            server.addr,
            Service::Sync,
            longest.clone(),
            PATIENCE,
        )
        .await;
    let refused = dialer
        .call(NodeId(2), server.addr, Service::Sync, longer, PATIENCE)
        .await;

    assert_eq!(answer.unwrap(), longest);
    assert!(matches!(refused, Err(StreamError::TooLarge { .. })));
}

#[tokio::test]
async fn a_small_call_costs_one_record_each_way() {
    let cluster = Cluster::new(1);
    let server = Listening::echo(cluster.tls(2), Limits::default()).await;
    let tls = cluster.tls(5);
    let dialer = Dialer::new(tls.clone(), &Limits::default());
    call(&dialer, 2, server.addr, Service::Raft, "first")
        .await
        .unwrap();
    let before = tls.stats();

    call(&dialer, 2, server.addr, Service::Raft, "0123456789")
        .await
        .unwrap();

    // Header 6, body 10, and of TLS: record header 5, content type 1, tag 16 (RFC 8446 §5.2).
    let after = tls.stats();
    assert_eq!(after.bytes_sent - before.bytes_sent, 38);
    assert_eq!(after.bytes_received - before.bytes_received, 38);
}

#[tokio::test]
async fn a_second_connection_resumes_the_session_of_the_first() {
    let cluster = Cluster::new(1);
    let server = Listening::echo(cluster.tls(2), Limits::default()).await;
    let tls = cluster.tls(5);
    let limits = Limits {
        idle_per_node: 0,
        ..Limits::default()
    };
    let dialer = Dialer::new(tls.clone(), &limits);

    call(&dialer, 2, server.addr, Service::Raft, "")
        .await
        .unwrap();
    let first = tls.stats().bytes_received;
    call(&dialer, 2, server.addr, Service::Raft, "")
        .await
        .unwrap();
    let second = tls.stats().bytes_received - first;

    assert_eq!(tls.stats().dialed, 2);
    assert!(second < first / 2, "{second} of {first}");
}

#[tokio::test]
async fn a_node_that_never_answers_is_given_up_at_the_deadline() {
    let cluster = Cluster::new(1);
    let server = Listening::start(cluster.tls(2), Never, Limits::default()).await;
    let dialer = cluster.dialer(5);
    let (to, addr) = (NodeId(2), server.addr);
    let deadline = Duration::from_secs(2);

    let answer = dialer
        .call(to, addr, Service::Raft, Bytes::new(), deadline)
        .await;

    assert!(
        matches!(answer, Err(StreamError::Late { .. })),
        "{answer:?}"
    );
    assert_eq!(dialer.idle(), 0);
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_cut_and_the_caller_told() {
    let cluster = Cluster::new(1);
    let limits = Limits {
        answer_within: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = Listening::start(cluster.tls(2), Never, limits).await;

    let answer = call(&cluster.dialer(5), 2, server.addr, Service::Raft, "").await;

    assert!(
        matches!(answer, Err(StreamError::Overdue { .. })),
        "{answer:?}"
    );
    until(|| refused(&server, Reason::SlowHandler) == 1).await;
}

#[tokio::test]
async fn an_address_where_nothing_listens_cannot_be_reached() {
    let cluster = Cluster::new(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);

    let answer = call(&cluster.dialer(5), 2, addr, Service::Raft, "").await;

    assert!(
        matches!(answer, Err(StreamError::Unreachable { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn who_accepts_and_says_nothing_was_sent_nothing() {
    let cluster = Cluster::new(1);
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (to, addr) = (NodeId(2), mute.local_addr().unwrap());
    let soon = Duration::from_millis(50);
    let dialer = cluster.dialer(5);

    let answer = dialer
        .call(to, addr, Service::Raft, Bytes::new(), soon)
        .await;

    assert!(
        matches!(answer, Err(StreamError::NotSent { .. })),
        "{answer:?}"
    );
    assert_eq!(dialer.idle(), 0);
}

#[tokio::test]
async fn who_hangs_up_amid_the_handshake_was_sent_nothing() {
    let cluster = Cluster::new(1);
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = rude.local_addr().unwrap();
    let dialer = cluster.dialer(5);

    let (answer, accepted) = tokio::join!(call(&dialer, 2, addr, Service::Raft, ""), async {
        rude.accept().await.map(drop)
    });

    accepted.unwrap();
    assert!(
        matches!(answer, Err(StreamError::Unreachable { .. })),
        "{answer:?}"
    );
}

/// The request may have been carried out, whatever the second try comes to.
#[tokio::test]
async fn a_node_that_ends_amid_a_call_on_a_kept_connection_has_lost_it() {
    let cluster = Cluster::new(1);
    let gate = Arc::new(Gate::default());
    let server = Listening::start(cluster.tls(2), Gated(gate.clone()), Limits::default()).await;
    let dialer = cluster.dialer(5);
    let addr = server.addr;
    gate.open.notify_one();
    call(&dialer, 2, addr, Service::Raft, "kept").await.unwrap();
    gate.called.notified().await;

    let (answer, ()) = tokio::join!(call(&dialer, 2, addr, Service::Raft, "cut"), async {
        gate.called.notified().await;
        drop(server);
    });

    assert!(
        matches!(answer, Err(StreamError::Lost { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_call_survives_that_the_node_was_restarted_meanwhile() {
    let cluster = Cluster::new(1);
    let server = Listening::echo(cluster.tls(2), Limits::default()).await;
    let dialer = cluster.dialer(5);
    let addr = server.addr;
    call(&dialer, 2, addr, Service::Raft, "before")
        .await
        .unwrap();
    server.stop().await;
    let echo = Answer(|_, _, request| Ok(request));
    let _restarted = Listening::start_at(addr, cluster.tls(2), echo, Limits::default()).await;

    let answer = call(&dialer, 2, addr, Service::Raft, "after").await;

    assert_eq!(answer.unwrap(), "after");
}

#[tokio::test]
async fn a_call_under_way_is_answered_when_the_node_shuts_down() {
    let cluster = Cluster::new(1);
    let gate = Arc::new(Gate::default());
    let server = Listening::start(cluster.tls(2), Gated(gate.clone()), Limits::default()).await;
    let dialer = cluster.dialer(5);
    let addr = server.addr;

    let (answer, ()) = tokio::join!(call(&dialer, 2, addr, Service::Raft, "last"), async {
        gate.called.notified().await;
        server.shutdown.cancel();
        gate.open.notify_one();
    });
    server.stop().await;

    assert_eq!(answer.unwrap(), "last");
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_caller_the_connection_and_nobody_else() {
    let cluster = Cluster::new(1);
    let picky = Answer(|_, _, request: Bytes| {
        assert!(!request.is_empty(), "this panic is part of the test");
        Ok(request)
    });
    let server = Listening::start(cluster.tls(2), picky, Limits::default()).await;
    let dialer = cluster.dialer(5);

    let lost = call(&dialer, 2, server.addr, Service::Raft, "").await;
    let answer = call(&dialer, 2, server.addr, Service::Raft, "fine").await;

    assert!(matches!(lost, Err(StreamError::Lost { .. })), "{lost:?}");
    assert_eq!(answer.unwrap(), "fine");
    until(|| refused(&server, Reason::Panicked) == 1).await;
}

#[tokio::test]
async fn a_further_call_waits_for_its_turn_within_its_deadline() {
    let cluster = Cluster::new(1);
    let gate = Arc::new(Gate::default());
    let server = Listening::start(cluster.tls(2), Gated(gate.clone()), Limits::default()).await;
    let limits = Limits {
        calls: 1,
        ..Limits::default()
    };
    let dialer = Dialer::new(cluster.tls(5), &limits);
    let (to, addr) = (NodeId(2), server.addr);

    let (first, second) = tokio::join!(call(&dialer, 2, addr, Service::Raft, "first"), async {
        gate.called.notified().await;
        let soon = Duration::from_millis(20);
        let second = dialer
            .call(to, addr, Service::Raft, Bytes::new(), soon)
            .await;
        gate.open.notify_one();
        second
    });

    assert_eq!(first.unwrap(), "first");
    assert!(
        matches!(second, Err(StreamError::NotSent { .. })),
        "{second:?}"
    );
    assert_eq!(server.tls.stats().answered, 1);
}

#[tokio::test]
async fn the_debug_output_of_streams_has_no_key() {
    let cluster = Cluster::new(1);
    let credentials = cluster.credentials(5);
    let dialer = Dialer::new(Tls::new(&credentials).unwrap(), &Limits::default());

    let text = format!("{dialer:?}");

    let key = format!(
        "{:?}",
        &credentials.key_der[credentials.key_der.len() - 8..]
    );
    assert!(!text.contains(key.trim_matches(['[', ']'])), "{text}");
    assert!(text.contains("Tls"), "{text}");
}

fn refused(server: &Listening, reason: Reason) -> u64 {
    let stats = server.tls.stats();
    stats.refused.get(&reason).copied().unwrap_or_default()
}

async fn call(
    dialer: &Dialer,
    to: u64,
    addr: SocketAddr,
    service: Service,
    text: &str,
) -> Result<Bytes, StreamError> {
    let request = Bytes::copy_from_slice(text.as_bytes());
    dialer
        .call(NodeId(to), addr, service, request, PATIENCE)
        .await
}

async fn stranger(
    cluster: &Cluster,
    addr: SocketAddr,
    service: Service,
) -> Result<Bytes, StreamError> {
    let connector = pinned(cluster.ca.digest(), None);
    let name = "any.node.weft".try_into().unwrap();
    let counters = Arc::new(Counters::default());
    let mut connection = Connection::open(addr, (connector, 0), name, &counters).await?;
    connection.call(service, b"").await
}

/// Never answers.
struct Never;

impl Handler for Never {
    fn call(&self, _: Caller, _: Service, _: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        std::future::pending().boxed()
    }
}

/// Says when it is called and answers when it may.
#[derive(Default)]
struct Gate {
    called: Notify,
    open: Notify,
}

struct Gated(Arc<Gate>);

impl Handler for Gated {
    fn call(&self, _: Caller, _: Service, request: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        async move {
            self.0.called.notify_one();
            self.0.open.notified().await;
            Ok(request)
        }
        .boxed()
    }
}
