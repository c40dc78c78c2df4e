//! Leasing blocks, claiming addresses, giving both back.

use super::*;
use crate::core::ipam::COOL_DOWN;

/// A founded cluster of two nodes with one network.
fn pair() -> (Rig, NetworkId) {
    let mut rig = Rig::founded();
    rig.apply(admit(NodeId(2), "n2")).unwrap();
    let network = rig.network(create("a", &[])).id;
    (rig, network)
}

fn hold(rig: &mut Rig, network: NetworkId, node: NodeId, address: &str) -> (Prefix, u64) {
    let address = address.parse().unwrap();
    match rig.apply(Action::HoldAddress {
        network,
        node,
        address,
    }) {
        Ok(Outcome::Leased(record, lease)) => (record.prefix, lease),
        other => panic!("no lease: {other:?}"),
    }
}

fn grow(rig: &mut Rig, network: NetworkId, node: NodeId) -> Prefix {
    match rig.apply(Action::GrowBlocks { network, node }) {
        Ok(Outcome::Leased(record, _)) => record.prefix,
        other => panic!("no block: {other:?}"),
    }
}

#[test]
fn a_block_of_a_family_is_cut_from_a_subnet_of_that_family() {
    let mut rig = Rig::founded();
    let subnets = [subnet("10.7.0.0/24"), subnet("fd07::/64")];
    let network = rig.network(create("both", &subnets)).id;
    let node = FOUNDER;
    let mut grow = |family| {
        let action = Action::GrowFamily {
            network,
            node,
            family,
        };
        match rig.apply(action) {
            Ok(Outcome::Leased(record, _)) => record.prefix.0,
            other => panic!("no block: {other:?}"),
        }
    };

    let blocks = [Family::V6, Family::V4, Family::V6].map(&mut grow);

    assert_eq!(blocks.map(|block| block.prefix_len()), [76, 28, 75]);
    let families = blocks.map(|block| Family::of(block.addr()));
    assert_eq!(families, [Family::V6, Family::V4, Family::V6]);
}

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
    let full = rig.apply(lease(id, FOUNDER));
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
    assert!(rig.apply(lease(id, FOUNDER)).is_err());
}

#[test]
fn a_claimed_address_is_its_claimers_alone_and_blocks_go_around_it() {
    let mut rig = Rig::founded();
    rig.apply(admit(NodeId(2), "n2")).unwrap();
    let network = rig.network(create("a", &[])).id;
    let claim = |node, address: &str| Action::HoldAddress {
        network,
        node,
        address: address.parse().unwrap(),
    };

    let claimed = rig.apply(claim(FOUNDER, "10.0.0.20"));
    let again = rig.apply(claim(FOUNDER, "10.0.0.20"));
    let other = rig.apply(claim(NodeId(2), "10.0.0.20"));
    let blocks = [rig.lease(network, NodeId(2)), rig.lease(network, NodeId(2))];
    let inside = rig.apply(claim(NodeId(2), "10.0.0.5"));

    let (Ok(Outcome::Leased(claimed, first)), Ok(Outcome::Leased(again, second))) =
        (claimed, again)
    else {
        panic!("not leased")
    };
    assert_eq!((&claimed, claimed.prefix), (&again, prefix("10.0.0.20/32")));
    assert!(second > first);
    let address = "10.0.0.20".parse().unwrap();
    assert_eq!(
        other,
        Err(AllocatorError::AddressLeased {
            address,
            holder: FOUNDER
        })
    );
    assert_eq!(blocks, [prefix("10.0.0.0/28"), prefix("10.0.0.32/28")]);
    assert!(matches!(inside, Ok(Outcome::Leased(block, _)) if block.prefix == blocks[0]));
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
    hold(&mut rig, network, FOUNDER, "192.168.1.9");

    let mut leased = 0;
    while let Ok(Outcome::Leased(block, _)) = rig.apply(lease(network, FOUNDER)) {
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
        rig.apply(lease(network, node)),
        Err(AllocatorError::NotMember(node))
    );
    rig.apply(admit(node, "n2")).unwrap();
    rig.lease(network, node);

    let removed = rig.apply(Action::RemoveMember { node });

    assert_eq!(removed, Ok(Outcome::Done));
    assert_eq!(rig.allocator.blocks().count(), 0);
    assert!(rig.allocator.is_removed(node));
    let again = rig.apply(admit(node, "n2"));
    assert_eq!(again, Err(AllocatorError::Removed(node)));
    assert_eq!(rig.apply(admit(NodeId(3), "n2")), Ok(Outcome::Done));
}

#[test]
fn blocks_grow_with_what_a_node_has_and_fall_back_to_what_is_left() {
    let mut rig = Rig::founded();
    let network = rig.network(create("a", &[subnet("10.7.0.0/16")])).id;

    let lengths: Vec<u8> = (0..8)
        .map(|_| grow(&mut rig, network, FOUNDER).0.prefix_len())
        .collect();

    assert_eq!(lengths, [28, 27, 27, 26, 26, 26, 26, 25]);
    let mut leased = 0u32;
    let mut count = 0;
    loop {
        let node = FOUNDER;
        let Ok(Outcome::Leased(block, _)) = rig.apply(Action::GrowBlocks { network, node }) else {
            break;
        };
        assert!(
            block.prefix.0.prefix_len() >= 20,
            "a sixteenth of the subnet at most"
        );
        leased += 1 << (32 - block.prefix.0.prefix_len());
        count += 1;
    }
    assert!(leased > 64_000 && count < 300, "{leased} in {count}");
}

#[test]
fn a_return_that_comes_late_does_not_take_what_was_leased_anew_a15() {
    let (mut rig, network) = pair();
    let (prefix, first) = hold(&mut rig, network, FOUNDER, "10.0.0.77");
    let (_, second) = hold(&mut rig, network, FOUNDER, "10.0.0.77");
    let give = |lease| Action::ReturnLease {
        network,
        node: FOUNDER,
        prefix,
        lease,
    };

    let late = rig.apply(give(first));
    let other = rig.apply(Action::HoldAddress {
        network,
        node: NodeId(2),
        address: "10.0.0.77".parse().unwrap(),
    });

    assert!(second > first);
    assert_eq!(
        late,
        Err(AllocatorError::StaleLease {
            prefix,
            lease: first
        })
    );
    assert!(matches!(
        other,
        Err(AllocatorError::AddressLeased {
            holder: FOUNDER,
            ..
        })
    ));
    assert_eq!(rig.apply(give(second)), Ok(Outcome::Done));
    assert!(matches!(
        rig.apply(give(second)),
        Err(AllocatorError::NoSuchBlock { .. })
    ));
    assert_eq!(hold(&mut rig, network, NodeId(2), "10.0.0.77").0, prefix);
}

#[test]
fn holding_all_blocks_numbers_them_anew_and_names_nobody_elses() {
    let (mut rig, network) = pair();
    let mine = [
        grow(&mut rig, network, FOUNDER),
        hold(&mut rig, network, FOUNDER, "10.0.0.99").0,
    ];
    grow(&mut rig, network, NodeId(2));
    let before = rig.allocator.last_dot();
    let node = FOUNDER;

    let held = rig.apply(Action::HoldBlocks { network, node });
    rig.succeed();

    let blocks = vec![(mine[0], before + 1), (mine[1], before + 2)];
    let wanted = Outcome::Leases {
        network,
        node,
        blocks,
    };
    assert_eq!(held, Ok(wanted.clone()));
    assert_eq!(rig.allocator.leases(network, node), wanted);
}

#[test]
fn what_was_given_back_is_leased_after_everything_else_and_before_a_refusal() {
    let (mut rig, network) = pair();
    let blocks: Vec<Prefix> = (0..16).map(|_| rig.lease(network, FOUNDER)).collect();
    for prefix in [blocks[3], blocks[5]] {
        let node = FOUNDER;
        rig.apply(Action::ReturnBlock {
            network,
            node,
            prefix,
        })
        .unwrap();
    }
    rig.succeed();
    assert_eq!(rig.allocator.blocks[&network].rest.iter().count(), 2);

    let again = [rig.lease(network, NodeId(2)), rig.lease(network, NodeId(2))];

    assert_eq!(again, [blocks[3], blocks[5]], "nothing else is free");
}

#[test]
fn what_a_removed_node_had_is_nobodys_for_the_cool_down() {
    let (mut rig, network) = pair();
    let address: IpAddr = "10.0.0.77".parse().unwrap();
    hold(&mut rig, network, NodeId(2), "10.0.0.77");
    let block = rig.lease(network, NodeId(2));
    rig.apply(Action::RemoveMember { node: NodeId(2) }).unwrap();
    rig.succeed();

    let next = rig.lease(network, FOUNDER);
    let node = FOUNDER;
    let claim = Action::HoldAddress {
        network,
        node,
        address,
    };
    let refused = rig.apply(claim.clone());

    assert_ne!(next, block);
    assert!(
        matches!(
            refused,
            Err(AllocatorError::AddressResting {
                seconds: 1..=300,
                ..
            })
        ),
        "{refused:?}"
    );
    let later = Command {
        at: Hlc((COOL_DOWN.as_millis() as u64 + 60_000) << 16),
        request: 9_999,
        action: claim,
    };
    assert!(matches!(
        rig.allocator.apply(&later),
        Ok(Outcome::Leased(..))
    ));
}

#[test]
fn a_request_that_is_repeated_to_a_successor_is_done_once() {
    let (mut rig, network) = pair();
    let node = FOUNDER;
    let actions = [
        Action::GrowBlocks { network, node },
        Action::HoldAddress {
            network,
            node,
            address: "10.0.0.99".parse().unwrap(),
        },
        create("b", &[]),
        Action::HoldBlocks { network, node },
    ];
    for (request, action) in (500..).zip(actions) {
        let command = Command {
            at: Hlc(7_000),
            request,
            action,
        };
        let first = rig.allocator.apply(&command);
        rig.succeed();
        let before = rig.allocator.clone();

        let second = rig.allocator.apply(&command);

        assert!(first.is_ok());
        assert_eq!(second, first);
        assert_eq!(rig.allocator, before);
    }
}

#[test]
fn a_successor_gives_nobody_what_somebody_has_a9_a10() {
    let (mut rig, network) = pair();
    let pending = rig.network(create("pending", &[])).id;
    let held: Vec<Prefix> = (0..5)
        .map(|n| grow(&mut rig, network, NodeId(1 + n % 2)))
        .collect();
    rig.succeed();

    let new: Vec<Prefix> = (0..4).map(|_| grow(&mut rig, network, NodeId(2))).collect();
    let first = grow(&mut rig, pending, FOUNDER);

    for block in &new {
        assert!(held.iter().all(|held| !overlaps(*held, *block)), "{block}");
    }
    assert_eq!(first, prefix("10.0.1.0/28"));
}

#[test]
fn an_endpoint_of_several_networks_has_an_address_of_each_and_leaves_each_whole_a7() {
    let (mut rig, first) = pair();
    let second = rig.network(create("b", &[])).id;
    let before = rig.allocator.blocks.clone();

    for network in [first, second] {
        let (prefix, lease) = hold(
            &mut rig,
            network,
            FOUNDER,
            &format!("10.0.{}.9", network.0 - 1),
        );
        let node = FOUNDER;
        rig.apply(Action::ReturnLease {
            network,
            node,
            prefix,
            lease,
        })
        .unwrap();
    }

    for (network, blocks) in &rig.allocator.blocks {
        assert_eq!(blocks.records(*network), before[network].records(*network));
    }
}
