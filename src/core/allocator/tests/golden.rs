//! What earlier versions wrote is read by this one: files of their bytes, kept as they were.

use super::*;
use crate::core::ipam::{Pool, PoolRefusal};

#[test]
fn a_snapshot_of_the_second_version_and_its_commands_come_to_the_same_state() {
    let bytes = include_bytes!("golden/snapshot.v2.bin");
    let commands = include_bytes!("golden/commands.v2.bin");
    let (wanted, allocator) = second_version();

    let read: Vec<Command> = codec::decode(commands).unwrap();

    assert_eq!(read, wanted);
    assert_eq!(codec::encode(&read), commands);
    assert_eq!(Allocator::restore(bytes).unwrap(), allocator);
}

#[test]
fn a_snapshot_of_the_third_version_and_its_commands_come_to_the_same_state() {
    let bytes = include_bytes!("golden/snapshot.v3.bin");
    let commands = include_bytes!("golden/commands.v3.bin");
    let (wanted, allocator) = third_version();

    let read: Vec<Command> = codec::decode(commands).unwrap();

    assert_eq!(read, wanted);
    assert_eq!(codec::encode(&read), commands);
    assert_eq!(Allocator::restore(bytes).unwrap(), allocator);
    assert_eq!(allocator.snapshot(), bytes);
}

#[test]
fn replies_of_the_third_version_are_read_and_written_as_they_were() {
    let bytes = include_bytes!("golden/replies.v3.bin");

    let replies: Vec<Result<Outcome, AllocatorError>> = codec::decode(bytes).unwrap();

    assert_eq!(replies, replies_v3());
    assert_eq!(codec::encode(&replies), bytes);
}

#[test]
fn replies_of_the_second_version_are_read_and_written_as_they_were() {
    let bytes = include_bytes!("golden/replies.v2.bin");

    let replies: Vec<Result<Outcome, AllocatorError>> = codec::decode(bytes).unwrap();

    assert_eq!(replies, replies_v2());
    assert_eq!(codec::encode(&replies), bytes);
}

#[test]
fn commands_of_the_first_version_are_read_written_and_applied_as_they_were() {
    let bytes = include_bytes!("golden/commands.v1.bin");

    let commands: Vec<Command> = codec::decode(bytes).unwrap();

    assert_eq!(commands, commands_v1());
    assert_eq!(codec::encode(&commands), bytes);
    let mut allocator = Allocator::default();
    for command in &commands {
        let applied = allocator.apply(command);
        assert!(applied.is_ok(), "{command:?}: {applied:?}");
    }
    let (network, node) = (allocator.networks()[&NetworkId(1)].clone(), NodeId(2));
    assert_eq!(prefixes(&network), ["172.20.0.0/16", "10.0.0.0/24"]);
    assert_eq!(vnis(&network), [7, 4096]);
    assert!(allocator.is_removed(node));
    assert_eq!((allocator.blocks().count(), allocator.last_dot()), (0, 11));
}

#[test]
fn replies_of_the_first_version_are_read_and_written_as_they_were() {
    let bytes = include_bytes!("golden/replies.v1.bin");

    let replies: Vec<Result<Outcome, AllocatorError>> = codec::decode(bytes).unwrap();

    assert_eq!(replies, replies_v1());
    assert_eq!(codec::encode(&replies), bytes);
}

#[test]
fn a_snapshot_of_the_first_version_is_read_and_the_state_goes_on() {
    let bytes = include_bytes!("golden/snapshot.v1.bin");

    let mut again = Rig {
        allocator: Allocator::restore(bytes).unwrap(),
        requests: 100,
    };

    let now = busy().allocator;
    assert_eq!(again.allocator.networks, now.networks);
    assert_eq!(again.allocator.members, now.members);
    assert_eq!(again.allocator.removed, now.removed);
    assert_eq!(again.allocator.founding, now.founding);
    assert_eq!(again.allocator.vnis, now.vnis);
    assert_eq!(again.allocator.replies, now.replies);
    // Since then the log also tells who was removed, after all else.
    let (mut dots, floor) = now.cluster_log();
    dots.retain(|dot| dot.table.as_str() != REMOVED_TABLE);
    assert_eq!(again.allocator.cluster_log(), (dots, floor));
    assert_eq!(
        again.allocator.blocks().collect::<Vec<_>>(),
        now.blocks().collect::<Vec<_>>()
    );
    let second = NetworkId(2);
    assert_eq!(
        lease(&mut again, second, NodeId(2)),
        prefix("172.20.0.16/28")
    );
    assert_eq!(again.network(create("next", &[])).id, NetworkId(4));
    let restored = Allocator::restore(&again.allocator.snapshot()).unwrap();
    again.allocator.take_dots();
    assert_eq!(restored, again.allocator);
}

/// A state with one of everything that the first version knew.
fn busy() -> Rig {
    let mut rig = Rig::founded();
    rig.apply(Action::AdmitMember {
        node: NodeId(2),
        name: name("n2"),
    })
    .unwrap();
    rig.apply(Action::AdmitMember {
        node: NodeId(3),
        name: name("n3"),
    })
    .unwrap();
    let first = rig.network(create("a", &[])).id;
    let second = rig
        .network(create_with("b", &[subnet("172.20.0.0/16")], "77"))
        .id;
    rig.network(create("c", &[subnet("fd00:1::/64")]));
    lease(&mut rig, first, FOUNDER);
    lease(&mut rig, second, NodeId(2));
    rig.apply(Action::RemoveNetwork { id: first }).unwrap();
    rig.apply(Action::RemoveMember { node: NodeId(3) }).unwrap();
    let _refused = rig.apply(create("b", &[]));
    rig.allocator.take_dots();
    rig
}

fn create(text: &str, subnets: &[SubnetRequest]) -> Action {
    create_with(text, subnets, "")
}

fn create_with(text: &str, subnets: &[SubnetRequest], vnis: &str) -> Action {
    let list = (VXLANID_LIST.to_owned(), vnis.to_owned());
    let options = BTreeMap::from([list]).into_iter();
    Action::CreateNetwork {
        name: name(text),
        driver: name("overlay"),
        options: options.filter(|(_, vnis)| !vnis.is_empty()).collect(),
        subnets: subnets.to_vec(),
        vxlan: true,
    }
}

fn lease(rig: &mut Rig, network: NetworkId, node: NodeId) -> Prefix {
    match rig.apply(Action::LeaseBlock { network, node }) {
        Ok(Outcome::Block(record)) => record.prefix,
        other => panic!("no block: {other:?}"),
    }
}

/// Every action of the first version, in an order in which most can be done.
fn commands_v1() -> Vec<Command> {
    let (network, node) = (NetworkId(1), NodeId(2));
    let actions = [
        genesis(),
        Action::AdmitMember {
            node,
            name: name("n2"),
        },
        create_with(
            "a",
            &[subnet("172.20.0.0/16"), SubnetRequest::default()],
            "7",
        ),
        Action::LeaseBlock { network, node },
        Action::ClaimAddress {
            network,
            node,
            address: "172.20.9.9".parse().unwrap(),
        },
        Action::ReturnBlock {
            network,
            node,
            prefix: prefix("172.20.9.9/32"),
        },
        Action::RotateToken {
            secret: TokenSecret([9; 16]),
        },
        create("b", &[]),
        Action::RemoveNetwork { id: NetworkId(2) },
        Action::RemoveMember { node },
    ];
    let command = |(n, action): (u64, Action)| Command {
        at: Hlc(n << 16),
        request: n.into(),
        action,
    };
    (1..).zip(actions).map(command).collect()
}

/// One of every reply of the first version.
fn replies_v1() -> Vec<Result<Outcome, AllocatorError>> {
    let (network, node, requested) = (NetworkId(1), NodeId(2), prefix("10.0.0.0/24"));
    let subnet = Subnet {
        prefix: requested,
        gateway: "10.0.0.1".parse().unwrap(),
        vni: Vni::new(4096),
    };
    let record = NetworkRecord {
        id: network,
        name: name("a"),
        driver: name("overlay"),
        options: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        subnets: vec![subnet],
    };
    let mut replies = vec![
        Ok(Outcome::Done),
        Ok(Outcome::Network(record)),
        Ok(Outcome::Block(BlockRecord {
            network,
            prefix: requested,
            node,
        })),
    ];
    replies.extend(refusals_v1().into_iter().map(Err));
    replies
}

fn refusals_v1() -> Vec<AllocatorError> {
    let (network, node, requested) = (NetworkId(1), NodeId(2), prefix("10.0.0.0/24"));
    let address: IpAddr = "10.0.0.7".parse().unwrap();
    vec![
        AllocatorError::NotFounded,
        AllocatorError::AlreadyFounded,
        AllocatorError::NetworkExists {
            name: name("a"),
            id: network,
        },
        AllocatorError::NoSuchNetwork(network),
        AllocatorError::Overlap {
            requested,
            existing: prefix("10.0.0.0/8"),
        },
        AllocatorError::BadSubnet(requested),
        AllocatorError::BadGateway {
            gateway: address,
            subnet: requested,
        },
        AllocatorError::TooLarge {
            len: 70_000,
            limit: 65_536,
        },
        AllocatorError::TooManySubnets {
            asked: 33,
            limit: 32,
        },
        AllocatorError::NoFreeSubnet { length: 24 },
        AllocatorError::NoFreeVni,
        AllocatorError::VniInUse(Vni::MAX),
        AllocatorError::BadVni {
            entry: "abc".to_owned(),
        },
        AllocatorError::NoSubnet(network),
        AllocatorError::NoFreeAddress(network),
        AllocatorError::BadAddress { address, network },
        AllocatorError::AddressLeased {
            address,
            holder: node,
        },
        AllocatorError::NoSuchBlock {
            network,
            node,
            prefix: requested,
        },
        AllocatorError::NotMember(node),
        AllocatorError::NameTaken {
            name: name("a"),
            node,
        },
        AllocatorError::IdTaken {
            node,
            name: name("a"),
        },
        AllocatorError::Removed(node),
    ]
}

/// A network with all that can be said of one, and one that says little.
fn wishes() -> (NetworkWish, NetworkWish) {
    let wish = NetworkWish {
        name: name("a"),
        driver: name("overlay"),
        options: BTreeMap::from([(VXLANID_LIST.to_owned(), "7".to_owned())]),
        subnets: vec![SubnetWish {
            subnet: SubnetRequest {
                prefix: Some(prefix("172.20.0.0/16")),
                gateway: Some("172.20.0.254".parse().unwrap()),
            },
            range: Some(prefix("172.20.8.0/21")),
            reserved: vec!["172.20.8.9".parse().unwrap()],
        }],
        vxlan: true,
        v6: true,
        avoid: vec![prefix("10.0.0.0/24")],
    };
    let other = NetworkWish {
        name: name("b"),
        options: BTreeMap::new(),
        subnets: Vec::new(),
        ..wish.clone()
    };
    (wish, other)
}

/// Every action that the second version added, and the state they come to.
fn second_version() -> (Vec<Command>, Allocator) {
    let (network, node) = (NetworkId(1), NodeId(2));
    let (wish, other) = wishes();
    let address = "172.20.1.1".parse().unwrap();
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(8);
    let actions = [
        genesis(),
        Action::AdmitMember {
            node,
            name: name("n2"),
        },
        Action::AllocateNetwork(wish),
        Action::AllocateNetwork(other),
        Action::GrowBlocks { network, node },
        Action::GrowBlocks {
            network,
            node: FOUNDER,
        },
        Action::HoldAddress {
            network,
            node: FOUNDER,
            address,
        },
        Action::HoldBlocks {
            network,
            node: FOUNDER,
        },
        Action::ReturnLease {
            network,
            node: FOUNDER,
            prefix: prefix("172.20.1.1/32"),
            lease: 9,
        },
        Action::AddKey {
            key: ClusterKey::random(&mut rng),
        },
        Action::PromoteKey { id: KeyId(2) },
        Action::RetireKeys,
        Action::RemoveNetwork { id: NetworkId(2) },
        Action::RemoveMember { node },
    ];
    applied(actions)
}

/// Every action that the third version added, and the state they come to.
fn third_version() -> (Vec<Command>, Allocator) {
    let (network, node) = (NetworkId(2), NodeId(2));
    let (wish, other) = wishes();
    let mut pools = DefaultPools::default();
    for (space, base, length) in [
        (SpaceName::Local, prefix("10.20.0.0/16"), 24),
        (SpaceName::Global, prefix("10.30.0.0/16"), 26),
        (SpaceName::Global, prefix("fd00:1::/48"), 64),
    ] {
        pools.add(space, Pool { base, length });
    }
    let was = wish.options.clone();
    applied([
        genesis(),
        Action::AdmitNode {
            node,
            name: name("n2"),
            key: [2; 32],
        },
        Action::RecordKey {
            node: FOUNDER,
            key: [1; 32],
        },
        Action::SetPools(pools),
        Action::AllocateNetwork(wish),
        Action::AllocateLocal(other),
        Action::ReplaceOptions {
            id: NetworkId(1),
            was,
            options: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        },
        Action::GrowFamily {
            network,
            node,
            family: Family::V6,
        },
    ])
}

fn applied<const N: usize>(actions: [Action; N]) -> (Vec<Command>, Allocator) {
    let command = |(n, action): (u64, Action)| Command {
        at: Hlc(n << 16),
        request: n.into(),
        action,
    };
    let commands: Vec<Command> = (1..).zip(actions).map(command).collect();
    let mut allocator = Allocator::default();
    for command in &commands {
        let applied = allocator.apply(command);
        assert!(applied.is_ok(), "{command:?}: {applied:?}");
    }
    allocator.take_dots();
    (commands, allocator)
}

/// One of every reply that the third version added.
fn replies_v3() -> Vec<Result<Outcome, AllocatorError>> {
    let refused = [
        PoolRefusal::BadPieces {
            base: prefix("10.0.0.0/16"),
            length: 15,
            longest: 31,
        },
        PoolRefusal::TooManyPools {
            asked: 65,
            limit: 64,
        },
    ];
    let mut replies = vec![
        Err(AllocatorError::NetworkChanged(NetworkId(1))),
        Err(AllocatorError::NotItsKey(NodeId(2))),
    ];
    replies.extend(refused.map(|refusal| Err(AllocatorError::BadPool(refusal))));
    replies
}

/// One of every reply that the second version added.
fn replies_v2() -> Vec<Result<Outcome, AllocatorError>> {
    use PoolRefusal as Refusal;

    let (network, node, pool) = (NetworkId(1), NodeId(2), prefix("10.0.0.0/24"));
    let address: IpAddr = "10.0.0.7".parse().unwrap();
    let record = BlockRecord {
        network,
        prefix: pool,
        node,
    };
    let refusals = [
        Refusal::NoSuchSpace("x".to_owned()),
        Refusal::BadId("x".to_owned()),
        Refusal::NoSuchPool("x".to_owned()),
        Refusal::ZeroLength(pool),
        Refusal::HostBits {
            asked: pool,
            meant: pool,
        },
        Refusal::Mapped(pool),
        Refusal::Overlap {
            requested: pool,
            existing: pool,
        },
        Refusal::RangeAlone(pool),
        Refusal::RangeOutside { range: pool, pool },
        Refusal::BadLength(4),
        Refusal::NoMorePools(24),
        Refusal::AddressOutside { address, pool },
        Refusal::AddressInUse(address),
        Refusal::NoMoreAddresses(pool),
    ];
    let mut replies = vec![
        Ok(Outcome::Leased(record, 9)),
        Ok(Outcome::Leases {
            network,
            node,
            blocks: vec![(pool, 9)],
        }),
        Err(AllocatorError::AddressReserved(address)),
        Err(AllocatorError::AddressResting {
            address,
            seconds: 7,
        }),
        Err(AllocatorError::StaleLease {
            prefix: pool,
            lease: 8,
        }),
        Ok(Outcome::Key(KeyId(2))),
        Err(AllocatorError::NoSuchKey(9)),
    ];
    replies.extend(refusals.map(|refusal| Err(AllocatorError::BadPool(refusal))));
    replies
}
