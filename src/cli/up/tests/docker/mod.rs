//! The Docker engine's door: what an engine 20.10 really asked, asked again; and an engine that is kept in step.

mod engine;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};

use self::engine::Engine;
use super::{Node, eventually, name, named};
use crate::{
    api::http::types::{CreateNetwork, CreateSubnet},
    cli::up::daemon::Ended,
    config::Layer,
    plugin::{Address, CallError, Client},
};

/// A network of the engine.
const NETWORK: &str = "30091b7a69f7879f4850b36ee611c0750b8ee738d5ddf7acf663b98bbdba2f75";
/// An endpoint of the engine.
const ENDPOINT: &str = "80cf563d2b76ff9c8d5996c5a38efa8fb4711e1e2d043cec0087d03fbb7119ed";

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_asked_is_answered_as_it_expects() {
    let captured = include_str!("docker.jsonl");

    replay(captured, &[("10.210.0.0/16", "10.210.0.254")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_asks_for_both_families_gets_an_address_of_each() {
    let subnets = [
        ("10.211.0.0/24", "10.211.0.1"),
        ("fd00:211::/64", "fd00:211::1"),
    ];

    replay(include_str!("ipv6.jsonl"), &subnets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_names_several_subnets_gets_each() {
    let subnets = [
        ("10.214.0.0/24", "10.214.0.1"),
        ("10.215.0.0/24", "10.215.0.1"),
    ];

    replay(include_str!("subnets.jsonl"), &subnets).await;
}

/// Asks what an engine asked, and compares what is answered with what it took for good. Nothing is left at the end.
async fn replay(captured: &str, subnets: &[(&str, &str)]) {
    let served = Served::start(subnets).await;
    let mut ours: BTreeMap<String, String> = BTreeMap::new();

    for line in captured.lines() {
        let captured: Value = serde_json::from_str(line).unwrap();
        let method = captured["method"].as_str().unwrap();
        // What the plugin of the capture answered is asked for again: it becomes what we have answered.
        let mut request = captured["request"].to_string();
        for (theirs, ours) in &ours {
            request = request.replace(theirs.as_str(), ours);
        }
        let request: Value = serde_json::from_str(&request).unwrap();

        let answer = served.call(method, &request).await;

        if method == "NetworkDriver.Join" {
            // A node of these tests carries no packets, so it gives no interface.
            assert!(answer.unwrap_err().to_string().contains("no data plane"));
            continue;
        }
        let (mut answer, expected) = (answer.unwrap(), &captured["answer"]);
        if let Value::Object(fields) = &mut answer {
            // Engines that are newer than those of the capture know it.
            fields.remove("GwAllocChecker");
        }
        assert_eq!(shape(&answer), shape(expected), "{method} {request}");
        for key in ["LocalDefaultAddressSpace", "PoolID", "Address"] {
            if let (Some(theirs), Some(answered)) = (expected[key].as_str(), answer[key].as_str()) {
                let bare = |text: &str| match key {
                    "Address" => text.split('/').next().unwrap().to_owned(),
                    _ => text.to_owned(),
                };
                // With its quote, or 10.210.5.0 would be found in 10.210.5.07.
                ours.insert(
                    format!("\"{}\"", bare(theirs)),
                    format!("\"{}\"", bare(answered)),
                );
                ours.insert(format!("\"{theirs}\""), format!("\"{answered}\""));
            }
        }
    }

    let left = served.node.client.endpoints(Some("app")).await.unwrap();
    assert_eq!(left, []);
    served.node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_told_which_gateways_it_need_not_ask_for() {
    let served = Served::start(&[("10.0.0.0/24", "10.0.0.1")]).await;
    let of = |network: &str| {
        let generic = json!({"com.docker.network.generic": {"weft.network": network}});
        json!({"Options": generic})
    };

    let capabilities = served.raw("NetworkDriver.GetCapabilities", &json!({}));
    let ours = served.raw("NetworkDriver.GwAllocCheck", &of("app"));
    let mut unknown = Vec::new();
    for request in [of("nope"), json!({}), json!({"Options": null})] {
        unknown.push(served.raw("NetworkDriver.GwAllocCheck", &request));
    }

    assert_eq!(capabilities["GwAllocChecker"], true);
    assert_eq!(ours, json!({"SkipIPv4": false, "SkipIPv6": true}));
    for answer in unknown {
        assert_eq!(answer, json!({"SkipIPv4": false, "SkipIPv6": false}));
    }
    served.node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_is_refused_under_both_keys() {
    let served = Served::start(&[("10.0.0.0/24", "10.0.0.1")]).await;
    let option = json!({"weft.network": "app"});
    let pool = served.pool().await;
    let cases = [
        ("IpamDriver.RequestPool", json!({}), "-o weft.network=NAME"),
        (
            "IpamDriver.RequestPool",
            json!({"Options": {"weft.network": "nope"}}),
            "there is no network nope",
        ),
        (
            "IpamDriver.RequestPool",
            json!({"Options": option, "V6": true}),
            "leave --ipv6 out",
        ),
        (
            "IpamDriver.RequestPool",
            json!({"Options": option, "Pool": "10.9.0.0/24"}),
            "leave --subnet out",
        ),
        (
            "IpamDriver.RequestPool",
            json!({"Options": option, "SubPool": "10.0.0.128/25"}),
            "leave --ip-range 10.0.0.128/25 out",
        ),
        (
            "IpamDriver.RequestAddress",
            json!({"PoolID": pool, "Address": "10.0.0.9", "Options": {"RequestAddressType": "com.docker.network.gateway"}}),
            "leave --gateway out",
        ),
        (
            "IpamDriver.RequestAddress",
            json!({"PoolID": "xlocal/10.0.0.0/24#0"}),
            "no pool of Weft",
        ),
        (
            "NetworkDriver.CreateNetwork",
            json!({"NetworkID": NETWORK, "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "10.0.0.0/24"}]}),
            "--ipam-driver weft",
        ),
        (
            "NetworkDriver.CreateEndpoint",
            json!({"NetworkID": "unheard-of", "EndpointID": ENDPOINT}),
            "does not know network",
        ),
        (
            "NetworkDriver.Join",
            json!({"NetworkID": "unheard-of", "EndpointID": ENDPOINT}),
            "does not know network",
        ),
        ("NetworkDriver.Join", json!({}), "malformed"),
        (
            "NetworkDriver.AllocateNetwork",
            json!({"NetworkID": NETWORK}),
            "weft network create",
        ),
    ];

    for (method, request, expected) in cases {
        let refused = served.raw(method, &request);

        let text = refused["Err"].as_str().unwrap_or_default();
        assert!(text.contains(expected), "{method} {request}: {refused}");
        assert_eq!(refused["Err"], refused["Error"]);
    }
    let unknown = served.call("NetworkDriver.Twinkle", &json!({})).await;
    assert!(matches!(unknown, Err(CallError::NotImplemented { .. })));
    served.node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_stays_taken_across_a_restart_until_it_is_given_back() {
    let served = Served::start(&[("10.0.0.0/24", "10.0.0.1")]).await;
    let pool = served.pool().await;
    let first = served.address(&pool, "").await.unwrap();
    served.make(&first, "").await.unwrap();
    let Served {
        node, directory, ..
    } = served;
    node.daemon.stop(Ended::Told).await.unwrap();
    let served = Served::in_directory(directory).await;
    served.node.until_led().await;

    let taken = served.address(&pool, &first).await;
    let other = served.address(&pool, "").await.unwrap();
    // The engine repeats nothing, so this must be known from the disk.
    for method in ["Leave", "DeleteEndpoint"] {
        let method = format!("NetworkDriver.{method}");
        served.call(&method, &of_endpoint()).await.unwrap();
    }
    let still = served.address(&pool, &first).await;
    let release = json!({"PoolID": pool, "Address": first});
    served
        .call("IpamDriver.ReleaseAddress", &release)
        .await
        .unwrap();
    let free = served.address(&pool, &first).await;

    assert!(taken.unwrap_err().to_string().contains("is in use"));
    assert_ne!(other, first);
    assert!(still.is_err());
    assert_eq!(free.unwrap(), first);
    served.node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_needs_an_address_of_ours_and_is_answered_only_what_was_not_given() {
    let served = Served::start(&[("10.0.0.0/24", "10.0.0.1")]).await;
    let pool = served.pool().await;

    let foreign = served.make("10.0.0.77", "").await;
    let address = served.address(&pool, "").await.unwrap();
    let given = served.make(&address, "02:42:de:ad:be:01").await.unwrap();
    let again = served.make(&address, "02:42:de:ad:be:01").await.unwrap();
    let changed = served.make(&address, "02:42:de:ad:be:02").await;
    served
        .call("NetworkDriver.DeleteEndpoint", &of_endpoint())
        .await
        .unwrap();
    let chosen = served.make(&address, "").await.unwrap();

    assert!(
        foreign
            .unwrap_err()
            .to_string()
            .contains("not handed out by Weft")
    );
    assert_eq!([&given, &again], [&json!({"Interface": {}}); 2]);
    assert!(changed.is_err());
    let mac = chosen["Interface"]["MacAddress"].as_str().unwrap();
    assert!(mac.parse::<crate::core::model::Mac>().is_ok(), "{chosen}");
    served.node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_has_our_networks_and_we_have_its_containers_names() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start(&directory.path().join("engine.sock"));
    engine.add_network("db", "bridge");
    let served = Served::in_directory(directory).await;
    served.node.until_led().await;
    let client = &served.node.client;
    for network in ["app", "db"] {
        let wish = CreateNetwork::overlay(name(network));
        client.network_create(&wish).await.unwrap();
    }

    eventually(async || engine.networks("weft") == ["app"]).await;
    let is_told = async || {
        let problem = client.network("db").await.unwrap().engine_problem;
        problem.is_some_and(|problem| problem.contains("another network"))
    };
    eventually(is_told).await;
    assert_eq!(client.network("app").await.unwrap().engine_problem, None);
    eventually(async || {
        let docker = client.status().await.unwrap().docker.unwrap();
        let is_told = |what: &str| docker.problems.iter().any(|told| told.contains(what));
        docker.version.as_deref() == Some("99.1.0")
            && docker.untested.is_some_and(|told| told.contains("newer"))
            && is_told("network db: the engine has another network")
            && is_told("is in a swarm")
    })
    .await;
    let network = engine.id_of("app");
    let ipam = json!([{"AddressSpace": "weft-local", "Pool": "10.0.0.0/24"}]);
    let generic = json!({"com.docker.network.generic": {"weft.network": "app"}});
    let made = json!({"NetworkID": network, "Options": generic, "IPv4Data": ipam});
    served
        .call("NetworkDriver.CreateNetwork", &made)
        .await
        .unwrap();
    let address = served.address(&served.pool().await, "").await.unwrap();
    served.make_in(&network, &address, "").await.unwrap();
    engine.run(&network, ENDPOINT, ("web", "www"));
    // The node hears of the container with the next calls, or on its slow clock.
    served
        .call("NetworkDriver.CreateNetwork", &made)
        .await
        .unwrap();

    let is_web = async || {
        let endpoints = client.endpoints(Some("app")).await.unwrap();
        endpoints.len() == 1 && endpoints[0].name == name("web")
    };
    eventually(is_web).await;
    let in_use = client.network_remove("app").await.unwrap_err();
    assert!(in_use.to_string().contains("web@n1"), "{in_use}");
    engine.stop(ENDPOINT);
    served
        .call("NetworkDriver.DeleteEndpoint", &of_endpoint_in(&network))
        .await
        .unwrap();
    client.network_remove("app").await.unwrap();
    eventually(async || engine.networks("weft").is_empty()).await;
    assert_eq!(engine.networks("bridge"), ["db"]);
    served.node.daemon.stop(Ended::Told).await.unwrap();
}

/// A node that serves an engine, which need not be there.
struct Served {
    node: Node,
    directory: tempfile::TempDir,
    client: Client,
}

impl Served {
    /// Starts a node with a network of these subnets, of which the engine has the first.
    async fn start(subnets: &[(&str, &str)]) -> Self {
        let served = Self::in_directory(tempfile::tempdir().unwrap()).await;
        served.node.until_led().await;
        let subnets = subnets.iter().map(|(subnet, gateway)| CreateSubnet {
            prefix: Some(crate::core::model::Prefix(subnet.parse().unwrap())),
            gateway: Some(gateway.parse().unwrap()),
            ..CreateSubnet::default()
        });
        let app = CreateNetwork {
            subnets: subnets.collect(),
            ..CreateNetwork::overlay(name("app"))
        };
        served.node.client.network_create(&app).await.unwrap();
        let pool = app.subnets[0].prefix.unwrap().to_string();
        let request = json!({
            "NetworkID": NETWORK,
            "Options": {"com.docker.network.generic": {"weft.network": "app"}},
            "IPv4Data": [{"AddressSpace": "weft-local", "Pool": pool}],
        });
        served
            .call("NetworkDriver.CreateNetwork", &request)
            .await
            .unwrap();
        served
    }

    async fn in_directory(directory: tempfile::TempDir) -> Self {
        let socket = directory.path().join("weft.sock");
        let layer = Layer {
            docker_plugin: Some(socket.clone()),
            docker_engine: Some(directory.path().join("engine.sock")),
            ..named("n1")
        };
        let node = Node::start(&directory, layer).await.unwrap();
        node.until_led().await;
        let client = Client::new(Address::Unix(socket), Duration::from_secs(30));
        Self {
            node,
            directory,
            client,
        }
    }

    async fn call(&self, method: &str, request: &Value) -> Result<Value, CallError> {
        self.client.call(method, request).await
    }

    /// Returns the body of an answer, whatever its status.
    fn raw(&self, method: &str, request: &Value) -> Value {
        let socket = self.directory.path().join("weft.sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        let body = request.to_string();
        // As an engine sends it: no content type, an empty host.
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost:\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut answer = String::new();
        tokio::task::block_in_place(|| {
            stream.write_all(format!("{head}{body}").as_bytes())?;
            stream.read_to_string(&mut answer)
        })
        .unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    async fn pool(&self) -> String {
        let request = json!({"Options": {"weft.network": "app"}});
        let pool = self.call("IpamDriver.RequestPool", &request).await.unwrap();
        pool["PoolID"].as_str().unwrap().to_owned()
    }

    async fn address(&self, pool: &str, wanted: &str) -> Result<String, CallError> {
        let request = json!({"PoolID": pool, "Address": wanted, "Options": null});
        let answer = self.call("IpamDriver.RequestAddress", &request).await?;
        let address = answer["Address"].as_str().unwrap();
        Ok(address.split('/').next().unwrap().to_owned())
    }

    async fn make(&self, address: &str, mac: &str) -> Result<Value, CallError> {
        self.make_in(NETWORK, address, mac).await
    }

    async fn make_in(&self, network: &str, address: &str, mac: &str) -> Result<Value, CallError> {
        let interface =
            json!({"Address": format!("{address}/24"), "AddressIPv6": "", "MacAddress": mac});
        let request = json!({"NetworkID": network, "EndpointID": ENDPOINT, "Interface": interface});
        self.call("NetworkDriver.CreateEndpoint", &request).await
    }
}

fn of_endpoint() -> Value {
    of_endpoint_in(NETWORK)
}

fn of_endpoint_in(network: &str) -> Value {
    json!({"NetworkID": network, "EndpointID": ENDPOINT})
}

/// The keys and kinds of values of an answer, without the values.
fn shape(answer: &Value) -> Value {
    match answer {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), shape(value)))
            .collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("bool"),
        Value::Null => Value::Null,
    }
}
