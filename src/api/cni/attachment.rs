//! The commands that need the daemon: a container's attachment is an endpoint of this node, named after both.

use std::{net::IpAddr, path::PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Refusal;
use crate::{
    api::{
        client::{Client, ClientError},
        http::{
            Exit,
            types::{Code, CreateEndpoint, Endpoint, EndpointState, JoinQuery},
        },
    },
    core::model::{Family, Name},
};

/// What the names of all attachments begin with.
const PREFIX: &str = "cni-";
/// How much of a container's id is in a name: what runtimes draw at random is longer, and this is enough of it.
const ID_MAX: usize = 32;

/// A network's configuration, as far as it is read here.
#[derive(Deserialize)]
pub(super) struct Configuration {
    #[serde(rename = "cniVersion")]
    pub(super) version: Option<String>,
    /// The name that the runtime knows the network by.
    #[serde(default)]
    name: String,
    /// Weft's network, if it has another name.
    network: Option<String>,
    /// The control API's socket, if it is not where it usually is.
    socket: Option<PathBuf>,
    #[serde(rename = "prevResult")]
    previous: Option<Value>,
    #[serde(rename = "runtimeConfig", default)]
    runtime: RuntimeConfig,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    valid: Vec<Valid>,
}

/// What a runtime adds to a configuration for one container.
#[derive(Deserialize, Default)]
struct RuntimeConfig {
    /// The addresses that the container must have, with or without a prefix length.
    #[serde(default)]
    ips: Vec<String>,
}

/// An attachment that the runtime still knows.
#[derive(Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// What the environment says of one attachment.
pub(super) struct Attachment {
    pub(super) container: String,
    pub(super) netns: String,
    pub(super) interface: String,
}

/// The daemon, and the network that is meant.
pub(super) struct Door {
    client: Client,
    network: String,
    configuration: Configuration,
}

impl Door {
    /// Finds the daemon at its socket, unless the configuration names another.
    pub(super) fn new(configuration: Configuration, socket: PathBuf) -> Result<Self, Refusal> {
        let named = configuration.network.clone();
        let network = named.unwrap_or_else(|| configuration.name.clone());
        if network.is_empty() {
            return Err(Refusal::Configuration("it names no network"));
        }
        let socket = configuration.socket.clone().unwrap_or(socket);
        Ok(Self {
            client: Client::new(socket),
            network,
            configuration,
        })
    }

    /// Attaches a container. One that fails leaves nothing.
    pub(super) async fn add(&self, to: &Attachment) -> Result<Value, Refusal> {
        let name = name(&to.container, &to.interface)?;
        let [address, second_address] = self.addresses()?;
        let wish = CreateEndpoint {
            name: name.clone(),
            address,
            second_address,
        };
        match self.client.endpoint_create(&self.network, &wish).await {
            // The runtime asks again for what it did not see the end of.
            Err(refused) if is(&refused, Code::EndpointExists) => {}
            created => drop(created?),
        }
        let place = JoinQuery {
            netns: Some(to.netns.clone()),
            interface: Some(to.interface.clone()),
        };
        let name = name.as_str();
        let joined = self.client.endpoint_enter(&self.network, name, &place);
        match joined.await {
            Ok(endpoint) => Ok(self.result(to, &endpoint)),
            Err(refused) => {
                // What the daemon said first is what counts.
                let _ = self.client.endpoint_remove(&self.network, name).await;
                Err(refused.into())
            }
        }
    }

    /// Detaches a container. What is gone already is no mistake.
    pub(super) async fn del(&self, container: &str, interface: &str) -> Result<(), Refusal> {
        let name = name(container, interface)?;
        self.remove(name.as_str()).await
    }

    /// Checks that a container is attached as the runtime was told.
    pub(super) async fn check(&self, to: &Attachment) -> Result<(), Refusal> {
        let name = name(&to.container, &to.interface)?;
        let node = self.client.status().await?.node;
        let all = self.client.endpoints(Some(&self.network)).await?;
        let own = all.iter().find(|own| own.node == node && own.name == name);
        let Some(own) = own.filter(|own| own.state == EndpointState::Joined) else {
            return Err(Refusal::NotAttached(self.network.clone()));
        };
        let previous = self.configuration.previous.as_ref();
        let told = previous.and_then(|previous| previous["ips"].as_array());
        let addresses = own.address.into_iter().chain(own.second_address);
        let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
        let has_all = |told: &Vec<Value>| {
            let is_told = |address: &String| {
                let mut told = told.iter();
                told.any(|ip| ip["address"].as_str() == Some(address))
            };
            addresses.iter().all(is_told)
        };
        match told.is_none_or(has_all) {
            true => Ok(()),
            false => Err(Refusal::NotAttached(self.network.clone())),
        }
    }

    /// Detaches all containers that the runtime no longer knows.
    pub(super) async fn gc(&self) -> Result<(), Refusal> {
        let valid = self.configuration.valid.iter();
        let valid: Vec<Name> = valid
            .map(|valid| name(&valid.container, &valid.ifname))
            .collect::<Result<_, _>>()?;
        let node = self.client.status().await?.node;
        let all = match self.client.endpoints(Some(&self.network)).await {
            Err(refused) if is(&refused, Code::NoSuchNetwork) => return Ok(()),
            all => all?,
        };
        let ours = all.iter().filter(|endpoint| endpoint.node == node);
        let ours = ours.filter(|endpoint| endpoint.name.as_str().starts_with(PREFIX));
        for stale in ours.filter(|endpoint| !valid.contains(&endpoint.name)) {
            self.remove(stale.name.as_str()).await?;
        }
        Ok(())
    }

    /// Says whether containers can be attached now.
    pub(super) async fn status(&self) -> Result<(), Refusal> {
        let status = self.client.status().await;
        let status = status.map_err(|error| Refusal::Unavailable(error.to_string()))?;
        match status.ready {
            true => Ok(()),
            false => Err(Refusal::Unavailable("weft is starting".to_owned())),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), Refusal> {
        match self.client.endpoint_remove(&self.network, name).await {
            Err(refused) if is(&refused, Code::NoSuchEndpoint) => Ok(()),
            Err(refused) if is(&refused, Code::NoSuchNetwork) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// The addresses that the runtime wants, if any.
    fn addresses(&self) -> Result<[Option<IpAddr>; 2], Refusal> {
        let mut addresses = [None; 2];
        let wanted = self.configuration.runtime.ips.iter();
        for (address, wanted) in addresses.iter_mut().zip(wanted) {
            let ip = wanted.split('/').next().unwrap_or_default();
            let parsed = ip.parse().map_err(|_no_address| {
                Refusal::Configuration("an address in runtimeConfig is none")
            });
            *address = Some(parsed?);
        }
        Ok(addresses)
    }

    /// Writes the result, after what an earlier plugin of the chain has left.
    fn result(&self, to: &Attachment, endpoint: &Endpoint) -> Value {
        let previous = self.configuration.previous.clone();
        let mut result = previous.unwrap_or_else(|| json!({ "dns": {} }));
        let interfaces = list(&mut result, "interfaces");
        let number = interfaces.len();
        interfaces.push(json!({
            "name": to.interface,
            "mac": endpoint.mac,
            "sandbox": to.netns,
        }));
        let sandbox = endpoint.sandbox.as_ref();
        let gateways = sandbox.map_or(&[][..], |sandbox| &sandbox.gateways);
        for address in endpoint.address.into_iter().chain(endpoint.second_address) {
            let family = Family::of(address.0.addr());
            let mut gateways = gateways.iter();
            list(&mut result, "ips").push(json!({
                "address": address,
                "gateway": gateways.find(|gateway| Family::of(**gateway) == family),
                "interface": number,
            }));
        }
        for gateway in gateways {
            let any = if gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            list(&mut result, "routes").push(json!({ "dst": any, "gw": gateway }));
        }
        for route in sandbox.iter().flat_map(|sandbox| &sandbox.routes) {
            let route = json!({ "dst": route.destination, "gw": route.via });
            list(&mut result, "routes").push(route);
        }
        result["cniVersion"] = json!(self.configuration.version);
        result
    }
}

fn list<'a>(result: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    if !result[name].is_array() {
        result[name] = json!([]);
    }
    result[name].as_array_mut().expect("it was made one")
}

/// Names an attachment: the same at every command for it.
fn name(container: &str, interface: &str) -> Result<Name, Refusal> {
    let id: String = container.chars().take(ID_MAX).collect();
    let named = Name::new(&format!("{PREFIX}{id}-{interface}"));
    named.map_err(|_no_name| Refusal::Environment {
        name: "CNI_CONTAINERID",
        problem: "or CNI_IFNAME has characters that the specification does not allow",
    })
}

fn is(refused: &ClientError, code: Code) -> bool {
    matches!(refused, ClientError::Refused(failure) if failure.code == code)
}

/// What passes by itself is to be tried again, in the specification's words.
pub(super) fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::NoDaemon { .. } | ClientError::TimedOut { .. } => true,
        ClientError::Refused(failure) => failure.code.exit() == Exit::Unavailable,
        ClientError::Denied { .. } | ClientError::Broken { .. } | ClientError::Foreign { .. } => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_has_one_name_whatever_the_ids_length() {
        let long = "0123456789abcdef".repeat(4);

        let named = name(&long, "eth0").unwrap();

        assert_eq!(named.as_str(), "cni-0123456789abcdef0123456789abcdef-eth0");
        assert!(name("c1", "a/b").is_err());
    }

    #[test]
    fn a_result_is_added_to_what_an_earlier_plugin_has_left() {
        let configuration = json!({
            "cniVersion": "1.1.0",
            "name": "app",
            "prevResult": {"interfaces": [{"name": "lo"}], "ips": []},
        });
        let configuration = serde_json::from_value(configuration).unwrap();
        let door = Door::new(configuration, "/nowhere".into()).unwrap();
        let endpoint: Endpoint = serde_json::from_value(json!({
            "id": "0123456789abcdef0123456789abcdef", "name": "n", "network": 1, "node": "0123456789abcdef",
            "address": "10.0.0.2/24", "second_address": "fd00::2/64", "mac": "02:00:00:00:00:01", "state": "joined",
            "sandbox": {"interface": null, "gateways": ["10.0.0.1", "fd00::1"], "routes": []},
        }))
        .unwrap();
        let to = Attachment {
            container: "c1".to_owned(),
            netns: "/run/netns/c1".to_owned(),
            interface: "eth0".to_owned(),
        };

        let result = door.result(&to, &endpoint);

        assert_eq!(result["interfaces"].as_array().unwrap().len(), 2);
        assert_eq!(result["ips"][0]["interface"], 1);
        assert_eq!(result["ips"][0]["gateway"], "10.0.0.1");
        assert_eq!(result["ips"][1]["address"], "fd00::2/64");
        assert_eq!(result["ips"][1]["gateway"], "fd00::1");
        let default = json!([
            {"dst": "0.0.0.0/0", "gw": "10.0.0.1"},
            {"dst": "::/0", "gw": "fd00::1"},
        ]);
        assert_eq!(result["routes"], default);
        assert_eq!(result["cniVersion"], "1.1.0");
    }
}
