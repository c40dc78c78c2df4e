//! Newcomers over loopback: who gets in, who does not, and what they read.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng};
use tokio::net::TcpListener;

use super::*;
use crate::{
    core::{
        model::ClusterId,
        wire::keyring::{ClusterKey, KeyId, Keyring},
    },
    runtime::{
        streams::{
            Caller, Dialer, Limits, Refusal,
            testing::{Answer, Cluster, Listening, PATIENCE, now},
        },
        trust::{CertifiedName, NodeKey, VALID_FOR, secrets_match},
    },
};

const SHORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_newcomer_with_the_token_becomes_a_member_that_can_call_others() {
    let cluster = Cluster::new(7);
    let token = token(&cluster);
    let leader = leader(&cluster, &token, |_| Ok(())).await;

    let admission = join(&[leader.addr], &token, &newcomer(), PATIENCE, &mut rng())
        .await
        .unwrap();

    assert_eq!(admission.credentials.cluster, ClusterId(7));
    assert_eq!(admission.credentials.node, NodeId(5));
    assert_eq!(
        (admission.members, admission.leader),
        (b"members".to_vec(), Some(NodeId(1)))
    );
    assert_eq!((admission.ring, admission.seed), (ring(), leader.addr));
    let dialer = Dialer::new(
        Tls::new(&admission.credentials).unwrap(),
        &Limits::default(),
    );
    let answer = dialer.call(
        NodeId(1),
        leader.addr,
        Service::Sync,
        Bytes::new(),
        PATIENCE,
    );
    assert_eq!(answer.await.unwrap(), "node 0000000000000005");
}

#[tokio::test]
async fn a_wrong_token_is_final_and_says_what_to_do() {
    let cluster = Cluster::new(7);
    let leader = leader(&cluster, &token(&cluster), |_| Ok(())).await;
    let rotated = Token {
        secret: [0; 16],
        ca_digest: cluster.ca.digest(),
    };

    let refused = refusal(&[leader.addr], &rotated).await;

    assert_eq!(
        refused.to_string(),
        "the token is not this cluster's: run `weft token` on a member"
    );
}

#[tokio::test]
async fn final_refusals_end_the_attempt_at_once() {
    let cluster = Cluster::new(7);
    let token = token(&cluster);
    let taken = JoinRefusal::NameTaken {
        name: Name::new("web-1").unwrap(),
    };
    for expected in [
        taken,
        JoinRefusal::IdTaken,
        JoinRefusal::Version { ours: 2 },
    ] {
        let answer = expected.clone();
        let leader = leader(&cluster, &token, move |_| Err(answer.clone())).await;

        let refused = refusal(&[leader.addr], &token).await;

        assert!(matches!(refused, JoinError::Refused(refusal) if refusal == expected));
        assert_eq!(leader.tls.stats().answered, 1);
    }
}

#[tokio::test]
async fn passing_refusals_are_tried_again() {
    let cluster = Cluster::new(7);
    let token = token(&cluster);
    let asked = AtomicU32::new(0);
    let leader = leader(&cluster, &token, move |_| {
        match asked.fetch_add(1, Relaxed) {
            0 => Err(JoinRefusal::NoLeader),
            1 => Err(JoinRefusal::Busy),
            _ => Ok(()),
        }
    })
    .await;

    let admission = join(&[leader.addr], &token, &newcomer(), PATIENCE, &mut rng()).await;

    assert!(admission.is_ok(), "{admission:?}");
    assert_eq!(leader.tls.stats().answered, 3);
}

#[tokio::test]
async fn a_seed_that_is_down_or_of_another_cluster_is_passed_over() {
    let (cluster, other) = (Cluster::new(7), Cluster::new(7));
    let token = token(&cluster);
    let stranger = Listening::echo(other.tls(1), Limits::default()).await;
    let leader = leader(&cluster, &token, |_| Ok(())).await;
    let seeds = [nobody().await, stranger.addr, leader.addr];

    let admission = join(&seeds, &token, &newcomer(), PATIENCE, &mut rng()).await;

    assert_eq!(admission.unwrap().seed, leader.addr);
}

#[tokio::test]
async fn a_seed_whose_authority_the_token_does_not_pin_never_sees_the_secret() {
    let (cluster, other) = (Cluster::new(7), Cluster::new(7));
    let impostor = Listening::echo(other.tls(1), Limits::default()).await;

    let refused = refusal(&[impostor.addr], &token(&cluster)).await;

    assert!(matches!(refused, JoinError::ForeignSeed { seed } if seed == impostor.addr));
    assert_eq!(impostor.tls.stats().answered, 0);
}

#[tokio::test]
async fn a_chain_with_the_pinned_authority_in_it_but_not_signed_by_it_is_foreign() {
    let (cluster, other) = (Cluster::new(7), Cluster::new(7));
    let mut credentials = other.credentials(1);
    credentials.ca_cert_der = cluster.ca.cert_der.clone();
    let impostor = Tls::new(&credentials).unwrap();
    let impostor = Listening::echo(impostor, Limits::default()).await;

    let refused = refusal(&[impostor.addr], &token(&cluster)).await;

    assert!(
        matches!(refused, JoinError::ForeignSeed { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn at_the_deadline_each_seed_is_named_with_what_it_said() {
    let cluster = Cluster::new(7);
    let token = token(&cluster);
    let leaderless = leader(&cluster, &token, |_| Err(JoinRefusal::NoLeader)).await;
    let down = nobody().await;
    let seeds = [down, leaderless.addr];

    let gave_up = join(&seeds, &token, &newcomer(), SHORT, &mut rng()).await;

    let line = gave_up.unwrap_err().to_string();
    assert!(
        line.contains(&format!("{down}: {down} cannot be reached")),
        "{line}"
    );
    assert!(
        line.contains(&format!("{}: the cluster has no leader", leaderless.addr)),
        "{line}"
    );
}

#[tokio::test]
async fn a_seed_that_never_answers_does_not_outlast_the_deadline() {
    let cluster = Cluster::new(7);
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let seeds = [mute.local_addr().unwrap()];

    let gave_up = join(&seeds, &token(&cluster), &newcomer(), SHORT, &mut rng()).await;

    assert!(
        gave_up
            .unwrap_err()
            .to_string()
            .contains("no answer in time")
    );
}

#[tokio::test]
async fn an_admission_that_is_not_for_this_newcomer_is_refused() {
    let (cluster, other) = (Cluster::new(7), Cluster::new(7));
    let token = token(&cluster);
    let for_another_node = joined(&cluster, cluster.credentials(6).cert_der);
    let for_another_key = joined(&cluster, cluster.credentials(5).cert_der);
    let of_another_authority = joined(&other, other.credentials(5).cert_der);
    let no_certificate = joined(&cluster, vec![1, 2, 3]);

    for joined in [
        for_another_node,
        for_another_key,
        of_another_authority,
        no_certificate,
    ] {
        let reply: JoinReply = Ok(joined);
        let answer = Answer(move |_, _, _| Ok(codec::encode(&reply).into()));
        let seed = Listening::start(cluster.tls(1), answer, Limits::default()).await;

        let refused = refusal(&[seed.addr], &token).await;

        assert!(
            matches!(refused, JoinError::BadAdmission { .. }),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn no_seed_is_an_error_of_its_own() {
    let cluster = Cluster::new(7);

    let refused = refusal(&[], &token(&cluster)).await;

    assert!(matches!(refused, JoinError::NoSeeds));
}

#[tokio::test]
async fn joins_beyond_the_rate_are_told_to_wait() {
    let cluster = Cluster::new(7);
    let token = token(&cluster);
    let limits = Limits {
        join_burst: 0,
        ..Limits::default()
    };
    let seed = Listening::echo(cluster.tls(1), limits).await;

    let gave_up = join(&[seed.addr], &token, &newcomer(), SHORT, &mut rng()).await;

    assert!(gave_up.unwrap_err().to_string().contains("is busy"));
}

#[test]
fn a_request_of_another_version_is_told_so_and_garbage_is_malformed() {
    let request = request();
    let mut newer = codec::encode(&request);
    newer[0] = VERSION + 1;
    newer.push(0);

    assert_eq!(JoinRequest::decode(&codec::encode(&request)), Ok(request));
    assert_eq!(
        JoinRequest::decode(&newer),
        Err(JoinRefusal::Version { ours: VERSION })
    );
    for garbage in [&[][..], &[VERSION], &[VERSION, 0xff, 0xff]] {
        let refused = JoinRequest::decode(garbage);
        assert!(
            matches!(refused, Err(JoinRefusal::Malformed { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn an_unspecified_address_becomes_the_one_the_newcomer_calls_from() {
    let from: SocketAddr = "192.0.2.7:40000".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:192.0.2.7]:40000".parse().unwrap();
    let unspecified = request();
    let mut explicit = request();
    explicit.listen = "198.51.100.1:9338".parse().unwrap();

    let seen: SocketAddr = "192.0.2.7:9338".parse().unwrap();
    assert_eq!(unspecified.address(from), seen);
    assert_eq!(unspecified.address(mapped), seen);
    assert_eq!(explicit.address(from), explicit.listen);
}

#[test]
fn the_debug_output_of_a_request_and_an_admission_has_no_secret() {
    let joined = joined(&Cluster::new(7), Vec::new());

    assert!(!format!("{:?}", request()).contains("9, 9, 9"));
    assert!(format!("{joined:?}").contains("ClusterKey(…)"));
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn token(cluster: &Cluster) -> Token {
    Token::random(cluster.ca.digest(), &mut rng())
}

fn ring() -> AgreedRing {
    AgreedRing {
        version: 7,
        keys: Keyring::new(KeyId(0), ClusterKey::random(&mut rng())),
    }
}

fn newcomer() -> Newcomer {
    Newcomer {
        member_of: None,
        node: NodeId(5),
        name: Name::new("web-5").unwrap(),
        listen: "0.0.0.0:9338".parse().unwrap(),
        key: NodeKey::generate().unwrap(),
    }
}

fn request() -> JoinRequest {
    let newcomer = newcomer();
    JoinRequest {
        version: VERSION,
        node: newcomer.node,
        name: newcomer.name,
        csr_der: Vec::new(),
        secret: [9; 16],
        listen: newcomer.listen,
    }
}

fn joined(cluster: &Cluster, cert_der: Vec<u8>) -> Joined {
    Joined {
        cluster: cluster.id,
        ca_cert_der: cluster.ca.cert_der.clone(),
        cert_der,
        ring: ring(),
        members: b"members".to_vec(),
        leader: Some(NodeId(1)),
    }
}

/// Tries to join, for an error.
async fn refusal(seeds: &[SocketAddr], token: &Token) -> JoinError {
    join(seeds, token, &newcomer(), PATIENCE, &mut rng())
        .await
        .unwrap_err()
}

/// An address where nothing listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Starts node 1, which lets in who has the token and whom `decide` likes, and tells members who they are.
async fn leader(
    cluster: &Cluster,
    token: &Token,
    decide: impl Fn(&JoinRequest) -> Result<(), JoinRefusal> + Send + Sync + 'static,
) -> Listening {
    let (ca, id, secret) = (cluster.ca.clone(), cluster.id, token.secret);
    let template = joined(cluster, Vec::new());
    let admit = move |request: &[u8]| -> JoinReply {
        let request = JoinRequest::decode(request)?;
        if !secrets_match(&secret, &request.secret) {
            return Err(JoinRefusal::WrongToken);
        }
        decide(&request)?;
        let name = CertifiedName {
            node: request.node,
            cluster: id,
        };
        let signed = ca.sign(&request.csr_der, name, (now(), VALID_FOR));
        let cert_der = signed.unwrap();
        Ok(Joined {
            cert_der,
            ..template.clone()
        })
    };
    let answer = move |caller: Caller, service, request: Bytes| match (caller.node, service) {
        (_, Service::Join) => Ok(codec::encode(&admit(&request)).into()),
        (Some(node), _) => Ok(format!("node {node}").into()),
        (None, _) => Err(Refusal("a stranger got through".to_owned())),
    };
    Listening::start(cluster.tls(1), Answer(answer), Limits::default()).await
}
