//! From what is there to what is desired: the fewest steps, in an order in which each can be taken.

use std::net::IpAddr;

use crate::core::{
    model::{Mac, Vni, Vtep},
    overlay::{Guard, Link, LinkId, Plane},
};

/// One change of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Take only these nodes' packets out of a tunnel.
    SetGuard {
        /// The tunnel.
        vni: Vni,
        /// Whose packets it takes.
        guard: Guard,
    },
    /// Take a guard away.
    RemoveGuard(Vni),
    /// Make a link. A port needs its bridge.
    AddLink(LinkId, Link),
    /// Make a link that is there as it was meant: its MTU, its bridge, its address, up.
    MendLink(LinkId, Link),
    /// Remove a link. With a VXLAN link go its forwarding entries and neighbours; a bridge leaves its ports without one.
    RemoveLink(LinkId),
    /// Make a forwarding entry or point it elsewhere.
    SetFdb {
        /// The tunnel.
        vni: Vni,
        /// The MAC address to reach.
        mac: Mac,
        /// The node it is behind.
        vtep: Vtep,
    },
    /// Remove a forwarding entry.
    RemoveFdb {
        /// The tunnel.
        vni: Vni,
        /// The MAC address.
        mac: Mac,
    },
    /// Make a neighbour or give it another MAC address.
    SetNeighbour {
        /// The tunnel.
        vni: Vni,
        /// The address to resolve.
        address: IpAddr,
        /// What it resolves to.
        mac: Mac,
    },
    /// Remove a neighbour.
    RemoveNeighbour {
        /// The tunnel.
        vni: Vni,
        /// The address.
        address: IpAddr,
    },
}

/// Returns what turns `actual` into `desired`: what must go first, then guards, then links, then what hangs on them.
///
/// An entry that changes is set anew in one step, so there is no moment in which its packets have nowhere to go. A link that
/// can be mended is not made anew: a sandbox has its other end. A tunnel is never there without its guard; but the guard of
/// one that stays changes last, since setting it takes longest.
pub fn steps(actual: &Plane, desired: &Plane) -> Vec<Step> {
    let mut steps = Vec::new();
    remove_entries(actual, desired, &mut steps);
    remove_links(actual, desired, &mut steps);
    let changed = desired.guards.iter();
    let changed = changed.filter(|(vni, guard)| actual.guards.get(vni) != Some(guard));
    let set = changed.map(|(&vni, guard)| {
        let guard = guard.clone();
        (stays(vni, actual, desired), Step::SetGuard { vni, guard })
    });
    let (widened, first): (Vec<_>, Vec<_>) = set.partition(|(stays, _)| *stays);
    steps.extend(first.into_iter().map(|(_, step)| step));
    add_links(actual, desired, &mut steps);
    add_entries(actual, desired, &mut steps);
    steps.extend(widened.into_iter().map(|(_, step)| step));
    for &vni in actual.guards.keys() {
        if !desired.guards.contains_key(&vni) {
            steps.push(Step::RemoveGuard(vni));
        }
    }
    steps
}

/// What becomes of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Absent,
    Keep,
    Mend,
    Make,
    Remake,
    Remove,
}

fn fate(id: LinkId, actual: &Plane, desired: &Plane) -> Fate {
    match (actual.links.get(&id), desired.links.get(&id)) {
        (None, None) => Fate::Absent,
        (None, Some(_)) => Fate::Make,
        (Some(_), None) => Fate::Remove,
        (Some(is), Some(wanted)) if is == wanted && !actual.amiss.contains(&id) => Fate::Keep,
        (Some(is), Some(wanted)) if is.can_become(wanted) => Fate::Mend,
        (Some(_), Some(_)) => Fate::Remake,
    }
}

/// Whether a tunnel stays. The entries of one that does not go with it.
fn stays(vni: Vni, actual: &Plane, desired: &Plane) -> bool {
    match fate(LinkId::Vxlan(vni), actual, desired) {
        Fate::Keep | Fate::Mend => true,
        Fate::Absent | Fate::Make | Fate::Remake | Fate::Remove => false,
    }
}

fn remove_links(actual: &Plane, desired: &Plane, steps: &mut Vec<Step>) {
    // Ports before their bridges.
    for &id in actual.links.keys().rev() {
        match fate(id, actual, desired) {
            Fate::Remake | Fate::Remove => steps.push(Step::RemoveLink(id)),
            Fate::Absent | Fate::Keep | Fate::Mend | Fate::Make => {}
        }
    }
}

fn add_links(actual: &Plane, desired: &Plane, steps: &mut Vec<Step>) {
    let is_anew = |bridge: Vni| match fate(LinkId::Bridge(bridge), actual, desired) {
        Fate::Make | Fate::Remake => true,
        Fate::Absent | Fate::Keep | Fate::Mend | Fate::Remove => false,
    };
    // Bridges before their ports.
    for (&id, link) in &desired.links {
        match fate(id, actual, desired) {
            Fate::Make | Fate::Remake => steps.push(Step::AddLink(id, link.clone())),
            Fate::Mend => steps.push(Step::MendLink(id, link.clone())),
            Fate::Keep if link.port_of().is_some_and(is_anew) => {
                steps.push(Step::MendLink(id, link.clone()));
            }
            Fate::Keep | Fate::Absent | Fate::Remove => {}
        }
    }
}

fn remove_entries(actual: &Plane, desired: &Plane, steps: &mut Vec<Step>) {
    for &(vni, address) in actual.neighbours.keys() {
        let wanted = desired.neighbours.contains_key(&(vni, address));
        if !wanted && stays(vni, actual, desired) {
            steps.push(Step::RemoveNeighbour { vni, address });
        }
    }
    for &(vni, mac) in actual.fdb.keys() {
        let wanted = desired.fdb.contains_key(&(vni, mac));
        if !wanted && stays(vni, actual, desired) {
            steps.push(Step::RemoveFdb { vni, mac });
        }
    }
}

fn add_entries(actual: &Plane, desired: &Plane, steps: &mut Vec<Step>) {
    for (&(vni, mac), &vtep) in &desired.fdb {
        let there = actual.fdb.get(&(vni, mac)) == Some(&vtep);
        if !there || !stays(vni, actual, desired) {
            steps.push(Step::SetFdb { vni, mac, vtep });
        }
    }
    for (&(vni, address), &mac) in &desired.neighbours {
        let there = actual.neighbours.get(&(vni, address)) == Some(&mac);
        if !there || !stays(vni, actual, desired) {
            steps.push(Step::SetNeighbour { vni, address, mac });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn equal_planes_need_no_step() {
        let plane = plane(&[(2, 2), (3, 3)]);

        assert_eq!(steps(&plane, &plane), []);
    }

    #[test]
    fn an_entry_that_moves_is_pointed_elsewhere_in_one_step() {
        let step = Step::SetFdb {
            vni: vni(),
            mac: mac(2),
            vtep: vtep(9),
        };

        assert_eq!(steps(&plane(&[(2, 2)]), &plane(&[(2, 9)])), [step]);
    }

    #[test]
    fn what_goes_with_its_tunnel_is_not_removed_by_itself() {
        let removed = [Step::RemoveLink(LinkId::Vxlan(vni()))];

        assert_eq!(steps(&plane(&[(2, 2)]), &Plane::default()), removed);
    }

    #[test]
    fn a_link_that_can_be_mended_is_not_made_anew() {
        let desired = plane(&[(2, 2)]);
        let id = LinkId::Vxlan(vni());
        let (mut slower, mut down) = (desired.clone(), desired.clone());
        slower
            .links
            .insert(id, desired.links[&id].clone().with_mtu(1400));
        down.amiss.insert(id);

        for actual in [slower, down] {
            let mended = [Step::MendLink(id, desired.links[&id].clone())];
            assert_eq!(steps(&actual, &desired), mended);
        }
    }

    #[test]
    fn what_was_in_a_bridge_that_is_made_anew_becomes_a_port_again() {
        let mut desired = plane(&[]);
        let bridge = Link::Bridge {
            gateways: [crate::core::model::Prefix("10.0.0.254/24".parse().unwrap())].into(),
            mtu: 1450,
        };
        desired.links.insert(LinkId::Bridge(vni()), bridge.clone());

        let taken = steps(&plane(&[]), &desired);

        assert_eq!(taken[0], Step::AddLink(LinkId::Bridge(vni()), bridge));
        assert!(matches!(taken[1], Step::MendLink(LinkId::Vxlan(_), _)));
    }

    #[test]
    fn a_tunnel_has_its_guard_before_it_is_made_and_after_it_is_gone() {
        let mut guarded = plane(&[(2, 2)]);
        let guard = Guard {
            port: 4789,
            members: [vtep(2)].into(),
        };
        guarded.guards.insert(vni(), guard.clone());

        let made = steps(&Plane::default(), &guarded);
        let removed = steps(&guarded, &Plane::default());

        let vni = vni();
        assert_eq!(made[0], Step::SetGuard { vni, guard });
        assert_eq!(removed.last(), Some(&Step::RemoveGuard(vni)));
    }

    #[test]
    fn a_tunnel_made_anew_gets_its_entries_again() {
        let mut slower = plane(&[(2, 2)]);
        let link = Link::Vxlan {
            bridge: vni(),
            port: 4790,
            source: Ipv4Addr::UNSPECIFIED.into(),
            mtu: 1450,
        };
        slower.links.insert(LinkId::Vxlan(vni()), link.clone());

        let taken = steps(&plane(&[(2, 2)]), &slower);

        assert_eq!(taken.len(), 4);
        assert_eq!(taken[0], Step::RemoveLink(LinkId::Vxlan(vni())));
        assert_eq!(taken[1], Step::AddLink(LinkId::Vxlan(vni()), link));
    }

    /// A tunnel with an endpoint `n` behind node `m` for each pair.
    fn plane(peers: &[(u8, u8)]) -> Plane {
        let link = Link::Vxlan {
            bridge: vni(),
            port: 4789,
            source: Ipv4Addr::UNSPECIFIED.into(),
            mtu: 1450,
        };
        let mut plane = Plane::default();
        plane.links.insert(LinkId::Vxlan(vni()), link);
        for &(n, m) in peers {
            let address = IpAddr::from([10, 0, 0, n]);
            plane.fdb.insert((vni(), mac(n)), vtep(m));
            plane.neighbours.insert((vni(), address), mac(n));
        }
        plane
    }

    fn vni() -> Vni {
        Vni::new(4096).unwrap()
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn vtep(m: u8) -> Vtep {
        Vtep(IpAddr::from([192, 0, 2, m]))
    }
}
