//! Whatever is there and whatever is desired: the steps lead from one to the other, and there are no more than need be.

use std::net::{IpAddr, Ipv4Addr};

use proptest::{collection::btree_map, prelude::*, sample::select};

use super::*;
use crate::core::{
    model::{Vni, Vtep},
    overlay::{Guard, Link, LinkId},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn steps_lead_from_any_plane_to_any_other(actual in plane(), desired in plane()) {
        let desired = Plane { amiss: Default::default(), ..desired };
        let memory = Memory::default();
        memory.put(NETWORK, actual.clone());

        let taken = steps(&actual, &desired);
        let count = taken.len();
        let done = memory.take_now(NETWORK, taken);

        prop_assert_eq!(done, Ok(()));
        let reached = memory.plane(NETWORK);
        prop_assert_eq!(steps(&reached, &desired), vec![]);
        prop_assert_eq!(reached, desired.clone());
        prop_assert!(count <= most(&actual, &desired), "{} steps", count);
    }

    #[test]
    fn a_link_that_a_sandbox_has_is_never_made_anew_for_what_can_be_mended(
        actual in plane(),
        broken in any::<u8>(),
    ) {
        let mut desired = actual.clone();
        desired.amiss.clear();
        for (at, link) in desired.links.values_mut().enumerate() {
            if broken & (1 << (at % 8)) != 0 {
                *link = link.clone().with_mtu(1300);
            }
        }

        let taken = steps(&actual, &desired);

        let remakes = |step: &&Step| matches!(step, Step::RemoveLink(_) | Step::AddLink(..));
        prop_assert_eq!(taken.iter().find(remakes), None);
    }
}

#[test]
fn a_new_member_changes_an_entry_a_neighbour_and_a_guard_and_nothing_else() {
    let few = large(1_999);
    let many = large(2_000);

    assert_eq!(steps(&few, &many).len(), 3);
}

const NETWORK: NetworkId = NetworkId(1);

/// One step for each thing that differs, two for a link that is made anew, and one for each port of a bridge that is.
fn most(actual: &Plane, desired: &Plane) -> usize {
    let links = actual.links.len() + 2 * desired.links.len();
    let entries = |plane: &Plane| plane.fdb.len() + plane.neighbours.len() + plane.guards.len();
    if actual == desired {
        return 0;
    }
    links + entries(actual) + entries(desired)
}

/// A plane as a kernel could hold it: ports have their bridge or are amiss, entries have their tunnel.
fn plane() -> impl Strategy<Value = Plane> {
    let links = btree_map(id(), 0_u8..3, 0..8);
    let entries = btree_map((0_u32..2, 0_u8..6), 0_u8..4, 0..12);
    let guards = btree_map(0_u32..2, 0_u8..4, 0..2);
    (links, entries, guards, any::<u16>()).prop_map(|(links, entries, guards, amiss)| {
        let mut plane = Plane::default();
        for (id, kind) in links {
            plane.links.insert(id, link(id, kind));
        }
        let all = plane.links.clone();
        let has_bridge = |vni: Vni| all.contains_key(&LinkId::Bridge(vni));
        for (at, (id, link)) in all.iter().enumerate() {
            let is_lost = link.port_of().is_some_and(|vni| !has_bridge(vni));
            if is_lost {
                plane.links.remove(id);
            } else if amiss & (1 << at) != 0 {
                plane.amiss.insert(*id);
            }
        }
        for ((n, mac), to) in entries {
            if plane.links.contains_key(&LinkId::Vxlan(vni(n))) {
                plane
                    .fdb
                    .insert((vni(n), Mac([2, 0, 0, 0, 0, mac])), vtep(to));
                let address = IpAddr::from([10, 0, 0, mac]);
                let mac = Mac([2, 0, 0, 0, 0, to]);
                plane.neighbours.insert((vni(n), address), mac);
            }
        }
        for (n, member) in guards {
            let guard = Guard {
                port: 4789,
                members: [vtep(member)].into(),
            };
            plane.guards.insert(vni(n), guard);
        }
        plane
    })
}

fn id() -> impl Strategy<Value = LinkId> {
    let bridges = (0..2).map(|n| LinkId::Bridge(vni(n)));
    let tunnels = (0..2).map(|n| LinkId::Vxlan(vni(n)));
    let endpoints = (0..4).map(|n| LinkId::Endpoint(EndpointId(n)));
    select(bridges.chain(tunnels).chain(endpoints).collect::<Vec<_>>())
}

/// A link of one of three kinds: two differ in what can be mended, the third cannot become either.
fn link(id: LinkId, kind: u8) -> Link {
    let mtu = if kind == 1 { 1400 } else { 1450 };
    let other = u8::from(kind == 2);
    match id {
        LinkId::Bridge(_) => Link::Bridge {
            gateways: [prefix(1 + other)].into(),
            mtu,
        },
        LinkId::Vxlan(of) => Link::Vxlan {
            bridge: of,
            port: 4789 + u16::from(other),
            source: Ipv4Addr::UNSPECIFIED.into(),
            mtu,
        },
        LinkId::Endpoint(endpoint) => Link::Endpoint {
            bridge: vni(u32::from(endpoint.0 % 2 == 1)),
            mac: Mac([2, 0, 0, 0, 0, other]),
            addresses: vec![prefix(10)],
            mtu,
        },
    }
}

fn large(peers: u32) -> Plane {
    let mut plane = Plane::default();
    let tunnel = LinkId::Vxlan(vni(0));
    plane.links.insert(tunnel, link(tunnel, 0));
    let mut guard = Guard {
        port: 4789,
        members: Default::default(),
    };
    for n in 0..peers {
        let [_, a, b, c] = n.to_be_bytes();
        let (mac, vtep) = (Mac([2, 0, 0, a, b, c]), Vtep(IpAddr::from([192, 0, b, c])));
        plane.fdb.insert((vni(0), mac), vtep);
        let address = IpAddr::from([10, a, b, c]);
        plane.neighbours.insert((vni(0), address), mac);
        guard.members.insert(vtep);
    }
    plane.guards.insert(vni(0), guard);
    plane
}

fn vni(n: u32) -> Vni {
    Vni::new(4096 + n).unwrap()
}

fn vtep(n: u8) -> Vtep {
    Vtep(IpAddr::from([192, 0, 2, n]))
}

fn prefix(n: u8) -> Prefix {
    Prefix(format!("10.0.0.{n}/24").parse().unwrap())
}
