//! What kind of engine it is: whether Weft is tested with it, and whether its swarm is in Weft's way.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::listing::{Network, or_default};
use crate::core::{
    allocator::VNI_FIRST,
    model::{NetworkRecord, Vni},
    overlay::Settings,
};

/// The API versions of the engines that Weft is tested with, the oldest and the newest, and what these are called.
const TESTED: (ApiVersion, ApiVersion) = (ApiVersion(1, 41), ApiVersion(1, 41));
const TESTED_ENGINES: &str = "20.10 (API 1.41)";

/// Where the VXLAN ids of a swarm's network are among its options.
const SWARM_VNIS: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// The option of a network of Weft that chooses its port.
const PORT_OPTION: &str = "vxlan_port";

/// An API's version, as `1.41`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct ApiVersion(u32, u32);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// What the engine says of itself.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Version {
    pub(super) version: String,
    api_version: String,
}

impl Version {
    /// Says that Weft is tested with others, if it is.
    pub(super) fn untested(&self) -> Option<String> {
        let Self {
            version,
            api_version,
        } = self;
        let is = match ApiVersion::parse(api_version) {
            Some(api) if api < TESTED.0 => "older than",
            Some(api) if api > TESTED.1 => "newer than",
            Some(_) => return None,
            None => "not",
        };
        Some(format!(
            "Docker engine {version} (API {api_version}) is {is} what Weft is tested with: {TESTED_ENGINES}"
        ))
    }
}

/// What the engine says of its swarm.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Host {
    #[serde(deserialize_with = "or_default")]
    swarm: Swarm,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Swarm {
    local_node_state: String,
    /// Only managers know it.
    #[serde(deserialize_with = "or_default")]
    cluster: Cluster,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Cluster {
    /// 0: the default one.
    #[serde(deserialize_with = "or_default")]
    data_path_port: u16,
}

impl Host {
    /// Says how its swarm is in the way of Weft's networks, if it is: both have tunnels, and the kernel has one for each pair of VXLAN
    /// id and port.
    pub(super) fn in_the_way(
        &self,
        listed: &[Network],
        wanted: &[&NetworkRecord],
    ) -> Option<String> {
        if self.swarm.local_node_state != "active" {
            return None;
        }
        let port = match self.swarm.cluster.data_path_port {
            0 => Settings::PORT,
            port => port,
        };
        let on_port: Vec<&&NetworkRecord> = wanted
            .iter()
            .filter(|network| port_of(network) == Some(port))
            .collect();
        let theirs = vnis_of_swarm(listed);
        let taken = on_port.iter().find_map(|network| {
            let ours = network.subnets.iter().filter_map(|subnet| subnet.vni);
            let (vni, other) = ours
                .filter_map(|vni| Some((vni, theirs.get(&vni)?)))
                .next()?;
            Some(format!(
                "and VXLAN id {vni} for its network {other}, as Weft has for {}: whichever comes second on this host carries nothing there",
                network.name
            ))
        });
        let how = match (taken, on_port.first()) {
            (Some(taken), _) => taken,
            (None, Some(network)) => format!(
                "as network {} of Weft: both count VXLAN ids from {VNI_FIRST}, so they may come to want the same",
                network.name
            ),
            (None, None) if wanted.is_empty() && port == Settings::PORT => {
                "as networks of Weft have unless told otherwise".to_owned()
            }
            (None, None) => return None,
        };
        Some(format!(
            "the Docker engine is in a swarm, which has UDP port {port} for its tunnels, {how}; make networks with -o {PORT_OPTION}=PORT, or the swarm with --data-path-port"
        ))
    }
}

/// The port of a network's tunnels, if it has any.
fn port_of(network: &NetworkRecord) -> Option<u16> {
    if network.subnets.iter().all(|subnet| subnet.vni.is_none()) {
        return None;
    }
    match network.options.get(PORT_OPTION) {
        Some(port) => Settings::read_port(port),
        None => Some(Settings::PORT),
    }
}

fn vnis_of_swarm(listed: &[Network]) -> BTreeMap<Vni, &str> {
    let mut vnis = BTreeMap::new();
    for network in listed.iter().filter(|network| network.is_swarms()) {
        let list = network.options.get(SWARM_VNIS).map(String::as_str);
        let numbers = list.unwrap_or_default().split(',');
        let read = numbers.filter_map(|text| text.trim().parse().ok().and_then(Vni::new));
        vnis.extend(read.map(|vni| (vni, network.name.as_str())));
    }
    vnis
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::model::{Name, NetworkId, Prefix, Subnet};

    #[test]
    fn an_engine_that_is_older_or_newer_than_tested_is_told_of() {
        let version = |text: &str| Version {
            version: "28.2.2".to_owned(),
            api_version: text.to_owned(),
        };

        assert_eq!(version("1.41").untested(), None);
        for (text, is) in [
            ("1.40", "older than"),
            ("1.9", "older than"),
            ("1.50", "newer than"),
            ("2.0", "newer than"),
            ("", "not"),
        ] {
            let told = version(text).untested().unwrap();
            let expected = format!(
                "Docker engine 28.2.2 (API {text}) is {is} what Weft is tested with: 20.10 (API 1.41)"
            );
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_swarm_is_in_the_way_where_its_tunnels_have_our_port() {
        let manager = |port: u16| host(json!({"Cluster": {"DataPathPort": port}}));
        let worker = host(json!({"Cluster": null}));
        let (app, apart) = (
            network("app", &[4096], None),
            network("apart", &[4097], Some("4790")),
        );
        let plain = network("plain", &[], None);
        let ingress = [listed("ingress", "4096"), listed("backend", "5000,5001")];
        let none: [Network; 0] = [];

        let both = manager(0).in_the_way(&ingress, &[&plain, &app]).unwrap();
        assert!(
            both.contains("VXLAN id 4096 for its network ingress, as Weft has for app"),
            "{both}"
        );
        let same_port = worker.in_the_way(&none, &[&app]).unwrap();
        assert!(
            same_port.contains("as network app of Weft: both count"),
            "{same_port}"
        );
        let no_network = worker.in_the_way(&ingress, &[]).unwrap();
        assert!(no_network.contains("unless told otherwise"), "{no_network}");
        for (host, wanted) in [
            (&manager(7777), vec![&app]),
            (&worker, vec![&apart]),
            (&worker, vec![&plain]),
            (&Host::default(), vec![&app]),
        ] {
            assert_eq!(host.in_the_way(&ingress, &wanted), None);
        }
        assert!(manager(4790).in_the_way(&none, &[&app, &apart]).is_some());
    }

    fn host(more: serde_json::Value) -> Host {
        let mut swarm = json!({"LocalNodeState": "active"});
        swarm["Cluster"] = more["Cluster"].clone();
        serde_json::from_value(json!({"Swarm": swarm})).unwrap()
    }

    fn listed(name: &str, vnis: &str) -> Network {
        serde_json::from_value(json!({
            "Id": name, "Name": name, "Driver": "overlay", "Options": {SWARM_VNIS: vnis},
        }))
        .unwrap()
    }

    fn network(name: &str, vnis: &[u32], port: Option<&str>) -> NetworkRecord {
        let vnis = match vnis {
            [] => vec![None],
            vnis => vnis.iter().map(|vni| Vni::new(*vni)).collect(),
        };
        let subnet = |vni| Subnet {
            prefix: Prefix("10.0.0.0/24".parse().unwrap()),
            gateway: "10.0.0.1".parse().unwrap(),
            vni,
        };
        let option = port.map(|port| (PORT_OPTION.to_owned(), port.to_owned()));
        NetworkRecord {
            id: NetworkId(1),
            name: Name::new(name).unwrap(),
            driver: Name::new("overlay").unwrap(),
            options: option.into_iter().collect(),
            subnets: vnis.into_iter().map(subnet).collect(),
        }
    }
}
