//! What our links are called, and the alias on each that says what it was made as.
//!
//! A link's other end may be in a sandbox, where it cannot be looked at: so what it was made as is written on this end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    core::{
        model::{EndpointId, NetworkId, Prefix, Vni},
        overlay::{Link, LinkId},
    },
    dataplane::link_name,
};

const BRIDGE: &str = "br-";
const VXLAN: &str = "vx-";
const ENDPOINT: &str = "weft";
/// How many digits of an endpoint's id its name has.
const DIGITS: usize = 11;

/// The names of the endpoints' links, over all networks: an endpoint's outer end has the inner one's in the host's namespace,
/// where those of all networks are until a sandbox takes them.
///
/// **Invariant:** no two endpoints are given one name, though a name has room for less than an id.
#[derive(Default)]
pub(super) struct Names(Mutex<BTreeMap<(NetworkId, EndpointId), String>>);

impl Names {
    /// Returns the name of an endpoint's link.
    pub(super) fn of_endpoint(&self, network: NetworkId, endpoint: EndpointId) -> String {
        let given = self.given().get(&(network, endpoint)).cloned();
        given.unwrap_or_else(|| link_name(endpoint))
    }

    /// Returns the name of a link in its network's namespace.
    pub(super) fn of(&self, network: NetworkId, id: LinkId) -> String {
        match id {
            LinkId::Bridge(vni) => bridge(vni),
            LinkId::Vxlan(vni) => tunnel(vni),
            LinkId::Endpoint(endpoint) => self.of_endpoint(network, endpoint),
        }
    }

    /// Gives an endpoint a name that no other has and that is not among `strangers`. It keeps one that it has.
    pub(super) fn give(
        &self,
        (network, endpoint): (NetworkId, EndpointId),
        strangers: &BTreeSet<String>,
    ) -> String {
        let mut given = self.given();
        if let Some(name) = given.get(&(network, endpoint)) {
            return name.clone();
        }
        let is_free =
            |name: &String| !strangers.contains(name) && !given.values().any(|it| it == name);
        // Fewer links than names: the search ends.
        let mut names = (0..).map(|after| nth_name(endpoint, after));
        let name = names.find(is_free).unwrap_or_else(|| link_name(endpoint));
        given.insert((network, endpoint), name.clone());
        name
    }

    /// Notes which names the links of a network have, and forgets those of links that are not there.
    pub(super) fn note(
        &self,
        network: NetworkId,
        found: impl IntoIterator<Item = (EndpointId, String)>,
    ) {
        let mut given = self.given();
        given.retain(|(of, _), _| *of != network);
        let found = found.into_iter();
        given.extend(found.map(|(endpoint, name)| ((network, endpoint), name)));
    }

    /// Forgets the name of a link that is gone.
    pub(super) fn take_back(&self, network: NetworkId, id: LinkId) {
        if let LinkId::Endpoint(endpoint) = id {
            self.given().remove(&(network, endpoint));
        }
    }

    fn given(&self) -> MutexGuard<'_, BTreeMap<(NetworkId, EndpointId), String>> {
        // A reader that finds a half-noted network gives a name that is refused and asked for again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of a network's bridge.
pub(super) fn bridge(vni: Vni) -> String {
    format!("{BRIDGE}{vni}")
}

/// Returns the name of a subnet's tunnel.
pub(super) fn tunnel(vni: Vni) -> String {
    format!("{VXLAN}{vni}")
}

/// The name `after` places behind the one that an endpoint's id begins with.
fn nth_name(endpoint: EndpointId, after: u128) -> String {
    let shift = u128::BITS - 4 * DIGITS as u32;
    link_name(EndpointId(endpoint.0.wrapping_add(after << shift)))
}

/// Returns the link of that name; of an endpoint's id no more than what is in the name, which is enough to remove it.
pub(super) fn id_of(name: &str) -> Option<LinkId> {
    let vni = |text: &str| text.parse().ok().and_then(Vni::new);
    if let Some(text) = name.strip_prefix(BRIDGE) {
        return Some(LinkId::Bridge(vni(text)?));
    }
    if let Some(text) = name.strip_prefix(VXLAN) {
        return Some(LinkId::Vxlan(vni(text)?));
    }
    let digits = name.strip_prefix(ENDPOINT)?;
    if digits.len() != DIGITS {
        return None;
    }
    let whole = format!("{digits:0<32}");
    whole.parse::<EndpointId>().ok().map(LinkId::Endpoint)
}

/// Says what a link was made as. What can be seen on the link itself is not in it.
pub(super) fn alias(id: LinkId, link: &Link) -> String {
    match link {
        Link::Bridge { .. } => "weft bridge".to_owned(),
        Link::Vxlan {
            bridge,
            port,
            source,
            ..
        } => format!("weft port {port} source {source} bridge {bridge}"),
        Link::Endpoint {
            bridge,
            mac,
            addresses,
            ..
        } => {
            let endpoint = match id {
                LinkId::Endpoint(endpoint) => endpoint.to_string(),
                LinkId::Bridge(_) | LinkId::Vxlan(_) => String::new(),
            };
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(",");
            format!("weft endpoint {endpoint} vni {bridge} mac {mac} address {addresses}")
        }
    }
}

/// Reads a link's name, alias and MTU; nothing if it is none of ours. A bridge's gateways are not in them.
///
/// Links of a daemon that made a bridge for each subnet are read too: it wrote a bridge's gateway, and no bridge of a tunnel.
pub(super) fn read(name: &str, alias: Option<&str>, mtu: u32) -> Option<(LinkId, Option<Link>)> {
    let id = id_of(name)?;
    let words: Vec<&str> = alias.unwrap_or_default().split(' ').collect();
    let read = match (id, words.as_slice()) {
        (LinkId::Bridge(_), ["weft", "bridge"] | ["weft", "gateway", _]) => {
            let gateways = BTreeSet::new();
            Some((id, Link::Bridge { gateways, mtu }))
        }
        (LinkId::Vxlan(vni), ["weft", "port", port, "source", source, rest @ ..]) => {
            let bridge = match rest {
                ["bridge", bridge] => bridge.parse().ok().and_then(Vni::new),
                [] => Some(vni),
                _ => None,
            };
            let parts = port.parse().ok().zip(source.parse().ok()).zip(bridge);
            parts.map(|((port, source), bridge)| {
                let tunnel = Link::Vxlan {
                    bridge,
                    port,
                    source,
                    mtu,
                };
                (id, tunnel)
            })
        }
        (
            LinkId::Endpoint(_),
            [
                "weft",
                "endpoint",
                endpoint,
                "vni",
                vni,
                "mac",
                mac,
                "address",
                address,
            ],
        ) => read_endpoint(endpoint, vni, (mac, address, mtu)),
        (LinkId::Bridge(_) | LinkId::Vxlan(_) | LinkId::Endpoint(_), _) => None,
    };
    Some(match read {
        Some((id, link)) => (id, Some(link)),
        None => (id, None),
    })
}

fn read_endpoint(
    endpoint: &str,
    bridge: &str,
    (mac, addresses, mtu): (&str, &str, u32),
) -> Option<(LinkId, Link)> {
    let link = Link::Endpoint {
        bridge: bridge.parse().ok().and_then(Vni::new)?,
        mac: mac.parse().ok()?,
        addresses: addresses.split(',').map(prefix).collect::<Option<_>>()?,
        mtu,
    };
    Some((LinkId::Endpoint(endpoint.parse().ok()?), link))
}

fn prefix(text: &str) -> Option<Prefix> {
    text.parse().ok().map(Prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::Mac;

    #[test]
    fn what_a_link_was_made_as_is_read_from_its_name_and_alias() {
        let vni = Vni::MAX;
        let links = [
            (
                LinkId::Bridge(vni),
                Link::Bridge {
                    gateways: BTreeSet::new(),
                    mtu: 1430,
                },
            ),
            (
                LinkId::Vxlan(vni),
                Link::Vxlan {
                    bridge: vni,
                    port: 4789,
                    source: "192.0.2.1".parse().unwrap(),
                    mtu: 1450,
                },
            ),
            (
                LinkId::Endpoint(EndpointId(u128::MAX)),
                Link::Endpoint {
                    bridge: vni,
                    mac: Mac([2, 0, 0, 0, 0, 0xff]),
                    addresses: vec![
                        Prefix("10.0.0.2/24".parse().unwrap()),
                        Prefix(
                            "fd00:1111:2222:3333:4444:5555:6666:7777/64"
                                .parse()
                                .unwrap(),
                        ),
                    ],
                    mtu: 1450,
                },
            ),
        ];
        for (id, link) in links {
            let (name, alias) = (name_of(id), alias(id, &link));

            assert!(name.len() <= 15, "{name}");
            assert!(alias.len() < 256, "{alias}");
            let found = read(&name, Some(&alias), link.mtu());
            assert_eq!(found, Some((id, Some(link))));
        }
    }

    #[test]
    fn links_of_a_daemon_with_a_bridge_for_each_subnet_are_read() {
        let vni = Vni::MAX;
        let tunnel = Link::Vxlan {
            bridge: vni,
            port: 4789,
            source: "192.0.2.1".parse().unwrap(),
            mtu: 1450,
        };
        let bridge = Link::Bridge {
            gateways: BTreeSet::new(),
            mtu: 1450,
        };
        for (id, alias, link) in [
            (
                LinkId::Vxlan(vni),
                "weft port 4789 source 192.0.2.1",
                tunnel,
            ),
            (LinkId::Bridge(vni), "weft gateway 10.0.0.254/24", bridge),
        ] {
            assert_eq!(
                read(&name_of(id), Some(alias), 1450),
                Some((id, Some(link)))
            );
        }
    }

    #[test]
    fn a_link_that_was_not_finished_is_ours_all_the_same() {
        let endpoint = EndpointId(0xabcd << 112);
        let unfinished = link_name(endpoint);

        let (id, link) = read(&unfinished, None, 1450).unwrap();

        assert_eq!(name_of(id), unfinished);
        assert_eq!(link, None);
    }

    #[test]
    fn endpoints_whose_ids_begin_alike_have_names_of_their_own() {
        let names = Names::default();
        let network = NetworkId(1);
        // The last begins with the name that follows theirs, and is in another network.
        let ids = [
            (network, EndpointId(u128::MAX)),
            (network, EndpointId(u128::MAX - 1)),
            (network, EndpointId(u128::MAX - 2)),
            (NetworkId(2), EndpointId(7)),
        ];
        let stranger = BTreeSet::from(["weft00000000001".to_owned()]);

        let given = ids.map(|id| names.give(id, &stranger));

        let expected = [
            "weftfffffffffff",
            "weft00000000000",
            "weft00000000002",
            "weft00000000003",
        ];
        assert_eq!(given, expected);
        assert_eq!(ids.map(|id| names.give(id, &stranger)), given);
        names.take_back(network, LinkId::Endpoint(ids[1].1));
        assert_eq!(names.of_endpoint(network, ids[1].1), link_name(ids[1].1));
        assert_eq!(names.give(ids[1], &stranger), given[1]);
        names.note(network, [(ids[0].1, given[2].clone())]);
        assert_eq!(names.of_endpoint(network, ids[0].1), given[2]);
        assert_eq!(names.of_endpoint(NetworkId(2), ids[3].1), given[3]);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for stranger in [
            "lo",
            "eth0",
            "br-lan",
            "vx-",
            "weft0",
            "weftzzzzzzzzzzz",
            "vx-0",
        ] {
            assert_eq!(read(stranger, Some("weft"), 1500), None, "{stranger}");
        }
    }

    fn name_of(id: LinkId) -> String {
        Names::default().of(NetworkId(1), id)
    }
}
