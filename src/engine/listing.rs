//! What the engine lists, as far as it matters here. Unknown fields and `null` are nothing.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::core::model::Prefix;

/// The option that says which network of Weft a network of the engine stands for.
pub(super) const NETWORK_OPTION: &str = "weft.network";

/// A network; its containers are listed only where one network is asked for.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Network {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) driver: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) options: BTreeMap<String, String>,
    #[serde(rename = "IPAM", default)]
    pub(super) ipam: Ipam,
    /// By the container's id, or `ep-` and the endpoint's while the container has not come so far.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) containers: BTreeMap<String, Endpoint>,
}

impl Network {
    /// Returns whether it stands for a network of Weft, whose plugin has this name.
    pub(super) fn is_of(&self, driver: &str) -> bool {
        self.driver == driver && self.options.contains_key(NETWORK_OPTION)
    }

    /// Returns whether it is a network of the engine's swarm.
    pub(super) fn is_swarms(&self) -> bool {
        self.driver == "overlay"
    }
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Ipam {
    #[serde(default, deserialize_with = "or_default")]
    config: Vec<IpamConfig>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase")]
struct IpamConfig {
    #[serde(
        rename = "AuxiliaryAddresses",
        default,
        deserialize_with = "or_default"
    )]
    auxiliary: BTreeMap<String, String>,
}

impl Ipam {
    /// Addresses that were reserved when the network was made.
    pub(super) fn auxiliary(&self) -> impl Iterator<Item = &str> {
        let all = self.config.iter().flat_map(|part| part.auxiliary.values());
        all.map(String::as_str)
    }
}

/// A container's place in a network. Its name is the container's.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Endpoint {
    #[serde(default)]
    pub(super) name: String,
    #[serde(rename = "EndpointID", default)]
    pub(super) id: String,
    #[serde(rename = "IPv4Address", default)]
    address: String,
    #[serde(rename = "IPv6Address", default)]
    second: String,
}

impl Endpoint {
    /// Its addresses; one that is not given is no address.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let given = [&self.address, &self.second].into_iter();
        given.filter_map(|text| bare(text).parse().ok())
    }
}

/// An address without the length of its prefix.
pub(super) fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

/// A container.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    #[serde(default)]
    network_settings: Settings,
}

#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    /// By the name or id that whoever made the container gave.
    #[serde(default, deserialize_with = "or_default")]
    networks: BTreeMap<String, Attachment>,
}

#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "PascalCase")]
struct Attachment {
    #[serde(rename = "NetworkID", default)]
    network: String,
    #[serde(default, deserialize_with = "or_default")]
    aliases: Vec<String>,
}

impl Container {
    /// Returns its aliases in a network.
    pub(super) fn aliases(&self, network: &Network) -> impl Iterator<Item = &str> {
        let attachments = self.network_settings.networks.iter();
        let here = attachments.filter(move |(given, attachment)| {
            [&network.id, &network.name].contains(given) || attachment.network == network.id
        });
        here.flat_map(|(_, attachment)| attachment.aliases.iter().map(String::as_str))
    }
}

/// Something that has happened in the engine.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Event {
    #[serde(rename = "Type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) action: String,
    #[serde(default)]
    pub(super) actor: Actor,
}

#[derive(Deserialize, Debug, Default)]
pub(super) struct Actor {
    #[serde(rename = "ID", default)]
    pub(super) id: String,
    #[serde(rename = "Attributes", default, deserialize_with = "or_default")]
    pub(super) attributes: BTreeMap<String, String>,
}

/// What makes a network of the engine.
#[derive(Serialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateNetwork<'a> {
    pub(super) name: &'a str,
    pub(super) check_duplicate: bool,
    #[serde(rename = "EnableIPv6")]
    pub(super) enable_ipv6: bool,
    pub(super) driver: &'a str,
    #[serde(rename = "IPAM")]
    pub(super) ipam: CreateIpam<'a>,
    pub(super) options: BTreeMap<&'static str, &'a str>,
    pub(super) labels: BTreeMap<&'static str, String>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateIpam<'a> {
    pub(super) driver: &'a str,
    /// The engine takes `--ip` only on a network whose subnet it was told.
    pub(super) config: Vec<CreatePool>,
    pub(super) options: BTreeMap<&'static str, &'a str>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreatePool {
    pub(super) subnet: Prefix,
    pub(super) gateway: IpAddr,
}

/// Go writes an empty list or map as `null` or leaves it out.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
