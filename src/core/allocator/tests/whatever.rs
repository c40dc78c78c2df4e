//! What holds whatever is asked for, in whatever order.

use proptest::prelude::*;

use super::*;

fn some_action() -> impl Strategy<Value = Action> {
    let some_subnet = prop_oneof![
        Just(SubnetRequest::default()),
        (0u8..4, 0u8..8, 20u8..28)
            .prop_map(|(a, b, length)| subnet(&format!("10.{a}.{b}.0/{length}"))),
        (20u8..28).prop_map(|length| subnet(&format!("0.0.0.0/{length}"))),
        Just(subnet("::/64")),
    ];
    let node = (1u64..4).prop_map(NodeId);
    let network = (1u32..12).prop_map(NetworkId);
    prop_oneof![
        4 => ("[a-e]", prop::collection::vec(some_subnet, 0..3), prop_oneof!["", "[1-9]", "409[5-9]"])
            .prop_map(|(text, subnets, vnis)| create_with(&text, &subnets, &vnis)),
        2 => network.clone().prop_map(|id| Action::RemoveNetwork { id }),
        4 => (network.clone(), node.clone()).prop_map(|(network, node)| lease(network, node)),
        2 => (network, node.clone(), 0u8..4, 0u8..30).prop_map(|(network, node, a, b)| {
            let address = std::net::Ipv4Addr::new(10, 0, a, b).into();
            Action::HoldAddress { network, node, address }
        }),
        1 => node.clone().prop_map(|node| admit(node, &format!("n{}", node.0))),
        1 => (2u64..4).prop_map(|node| Action::RemoveMember { node: NodeId(node) }),
    ]
}

proptest! {
    #[test]
    fn no_two_networks_share_a_vni_or_an_address_and_no_two_nodes_a_block_a15(
        actions in prop::collection::vec(some_action(), 1..60)
    ) {
        let mut rig = Rig::founded();
        let mut twin = Rig::founded();
        for action in actions {
            let outcome = rig.apply(action.clone());
            prop_assert_eq!(&outcome, &twin.apply(action));
        }

        let subnets: Vec<Subnet> =
            rig.allocator.networks().values().flat_map(|network| network.subnets.clone()).collect();
        for (i, a) in subnets.iter().enumerate() {
            prop_assert!(a.prefix.0.contains(&a.gateway));
            for b in &subnets[i + 1..] {
                prop_assert!(!overlaps(a.prefix, b.prefix));
                prop_assert!(a.vni != b.vni);
            }
        }
        let blocks: Vec<BlockRecord> = rig.allocator.blocks().collect();
        for (i, a) in blocks.iter().enumerate() {
            prop_assert!(rig.allocator.members().contains_key(&a.node));
            for b in &blocks[i + 1..] {
                prop_assert!(!overlaps(a.prefix, b.prefix));
            }
        }
        prop_assert_eq!(rig.allocator.snapshot(), twin.allocator.snapshot());
        let dots: Vec<u64> = rig.allocator.take_dots().iter().map(|dot| dot.seq).collect();
        prop_assert!(dots.iter().copied().eq(1..=rig.allocator.last_dot()));
        let again = Allocator::restore(&rig.allocator.snapshot()).unwrap();
        prop_assert_eq!(again, rig.allocator);
    }
}
