//! What earlier versions wrote is read by this one: files of their bytes, kept as they were.

use super::*;

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
    assert_eq!((allocator.blocks().count(), allocator.last_dot()), (0, 10));
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
    assert_eq!(again.allocator.cluster_log(), now.cluster_log());
    assert_eq!(
        again.allocator.blocks().collect::<Vec<_>>(),
        now.blocks().collect::<Vec<_>>()
    );
    let second = NetworkId(2);
    assert_eq!(again.lease(second, NodeId(2)), prefix("172.20.0.16/28"));
    assert_eq!(again.network(create("next", &[])).id, NetworkId(4));
    let restored = Allocator::restore(&again.allocator.snapshot()).unwrap();
    again.allocator.take_dots();
    assert_eq!(restored, again.allocator);
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
    let address = "10.0.0.7".parse().unwrap();
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
    vec![
        Ok(Outcome::Done),
        Ok(Outcome::Network(record)),
        Ok(Outcome::Block(BlockRecord {
            network,
            prefix: requested,
            node,
        })),
        Err(AllocatorError::NotFounded),
        Err(AllocatorError::AlreadyFounded),
        Err(AllocatorError::NetworkExists {
            name: name("a"),
            id: network,
        }),
        Err(AllocatorError::NoSuchNetwork(network)),
        Err(AllocatorError::Overlap {
            requested,
            existing: prefix("10.0.0.0/8"),
        }),
        Err(AllocatorError::BadSubnet(requested)),
        Err(AllocatorError::BadGateway {
            gateway: address,
            subnet: requested,
        }),
        Err(AllocatorError::TooLarge {
            len: 70_000,
            limit: 65_536,
        }),
        Err(AllocatorError::TooManySubnets {
            asked: 33,
            limit: 32,
        }),
        Err(AllocatorError::NoFreeSubnet { length: 24 }),
        Err(AllocatorError::NoFreeVni),
        Err(AllocatorError::VniInUse(Vni::MAX)),
        Err(AllocatorError::BadVni {
            entry: "abc".to_owned(),
        }),
        Err(AllocatorError::NoSubnet(network)),
        Err(AllocatorError::NoFreeAddress(network)),
        Err(AllocatorError::BadAddress { address, network }),
        Err(AllocatorError::AddressLeased {
            address,
            holder: node,
        }),
        Err(AllocatorError::NoSuchBlock {
            network,
            node,
            prefix: requested,
        }),
        Err(AllocatorError::NotMember(node)),
        Err(AllocatorError::NameTaken {
            name: name("a"),
            node,
        }),
        Err(AllocatorError::IdTaken {
            node,
            name: name("a"),
        }),
        Err(AllocatorError::Removed(node)),
    ]
}
