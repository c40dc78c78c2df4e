//! Whole nodes in one process, over loopback, asked through their control API.

mod addresses;
mod docker;
mod tables;

use std::{path::Path, time::Duration};

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{
    daemon::{Daemon, Ended},
    doors::Doors,
    member::Member,
};
use crate::{
    api::{
        client::{Client, ClientError, Watch},
        http::{
            Door,
            types::{
                Change, ChangeKind, Code, CreateEndpoint, CreateNetwork, EndpointState,
                MemberState, PutEntry, PutMode, WatchEvent, WatchQuery,
            },
        },
    },
    cli::{error::CliError, init},
    config::{Carrier, Config, Host, Layer, Profile, Secret},
    core::model::Name,
    plugin::{self, Address},
    runtime::Sockets,
};

/// A node in a directory of its own.
struct Node {
    daemon: Daemon,
    client: Client,
}

impl Node {
    async fn start(directory: &TempDir, layer: Layer) -> Result<Self, CliError> {
        let socket = directory.path().join("sock");
        let may_found = layer.join.is_none();
        let layer = Layer {
            data_dir: Some(directory.path().join("data")),
            socket: Some(socket.clone()),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            profile: Some(Profile::Local),
            dataplane: Some(Carrier::None),
            ..layer
        };
        let config = Config::resolve(layer, &Host::default())?;
        let store = init::open(&config.data_dir).await?;
        let doors = Doors::open(&config).await?;
        let sockets = Sockets::bind(config.listen).await?;
        let member = Member::find(&config, &store, sockets.addr, may_found).await?;
        let daemon = Daemon::start(member, store, sockets, doors, &config).await?;
        daemon.until_ready().await?;
        Ok(Self {
            daemon,
            client: Client::new(socket),
        })
    }

    /// Tells a newcomer of that name how to join through this node.
    async fn invite(&self, name: &str) -> Layer {
        let status = self.client.status().await.unwrap();
        let token = self.client.token().await.unwrap().token;
        Layer {
            join: Some(vec![status.address.to_string().parse().unwrap()]),
            token: Some(Secret(token)),
            ..named(name)
        }
    }

    async fn until_led(&self) {
        eventually(async || self.client.status().await.unwrap().leader.is_some()).await;
    }
}

fn named(name: &str) -> Layer {
    Layer {
        name: Some(Name::new(name).unwrap()),
        ..Layer::default()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn refused<T>(answer: Result<T, ClientError>) -> Code {
    let Err(ClientError::Refused(failure)) = answer else {
        panic!("not refused by the daemon");
    };
    failure.code
}

/// Waits for the next change; how far the network has come is left out.
async fn change(watch: &mut Watch) -> Change {
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Change(change) => return change,
            WatchEvent::State { .. } => {}
            other @ (WatchEvent::Entry(_) | WatchEvent::Synced { .. } | WatchEvent::Lagged) => {
                panic!("not a change: {other:?}")
            }
        }
    }
}

fn exit<T>(started: Result<T, CliError>) -> (u8, String) {
    let error = started.err().expect("it is refused");
    (error.exit() as u8, error.to_string())
}

async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let waited = timeout(Duration::from_secs(20), async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it comes to be");
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_endpoints_and_entries_are_there_through_the_api() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let client = &node.client;

    let network = client
        .network_create(&CreateNetwork::overlay(name("app")))
        .await
        .unwrap();
    let wish = CreateEndpoint {
        name: name("web"),
        address: None,
        second_address: None,
    };
    let created = client.endpoint_create("app", &wish).await.unwrap();
    let joined = client.endpoint_join("app", "web").await.unwrap();
    client
        .put("app", "services", &"web".into(), "80".into())
        .await
        .unwrap();

    assert_eq!(network.subnets.len(), 1);
    assert_eq!(created.state, EndpointState::Created);
    assert_eq!(joined.state, EndpointState::Joined);
    assert_eq!(joined.node_name, Some(name("n1")));
    let tables = client.tables("app").await.unwrap();
    let tables: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(tables, ["endpoints", "overlay_peers", "services"]);
    let entry = client
        .entry("app", "services", &"web".into())
        .await
        .unwrap();
    assert_eq!(entry.value, "80".into());
    assert!(client.metrics().await.unwrap().contains("weft_endpoints 1"));
    client.healthy().await.unwrap();
    node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let client = &node.client;
    let app = CreateNetwork::overlay(name("app"));
    client.network_create(&app).await.unwrap();
    let web = CreateEndpoint {
        name: name("web"),
        address: None,
        second_address: None,
    };
    client.endpoint_create("app", &web).await.unwrap();
    let other_driver = CreateNetwork {
        driver: name("nope"),
        ..CreateNetwork::overlay(name("x"))
    };
    let update = PutEntry {
        value: "1".into(),
        mode: PutMode::Update,
    };
    let long = "x".repeat(257);

    assert_eq!(
        refused(client.network_create(&app).await),
        Code::NetworkExists
    );
    assert_eq!(
        refused(client.network_create(&other_driver).await),
        Code::NoSuchDriver
    );
    assert_eq!(refused(client.network("nope").await), Code::NoSuchNetwork);
    assert_eq!(
        refused(client.network_remove("app").await),
        Code::NetworkInUse
    );
    assert_eq!(
        refused(client.endpoint_create("app", &web).await),
        Code::EndpointExists
    );
    assert_eq!(
        refused(client.endpoint_join("app", "nope").await),
        Code::NoSuchEndpoint
    );
    assert_eq!(
        refused(client.entry("app", "t", &"k".into()).await),
        Code::NoSuchEntry
    );
    let put = client.put_with("app", "t", &"k".into(), &update).await;
    assert_eq!(refused(put), Code::NoSuchEntry);
    let put = client
        .put("app", "t", &long.as_str().into(), "v".into())
        .await;
    assert_eq!(refused(put), Code::TooLarge);
    assert_eq!(refused(client.leave(false).await), Code::LastMember);
    node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_watch_too_many_is_refused_and_one_that_ends_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let app = CreateNetwork::overlay(name("app"));
    node.client.network_create(&app).await.unwrap();
    let query = WatchQuery {
        network: "app".to_owned(),
        ..WatchQuery::default()
    };
    let mut watches = Vec::new();
    for _ in 0..256 {
        watches.push(node.client.watch(&query).await.unwrap());
    }

    let refusal = refused(node.client.watch(&query).await);
    watches.pop();

    assert_eq!(refusal, Code::Busy);
    eventually(async || node.client.watch(&query).await.is_ok()).await;
    node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_joins_watches_and_leaves() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Node::start(&directories[0], named("n1")).await.unwrap();
    first.until_led().await;
    let invitation = first.invite("n2").await;
    let mut second = Node::start(&directories[1], invitation).await.unwrap();
    let app = CreateNetwork::overlay(name("app"));
    second.client.network_create(&app).await.unwrap();
    let query = WatchQuery {
        network: "app".to_owned(),
        ..WatchQuery::default()
    };
    let mut watch = second.client.watch(&query).await.unwrap();
    let snapshot = watch.next().await.unwrap().unwrap();
    eventually(async || first.client.network("app").await.is_ok()).await;

    first
        .client
        .put("app", "t", &"k".into(), "v".into())
        .await
        .unwrap();

    assert!(
        matches!(snapshot, WatchEvent::Synced { .. }),
        "{snapshot:?}"
    );
    let change = change(&mut watch).await;
    assert_eq!((change.kind, change.ours), (ChangeKind::Created, false));
    assert_eq!(change.value, Some("v".into()));
    let not_ours = second.client.put("app", "t", &"k".into(), "w".into()).await;
    assert_eq!(refused(not_ours), Code::NotOwner);

    let left = second.client.leave(false).await.unwrap();
    let ended = second.daemon.until_ended().await.unwrap();
    second.daemon.stop(ended).await.unwrap();

    assert_eq!((ended, left.remaining), (Ended::Left, 1));
    let store = init::open(&directories[1].path().join("data"))
        .await
        .unwrap();
    assert_eq!(store.identity().unwrap(), None);
    eventually(async || {
        let members = first.client.members().await.unwrap();
        members
            .iter()
            .all(|member| member.ours || member.state == MemberState::Left)
    })
    .await;
    first.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_has_its_endpoints_and_entries_again() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let app = CreateNetwork::overlay(name("app"));
    node.client.network_create(&app).await.unwrap();
    let web = CreateEndpoint {
        name: name("web"),
        address: None,
        second_address: None,
    };
    let created = node.client.endpoint_create("app", &web).await.unwrap();
    node.client.endpoint_join("app", "web").await.unwrap();
    node.client
        .put("app", "t", &"k".into(), "v".into())
        .await
        .unwrap();
    node.daemon.stop(Ended::Told).await.unwrap();

    let node = Node::start(&directory, named("n1")).await.unwrap();

    eventually(async || node.client.network("app").await.is_ok()).await;
    let endpoints = node.client.endpoints(Some("app")).await.unwrap();
    assert_eq!(endpoints.len(), 1);
    assert_eq!(
        (endpoints[0].id, endpoints[0].state),
        (created.id, EndpointState::Joined)
    );
    let entry = node.client.entry("app", "t", &"k".into()).await.unwrap();
    assert_eq!(entry.value, "v".into());
    node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_may_not_come_is_told_why() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Node::start(&directories[0], named("n1")).await.unwrap();
    first.until_led().await;
    let old = first.invite("n2").await;
    first.client.token_rotate().await.unwrap();
    let no_token = Layer {
        token: None,
        ..old.clone()
    };
    let half_a_token = Layer {
        token: Some(Secret("weft-1-abc".to_owned())),
        ..old.clone()
    };

    let (code, message) = exit(Node::start(&directories[1], old).await);
    assert!(
        code == 1 && message.contains("weft token"),
        "{code} {message}"
    );
    let renewed = first.invite("n1").await;
    let (code, message) = exit(Node::start(&directories[1], renewed).await);
    assert!(
        code == 5 && message.contains("already named n1"),
        "{code} {message}"
    );
    let (code, message) = exit(Node::start(&directories[1], no_token).await);
    assert!(code == 2 && message.contains("--token"), "{code} {message}");
    let (code, message) = exit(Node::start(&directories[1], half_a_token).await);
    assert!(
        code == 2 && message.contains("copy all of it"),
        "{code} {message}"
    );
    first.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test]
async fn a_node_of_no_cluster_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let store = init::open(directory.path()).await.unwrap();
    let layer = Layer {
        data_dir: Some(directory.path().to_owned()),
        ..named("n1")
    };
    let config = Config::resolve(layer, &Host::default()).unwrap();

    let found = Member::find(&config, &store, "127.0.0.1:1".parse().unwrap(), false).await;

    let (code, message) = exit(found);
    assert_eq!(code, 2);
    assert!(message.contains("weft up --init"), "{message}");
    assert!(
        message.contains("weft up --join HOST:PORT --token TOKEN"),
        "{message}"
    );
}

#[tokio::test]
async fn a_data_directory_a_port_or_a_socket_in_use_is_a_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let path: &Path = directory.path();
    let _store = init::open(path).await.unwrap();
    let _door = Door::open(&path.join("sock")).await.unwrap();
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();

    let store = exit(init::open(path).await);
    let door = exit(Door::open(&path.join("sock")).await.map_err(CliError::from));
    let port = exit(Sockets::bind(sockets.addr).await.map_err(CliError::from));

    assert!(store.0 == 5 && store.1.contains("--data-dir"), "{store:?}");
    assert!(door.0 == 5 && door.1.contains("--socket"), "{door:?}");
    assert!(port.0 == 5 && port.1.contains("--listen"), "{port:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_endpoint_is_found_by_name_until_it_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let layer = Layer {
        dns: Some("127.0.0.1:0".parse().unwrap()),
        ..named("n1")
    };
    let node = Node::start(&directory, layer).await.unwrap();
    node.until_led().await;
    let dns = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    dns.connect(node.daemon.up().dns.unwrap()).unwrap();
    let app = CreateNetwork::overlay(name("app"));
    node.client.network_create(&app).await.unwrap();
    let web = CreateEndpoint {
        name: name("web"),
        address: Some("10.0.0.7".parse().unwrap()),
        second_address: None,
    };
    node.client.endpoint_create("app", &web).await.unwrap();

    node.client.endpoint_join("app", "web").await.unwrap();
    eventually(async || ask_for_web(&dns).ends_with(&[10, 0, 0, 7])).await;
    node.client.endpoint_leave("app", "web").await.unwrap();
    // NXDOMAIN is 3, in the low half of the fourth byte (RFC 1035 §4.1.1).
    eventually(async || ask_for_web(&dns)[3] & 0xf == 3).await;

    node.daemon.stop(Ended::Told).await.unwrap();
}

/// Asks for the A records of `web.app`.
fn ask_for_web(dns: &std::net::UdpSocket) -> Vec<u8> {
    let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question = b"\x03web\x03app\x00\x00\x01\x00\x01";
    dns.send(&[&header[..], question].concat()).unwrap();
    let mut answer = [0; 512];
    let length = tokio::task::block_in_place(|| dns.recv(&mut answer)).unwrap();
    answer[..length].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_engine_is_greeted_where_told_until_the_node_stops() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugins/weft.sock");
    let layer = Layer {
        docker_plugin: Some(path.clone()),
        docker_engine: Some(directory.path().join("engine.sock")),
        ..named("n1")
    };
    let node = Node::start(&directory, layer).await.unwrap();
    let engine = plugin::Client::new(Address::Unix(path.clone()), Duration::from_secs(10));

    let activation: serde_json::Value = engine.call("Plugin.Activate", &()).await.unwrap();

    assert_eq!(activation["Implements"][0], "NetworkDriver");
    node.daemon.stop(Ended::Told).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_port_or_a_socket_for_others_in_use_names_its_own_option() {
    let directory = tempfile::tempdir().unwrap();
    let dns = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let plugin = directory.path().join("plugin");
    let _door = Door::open(&plugin).await.unwrap();
    let layer = Layer {
        socket: Some(directory.path().join("sock")),
        ..named("n1")
    };
    let no_port = Layer {
        dns: Some(dns.addr),
        ..layer.clone()
    };
    let no_socket = Layer {
        docker_plugin: Some(plugin),
        ..layer
    };

    for (layer, option) in [(no_port, "--dns"), (no_socket, "--docker-plugin")] {
        let config = Config::resolve(layer, &Host::default()).unwrap();
        let (code, message) = exit(Doors::open(&config).await);
        assert!(code == 5 && message.contains(option), "{code} {message}");
    }
}
