//! A change of the authority as streams see it: who is let in by whom while two are trusted, and afterwards.

use bytes::Bytes;

use super::{
    Dialer, Limits, Service, StreamError, Tls,
    testing::{Cluster, Listening, PATIENCE, now, until},
};
use crate::{
    core::{
        model::NodeId,
        wire::succession::{AgreedAuthorities, OtherAuthority},
    },
    runtime::trust::{Ca, CertifiedName, Credentials, NodeKey, VALID_FOR},
};

/// A cluster whose next authority signs.
struct Promoted {
    cluster: Cluster,
    next: Ca,
    cross_der: Vec<u8>,
}

impl Promoted {
    fn new() -> Self {
        let cluster = Cluster::new(1);
        let (next, cross_der) = cluster.ca.successor(cluster.id).unwrap();
        Self {
            cluster,
            next,
            cross_der,
        }
    }

    fn agreed(&self, keeps_former: bool) -> AgreedAuthorities {
        let former = OtherAuthority::Former {
            cert_der: self.cluster.ca.cert_der.clone(),
            cross_der: self.cross_der.clone(),
            since: now(),
        };
        AgreedAuthorities {
            version: if keeps_former { 2 } else { 3 },
            signs: self.next.cert_der.clone(),
            other: keeps_former.then_some(former),
            waits_for_nobody: false,
        }
    }

    /// Credentials of a member that was certified anew.
    fn renewed(&self, node: u64, keeps_former: bool) -> Credentials {
        let former = self.cluster.credentials(node);
        let key = NodeKey::from(former.key_der.clone());
        let name = CertifiedName {
            node: NodeId(node),
            cluster: self.cluster.id,
        };
        let csr = key.csr(NodeId(node)).unwrap();
        let cert = self.next.sign(&csr, name, (now(), VALID_FOR)).unwrap();
        let trusting = former.trusting(self.agreed(true)).unwrap();
        let trusting = trusting.trusting(self.agreed(keeps_former)).unwrap();
        trusting.renewed(self.next.cert_der.clone(), cert).unwrap()
    }
}

#[tokio::test]
async fn who_only_trusts_the_former_authority_and_who_trusts_both_know_each_other() {
    let promoted = Promoted::new();
    let sleeper = Listening::echo(promoted.cluster.tls(2), Limits::default()).await;
    let renewed = Tls::new(&promoted.renewed(3, true)).unwrap();
    let renewed = Listening::echo(renewed, Limits::default()).await;

    let in_both_ways = [
        call(&sleeper.tls, &renewed).await,
        call(&renewed.tls, &sleeper).await,
    ];

    for answer in in_both_ways {
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test]
async fn what_the_former_authority_signed_is_worth_nothing_once_it_is_dropped() {
    let promoted = Promoted::new();
    let sleeper = Listening::echo(promoted.cluster.tls(2), Limits::default()).await;
    let settled = Tls::new(&promoted.renewed(3, false)).unwrap();
    let settled = Listening::echo(settled, Limits::default()).await;
    // It knows of the next one, and has no certificate of it.
    let superseded = promoted.cluster.credentials(4);
    let superseded = Tls::new(&superseded.trusting(promoted.agreed(true)).unwrap()).unwrap();

    let by_sleeper = call(&sleeper.tls, &settled).await;
    let of_sleeper = call(&settled.tls, &sleeper).await;
    let by_superseded = call(&superseded, &settled).await;

    assert!(
        matches!(by_sleeper, Err(StreamError::ForeignCluster { .. })),
        "{by_sleeper:?}"
    );
    assert!(
        matches!(of_sleeper, Err(StreamError::ForeignCluster { .. })),
        "{of_sleeper:?}"
    );
    assert!(
        matches!(by_superseded, Err(StreamError::CertificateRefused { .. })),
        "{by_superseded:?}"
    );
}

#[tokio::test]
async fn a_connection_that_was_let_in_by_the_former_authority_ends_with_it() {
    let promoted = Promoted::new();
    let server = Tls::new(&promoted.renewed(3, true)).unwrap();
    let server = Listening::echo(server, Limits::default()).await;
    let sleeper = Dialer::new(promoted.cluster.tls(2), &Limits::default());
    let called = || {
        sleeper.call(
            NodeId(3),
            server.addr,
            Service::Raft,
            Bytes::new(),
            PATIENCE,
        )
    };
    called().await.unwrap();
    let open = || server.tls.stats().open;
    assert_eq!((sleeper.idle(), open()), (1, 1));

    server.tls.replace(&promoted.renewed(3, false)).unwrap();
    let broken = called().await;
    let refused = called().await;

    // What was sent on the connection may have come through before it ended.
    assert!(
        matches!(
            broken,
            Err(StreamError::Lost { .. } | StreamError::ForeignCluster { .. })
        ),
        "{broken:?}"
    );
    assert!(
        matches!(refused, Err(StreamError::ForeignCluster { .. })),
        "{refused:?}"
    );
    until(|| open() == 0).await;
}

#[tokio::test]
async fn a_connection_goes_on_while_no_authority_is_dropped() {
    let promoted = Promoted::new();
    let server = Listening::echo(promoted.cluster.tls(3), Limits::default()).await;
    let caller = Tls::new(&promoted.cluster.credentials(2)).unwrap();
    let dialer = Dialer::new(caller.clone(), &Limits::default());
    let called = || {
        dialer.call(
            NodeId(3),
            server.addr,
            Service::Raft,
            Bytes::new(),
            PATIENCE,
        )
    };
    called().await.unwrap();

    server.tls.replace(&promoted.renewed(3, true)).unwrap();
    called().await.unwrap();

    assert_eq!(caller.stats().dialed, 1);
}

async fn call(from: &Tls, to: &Listening) -> Result<Bytes, StreamError> {
    let dialer = Dialer::new(from.clone(), &Limits::default());
    let whom = to.tls.node();
    dialer
        .call(whom, to.addr, Service::Raft, Bytes::new(), PATIENCE)
        .await
}
