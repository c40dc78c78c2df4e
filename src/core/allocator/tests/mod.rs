//! The allocator as its callers see it. The letters and numbers name cases of libnetwork's allocator and overlay driver, which
//! are where they can be shown:
//!
//! - here, in `wishes` and in `vni`: A2–A6, A14, O1–O5 (A2 is a name that is taken; an id is never empty nor given twice, the log
//!   counts them; a network of IPv6 alone has VNIs too, where libnetwork wants IPv4);
//! - in `blocks`: A7, A9, A10, A15, for the node that asks and for any voter that goes on from a snapshot; A15 in the simulation of
//!   addresses too;
//! - A1: drivers, of IPAM too, are looked for before anything is proposed, by the controller, which keeps a network whose
//!   driver a node lacks as pending there; O6: the overlay driver reads the port;
//! - A8, A12 and A13 are of services, virtual addresses and published ports, and A11 of load balancers' addresses on nodes:
//!   there are none here.

mod authority;
mod blocks;
mod golden;
mod keys;
mod recover;
mod whatever;
mod wishes;

use std::{collections::BTreeMap, net::IpAddr};

use super::*;
use crate::core::{
    model::{Family, Hlc, Key, Prefix, Subnet, Vni},
    wire::{
        codec,
        keyring::{ClusterKey, KeyId, Keyring},
    },
};

const FOUNDER: NodeId = NodeId(1);

/// An allocator with a count of requests, so that each is new.
#[derive(Default)]
struct Rig {
    allocator: Allocator,
    requests: u128,
}

impl Rig {
    fn founded() -> Self {
        let mut rig = Self::default();
        rig.apply(genesis()).unwrap();
        rig
    }

    fn apply(&mut self, action: Action) -> Result<Outcome, AllocatorError> {
        self.requests += 1;
        self.allocator.apply(&Command {
            at: Hlc(1_000 + self.requests as u64),
            request: self.requests,
            action,
        })
    }

    fn network(&mut self, action: Action) -> NetworkRecord {
        match self.apply(action) {
            Ok(Outcome::Network(record)) => record,
            other => panic!("no network: {other:?}"),
        }
    }

    /// Goes on as another voter would, which has the state from a snapshot.
    fn succeed(&mut self) {
        self.allocator.take_dots();
        let successor = Allocator::restore(&self.allocator.snapshot()).unwrap();
        assert_eq!(successor, self.allocator);
        self.allocator = successor;
    }

    fn lease(&mut self, network: NetworkId, node: NodeId) -> Prefix {
        match self.apply(lease(network, node)) {
            Ok(Outcome::Leased(record, _)) => record.prefix,
            other => panic!("no block: {other:?}"),
        }
    }
}

fn genesis() -> Action {
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(7);
    Action::Genesis {
        cluster: ClusterId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        ca_cert_der: vec![1, 2, 3],
        ca_key_der: Secret(vec![4, 5, 6]),
        keyring: Keyring::new(KeyId(1), ClusterKey::random(&mut rng)),
        token_secret: TokenSecret([7; 16]),
        founder: FOUNDER,
        name: name("n1"),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn prefix(text: &str) -> Prefix {
    Prefix(text.parse().unwrap())
}

fn subnet(text: &str) -> SubnetRequest {
    SubnetRequest {
        prefix: Some(prefix(text)),
        gateway: None,
    }
}

fn create(text: &str, subnets: &[SubnetRequest]) -> Action {
    create_with(text, subnets, "")
}

fn create_with(text: &str, subnets: &[SubnetRequest], vnis: &str) -> Action {
    let mut options = BTreeMap::new();
    if !vnis.is_empty() {
        options.insert(VXLANID_LIST.to_owned(), vnis.to_owned());
    }
    Action::AllocateNetwork(NetworkWish {
        options,
        ..wish(text, subnets)
    })
}

fn wish(text: &str, subnets: &[SubnetRequest]) -> NetworkWish {
    NetworkWish {
        name: name(text),
        driver: name("overlay"),
        options: BTreeMap::new(),
        subnets: subnets.iter().copied().map(SubnetWish::from).collect(),
        vxlan: true,
        v6: false,
        avoid: Vec::new(),
    }
}

fn lease(network: NetworkId, node: NodeId) -> Action {
    Action::GrowFamily {
        network,
        node,
        family: Family::V4,
    }
}

fn admit(node: NodeId, text: &str) -> Action {
    Action::AdmitNode {
        node,
        name: name(text),
        key: [7; 32],
    }
}

fn vnis(record: &NetworkRecord) -> Vec<u32> {
    let vnis = record.subnets.iter().filter_map(|subnet| subnet.vni);
    vnis.map(Vni::get).collect()
}

fn prefixes(record: &NetworkRecord) -> Vec<String> {
    record
        .subnets
        .iter()
        .map(|subnet| subnet.prefix.to_string())
        .collect()
}

#[test]
fn nothing_is_done_before_the_founding_and_it_is_founded_once() {
    let mut rig = Rig::default();

    assert_eq!(
        rig.apply(create("app", &[])),
        Err(AllocatorError::NotFounded)
    );
    assert_eq!(rig.apply(genesis()), Ok(Outcome::Done));
    assert_eq!(rig.apply(genesis()), Err(AllocatorError::AlreadyFounded));
    assert_eq!(rig.allocator.members()[&FOUNDER].name, name("n1"));
    assert_eq!(rig.allocator.token_secret(), Some(&TokenSecret([7; 16])));
}

#[test]
fn a_network_without_wishes_gets_a_24_of_ten_and_its_first_address_as_gateway_a3() {
    let mut rig = Rig::founded();

    let first = rig.network(create("a", &[]));
    let second = rig.network(create("b", &[]));

    let wanted = |net: &str, gateway: &str, vni| Subnet {
        prefix: prefix(net),
        gateway: gateway.parse().unwrap(),
        vni: Vni::new(vni),
    };
    assert_eq!(first.subnets, [wanted("10.0.0.0/24", "10.0.0.1", 4096)]);
    assert_eq!(second.subnets, [wanted("10.0.1.0/24", "10.0.1.1", 4097)]);
    assert_eq!((first.id, second.id), (NetworkId(1), NetworkId(2)));
}

#[test]
fn a_driver_without_vxlan_gets_the_subnets_it_asks_for_and_no_vni() {
    let mut rig = Rig::founded();
    let plain = |text: &str, subnets: &[SubnetRequest]| {
        Action::AllocateNetwork(NetworkWish {
            driver: name("null"),
            vxlan: false,
            ..wish(text, subnets)
        })
    };

    let none = rig.network(plain("a", &[]));
    let one = rig.network(plain("b", &[SubnetRequest::default()]));

    assert!(none.subnets.is_empty());
    assert_eq!(prefixes(&one), ["10.0.0.0/24"]);
    assert!(vnis(&one).is_empty());
}

#[test]
fn a_gateway_is_kept_inside_its_subnet_and_refused_outside_a4() {
    let mut rig = Rig::founded();
    let with = |net: &str, gateway: &str| SubnetRequest {
        prefix: Some(prefix(net)),
        gateway: Some(gateway.parse().unwrap()),
    };

    let kept = rig.network(create("a", &[with("172.20.0.0/16", "172.20.9.9")]));

    assert_eq!(kept.subnets[0].gateway.to_string(), "172.20.9.9");
    for gateway in ["10.9.0.1", "172.21.0.0", "172.21.255.255", "fd00::1"] {
        let refused = rig.apply(create("b", &[with("172.21.0.0/16", gateway)]));
        assert!(
            matches!(refused, Err(AllocatorError::BadGateway { .. })),
            "{gateway}"
        );
    }
    assert!(rig.apply(create("b", &[subnet("172.21.0.0/16")])).is_ok());
}

#[test]
fn several_subnets_keep_their_order_and_each_has_a_gateway_and_a_vni_a5_o1() {
    let mut rig = Rig::founded();

    let record = rig.network(create(
        "a",
        &[subnet("192.168.2.0/24"), subnet("192.168.1.0/24")],
    ));

    let gateways: Vec<String> = record
        .subnets
        .iter()
        .map(|s| s.gateway.to_string())
        .collect();
    assert_eq!(prefixes(&record), ["192.168.2.0/24", "192.168.1.0/24"]);
    assert_eq!(gateways, ["192.168.2.1", "192.168.1.1"]);
    assert_eq!(vnis(&record), [4096, 4097]);
}

#[test]
fn what_a_removed_network_had_can_be_had_again_a6_o1() {
    let mut rig = Rig::founded();
    let first = rig.network(create_with("a", &[subnet("172.20.0.0/16")], "7"));

    assert_eq!(
        rig.apply(Action::RemoveNetwork { id: first.id }),
        Ok(Outcome::Done)
    );
    let again = rig.network(create_with("a", &[subnet("172.20.0.0/16")], "7"));

    assert_eq!(again.subnets, first.subnets);
    assert_ne!(again.id, first.id);
    assert_eq!(
        rig.apply(Action::RemoveNetwork { id: first.id }),
        Err(AllocatorError::NoSuchNetwork(first.id))
    );
}

#[test]
fn vnis_chosen_by_hand_are_used_in_order_and_a_taken_one_leaves_nothing_behind_o2() {
    let mut rig = Rig::founded();
    let two = [subnet("192.168.1.0/24"), subnet("192.168.2.0/24")];
    let record = rig.network(create_with("a", &two, "4096,4097,4098"));
    let before = rig.allocator.clone();

    let refused = rig.apply(create_with("b", &[subnet("192.168.3.0/24")], "4096"));

    assert_eq!(vnis(&record), [4096, 4097]);
    assert_eq!(
        refused,
        Err(AllocatorError::VniInUse(Vni::new(4096).unwrap()))
    );
    assert_eq!(rig.allocator.networks(), before.networks());
    assert_eq!(rig.allocator.space, before.space);
    assert_eq!(rig.allocator.vnis, before.vnis);
    assert_eq!(
        rig.network(create_with("b", &[subnet("192.168.3.0/24")], "4098"))
            .id,
        NetworkId(2)
    );
}

#[test]
fn a_list_that_is_no_list_is_refused_and_missing_entries_are_chosen_o3() {
    let mut rig = Rig::founded();
    let two = [subnet("192.168.1.0/24"), subnet("192.168.2.0/24")];

    let refused = rig.apply(create_with("a", &two, "1,abc"));
    let record = rig.network(create_with("a", &two, "9"));

    let entry = "abc".to_owned();
    assert_eq!(refused, Err(AllocatorError::BadVni { entry }));
    assert_eq!(vnis(&record), [9, 4096]);
}

#[test]
fn a_name_is_unique_and_a_network_that_is_not_there_is_not_removed_a2_o4() {
    let mut rig = Rig::founded();
    let id = rig.network(create("a", &[])).id;

    let again = rig.apply(create("a", &[]));
    let unknown = rig.apply(Action::RemoveNetwork { id: NetworkId(99) });

    assert_eq!(
        again,
        Err(AllocatorError::NetworkExists {
            name: name("a"),
            id
        })
    );
    assert_eq!(unknown, Err(AllocatorError::NoSuchNetwork(NetworkId(99))));
}

#[test]
fn a_state_made_again_from_its_snapshot_goes_on_as_the_first_would_o5() {
    let mut rig = busy();
    let mut again = Rig {
        allocator: Allocator::restore(&rig.allocator.snapshot()).unwrap(),
        requests: rig.requests,
    };
    rig.allocator.take_dots();

    assert_eq!(again.allocator, rig.allocator);
    assert_eq!(
        again.network(create("next", &[])),
        rig.network(create("next", &[]))
    );
    assert_eq!(again.allocator.take_dots(), rig.allocator.take_dots());
    assert_eq!(again.allocator.snapshot(), rig.allocator.snapshot());
}

#[test]
fn networks_made_again_in_any_order_from_what_they_were_given_are_the_same_a3_o5() {
    let mut first = Rig::founded();
    let made = [
        first.network(create("a", &[])),
        first.network(create("b", &[SubnetRequest::default(); 2])),
    ];
    let mut again = Rig::founded();

    for record in made.iter().rev() {
        let subnets: Vec<SubnetRequest> = record
            .subnets
            .iter()
            .map(|given| SubnetRequest {
                prefix: Some(given.prefix),
                gateway: Some(given.gateway),
            })
            .collect();
        let list: Vec<String> = vnis(record).iter().map(u32::to_string).collect();
        let same = again.network(create_with(record.name.as_str(), &subnets, &list.join(",")));

        assert_eq!(same.subnets, record.subnets);
    }

    // And what comes next is clear of both, wherever it comes.
    let next = [
        first.network(create("c", &[])),
        again.network(create("c", &[])),
    ];
    assert_eq!(next[0].subnets[0].prefix, next[1].subnets[0].prefix);
    assert!(next.iter().all(|record| vnis(record)[0] > 4_098));
}

#[test]
fn subnets_may_not_overlap_whoever_asks() {
    let mut rig = Rig::founded();
    rig.network(create("a", &[subnet("10.0.0.0/23")]));

    let within = rig.apply(create(
        "b",
        &[subnet("192.168.0.0/24"), subnet("192.168.0.128/25")],
    ));
    let across = rig.apply(create("b", &[subnet("10.0.1.0/24")]));
    let unnamed = rig.network(create(
        "b",
        &[SubnetRequest::default(), subnet("10.0.2.0/24")],
    ));

    assert!(matches!(within, Err(AllocatorError::Overlap { .. })));
    assert!(matches!(across, Err(AllocatorError::Overlap { .. })));
    assert_eq!(prefixes(&unnamed), ["10.0.3.0/24", "10.0.2.0/24"]);
}

#[test]
fn a_size_may_be_asked_for_in_both_families() {
    let mut rig = Rig::founded();

    let record = rig.network(create(
        "a",
        &[subnet("0.0.0.0/16"), subnet("0.0.0.0/16"), subnet("::/64")],
    ));

    assert_eq!(
        prefixes(&record),
        ["10.0.0.0/16", "10.1.0.0/16", "fd01:2345:6789::/64"]
    );
    for impossible in ["0.0.0.0/0", "::/0", "0.0.0.0/32", "192.168.1.1/32"] {
        assert!(
            rig.apply(create("b", &[subnet(impossible)])).is_err(),
            "{impossible}"
        );
    }
}

#[test]
fn a_network_that_is_too_large_to_describe_is_refused() {
    let mut rig = Rig::founded();
    let options = BTreeMap::from([("k".to_owned(), "x".repeat(70_000))]);
    let large = Action::AllocateNetwork(NetworkWish {
        options,
        ..wish("a", &[])
    });

    assert!(matches!(
        rig.apply(large),
        Err(AllocatorError::TooLarge { .. })
    ));
    let many = vec![SubnetRequest::default(); SUBNETS_MAX + 1];
    assert!(matches!(
        rig.apply(create("a", &many)),
        Err(AllocatorError::TooManySubnets { .. })
    ));
    assert_eq!(vnis(&rig.network(create("a", &[]))), [4096]);
}

#[test]
fn a_request_that_comes_twice_is_done_once_and_answered_alike() {
    let mut rig = Rig::founded();
    let command = |request, action| Command {
        at: Hlc(5),
        request,
        action,
    };
    let first = rig.allocator.apply(&command(500, create("a", &[])));
    let refused = rig.allocator.apply(&command(501, create("a", &[])));
    rig.allocator.take_dots();

    assert_eq!(rig.allocator.apply(&command(500, create("a", &[]))), first);
    assert_eq!(
        rig.allocator.apply(&command(501, create("a", &[]))),
        refused
    );
    assert_eq!(rig.allocator.networks().len(), 1);
    assert!(rig.allocator.take_dots().is_empty());
}

#[test]
fn only_the_last_replies_are_kept() {
    let mut rig = Rig::founded();

    for _ in 0..=REPLIES_MAX {
        rig.apply(Action::RotateToken {
            secret: TokenSecret([1; 16]),
        })
        .unwrap();
    }

    assert_eq!(rig.allocator.replies.iter().count(), REPLIES_MAX);
}

#[test]
fn a_name_and_an_id_are_taken_once_and_admitting_again_is_no_error() {
    let mut rig = Rig::founded();
    assert_eq!(rig.apply(admit(NodeId(2), "n2")), Ok(Outcome::Done));
    assert_eq!(rig.apply(admit(NodeId(2), "n2")), Ok(Outcome::Done));
    assert_eq!(
        rig.apply(admit(NodeId(3), "n2")),
        Err(AllocatorError::NameTaken {
            name: name("n2"),
            node: NodeId(2)
        })
    );
    assert_eq!(
        rig.apply(admit(NodeId(2), "other")),
        Err(AllocatorError::IdTaken {
            node: NodeId(2),
            name: name("n2")
        })
    );
}

#[test]
fn the_cluster_log_tells_every_network_and_block_and_its_end() {
    let mut rig = Rig::founded();
    let record = rig.network(create("a", &[]));
    let block = rig.lease(record.id, FOUNDER);
    rig.apply(Action::RemoveNetwork { id: record.id }).unwrap();

    let dots = rig.allocator.take_dots();

    let seen: Vec<(u64, &str, bool)> = dots
        .iter()
        .map(|dot| (dot.seq, dot.table.as_str(), dot.value.is_some()))
        .collect();
    let wanted = [
        (1, "members", true),
        (2, "networks", true),
        (3, "blocks", true),
        (4, "blocks", false),
        (5, "networks", false),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(dots[1].key, Key::new(vec![0, 0, 0, 1]).unwrap());
    let value = dots[2].value.clone().unwrap();
    let told: BlockRecord = codec::decode(value.as_bytes()).unwrap();
    assert_eq!(told.prefix, block);
    let (kept, floor) = rig.allocator.cluster_log();
    assert_eq!((kept.len(), floor, rig.allocator.last_dot()), (3, 0, 5));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let bytes = busy().allocator.snapshot();
    let mut other_version = bytes.clone();
    other_version[0] = 9;

    assert!(matches!(
        Allocator::restore(&[]),
        Err(SnapshotError::Codec(_))
    ));
    assert!(matches!(
        Allocator::restore(&other_version),
        Err(SnapshotError::Version(9))
    ));
    for end in 1..bytes.len() {
        assert!(Allocator::restore(&bytes[..end]).is_err(), "{end}");
    }
    let twice = [bytes.as_slice(), &bytes[1..]].concat();
    assert!(matches!(
        Allocator::restore(&twice),
        Err(SnapshotError::Cut)
    ));
}

/// A state with one of everything.
fn busy() -> Rig {
    let mut rig = Rig::founded();
    rig.apply(admit(NodeId(2), "n2")).unwrap();
    rig.apply(admit(NodeId(3), "n3")).unwrap();
    let first = rig.network(create("a", &[])).id;
    let second = rig
        .network(create_with("b", &[subnet("172.20.0.0/16")], "77"))
        .id;
    rig.network(create("c", &[subnet("fd00:1::/64")]));
    rig.lease(first, FOUNDER);
    rig.lease(second, NodeId(2));
    rig.apply(Action::RemoveNetwork { id: first }).unwrap();
    rig.apply(Action::RemoveMember { node: NodeId(3) }).unwrap();
    let _refused = rig.apply(create("b", &[]));
    rig.allocator.take_dots();
    rig
}

fn overlaps(a: Prefix, b: Prefix) -> bool {
    a.0.contains(&b.0.network()) || b.0.contains(&a.0.network())
}
