//! Leasing blocks, claiming addresses, giving both back.

use super::*;

#[test]
fn blocks_are_sized_to_the_subnet() {
    let cases = [
        ("10.0.0.0/8", 20),
        ("10.0.0.0/16", 28),
        ("10.0.0.0/24", 28),
        ("10.0.0.0/26", 30),
        ("10.0.0.0/30", 32),
        ("10.0.0.0/31", 32),
        ("fd00::/48", 60),
        ("fd00::/64", 76),
        ("fd00::/126", 128),
    ];
    for (net, length) in cases {
        assert_eq!(block_length(prefix(net)), length, "{net}");
    }
}

#[test]
fn blocks_come_in_order_and_one_given_back_comes_last() {
    let mut rig = Rig::founded();
    let id = rig.network(create("a", &[])).id;
    let first = rig.lease(id, FOUNDER);
    let second = rig.lease(id, FOUNDER);

    let returned = rig.apply(Action::ReturnBlock {
        network: id,
        node: FOUNDER,
        prefix: first,
    });
    let rest: Vec<Prefix> = (0..15).map(|_| rig.lease(id, FOUNDER)).collect();

    assert_eq!(returned, Ok(Outcome::Done));
    assert_eq!(
        (first, second),
        (prefix("10.0.0.0/28"), prefix("10.0.0.16/28"))
    );
    assert_eq!(rest.last(), Some(&first));
    let full = rig.apply(Action::LeaseBlock {
        network: id,
        node: FOUNDER,
    });
    assert_eq!(full, Err(AllocatorError::NoFreeAddress(id)));
}

#[test]
fn a_tiny_subnet_is_leased_address_by_address_without_the_reserved_ones() {
    let mut rig = Rig::founded();
    let id = rig.network(create("a", &[subnet("192.168.1.0/29")])).id;

    let leased: Vec<String> = (0..5).map(|_| rig.lease(id, FOUNDER).to_string()).collect();

    let wanted = [
        "192.168.1.2/32",
        "192.168.1.3/32",
        "192.168.1.4/32",
        "192.168.1.5/32",
        "192.168.1.6/32",
    ];
    assert_eq!(leased, wanted);
    assert!(
        rig.apply(Action::LeaseBlock {
            network: id,
            node: FOUNDER
        })
        .is_err()
    );
}

#[test]
fn a_claimed_address_is_its_claimers_alone_and_blocks_go_around_it() {
    let mut rig = Rig::founded();
    rig.apply(Action::AdmitMember {
        node: NodeId(2),
        name: name("n2"),
    })
    .unwrap();
    let network = rig.network(create("a", &[])).id;
    let claim = |node, address: &str| Action::ClaimAddress {
        network,
        node,
        address: address.parse().unwrap(),
    };

    let claimed = rig.apply(claim(FOUNDER, "10.0.0.20"));
    let again = rig.apply(claim(FOUNDER, "10.0.0.20"));
    let other = rig.apply(claim(NodeId(2), "10.0.0.20"));
    let blocks = [rig.lease(network, NodeId(2)), rig.lease(network, NodeId(2))];
    let inside = rig.apply(claim(NodeId(2), "10.0.0.5"));

    assert_eq!(claimed, again);
    let address = "10.0.0.20".parse().unwrap();
    assert_eq!(
        other,
        Err(AllocatorError::AddressLeased {
            address,
            holder: FOUNDER
        })
    );
    assert_eq!(blocks, [prefix("10.0.0.0/28"), prefix("10.0.0.32/28")]);
    assert!(matches!(inside, Ok(Outcome::Block(block)) if block.prefix == blocks[0]));
    for reserved in ["10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.9.9"] {
        let refused = rig.apply(claim(FOUNDER, reserved));
        assert!(
            matches!(refused, Err(AllocatorError::BadAddress { .. })),
            "{reserved}"
        );
    }
}

#[test]
fn what_is_left_between_claims_is_leased_in_smaller_blocks() {
    let mut rig = Rig::founded();
    let network = rig.network(create("a", &[subnet("192.168.1.0/27")])).id;
    rig.apply(Action::ClaimAddress {
        network,
        node: FOUNDER,
        address: "192.168.1.9".parse().unwrap(),
    })
    .unwrap();

    let mut leased = 0;
    while let Ok(Outcome::Block(block)) = rig.apply(Action::LeaseBlock {
        network,
        node: FOUNDER,
    }) {
        leased += block.prefix.0.hosts().count();
        assert!(leased < 64);
    }

    let free = rig.allocator.blocks.get(&network).unwrap();
    let covered: u32 = free
        .records(network)
        .iter()
        .map(|block| 1 << (32 - block.prefix.0.prefix_len()))
        .sum();
    // All but what nobody may have: at most the network's, the gateway's and the broadcast address.
    assert!(covered >= 29, "{covered}");
}

#[test]
fn who_is_no_member_gets_no_block_and_who_is_removed_loses_them() {
    let mut rig = Rig::founded();
    let network = rig.network(create("a", &[])).id;
    let node = NodeId(2);
    assert_eq!(
        rig.apply(Action::LeaseBlock { network, node }),
        Err(AllocatorError::NotMember(node))
    );
    rig.apply(Action::AdmitMember {
        node,
        name: name("n2"),
    })
    .unwrap();
    rig.lease(network, node);

    let removed = rig.apply(Action::RemoveMember { node });

    assert_eq!(removed, Ok(Outcome::Done));
    assert_eq!(rig.allocator.blocks().count(), 0);
    assert!(rig.allocator.is_removed(node));
    let again = rig.apply(Action::AdmitMember {
        node,
        name: name("n2"),
    });
    assert_eq!(again, Err(AllocatorError::Removed(node)));
    assert_eq!(
        rig.apply(Action::AdmitMember {
            node: NodeId(3),
            name: name("n2")
        }),
        Ok(Outcome::Done)
    );
}
