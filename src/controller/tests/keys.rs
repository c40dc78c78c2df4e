//! The ring of keys and the authorities, on the word of members that lie.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tempfile::tempdir;

use super::rig::{Node, Rig, Spy};
use crate::{
    controller::{
        authority::Authorities,
        entropy,
        keys::{Request, VoterAnswer},
    },
    core::{
        allocator::Action,
        model::{ClusterId, NodeId},
        wire::{
            codec,
            keyring::{AgreedRing, ClusterKey, KeyId, Keyring},
            succession::AgreedAuthorities,
        },
    },
    runtime::{
        streams::{Caller, Handler, Refusal, Service},
        trust::{Ca, Credentials, Vouched},
    },
};

const CLUSTER: ClusterId = ClusterId(7);
const LIAR: NodeId = NodeId(3);

/// A member with a sound certificate that says it is a voter, and what it likes.
struct Liar {
    ring: Vouched<AgreedRing>,
    authorities: Vouched<Authorities>,
}

impl Handler for Liar {
    fn call(
        &self,
        _caller: Caller,
        _service: Service,
        request: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        let answer = match codec::decode::<Request>(&request).unwrap() {
            Request::Ring => codec::encode(&VoterAnswer::Has(self.ring.clone())),
            Request::Authorities => codec::encode(&VoterAnswer::Has(self.authorities.clone())),
            Request::Fetch(_)
            | Request::Certify(_)
            | Request::Trust(_)
            | Request::Succeed { .. } => panic!("nobody asks for that"),
        };
        Box::pin(async { Ok(answer.into()) })
    }
}

#[tokio::test]
async fn a_member_that_is_no_voter_can_hand_out_neither_a_ring_nor_authorities() {
    let (rig, disks) = (Rig::new(), (tempdir().unwrap(), tempdir().unwrap()));
    let voter = rig.start(1, &disks.0, Spy::new().0).await;
    let member = rig.start(2, &disks.1, Spy::new().0).await;
    rig.found(&voter).await;
    settle(&rig, &member, 2).await;
    let before = member.controller.own_ring().await.unwrap();
    let own = Ca::create(CLUSTER).unwrap();
    let forged = AgreedRing {
        version: 99,
        keys: Keyring::new(KeyId(9), ClusterKey::random(&mut entropy())),
    };
    // The authorities are those of the cluster, at a version that leaves no room for another change.
    let settled = Authorities::new(AgreedAuthorities {
        version: u64::MAX,
        signs: rig.ca().cert_der.clone(),
        other: None,
        waits_for_nobody: false,
    });
    let liar = Arc::new(Liar {
        ring: Vouched::sign(&own, CLUSTER, forged).unwrap(),
        authorities: Vouched::sign(&own, CLUSTER, settled).unwrap(),
    });
    let address = rig.answer_as(LIAR, liar).await;

    let given = member.controller.fetch_from((LIAR, address)).await;
    let trusted = member.controller.fetch_authorities_from((LIAR, address));
    trusted.await.unwrap();

    assert!(!given.unwrap());
    assert_eq!(member.controller.own_ring().await.unwrap(), before);
    let credentials: Credentials = member.controller.own_credentials().await.unwrap();
    assert_eq!(credentials.trusts_version(), 0);
}

#[tokio::test]
async fn a_ring_is_taken_from_a_voter_and_an_old_one_of_its_own_is_not_taken_again() {
    let (rig, disks) = (Rig::new(), (tempdir().unwrap(), tempdir().unwrap()));
    let voter = rig.start(1, &disks.0, Spy::new().0).await;
    let member = rig.start(2, &disks.1, Spy::new().0).await;
    rig.found(&voter).await;
    settle(&rig, &member, 2).await;
    let own = &voter.controller.parts;
    let old = own.raft.read(|state| state.ring()).unwrap();
    let key = ClusterKey::random(&mut entropy());
    let added = voter.controller.propose(Action::AddKey { key });
    added.await.unwrap();
    let address = own.handle.address(NodeId(1)).await.unwrap().unwrap();

    let given = member.controller.fetch_from((NodeId(1), address)).await;
    let newest = member.controller.own_ring().await.unwrap();
    // Whoever was given the former ring in its time may show it again.
    let settled = Authorities::new(own.raft.read(|state| state.authorities()).unwrap());
    let again = Arc::new(Liar {
        ring: Vouched::sign(rig.ca(), CLUSTER, old).unwrap(),
        authorities: Vouched::sign(rig.ca(), CLUSTER, settled).unwrap(),
    });
    let address = rig.answer_as(LIAR, again).await;
    member.controller.fetch_from((LIAR, address)).await.unwrap();

    assert!(given.unwrap());
    let agreed = own.raft.read(|state| state.ring());
    assert_eq!((newest.version, Some(&newest)), (1, agreed.as_ref()));
    assert_eq!(member.controller.own_ring().await.unwrap(), newest);
}

/// Writes down what makes a node a member.
async fn settle(rig: &Rig, node: &Node, number: u64) {
    let identity = rig.identity(NodeId(number));
    let written = node
        .controller
        .disk(move |store| store.set_identity(&identity));
    written.await.unwrap();
}
