//! From what is there to what is desired: the fewest steps, in an order in which each can be taken.

use std::net::IpAddr;

use crate::core::{
    model::{Mac, Vni, Vtep},
    overlay::{Link, LinkId, Plane},
};

/// One change of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Make a link.
    AddLink(LinkId, Link),
    /// Remove a link. With a VXLAN link go its forwarding entries and neighbours.
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

/// Returns what turns `actual` into `desired`: what must go first, then links, then what hangs on them.
///
/// An entry that changes is set anew in one step, so there is no moment in which its packets have nowhere to go.
pub fn steps(actual: &Plane, desired: &Plane) -> Vec<Step> {
    let mut steps = Vec::new();
    remove_entries(actual, desired, &mut steps);
    for (id, link) in &actual.links {
        if desired.links.get(id) != Some(link) {
            steps.push(Step::RemoveLink(*id));
        }
    }
    for (id, link) in &desired.links {
        if actual.links.get(id) != Some(link) {
            steps.push(Step::AddLink(*id, *link));
        }
    }
    add_entries(actual, desired, &mut steps);
    steps
}

/// Whether a tunnel stays as it is. The entries of one that does not go with it.
fn stays(vni: Vni, actual: &Plane, desired: &Plane) -> bool {
    let id = LinkId::Vxlan(vni);
    actual.links.contains_key(&id) && actual.links.get(&id) == desired.links.get(&id)
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
    fn a_tunnel_made_anew_gets_its_entries_again() {
        let mut slower = plane(&[(2, 2)]);
        let link = Link::Vxlan {
            port: 4789,
            mtu: 1400,
        };
        slower.links.insert(LinkId::Vxlan(vni()), link);

        let taken = steps(&plane(&[(2, 2)]), &slower);

        assert_eq!(taken.len(), 4);
        assert_eq!(taken[0], Step::RemoveLink(LinkId::Vxlan(vni())));
        assert_eq!(taken[1], Step::AddLink(LinkId::Vxlan(vni()), link));
    }

    /// A tunnel with an endpoint `n` behind node `m` for each pair.
    fn plane(peers: &[(u8, u8)]) -> Plane {
        let link = Link::Vxlan {
            port: 4789,
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
