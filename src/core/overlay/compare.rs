//! Desired beside actual: everything that either has, in words, so that a person sees what is missing, stale or different.

use std::collections::BTreeMap;

use super::{Guard, Link, LinkId, Plane};

/// What kind of thing it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A bridge, a tunnel, an endpoint's pair.
    Link,
    /// A gateway's address on the bridge.
    Address,
    /// A forwarding entry.
    Fdb,
    /// A neighbour.
    Neighbour,
    /// Whose packets a tunnel takes.
    Guard,
}

/// One thing as it should be and as it is; nothing where it should not be, or is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    /// Its kind.
    pub kind: Kind,
    /// Which of that kind.
    pub name: String,
    /// As it should be.
    pub desired: Option<String>,
    /// As it is.
    pub actual: Option<String>,
}

impl Compared {
    /// Returns whether it is not as it should be.
    pub fn differs(&self) -> bool {
        self.desired != self.actual
    }
}

/// Sets side by side all that either has, sorted by kind and name. Nothing differs if and only if there is no step to take.
pub fn compare(desired: &Plane, actual: &Plane) -> Vec<Compared> {
    let mut actual = describe(actual);
    let mut all = Vec::new();
    for ((kind, name), wanted) in describe(desired) {
        let place = (kind, name);
        all.push(Compared {
            actual: actual.remove(&place),
            kind,
            name: place.1,
            desired: Some(wanted),
        });
    }
    all.extend(actual.into_iter().map(|((kind, name), is)| Compared {
        kind,
        name,
        desired: None,
        actual: Some(is),
    }));
    all.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    all
}

fn describe(plane: &Plane) -> BTreeMap<(Kind, String), String> {
    let mut all = BTreeMap::new();
    for (id, link) in &plane.links {
        let mut words = words(link);
        if plane.amiss.contains(id) {
            words.push_str(", down or in no bridge");
        }
        all.insert((Kind::Link, named(*id)), words);
        if let Link::Bridge { gateways, .. } = link {
            for gateway in gateways {
                all.insert((Kind::Address, gateway.to_string()), named(*id));
            }
        }
    }
    for ((vni, mac), vtep) in &plane.fdb {
        let name = format!("vxlan {vni} {mac}");
        all.insert((Kind::Fdb, name), vtep.0.to_string());
    }
    for ((vni, address), mac) in &plane.neighbours {
        let name = format!("vxlan {vni} {address}");
        all.insert((Kind::Neighbour, name), mac.to_string());
    }
    for (vni, Guard { port, members }) in &plane.guards {
        let members: Vec<String> = members.iter().map(|vtep| vtep.0.to_string()).collect();
        let from = match members.is_empty() {
            true => "nobody".to_owned(),
            false => members.join(", "),
        };
        let words = format!("UDP port {port} from {from}");
        all.insert((Kind::Guard, format!("vxlan {vni}")), words);
    }
    all
}

fn named(id: LinkId) -> String {
    match id {
        LinkId::Bridge(vni) => format!("bridge {vni}"),
        LinkId::Vxlan(vni) => format!("vxlan {vni}"),
        LinkId::Endpoint(endpoint) => format!("endpoint {endpoint}"),
    }
}

fn words(link: &Link) -> String {
    match link {
        Link::Bridge { gateways: _, mtu } => format!("mtu {mtu}"),
        Link::Vxlan {
            bridge,
            port,
            source,
            mtu,
        } => format!("UDP port {port} from {source}, bridge {bridge}, mtu {mtu}"),
        Link::Endpoint {
            bridge,
            mac,
            addresses,
            mtu,
        } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(" ");
            format!("{mac} {addresses}, bridge {bridge}, mtu {mtu}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use super::*;
    use crate::core::model::{Mac, Vni, Vtep};

    #[test]
    fn what_is_missing_what_is_stale_and_what_is_different_is_told_apart() {
        let (desired, mut actual) = (plane(2), plane(2));
        assert!(!compare(&desired, &actual).iter().any(Compared::differs));
        let (vni, mac) = (vni(), Mac([2; 6]));
        actual.fdb.insert((vni, mac), vtep(9));
        actual.neighbours.clear();
        actual.guards.insert(
            vni,
            Guard {
                port: 4789,
                members: BTreeSet::new(),
            },
        );
        actual.amiss.insert(LinkId::Bridge(vni));

        let all = compare(&desired, &actual);

        let differing: Vec<(Kind, Option<&str>, Option<&str>)> = all
            .iter()
            .filter(|one| one.differs())
            .map(|one| (one.kind, one.desired.as_deref(), one.actual.as_deref()))
            .collect();
        assert_eq!(
            differing,
            [
                (
                    Kind::Link,
                    Some("mtu 1450"),
                    Some("mtu 1450, down or in no bridge")
                ),
                (Kind::Fdb, Some("192.0.2.2"), Some("192.0.2.9")),
                (Kind::Neighbour, Some("02:02:02:02:02:02"), None),
                (
                    Kind::Guard,
                    Some("UDP port 4789 from 192.0.2.2"),
                    Some("UDP port 4789 from nobody")
                ),
            ]
        );
        let stale = compare(&Plane::default(), &plane(2));
        assert!(stale.iter().all(|one| one.desired.is_none()));
        assert_eq!(stale.len(), 5);
    }

    fn plane(member: u8) -> Plane {
        let (vni, mac) = (vni(), Mac([2; 6]));
        let mut plane = Plane::default();
        let bridge = Link::Bridge {
            gateways: [crate::core::model::Prefix("10.0.0.254/24".parse().unwrap())].into(),
            mtu: 1450,
        };
        plane.links.insert(LinkId::Bridge(vni), bridge);
        plane.fdb.insert((vni, mac), vtep(member));
        plane
            .neighbours
            .insert((vni, IpAddr::from([10, 0, 0, 2])), mac);
        let members = [vtep(member)].into();
        plane.guards.insert(
            vni,
            Guard {
                port: 4789,
                members,
            },
        );
        plane
    }

    fn vtep(n: u8) -> Vtep {
        Vtep(IpAddr::from([192, 0, 2, n]))
    }

    fn vni() -> Vni {
        Vni::new(4096).unwrap()
    }
}
