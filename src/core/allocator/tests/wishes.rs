//! Networks with all that can be said of one: ranges, addresses set aside, IPv6, what nodes route.

use super::*;
use crate::core::ipam::{COOL_DOWN, POOLS_MAX, Pool, PoolRefusal};

fn wish(text: &str, subnets: Vec<SubnetWish>) -> NetworkWish {
    NetworkWish {
        subnets,
        ..super::wish(text, &[])
    }
}

fn named(text: &str) -> SubnetWish {
    SubnetWish::from(subnet(text))
}

fn allocate(wish: NetworkWish) -> Action {
    Action::AllocateNetwork(wish)
}

/// Goes on after the cool-down.
fn later(rig: &mut Rig, action: Action) -> Result<Outcome, AllocatorError> {
    rig.requests += 1;
    let millis = COOL_DOWN.as_millis() as u64 + 10_000;
    rig.allocator.apply(&Command {
        at: Hlc(millis << 16),
        request: rig.requests,
        action,
    })
}

#[test]
fn a_prefix_that_cannot_be_a_pool_is_refused_for_what_is_wrong_with_it() {
    let mut rig = Rig::founded();
    let cases = [
        (
            "10.7.1.0/16",
            AllocatorError::BadPool(PoolRefusal::HostBits {
                asked: prefix("10.7.1.0/16"),
                meant: prefix("10.7.0.0/16"),
            }),
        ),
        (
            "10.0.0.0/0",
            AllocatorError::BadPool(PoolRefusal::ZeroLength(prefix("10.0.0.0/0"))),
        ),
        (
            "::ffff:10.0.0.0/120",
            AllocatorError::BadPool(PoolRefusal::Mapped(prefix("::ffff:10.0.0.0/120"))),
        ),
        (
            "0.0.0.0/4",
            AllocatorError::BadPool(PoolRefusal::BadLength(4)),
        ),
        (
            "10.0.0.1/32",
            AllocatorError::BadSubnet(prefix("10.0.0.1/32")),
        ),
    ];
    for (text, wanted) in cases {
        let refused = rig.apply(allocate(wish("a", vec![named(text)])));
        assert_eq!(refused, Err(wanted), "{text}");
    }
    assert_eq!(rig.allocator.space, Space::default());
    assert_eq!(rig.allocator.vnis, Vnis::default());
}

#[test]
fn blocks_come_from_the_range_and_an_address_that_is_named_from_all_of_the_subnet() {
    let mut rig = Rig::founded();
    let ranged = SubnetWish {
        range: Some(prefix("10.7.3.0/24")),
        ..named("10.7.0.0/16")
    };
    let network = rig.network(allocate(wish("a", vec![ranged]))).id;

    let leased: Vec<Prefix> = (0..16).map(|_| rig.lease(network, FOUNDER)).collect();
    let full = rig.apply(lease(network, FOUNDER));
    let outside = rig.apply(Action::HoldAddress {
        network,
        node: FOUNDER,
        address: "10.7.9.9".parse().unwrap(),
    });

    assert!(
        leased
            .iter()
            .all(|block| prefix("10.7.3.0/24").0.contains(&block.0))
    );
    assert_eq!(full, Err(AllocatorError::NoFreeAddress(network)));
    assert!(matches!(outside, Ok(Outcome::Leased(..))), "{outside:?}");
    let restored = Allocator::restore(&rig.allocator.snapshot()).unwrap();
    assert_eq!(restored.blocks, rig.allocator.blocks);
}

#[test]
fn what_is_set_aside_is_leased_to_nobody_by_chance_or_by_name() {
    let mut rig = Rig::founded();
    let router: IpAddr = "192.168.1.6".parse().unwrap();
    let aside = SubnetWish {
        reserved: vec![router],
        ..named("192.168.1.0/28")
    };
    let network = rig.network(allocate(wish("a", vec![aside]))).id;

    let mut leased = Vec::new();
    while let Ok(Outcome::Leased(block, _)) = rig.apply(lease(network, FOUNDER)) {
        leased.push(block.prefix);
        assert!(leased.len() < 20);
    }

    assert!(leased.iter().all(|block| !block.0.contains(&router)));
    let by_name = rig.apply(Action::HoldAddress {
        network,
        node: FOUNDER,
        address: router,
    });
    assert_eq!(by_name, Err(AllocatorError::AddressReserved(router)));
}

#[test]
fn a_range_or_an_address_that_is_not_of_the_subnet_is_refused_and_leaves_nothing_a4() {
    let mut rig = Rig::founded();
    let gateway: IpAddr = "10.7.0.1".parse().unwrap();
    let pool = prefix("10.7.0.0/16");
    let with = |range: Option<&str>, reserved: &[&str]| SubnetWish {
        range: range.map(prefix),
        reserved: reserved.iter().map(|text| text.parse().unwrap()).collect(),
        ..named("10.7.0.0/16")
    };
    let outside = "10.8.0.1".parse().unwrap();
    let cases = [
        (
            with(Some("10.8.0.0/24"), &[]),
            PoolRefusal::RangeOutside {
                range: prefix("10.8.0.0/24"),
                pool,
            },
        ),
        (
            with(None, &["10.8.0.1"]),
            PoolRefusal::AddressOutside {
                address: outside,
                pool,
            },
        ),
        (
            with(None, &["10.7.0.1"]),
            PoolRefusal::AddressInUse(gateway),
        ),
        (
            with(None, &["10.7.0.9", "10.7.0.9"]),
            PoolRefusal::AddressInUse("10.7.0.9".parse().unwrap()),
        ),
        (
            SubnetWish {
                range: Some(prefix("10.7.0.0/24")),
                ..SubnetWish::default()
            },
            PoolRefusal::RangeAlone(prefix("10.7.0.0/24")),
        ),
    ];
    for (subnet, wanted) in cases {
        let refused = rig.apply(allocate(wish("a", vec![subnet])));
        assert_eq!(refused, Err(AllocatorError::BadPool(wanted)));
    }
    assert_eq!(rig.allocator.space, Space::default());
    assert_eq!(rig.allocator.blocks().count(), 0);
    assert!(
        rig.apply(allocate(wish("a", vec![with(None, &[])])))
            .is_ok()
    );
}

#[test]
fn ipv6_may_be_asked_for_and_each_subnet_of_either_family_has_a_vni_o1() {
    let mut rig = Rig::founded();
    let dual = NetworkWish {
        v6: true,
        ..wish("a", Vec::new())
    };
    let given = NetworkWish {
        v6: true,
        ..wish("b", vec![named("fd00:7::/64")])
    };

    let dual = rig.network(allocate(dual));
    let given = rig.network(allocate(given));

    assert_eq!(prefixes(&dual), ["10.0.0.0/24", "fd01:2345:6789::/64"]);
    assert_eq!(vnis(&dual), [4096, 4097]);
    assert_eq!(dual.subnets[1].gateway.to_string(), "fd01:2345:6789::1");
    assert_eq!(prefixes(&given), ["fd00:7::/64"]);
    let (option, list) = vxlanid_option(&dual.subnets).unwrap();
    assert_eq!(
        (option.as_str(), list.as_str()),
        (VXLANID_LIST, "4096,4097")
    );
}

#[test]
fn an_unnamed_subnet_keeps_clear_of_what_nodes_route_and_a_named_one_need_not() {
    let mut rig = Rig::founded();
    let routed = ["10.0.0.0/23", "10.0.2.128/25", "10.0.0.0/24"].map(prefix);
    let avoiding = |text, subnets| NetworkWish {
        avoid: routed.to_vec(),
        ..wish(text, subnets)
    };

    let unnamed = rig.network(allocate(avoiding("a", Vec::new())));
    let named = rig.network(allocate(avoiding("b", vec![named("10.0.1.0/24")])));
    let everything = NetworkWish {
        avoid: vec![prefix("10.0.0.0/8")],
        ..wish("c", Vec::new())
    };

    assert_eq!(prefixes(&unnamed), ["10.0.3.0/24"]);
    assert_eq!(prefixes(&named), ["10.0.1.0/24"]);
    let refused = rig.apply(allocate(everything));
    assert_eq!(refused, Err(AllocatorError::NoFreeSubnet { length: 24 }));
    let many = NetworkWish {
        avoid: vec![prefix("10.0.0.0/8"); AVOIDED_MAX + 1],
        ..wish("c", Vec::new())
    };
    assert!(matches!(
        rig.apply(allocate(many)),
        Err(AllocatorError::TooLarge { .. })
    ));
}

#[test]
fn the_subnet_of_a_removed_network_rests_unless_somebody_names_it() {
    let mut rig = Rig::founded();
    let first = rig.network(allocate(wish("a", Vec::new())));
    rig.apply(Action::RemoveNetwork { id: first.id }).unwrap();

    let next = rig.network(allocate(wish("b", Vec::new())));
    let named = rig.network(allocate(wish("c", vec![named("10.0.0.0/24")])));
    rig.apply(Action::RemoveNetwork { id: named.id }).unwrap();
    let rested = later(&mut rig, allocate(wish("d", Vec::new())));

    assert_eq!(prefixes(&next), ["10.0.1.0/24"]);
    assert_eq!(prefixes(&named), ["10.0.0.0/24"]);
    let Ok(Outcome::Network(rested)) = rested else {
        panic!("{rested:?}")
    };
    assert_eq!(prefixes(&rested), ["10.0.0.0/24"]);
}

#[test]
fn a_resting_subnet_is_used_where_no_other_is_free() {
    let mut rig = Rig::founded();
    let half = rig.network(allocate(wish("a", vec![named("10.0.0.0/9")])));
    rig.network(allocate(wish("b", vec![named("10.128.0.0/9")])));
    rig.apply(Action::RemoveNetwork { id: half.id }).unwrap();

    let found = rig.network(allocate(wish("c", Vec::new())));

    assert_eq!(prefixes(&found), ["10.0.0.0/24"]);
}

fn pools(pools: &[(SpaceName, &str, u8)]) -> Action {
    let mut configured = DefaultPools::default();
    for (space, base, length) in pools {
        let (base, length) = (prefix(base), *length);
        configured.add(*space, Pool { base, length });
    }
    Action::SetPools(configured)
}

/// The pools of libnetwork's local space, one after another; they are not in the way of a global network.
#[test]
fn a_local_network_has_one_of_31_subnets_and_a_global_one_none_of_them() {
    let mut rig = Rig::founded();
    let local = |text: &str| Action::AllocateLocal(wish(text, Vec::new()));

    let all: Vec<String> = (0..31)
        .flat_map(|n| prefixes(&rig.network(local(&format!("local{n}")))))
        .collect();
    let more = rig.apply(local("more"));
    let global = rig.network(allocate(wish("global", Vec::new())));

    let sorted = all.clone();
    assert!(sorted.is_sorted_by_key(|text| prefix(text)));
    assert_eq!(
        (all[0].as_str(), all[15].as_str()),
        ("172.17.0.0/16", "192.168.0.0/20")
    );
    assert_eq!(all[30], "192.168.240.0/20");
    assert_eq!(more, Err(AllocatorError::NoFreeSubnet { length: 20 }));
    assert_eq!(prefixes(&global), ["10.0.0.0/24"]);
}

#[test]
fn subnets_that_nobody_names_come_from_the_configured_pools_in_their_order() {
    let mut rig = Rig::founded();
    let before = rig.network(allocate(wish("before", Vec::new())));
    rig.apply(pools(&[
        (SpaceName::Global, "10.0.0.0/23", 24),
        (SpaceName::Global, "10.9.0.0/30", 31),
        (SpaceName::Global, "fd00:1::/48", 56),
        (SpaceName::Local, "10.200.0.0/16", 24),
    ]))
    .unwrap();
    rig.succeed();
    let dual = NetworkWish {
        v6: true,
        ..wish("dual", Vec::new())
    };

    let dual = rig.network(allocate(dual));
    let next = rig.network(allocate(wish("next", Vec::new())));
    let last = rig.network(allocate(wish("last", Vec::new())));
    let full = rig.apply(allocate(wish("full", Vec::new())));
    let local = rig.network(Action::AllocateLocal(wish("local", Vec::new())));
    let long = rig.apply(allocate(wish("long", vec![named("::/47")])));

    assert_eq!(prefixes(&before), ["10.0.0.0/24"]);
    assert_eq!(prefixes(&dual), ["10.0.1.0/24", "fd00:1::/56"]);
    assert_eq!(prefixes(&next), ["10.9.0.0/31"]);
    assert_eq!(prefixes(&last), ["10.9.0.2/31"]);
    assert_eq!(full, Err(AllocatorError::NoFreeSubnet { length: 31 }));
    assert_eq!(prefixes(&local), ["10.200.0.0/24"]);
    assert_eq!(
        long,
        Err(AllocatorError::BadPool(PoolRefusal::BadLength(47)))
    );
    rig.apply(pools(&[])).unwrap();
    assert_eq!(
        prefixes(&rig.network(allocate(wish("again", Vec::new())))),
        ["10.0.2.0/24"]
    );
}

#[test]
fn pools_that_cannot_be_change_nothing_and_those_that_are_set_are_told_to_every_node() {
    let mut rig = Rig::founded();
    rig.apply(pools(&[(SpaceName::Global, "10.10.0.0/16", 24)]))
        .unwrap();
    let told = rig.allocator.take_dots();
    let before = rig.allocator.pools().clone();

    let refused = rig.apply(pools(&[(SpaceName::Local, "10.10.0.0/16", 15)]));

    let wanted = PoolRefusal::BadPieces {
        base: prefix("10.10.0.0/16"),
        length: 15,
        longest: 31,
    };
    assert_eq!(refused, Err(AllocatorError::BadPool(wanted)));
    assert_eq!(rig.allocator.pools(), &before);
    assert!(rig.allocator.take_dots().is_empty());
    let dot = told.last().unwrap();
    assert_eq!(dot.table.as_str(), POOLS_TABLE);
    let value = dot.value.as_ref().unwrap();
    assert_eq!(
        codec::decode::<DefaultPools>(value.as_bytes()).unwrap(),
        before
    );
    let restored = Allocator::restore(&rig.allocator.snapshot()).unwrap();
    assert_eq!(restored.pools(), &before);
}

#[test]
fn the_most_pools_that_may_be_fit_into_an_entry() {
    let mut rig = Rig::founded();
    let mut most = DefaultPools::default();
    for n in 0..POOLS_MAX as u8 {
        for space in SpaceName::ALL {
            let base = prefix(&format!("fd00:{n:x}::/32"));
            most.add(space, Pool { base, length: 64 });
        }
    }

    assert_eq!(rig.apply(Action::SetPools(most)), Ok(Outcome::Done));
}

#[test]
fn as_many_subnets_of_ten_as_there_are_are_handed_out_each_once() {
    let mut rig = Rig::founded();
    rig.apply(pools(&[(SpaceName::Global, "10.0.0.0/14", 24)]))
        .unwrap();

    let all: BTreeSet<String> = (0..1_024)
        .flat_map(|n| prefixes(&rig.network(allocate(wish(&format!("net{n}"), Vec::new())))))
        .collect();

    assert_eq!(all.len(), 1_024);
    let more = rig.apply(allocate(wish("more", Vec::new())));
    assert_eq!(more, Err(AllocatorError::NoFreeSubnet { length: 24 }));
}

#[test]
fn options_pass_through_unchanged_a14() {
    let mut rig = Rig::founded();
    let options = BTreeMap::from([
        (VXLANID_LIST_DOCKER.to_owned(), "77".to_owned()),
        (
            "com.docker.network.driver.mtu".to_owned(),
            "1400".to_owned(),
        ),
        ("encrypted".to_owned(), String::new()),
    ]);
    let wish = NetworkWish {
        options: options.clone(),
        ..wish("a", Vec::new())
    };

    let record = rig.network(allocate(wish));

    assert_eq!(record.options, options);
    assert_eq!(vnis(&record), [77]);
}

/// Of two that have looked at the same options one is first; a proposal that is sent again gets its first answer.
#[test]
fn options_are_replaced_if_they_are_still_what_the_proposer_saw() {
    let mut rig = Rig::founded();
    let network = rig.network(allocate(wish("a", Vec::new())));
    let replace = |was: &[&str], now: &[&str]| Action::ReplaceOptions {
        id: network.id,
        was: options(was),
        options: options(now),
    };
    rig.allocator.take_dots();

    let first = rig.apply(replace(&[], &["lane"])).unwrap();
    let second = rig.apply(replace(&[], &["other"]));

    let expected = NetworkRecord {
        options: options(&["lane"]),
        ..network.clone()
    };
    assert_eq!(first, Outcome::Network(expected.clone()));
    assert_eq!(second, Err(AllocatorError::NetworkChanged(network.id)));
    assert_eq!(rig.allocator.networks()[&network.id], expected);
    let dots = rig.allocator.take_dots();
    let [dot] = &dots[..] else {
        panic!("every node hears of one change: {dots:?}")
    };
    let told: NetworkRecord = codec::decode(dot.value.as_ref().unwrap().as_bytes()).unwrap();
    assert_eq!(told, expected);
    let restored = Allocator::restore(&rig.allocator.snapshot()).unwrap();
    assert_eq!(restored.networks()[&network.id], expected);

    let long = Action::ReplaceOptions {
        id: network.id,
        was: options(&["lane"]),
        options: BTreeMap::from([("long".to_owned(), "x".repeat(70_000))]),
    };
    assert!(matches!(
        rig.apply(long),
        Err(AllocatorError::TooLarge { .. })
    ));
    assert_eq!(rig.allocator.networks()[&network.id], expected);
    rig.apply(Action::RemoveNetwork { id: network.id }).unwrap();
    let gone = rig.apply(replace(&["lane"], &[]));
    assert_eq!(gone, Err(AllocatorError::NoSuchNetwork(network.id)));
}

fn options(names: &[&str]) -> BTreeMap<String, String> {
    let names = names.iter();
    names
        .map(|name| ((*name).to_owned(), "1".to_owned()))
        .collect()
}
