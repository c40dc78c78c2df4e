//! Callers that are broken, slow or hostile: each ends with a counted reason, and the node goes on serving.

use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    BODY_MAX, Dialer, Limits, Reason, STRANGER_BODY_MAX, Service,
    frame::{HEADER, Status},
    pinned,
    testing::{Answer, Cluster, Listening, PATIENCE, raw, until},
};
use crate::core::wire::versions::{NEWEST, OLDEST};

#[tokio::test]
async fn a_frame_that_claims_too_much_is_refused_at_its_header() {
    let (cluster, server) = served(Limits::default()).await;
    let mut stream = raw(&cluster.tls(5), &server).await;

    stream
        .write_all(&header(Service::Sync as u8, BODY_MAX + 1))
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;

    assert_eq!(
        answer,
        [&header(Status::TooLarge as u8, 1)[..], &[NEWEST]].concat()
    );
    ends_with(&cluster, &server, Reason::TooLarge).await;
}

#[tokio::test]
async fn a_stranger_may_send_less_than_a_member() {
    let (cluster, server) = served(Limits::default()).await;
    let mut stream = stranger(&cluster, &server).await;

    let too_long = header_in(OLDEST, Service::Join as u8, STRANGER_BODY_MAX + 1);
    stream.write_all(&too_long).await.unwrap();
    read_to_end(&mut stream).await;

    ends_with(&cluster, &server, Reason::TooLarge).await;
}

#[tokio::test]
async fn a_frame_that_ends_early_is_dropped() {
    let (cluster, server) = served(Limits::default()).await;
    for sent in [
        &header(Service::Sync as u8, 100)[..3],
        &header(Service::Sync as u8, 100),
    ] {
        let mut stream = raw(&cluster.tls(5), &server).await;
        stream.write_all(sent).await.unwrap();
        stream.shutdown().await.unwrap();
        read_to_end(&mut stream).await;
    }

    until(|| refused(&server, Reason::Truncated) == 2).await;
    ends_with(&cluster, &server, Reason::Truncated).await;
}

#[tokio::test]
async fn garbage_of_a_member_is_told_the_version() {
    let (cluster, server) = served(Limits::default()).await;
    let mut stream = raw(&cluster.tls(5), &server).await;

    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut stream).await;

    assert_eq!(
        answer,
        [&header(Status::Version as u8, 1)[..], &[NEWEST]].concat()
    );
    ends_with(&cluster, &server, Reason::Version).await;
}

#[tokio::test]
async fn a_service_of_tomorrow_is_refused_and_the_connection_stays() {
    let (cluster, server) = served(Limits::default()).await;
    let mut stream = raw(&cluster.tls(5), &server).await;

    stream.write_all(&header(200, 0)).await.unwrap();
    let mut refusal = [0; HEADER];
    stream.read_exact(&mut refusal).await.unwrap();
    stream
        .write_all(&header(Service::Sync as u8, 0))
        .await
        .unwrap();
    let mut answer = [0; HEADER];
    stream.read_exact(&mut answer).await.unwrap();

    assert_eq!(refusal, header(Status::UnknownService as u8, 0));
    assert_eq!(answer, header(Status::Done as u8, 0));
    ends_with(&cluster, &server, Reason::UnknownService).await;
}

#[tokio::test]
async fn garbage_instead_of_tls_is_dropped() {
    let (cluster, server) = served(Limits::default()).await;
    let mut rng = StdRng::seed_from_u64(9);
    for round in 0..200 {
        let mut garbage = vec![0; 1 + round * 7];
        rng.fill_bytes(&mut garbage);
        if round % 2 == 0 {
            // As much of a handshake record as fools the first look.
            garbage.splice(..garbage.len().min(3), [0x16, 3, 1]);
        }
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        // The node may hang up before it has read all.
        let _hung_up = stream.write_all(&garbage).await;
        let _hung_up = stream.shutdown().await;
        read_to_end(&mut stream).await;
    }

    until(|| refused(&server, Reason::Handshake) == 200).await;
    ends_with(&cluster, &server, Reason::Handshake).await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_cut() {
    let limits = Limits {
        handshake_within: Duration::from_millis(500),
        ..Limits::default()
    };
    let (cluster, server) = served(limits).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();

    read_to_end(&mut silent).await;

    ends_with(&cluster, &server, Reason::SlowHandshake).await;
}

#[tokio::test]
async fn a_caller_that_drips_its_request_is_cut() {
    let limits = Limits {
        frame_within: Duration::from_millis(200),
        ..Limits::default()
    };
    let (cluster, server) = served(limits).await;
    let mut stream = raw(&cluster.tls(5), &server).await;

    let drip = async {
        stream
            .write_all(&header(Service::Sync as u8, 1 << 20))
            .await?;
        loop {
            stream.write_all(&[0]).await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let cut: std::io::Result<()> = tokio::time::timeout(PATIENCE, drip).await.unwrap();

    assert!(cut.is_err());
    ends_with(&cluster, &server, Reason::SlowFrame).await;
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_cut() {
    let limits = Limits {
        stranger_within: Duration::from_millis(30),
        ..Limits::default()
    };
    let (cluster, server) = served(limits).await;
    let mut stream = stranger(&cluster, &server).await;

    read_to_end(&mut stream).await;

    ends_with(&cluster, &server, Reason::SlowFrame).await;
}

#[tokio::test]
async fn a_caller_that_does_not_take_its_answer_is_cut() {
    let limits = Limits {
        frame_within: Duration::from_millis(200),
        ..Limits::default()
    };
    let cluster = Cluster::new(1);
    let long = Answer(|_, _, request: Bytes| match request.len() {
        0 => Ok(vec![0; BODY_MAX].into()),
        _ => Ok(request),
    });
    let server = Listening::start(cluster.tls(2), long, limits).await;
    let mut stream = raw(&cluster.tls(5), &server).await;

    stream
        .write_all(&header(Service::Sync as u8, 0))
        .await
        .unwrap();
    stream.flush().await.unwrap();

    ends_with(&cluster, &server, Reason::SlowFrame).await;
}

#[tokio::test]
async fn a_member_that_stays_silent_is_let_go_without_blame() {
    let limits = Limits {
        silent_for: Duration::from_millis(30),
        ..Limits::default()
    };
    let (cluster, server) = served(limits).await;
    let mut stream = raw(&cluster.tls(5), &server).await;

    read_to_end(&mut stream).await;

    until(|| server.tls.stats().open == 0).await;
    assert!(server.tls.stats().refused.is_empty());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_dropped_until_others_end() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let (cluster, server) = served(limits).await;
    let first = raw(&cluster.tls(5), &server).await;
    let second = raw(&cluster.tls(6), &server).await;

    let mut third = TcpStream::connect(server.addr).await.unwrap();
    read_to_end(&mut third).await;
    until(|| refused(&server, Reason::TooManyConnections) == 1).await;
    drop((first, second));
    until(|| server.tls.stats().open == 0).await;

    ends_with(&cluster, &server, Reason::TooManyConnections).await;
}

#[tokio::test]
async fn strangers_cannot_take_the_places_of_members() {
    let limits = Limits {
        strangers: 1,
        ..Limits::default()
    };
    let (cluster, server) = served(limits).await;
    let members = [cluster.dialer(5), cluster.dialer(6)];
    for member in &members {
        assert!(is_served(member, &server).await);
    }

    let stranger = stranger(&cluster, &server).await;
    let mut further = TcpStream::connect(server.addr).await.unwrap();
    read_to_end(&mut further).await;
    for member in &members {
        assert!(is_served(member, &server).await);
    }
    drop(stranger);
    until(|| server.tls.stats().open == 2).await;

    ends_with(&cluster, &server, Reason::TooManyStrangers).await;
}

async fn served(limits: Limits) -> (Cluster, Listening) {
    let cluster = Cluster::new(1);
    let server = Listening::echo(cluster.tls(2), limits).await;
    (cluster, server)
}

/// Connects without a certificate.
async fn stranger(cluster: &Cluster, server: &Listening) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let name = "any.node.weft".try_into().unwrap();
    let connector = pinned(cluster.ca.digest(), None);
    connector.connect(name, stream).await.unwrap()
}

async fn is_served(dialer: &Dialer, server: &Listening) -> bool {
    let request = Bytes::from_static(b"still there?");
    let (to, addr) = (server.tls.node(), server.addr);
    let answer = dialer.call(to, addr, Service::Raft, request.clone(), PATIENCE);
    answer.await.unwrap() == request
}

fn header(code: u8, len: usize) -> [u8; HEADER] {
    header_in(NEWEST, code, len)
}

fn header_in(version: u8, code: u8, len: usize) -> [u8; HEADER] {
    let [a, b, c, d] = u32::try_from(len).unwrap().to_be_bytes();
    [version, code, a, b, c, d]
}

/// Reads until the node hangs up, politely or not.
async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes));
    let _politely_or_not = read.await.expect("the node does not hang up");
    bytes
}

fn refused(server: &Listening, reason: Reason) -> u64 {
    let stats = server.tls.stats();
    stats.refused.get(&reason).copied().unwrap_or_default()
}

/// Waits for the reason to be counted and sees that an honest member is still served.
async fn ends_with(cluster: &Cluster, server: &Listening, reason: Reason) {
    until(|| refused(server, reason) > 0).await;
    assert!(is_served(&cluster.dialer(9), server).await);
    let others = server.tls.stats().refused.into_keys();
    assert_eq!(others.collect::<Vec<_>>(), [reason]);
}
