//! What is desired after which news. The cases O8 to O10 are libnetwork's.

use super::*;

#[test]
fn peers_heard_of_before_the_first_join_are_programmed_at_it() {
    let mut overlay = overlay();
    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.2/24", 2, "192.0.2.2")));
    assert_eq!(overlay.desired(), Plane::default());

    overlay.handle_join(EndpointId(1), local("10.0.0.1/24", 1));

    let plane = overlay.desired();
    assert_eq!(plane.links.len(), 3);
    assert_eq!(vtep_of(&plane, 2), Some(vtep("192.0.2.2")));
    assert_eq!(mac_of(&plane, "10.0.0.2"), Some(mac(2)));
}

#[test]
fn the_last_leave_takes_all_away() {
    let mut overlay = joined();
    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.2/24", 2, "192.0.2.2")));

    overlay.handle_leave(EndpointId(1));

    assert_eq!(overlay.desired(), Plane::default());
}

#[test]
fn of_two_endpoints_with_one_address_the_surviving_one_is_programmed() {
    let first = (EndpointId(2), peer("10.0.0.2/24", 2, "192.0.2.2"));
    let second = (EndpointId(3), peer("10.0.0.2/24", 3, "192.0.2.3"));
    for (gone, survivor) in [(&first, &second), (&second, &first)] {
        let mut overlay = joined();
        overlay.handle_peer(first.0, Some(first.1.clone()));
        overlay.handle_peer(second.0, Some(second.1.clone()));
        assert_eq!(mac_of(&overlay.desired(), "10.0.0.2"), Some(mac(2)));

        overlay.handle_peer(gone.0, None);

        let plane = overlay.desired();
        assert_eq!(mac_of(&plane, "10.0.0.2"), Some(survivor.1.mac));
        assert_eq!(plane.fdb.len(), 1);
    }
}

#[test]
fn a_record_that_moves_leaves_nothing_of_its_old_place() {
    let mut overlay = joined();
    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.2/24", 2, "192.0.2.2")));

    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.9/24", 9, "192.0.2.9")));

    let plane = overlay.desired();
    assert_eq!((plane.fdb.len(), plane.neighbours.len()), (1, 1));
    assert_eq!(vtep_of(&plane, 9), Some(vtep("192.0.2.9")));
}

#[test]
fn our_own_tunnel_end_and_our_own_addresses_are_not_reached_through_a_tunnel() {
    let mut overlay = joined();

    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.2/24", 2, "192.0.2.1")));
    overlay.handle_peer(EndpointId(3), Some(peer("10.0.0.1/24", 3, "192.0.2.3")));

    assert_eq!(overlay.desired(), joined().desired());
}

#[test]
fn a_peer_outside_every_subnet_is_not_programmed() {
    let mut overlay = joined();

    overlay.handle_peer(EndpointId(2), Some(peer("10.9.0.2/24", 2, "192.0.2.2")));

    assert!(overlay.desired().fdb.is_empty());
}

#[test]
fn a_record_that_names_no_single_endpoint_is_refused() {
    let good = peer("10.0.0.2/24", 2, "192.0.2.2");
    assert_eq!(check_peer(&good), Ok(()));

    let bad_vtep = peer("10.0.0.2/24", 2, "224.0.0.1");
    let bad_address = peer("0.0.0.0/24", 2, "192.0.2.2");
    let bad_mac = PeerRecord {
        mac: Mac([1, 0, 0, 0, 0, 1]),
        ..good
    };

    assert!(matches!(check_peer(&bad_vtep), Err(PeerError::Vtep(_))));
    assert!(matches!(
        check_peer(&bad_address),
        Err(PeerError::Address(_))
    ));
    assert!(matches!(check_peer(&bad_mac), Err(PeerError::Mac(_))));
}

#[test]
fn what_a_former_run_has_left_stays_until_all_has_been_told() {
    let left = left();
    let mut overlay = overlay();
    overlay.adopt(left.clone());
    assert_eq!(overlay.desired(), left);

    overlay.handle_join(EndpointId(1), local("10.0.0.1/24", 1));

    let kept = overlay.desired();
    assert!(kept.links.contains_key(&LinkId::Endpoint(EndpointId(7))));
    assert_eq!(vtep_of(&kept, 9), Some(vtep("192.0.2.9")));
    overlay.settle();
    assert_eq!(overlay.desired(), joined().desired());
}

#[test]
fn what_was_told_since_counts_more_than_what_a_former_run_has_left() {
    let mut overlay = overlay();
    overlay.adopt(left());

    overlay.handle_peer(EndpointId(9), Some(peer("10.0.0.9/24", 9, "192.0.2.3")));
    assert_eq!(vtep_of(&overlay.desired(), 9), Some(vtep("192.0.2.3")));

    overlay.handle_peer(EndpointId(9), None);
    assert_eq!(vtep_of(&overlay.desired(), 9), None);
    overlay.handle_leave(EndpointId(7));
    assert_eq!(overlay.desired(), Plane::default());
}

#[test]
fn only_nodes_that_carry_endpoints_may_send_through_a_tunnel() {
    let mut overlay = joined();
    assert!(overlay.desired().guards[&vni()].members.is_empty());

    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.2/24", 2, "192.0.2.2")));
    overlay.handle_peer(EndpointId(3), Some(peer("10.9.0.3/24", 3, "192.0.2.3")));

    let members = [vtep("192.0.2.2")].into();
    assert_eq!(overlay.desired().guards[&vni()].members, members);
}

#[test]
fn a_node_with_endpoints_in_one_subnet_may_send_into_all_others() {
    let second = Subnet {
        prefix: prefix("10.1.0.0/24"),
        gateway: "10.1.0.254".parse().unwrap(),
        vni: Vni::new(4097),
    };
    let mut overlay = overlay();
    overlay.subnets.push(second);
    overlay.handle_join(EndpointId(1), local("10.0.0.1/24", 1));

    overlay.handle_peer(EndpointId(2), Some(peer("10.1.0.2/24", 2, "192.0.2.2")));

    let guards = overlay.desired().guards;
    let members: BTreeSet<Vtep> = [vtep("192.0.2.2")].into();
    assert_eq!(guards.len(), 2);
    assert!(guards.values().all(|guard| guard.members == members));
}

#[test]
fn an_endpoint_with_addresses_of_both_families_is_behind_one_tunnel() {
    let mut overlay = with_ipv6();
    let both = Local {
        addresses: vec![prefix("10.0.0.1/24"), prefix("fd00::1/64")],
        mac: mac(1),
    };
    overlay.handle_join(EndpointId(1), both.clone());

    overlay.handle_peer(EndpointId(2), Some(both_families(2)));
    overlay.handle_peer(EndpointId(3), Some(peer("fd00::3/64", 3, "192.0.2.3")));

    let plane = overlay.desired();
    let six = Vni::new(4097).unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let link = &plane.links[&LinkId::Endpoint(EndpointId(1))];
    assert!(matches!(link, Link::Endpoint { addresses, .. } if *addresses == both.addresses));
    let neighbours = BTreeMap::from([
        ((vni(), ip("10.0.0.2")), mac(2)),
        ((vni(), ip("fd00::2")), mac(2)),
        ((six, ip("fd00::3")), mac(3)),
    ]);
    assert_eq!(plane.neighbours, neighbours);
    let fdb = BTreeMap::from([
        ((vni(), mac(2)), vtep("192.0.2.2")),
        ((six, mac(3)), vtep("192.0.2.3")),
    ]);
    assert_eq!(plane.fdb, fdb);
}

#[test]
fn a_network_has_one_bridge_with_all_gateways_and_a_tunnel_for_each_subnet() {
    let mut overlay = with_ipv6();
    overlay.handle_join(EndpointId(1), local("fd00::1/64", 1));

    let links = overlay.desired().links;

    let gateways = BTreeSet::from([prefix("10.0.0.254/24"), prefix("fd00::ff/64")]);
    let bridge = &links[&LinkId::Bridge(vni())];
    assert!(matches!(bridge, Link::Bridge { gateways: has, .. } if *has == gateways));
    for n in [4096, 4097] {
        let tunnel = &links[&LinkId::Vxlan(Vni::new(n).unwrap())];
        assert_eq!(tunnel.port_of(), Some(vni()));
    }
    assert_eq!(links.len(), 4);
}

#[test]
fn of_two_endpoints_that_share_one_address_the_other_address_works() {
    let mut overlay = with_ipv6();
    overlay.handle_join(EndpointId(1), local("10.0.0.1/24", 1));
    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.3/24", 2, "192.0.2.2")));
    overlay.handle_peer(EndpointId(3), Some(both_families(3)));

    let plane = overlay.desired();

    assert_eq!(mac_of(&plane, "10.0.0.3"), Some(mac(2)));
    assert_eq!(mac_of(&plane, "fd00::3"), Some(mac(3)));
    overlay.handle_peer(EndpointId(2), None);
    assert_eq!(mac_of(&overlay.desired(), "10.0.0.3"), Some(mac(3)));
}

#[test]
fn a_mac_address_is_behind_one_node_whoever_else_claims_it() {
    let mut overlay = with_ipv6();
    overlay.handle_join(EndpointId(1), local("10.0.0.1/24", 1));
    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.2/24", 2, "192.0.2.2")));
    overlay.handle_peer(EndpointId(3), Some(peer("fd00::3/64", 2, "192.0.2.3")));
    overlay.handle_peer(EndpointId(4), Some(peer("10.0.0.4/24", 1, "192.0.2.4")));

    let fdb = overlay.desired().fdb;

    assert_eq!(fdb, BTreeMap::from([((vni(), mac(2)), vtep("192.0.2.2"))]));
}

#[test]
fn a_tunnel_has_ends_of_one_family() {
    let mut overlay = joined();

    overlay.handle_peer(EndpointId(2), Some(peer("10.0.0.2/24", 2, "2001:db8::2")));

    assert_eq!(overlay.desired(), joined().desired());
}

#[test]
fn the_mtu_inside_is_what_the_underlay_leaves() {
    let over = |vtep_: &str| Underlay {
        vtep: vtep(vtep_),
        is_own: true,
        mtu: 9000,
    };

    assert_eq!(over("192.0.2.1").settings().mtu, 8950);
    assert_eq!(over("2001:db8::1").settings().mtu, 8930);
    let source = over("192.0.2.1").settings().source;
    assert_eq!(source, vtep("192.0.2.1").0);
    let translated = Underlay::assumed(vtep("2001:db8::1")).settings();
    assert_eq!(translated.source, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
}

/// What a run left with endpoint 7 here and endpoint 9 behind another node.
fn left() -> Plane {
    let mut before = overlay();
    before.handle_join(EndpointId(7), local("10.0.0.7/24", 7));
    before.handle_peer(EndpointId(9), Some(peer("10.0.0.9/24", 9, "192.0.2.9")));
    before.desired()
}

fn overlay() -> Overlay {
    let subnet = Subnet {
        prefix: prefix("10.0.0.0/24"),
        gateway: "10.0.0.254".parse().unwrap(),
        vni: Vni::new(4096),
    };
    Overlay::new(vtep("192.0.2.1"), Settings::default(), vec![subnet])
}

/// A network with an IPv6 subnet besides.
fn with_ipv6() -> Overlay {
    let mut overlay = overlay();
    overlay.subnets.push(Subnet {
        prefix: prefix("fd00::/64"),
        gateway: "fd00::ff".parse().unwrap(),
        vni: Vni::new(4097),
    });
    overlay
}

/// Endpoint `n` with an address of each family, behind node `n`.
fn both_families(n: u8) -> PeerRecord {
    PeerRecord {
        others: vec![prefix(&format!("fd00::{n}/64"))],
        ..peer(&format!("10.0.0.{n}/24"), n, &format!("192.0.2.{n}"))
    }
}

fn joined() -> Overlay {
    let mut overlay = overlay();
    overlay.handle_join(EndpointId(1), local("10.0.0.1/24", 1));
    overlay
}

fn local(address: &str, last: u8) -> Local {
    Local {
        addresses: vec![prefix(address)],
        mac: mac(last),
    }
}

fn peer(address: &str, last: u8, end: &str) -> PeerRecord {
    PeerRecord {
        address: prefix(address),
        mac: mac(last),
        vtep: vtep(end),
        others: Vec::new(),
    }
}

fn prefix(text: &str) -> Prefix {
    Prefix(text.parse().unwrap())
}

fn vtep(text: &str) -> Vtep {
    Vtep(text.parse().unwrap())
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn vni() -> Vni {
    Vni::new(4096).unwrap()
}

fn vtep_of(plane: &Plane, last: u8) -> Option<Vtep> {
    plane.fdb.get(&(vni(), mac(last))).copied()
}

fn mac_of(plane: &Plane, address: &str) -> Option<Mac> {
    let place = (vni(), address.parse().unwrap());
    plane.neighbours.get(&place).copied()
}
