//! What needs a leader: networks, addresses, the join door, the token, leaving.

use std::{collections::BTreeMap, net::SocketAddr};

use tempfile::tempdir;

use super::rig::{Node, Rig, SECRET, Spy, name};
use crate::{
    controller::{ControllerError, IpamRequest, NetworkRequest, certificate::CertifyAnswer},
    core::{
        allocator::Action,
        model::{ClusterId, NetworkId, NodeId},
    },
    runtime::{
        join::{JoinRefusal, JoinRequest, VERSION},
        streams::Caller,
        trust::{CertifiedName, NodeKey},
    },
};

#[tokio::test]
async fn a_network_is_made_once_and_used_and_kept_while_in_use() {
    let (rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.found(&a).await;

    let made = a.controller.network_create(request("app")).await.unwrap();

    let again = a.controller.network_create(request("app")).await;
    assert!(matches!(again, Err(ControllerError::NetworkExists(_))));
    let web = super::join(&a, "web").await;
    assert_eq!(web.record.network, made.id);
    assert!(web.record.address.is_some());
    let in_use = a.controller.network_remove("app").await;
    let Err(ControllerError::NetworkInUse { by, .. }) = in_use else {
        panic!("in use: {in_use:?}")
    };
    assert_eq!(by, ["web@n1"]);
    a.controller.endpoint_remove("app", "web").await.unwrap();
    a.controller.network_remove("app").await.unwrap();
    assert_eq!(a.controller.network_list().await.unwrap(), []);
}

#[tokio::test]
async fn an_address_asked_for_is_leased_alone_and_free_again_after_its_endpoint() {
    let (rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.found(&a).await;
    let network = a.controller.network_create(request("app")).await.unwrap();
    let subnet = network.subnets[0].prefix.0;
    let wanted = subnet.hosts().nth(99).unwrap();

    let made = a
        .controller
        .endpoint_create("app", name("web"), Some(wanted));
    let made = made.await.unwrap();

    assert_eq!(made.record.address.unwrap().0.addr(), wanted);
    let blocks = || a.controller.parts.raft.read(|state| state.blocks().count());
    assert_eq!(blocks(), 1);
    a.controller.endpoint_remove("app", "web").await.unwrap();
    a.until(NetworkId::CLUSTER, "blocks", |blocks| blocks == 0)
        .await;
    assert_eq!(blocks(), 0);
    let outside = "192.0.2.1".parse().unwrap();
    let refused = a
        .controller
        .endpoint_create("app", name("web"), Some(outside));
    assert!(matches!(refused.await, Err(ControllerError::Refused(_))));
}

#[tokio::test]
async fn a_driver_that_nobody_has_is_refused_before_anything_is_agreed_and_others_go_on_a1() {
    let (rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.found(&a).await;
    let unknown = NetworkRequest {
        driver: name("nosuch"),
        ..request("app")
    };

    let nobodys = IpamRequest {
        driver: name("nosuch"),
        options: BTreeMap::new(),
    };
    let before = a.controller.parts.raft.read(|state| state.last_dot());

    let refused = a.controller.network_create(unknown).await;
    let of_ipam = a
        .controller
        .network_create_with(request("app"), Some(nobodys));

    assert!(matches!(refused, Err(ControllerError::Registry(_))));
    assert!(matches!(of_ipam.await, Err(ControllerError::Registry(_))));
    let after = a.controller.parts.raft.read(|state| state.last_dot());
    assert_eq!(after, before);
    assert!(a.controller.network_create(request("app")).await.is_ok());
}

#[tokio::test]
async fn the_leader_lets_in_who_has_the_token_and_a_name_of_its_own() {
    let (rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.found(&a).await;
    let admit = |node, called, secret| {
        a.controller
            .admit(newcomer(node, called, secret), stranger())
    };

    let first = newcomer(5, "n5", SECRET);

    let joined = a.controller.admit(first.clone(), stranger());
    let joined = joined.await.unwrap();

    let certified = CertifiedName::of(&joined.cert_der).unwrap();
    assert_eq!(certified.node, NodeId(5));
    assert_eq!(joined.cluster, ClusterId(7));
    assert_eq!(joined.leader, Some(NodeId(1)));
    let wrong = admit(6, "n6", [1; 16]).await;
    assert_eq!(wrong, Err(JoinRefusal::WrongToken));
    let taken = admit(6, "n5", SECRET).await;
    assert_eq!(taken, Err(JoinRefusal::NameTaken { name: name("n5") }));
    let same_id = admit(5, "other", SECRET).await;
    assert_eq!(same_id, Err(JoinRefusal::IdTaken));
    let another_key = admit(5, "n5", SECRET).await;
    assert_eq!(another_key, Err(JoinRefusal::IdTaken));
    // A newcomer that lost our answer asks again.
    assert!(a.controller.admit(first, stranger()).await.is_ok());
}

#[tokio::test]
async fn a_member_is_certified_anew_for_its_own_key_alone_and_who_was_removed_for_none() {
    let (rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.found(&a).await;
    let node = NodeId(5);
    let member = newcomer(5, "n5", SECRET);
    let other_key = NodeKey::generate().unwrap().csr(node).unwrap();
    let admitted = a.controller.admit(member.clone(), stranger());
    admitted.await.unwrap();

    let renewed = a.controller.certify_member(node, &member.csr_der).await;
    let CertifyAnswer::Certified(renewed) = renewed else {
        panic!("not renewed");
    };
    assert_eq!(CertifiedName::of(&renewed.cert_der).unwrap().node, node);
    let other = a.controller.certify_member(node, &other_key).await;
    assert!(matches!(other, CertifyAnswer::Refused(_)));
    let garbage = a.controller.certify_member(node, &[0x30]).await;
    assert!(matches!(garbage, CertifyAnswer::Refused(_)));

    let removed = a.controller.propose(Action::RemoveMember { node });
    removed.await.unwrap();
    let removed = a.controller.certify_member(node, &member.csr_der).await;
    assert!(matches!(removed, CertifyAnswer::Refused(_)));
}

#[tokio::test]
async fn who_asks_for_another_authority_hears_why_the_leader_cannot_make_one() {
    let (mut rig, disks) = (Rig::new(), (tempdir().unwrap(), tempdir().unwrap()));
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    let b = rig.start(2, &disks.1, Spy::new().0).await;
    rig.damage_authority();
    rig.found(&a).await;
    b.meet(&a).await;
    b.until_led().await;

    for asked in [&a, &b] {
        let refused = asked.controller.rotate_authority(false).await;
        let Err(ControllerError::NoAuthority { leader, reason }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(leader.to_string(), "n1 (0000000000000001)");
        assert!(
            reason.contains("restore the leader's data directory"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn a_rotated_token_replaces_the_one_before() {
    let (rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.found(&a).await;
    assert_eq!(a.controller.token(false).await.unwrap().secret, SECRET);

    let rotated = a.controller.token(true).await.unwrap();

    let current = a.controller.token(false).await.unwrap();
    assert_eq!(current, rotated);
    let old = a.controller.admit(newcomer(5, "n5", SECRET), stranger());
    assert_eq!(old.await, Err(JoinRefusal::WrongToken));
}

#[tokio::test]
async fn a_node_that_does_not_lead_hands_newcomers_and_questions_on_once() {
    let (rig, disks) = (Rig::new(), (tempdir().unwrap(), tempdir().unwrap()));
    let (a, b) = two(&rig, &disks).await;

    let joined = b.controller.admit(newcomer(5, "n5", SECRET), stranger());
    assert_eq!(joined.await.unwrap().leader, Some(NodeId(1)));
    assert_eq!(b.controller.token(false).await.unwrap().secret, SECRET);
    let from_a_member = Caller {
        node: Some(NodeId(3)),
        ..stranger()
    };
    let twice = b.controller.admit(newcomer(6, "n6", SECRET), from_a_member);
    assert_eq!(twice.await, Err(JoinRefusal::NoLeader));
    let network = b.controller.network_create(request("app")).await.unwrap();
    assert_eq!(a.controller.network_list().await.unwrap(), [network]);
}

#[tokio::test]
async fn a_node_that_leaves_takes_its_endpoints_and_hands_over_its_vote() {
    let (rig, disks) = (Rig::new(), (tempdir().unwrap(), tempdir().unwrap()));
    let (a, b) = two(&rig, &disks).await;
    let network = a.controller.network_create(request("app")).await.unwrap();
    super::join(&a, "web").await;
    b.until(network.id, "endpoints", |entries| entries == 1)
        .await;

    a.controller.leave().await.unwrap();

    a.controller.left().await;
    b.until(network.id, "endpoints", |entries| entries == 0)
        .await;
    assert!(a.controller.parts.store.identity().unwrap().is_none());
    assert_eq!(b.controller.parts.raft.status().voters, [NodeId(2)]);
    let still = b.controller.network_create(request("more")).await;
    assert!(still.is_ok());
}

#[tokio::test]
async fn endpoints_of_a_network_that_was_removed_meanwhile_go_and_others_stay() {
    let (mut rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    let network = rig.network("app", &[&a]).await;
    super::join(&a, "web").await;
    a.stop().await;
    let a = rig.start(1, &disk, Spy::new().0).await;
    // Nobody leads: that the network is not there may mean anything.
    a.controller.sweep_now().await.unwrap();
    let own = a.controller.own_endpoints(network.id).await.unwrap();
    assert_eq!(own.len(), 1);

    rig.found(&a).await;
    a.controller.sweep_now().await.unwrap();

    assert_eq!(a.controller.own_endpoints(network.id).await.unwrap(), []);
}

/// A leader and a second node that was let in.
async fn two(rig: &Rig, disks: &(tempfile::TempDir, tempfile::TempDir)) -> (Node, Node) {
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    rig.found(&a).await;
    let admitted = a.controller.admit(newcomer(2, "n2", SECRET), stranger());
    admitted.await.unwrap();
    let b = rig.start(2, &disks.1, Spy::new().0).await;
    b.meet(&a).await;
    b.until_led().await;
    (a, b)
}

fn request(text: &str) -> NetworkRequest {
    NetworkRequest {
        name: name(text),
        driver: name("spy"),
        options: BTreeMap::new(),
        ipv6: false,
        subnets: Vec::new(),
    }
}

fn newcomer(node: u64, called: &str, secret: [u8; 16]) -> JoinRequest {
    JoinRequest {
        version: VERSION,
        node: NodeId(node),
        name: name(called),
        csr_der: NodeKey::generate().unwrap().csr(NodeId(node)).unwrap(),
        secret,
        listen: "127.0.0.1:1".parse().unwrap(),
    }
}

fn stranger() -> Caller {
    Caller {
        node: None,
        addr: SocketAddr::from(([127, 0, 0, 1], 9)),
    }
}

#[tokio::test]
async fn a_started_node_asks_for_its_leases_before_it_hands_out_of_them() {
    let (rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    rig.found(&a).await;
    a.controller.network_create(request("app")).await.unwrap();
    let web = super::join(&a, "web").await;
    let gone = super::join(&a, "gone").await;
    a.controller.endpoint_remove("app", "gone").await.unwrap();
    a.stop().await;
    let a = rig.start(1, &disk, Spy::new().0).await;
    a.until_led().await;

    let db = super::join(&a, "db").await;

    let had = [web.record.address, gone.record.address];
    assert!(!had.contains(&db.record.address), "{db:?}");
    let blocks = a.controller.parts.raft.read(|state| state.blocks().count());
    assert_eq!(blocks, 2, "the first one rests");
}
