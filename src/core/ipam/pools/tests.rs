//! Pools as container engines ask for them. The numbers name cases of libnetwork's IPAM.

use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::core::ipam::{COOL_DOWN, global_pool, local_pools, site_pool};

fn space() -> AddressSpace {
    AddressSpace::new(SpaceName::Global, vec![global_pool()])
}

fn prefix(text: &str) -> Prefix {
    Prefix(text.parse().unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn named(pool: &str) -> PoolRequest {
    PoolRequest {
        pool: Some(prefix(pool)),
        ..PoolRequest::default()
    }
}

fn ranged(pool: &str, range: &str) -> PoolRequest {
    PoolRequest {
        range: Some(prefix(range)),
        ..named(pool)
    }
}

fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(seconds))
}

fn ask(space: &mut AddressSpace, request: PoolRequest) -> Result<PoolId, PoolRefusal> {
    space.request_pool(request, &Space::default())
}

#[test]
fn a_pool_that_cannot_be_one_is_refused_for_what_is_wrong_with_it() {
    let mut space = space();
    let overlap = |requested, existing| PoolRefusal::Overlap {
        requested: prefix(requested),
        existing: prefix(existing),
    };
    ask(&mut space, named("10.1.0.0/16")).unwrap();

    let cases = [
        (
            named("128.0.0.0/0"),
            PoolRefusal::ZeroLength(prefix("128.0.0.0/0")),
        ),
        (
            named("10.2.3.4/16"),
            PoolRefusal::HostBits {
                asked: prefix("10.2.3.4/16"),
                meant: prefix("10.2.0.0/16"),
            },
        ),
        (
            named("::ffff:10.2.0.0/112"),
            PoolRefusal::Mapped(prefix("::ffff:10.2.0.0/112")),
        ),
        (named("10.1.2.0/24"), overlap("10.1.2.0/24", "10.1.0.0/16")),
        (named("10.0.0.0/8"), overlap("10.0.0.0/8", "10.1.0.0/16")),
        (
            ranged("10.2.0.0/16", "10.3.0.0/24"),
            PoolRefusal::RangeOutside {
                range: prefix("10.3.0.0/24"),
                pool: prefix("10.2.0.0/16"),
            },
        ),
        (
            ranged("0.0.0.0/16", "10.3.0.0/24"),
            PoolRefusal::RangeAlone(prefix("10.3.0.0/24")),
        ),
        (named("0.0.0.0/4"), PoolRefusal::BadLength(4)),
    ];
    for (request, wanted) in cases {
        assert_eq!(ask(&mut space, request), Err(wanted), "{request:?}");
    }
    assert_eq!(
        ask(&mut space, named("10.2.0.0/16")).map(|id| id.pool),
        Ok(prefix("10.2.0.0/16"))
    );
}

#[test]
fn ranges_of_one_pool_may_not_overlap_each_other_and_the_pool_goes_with_the_last() {
    let mut space = space();
    let first = ask(&mut space, ranged("10.2.0.0/16", "10.2.1.0/24")).unwrap();
    let second = ask(&mut space, ranged("10.2.0.0/16", "10.2.2.0/24")).unwrap();

    for refused in [
        ranged("10.2.0.0/16", "10.2.1.0/24"),
        ranged("10.2.0.0/16", "10.2.1.128/25"),
        ranged("10.2.0.0/16", "10.2.0.0/22"),
        ranged("10.2.0.0/17", "10.2.9.0/24"),
        named("10.2.0.0/16"),
        named("10.2.9.0/24"),
    ] {
        let answer = ask(&mut space, refused);
        assert!(
            matches!(answer, Err(PoolRefusal::Overlap { .. })),
            "{refused:?}: {answer:?}"
        );
    }
    space.release_pool(first).unwrap();
    assert!(ask(&mut space, named("10.2.0.0/16")).is_err());
    space.release_pool(second).unwrap();
    assert!(ask(&mut space, named("10.2.0.0/16")).is_ok());
    assert_eq!(
        space.release_pool(second),
        Err(PoolRefusal::NoSuchPool(
            "global/10.2.0.0/16/10.2.2.0/24".to_owned()
        ))
    );
}

#[test]
fn a_range_that_is_no_smaller_than_its_pool_is_the_pool() {
    let id = ask(&mut space(), ranged("10.2.0.0/24", "10.2.0.0/16")).unwrap();

    assert_eq!((id.pool, id.range), (prefix("10.2.0.0/16"), None));
}

#[test]
fn a_named_pool_may_overlap_what_the_hosts_route_and_an_unnamed_one_avoids_it() {
    let mut space = space();
    let mut reserved = Space::default();
    reserved.take(prefix("10.0.0.0/23")).unwrap();

    let unnamed = space.request_pool(PoolRequest::default(), &reserved);
    let named = space.request_pool(named("10.0.1.0/24"), &reserved);

    assert_eq!(unnamed.map(|id| id.pool), Ok(prefix("10.0.2.0/24")));
    assert_eq!(named.map(|id| id.pool), Ok(prefix("10.0.1.0/24")));
    reserved.cover(prefix("10.0.0.0/8"));
    let none = space.request_pool(PoolRequest::default(), &reserved);
    assert_eq!(none, Err(PoolRefusal::NoMorePools(24)));
}

#[test]
fn the_local_space_has_31_pools_and_the_global_one_does_not_know_them() {
    let mut local = AddressSpace::new(SpaceName::Local, local_pools());

    let all: BTreeSet<Prefix> = (0..31)
        .map(|_| ask(&mut local, PoolRequest::default()).unwrap().pool)
        .collect();

    assert_eq!(all.len(), 31);
    assert_eq!(all.first(), Some(&prefix("172.17.0.0/16")));
    assert_eq!(all.last(), Some(&prefix("192.168.240.0/20")));
    assert_eq!(
        ask(&mut local, PoolRequest::default()),
        Err(PoolRefusal::NoMorePools(20))
    );
    assert!(ask(&mut space(), named("172.17.0.0/16")).is_ok());
}

#[test]
fn any_pool_of_ipv6_is_a_64_of_the_site() {
    let mut pools = local_pools();
    pools.push(site_pool(0x01_2345_6789));
    let mut local = AddressSpace::new(SpaceName::Local, pools);
    let any = PoolRequest {
        v6: true,
        ..PoolRequest::default()
    };

    assert_eq!(
        ask(&mut local, any).unwrap().pool,
        prefix("fd01:2345:6789::/64")
    );
    assert_eq!(
        ask(&mut local, named("::/64")).unwrap().pool,
        prefix("fd01:2345:6789:1::/64")
    );
}

#[test]
fn an_address_comes_with_the_length_of_the_pool_and_from_the_range() {
    let mut space = space();
    let id = ask(&mut space, ranged("172.28.0.0/16", "172.28.30.0/24")).unwrap();
    space.reserve(id, ip("172.28.30.0")).unwrap();

    let first = space.request_address(id, None, at(0));
    let again = space.request_address(id, Some(ip("172.28.30.1")), at(0));
    let outside = space.request_address(id, Some(ip("172.28.31.1")), at(0));

    assert_eq!(first, Ok(prefix("172.28.30.1/16")));
    assert_eq!(again, Err(PoolRefusal::AddressInUse(ip("172.28.30.1"))));
    assert!(matches!(outside, Err(PoolRefusal::AddressOutside { .. })));
    let all = (1..255)
        .map(|_| space.request_address(id, None, at(0)).unwrap())
        .last();
    assert_eq!(all, Some(prefix("172.28.30.255/16")));
    let full = space.request_address(id, None, at(0));
    assert_eq!(
        full,
        Err(PoolRefusal::NoMoreAddresses(prefix("172.28.30.0/24")))
    );
    assert_eq!(space.utilisation(id).unwrap().percent(), 100);
    assert_eq!(
        space.release_address(id, ip("172.28.30.97"), at(1)),
        Ok(true)
    );
    assert_eq!(
        space.release_address(id, ip("172.28.30.97"), at(1)),
        Ok(false)
    );
    assert_eq!(
        space.request_address(id, None, at(1)),
        Ok(prefix("172.28.30.97/16"))
    );
}

#[test]
fn a_released_address_is_handed_out_after_all_others() {
    let mut space = space();
    let id = ask(&mut space, named("10.9.0.0/24")).unwrap();
    let first = space.request_address(id, None, at(0)).unwrap();
    space.release_address(id, first.0.addr(), at(0)).unwrap();

    let others: Vec<Prefix> = (0..253)
        .map(|_| space.request_address(id, None, at(1)).unwrap())
        .collect();

    assert!(!others.contains(&first));
    assert_eq!(space.request_address(id, None, at(2)), Ok(first));
    let use_up = Utilisation {
        in_use: 203,
        capacity: 254,
    };
    assert_eq!(use_up.percent(), 80);
    assert_eq!(COOL_DOWN, Duration::from_secs(300));
}

#[test]
fn a_pools_id_survives_its_text() {
    for text in [
        "local/172.27.0.0/16",
        "global/172.27.0.0/16/172.27.3.0/24",
        "global/fd00::/64",
    ] {
        assert_eq!(
            text.parse::<PoolId>().map(|id| id.to_string()),
            Ok(text.to_owned())
        );
    }
    for text in [
        "",
        "default/10.0.0.0/8",
        "local",
        "local/10.0.0.0",
        "local/10.0.0.0/33",
        "local/1/2/3/4/5",
    ] {
        assert!(text.parse::<PoolId>().is_err(), "{text}");
    }
}

#[test]
fn many_pools_requested_one_after_another_are_all_distinct() {
    let ten = Pool {
        base: prefix("10.0.0.0/10"),
        length: 24,
    };
    let mut space = AddressSpace::new(SpaceName::Global, vec![ten]);

    let all: BTreeSet<Prefix> = (0..16_384)
        .map(|_| ask(&mut space, PoolRequest::default()).unwrap().pool)
        .collect();

    assert_eq!(all.len(), 16_384);
    assert_eq!(
        ask(&mut space, PoolRequest::default()),
        Err(PoolRefusal::NoMorePools(24))
    );
}
