//! What our links are called, and the alias on each that says what it was made as.
//!
//! A link's other end may be in a sandbox, where it cannot be looked at: so what it was made as is written on this end.

use crate::{
    core::{
        model::{EndpointId, Prefix, Vni},
        overlay::{Link, LinkId},
    },
    dataplane::link_name,
};

const BRIDGE: &str = "br-";
const VXLAN: &str = "vx-";
const ENDPOINT: &str = "weft";
/// How many digits of an endpoint's id its name has.
const DIGITS: usize = 11;

/// Returns the name of a link in its network's namespace; an endpoint's outer end has the same in the host's.
pub(super) fn name(id: LinkId) -> String {
    match id {
        LinkId::Bridge(vni) => format!("{BRIDGE}{vni}"),
        LinkId::Vxlan(vni) => format!("{VXLAN}{vni}"),
        LinkId::Endpoint(endpoint) => link_name(endpoint),
    }
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

/// Says what a link was made as.
pub(super) fn alias(id: LinkId, link: Link) -> String {
    match link {
        Link::Bridge { gateway, .. } => format!("weft gateway {gateway}"),
        Link::Vxlan { port, source, .. } => format!("weft port {port} source {source}"),
        Link::Endpoint {
            vni, mac, address, ..
        } => {
            let endpoint = match id {
                LinkId::Endpoint(endpoint) => endpoint.to_string(),
                LinkId::Bridge(_) | LinkId::Vxlan(_) => String::new(),
            };
            format!("weft endpoint {endpoint} vni {vni} mac {mac} address {address}")
        }
    }
}

/// Reads a link's name, alias and MTU; nothing if it is none of ours.
pub(super) fn read(name: &str, alias: Option<&str>, mtu: u32) -> Option<(LinkId, Option<Link>)> {
    let id = id_of(name)?;
    let words: Vec<&str> = alias.unwrap_or_default().split(' ').collect();
    let read = match (id, words.as_slice()) {
        (LinkId::Bridge(_), ["weft", "gateway", gateway]) => prefix(gateway).map(|gateway| {
            let link = Link::Bridge { gateway, mtu };
            (id, link)
        }),
        (LinkId::Vxlan(_), ["weft", "port", port, "source", source]) => {
            let parts = port.parse().ok().zip(source.parse().ok());
            parts.map(|(port, source)| (id, Link::Vxlan { port, source, mtu }))
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
    vni: &str,
    (mac, address, mtu): (&str, &str, u32),
) -> Option<(LinkId, Link)> {
    let link = Link::Endpoint {
        vni: vni.parse().ok().and_then(Vni::new)?,
        mac: mac.parse().ok()?,
        address: prefix(address)?,
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
                    gateway: Prefix("fd00::1/64".parse().unwrap()),
                    mtu: 1430,
                },
            ),
            (
                LinkId::Vxlan(vni),
                Link::Vxlan {
                    port: 4789,
                    source: "192.0.2.1".parse().unwrap(),
                    mtu: 1450,
                },
            ),
            (
                LinkId::Endpoint(EndpointId(u128::MAX)),
                Link::Endpoint {
                    vni,
                    mac: Mac([2, 0, 0, 0, 0, 0xff]),
                    address: Prefix("10.0.0.2/24".parse().unwrap()),
                    mtu: 1450,
                },
            ),
        ];
        for (id, link) in links {
            let (name, alias) = (name(id), alias(id, link));

            assert!(name.len() <= 15, "{name}");
            assert!(alias.len() < 256, "{alias}");
            let found = read(&name, Some(&alias), link.mtu());
            assert_eq!(found, Some((id, Some(link))));
        }
    }

    #[test]
    fn a_link_that_was_not_finished_is_ours_all_the_same() {
        let endpoint = EndpointId(0xabcd << 112);
        let unfinished = name(LinkId::Endpoint(endpoint));

        let (id, link) = read(&unfinished, None, 1450).unwrap();

        assert_eq!(name(id), unfinished);
        assert_eq!(link, None);
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
}
