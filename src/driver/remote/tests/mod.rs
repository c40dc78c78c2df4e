//! A remote driver against a plugin in this process, which answers what it is told to and writes down what it hears.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::IpAddr,
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    core::model::{Mac, Prefix, Subnet},
    plugin::Address,
};

#[tokio::test]
async fn a_plugin_hears_each_step_once() {
    let plugin = Plugin::start(&[
        (
            "GetCapabilities",
            r#"{"Scope":"local","ConnectivityScope":"global"}"#,
        ),
        (
            "Join",
            r#"{"InterfaceName":{"SrcName":"veth1","DstPrefix":"eth"},"Gateway":"10.0.0.1"}"#,
        ),
    ]);
    let driver = plugin.driver().await.unwrap();
    for _ in 0..2 {
        driver.create_network(&network()).await.unwrap();
        driver.create_endpoint(&endpoint()).await.unwrap();
        let joined = driver.join(&endpoint()).await.unwrap();
        assert_eq!(joined.interface.unwrap().source, "veth1");
        assert_eq!(joined.gateways, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    for _ in 0..2 {
        driver.leave(NETWORK, EndpointId(1)).await.unwrap();
        driver
            .delete_endpoint(NETWORK, EndpointId(1))
            .await
            .unwrap();
        driver.delete_network(NETWORK).await.unwrap();
    }

    assert_eq!(driver.capability().data_scope, Scope::Local);
    assert_eq!(driver.capability().connectivity_scope, Scope::Global);
    let expected = [
        "GetCapabilities",
        "CreateNetwork",
        "CreateEndpoint",
        "Join",
        "Leave",
        "DeleteEndpoint",
        "DeleteNetwork",
    ];
    assert_eq!(plugin.methods(), expected);
    let heard = &plugin.heard.lock().unwrap()[2].1;
    assert_eq!(heard["Interface"]["Address"], "10.0.0.2/24");
    assert_eq!(heard["Interface"]["MacAddress"], "02:00:00:00:00:02");
}

#[tokio::test]
async fn a_plugin_that_does_not_say_its_scope_is_no_driver() {
    let plugin = Plugin::start(&[("GetCapabilities", "{}")]);

    let refused = plugin.driver().await.err();

    assert!(matches!(refused, Some(DriverError::Protocol { .. })));
}

#[tokio::test]
async fn an_endpoint_whose_address_a_plugin_changes_is_rolled_back() {
    let plugin = Plugin::start(&[
        ("GetCapabilities", r#"{"Scope":"global"}"#),
        (
            "CreateEndpoint",
            r#"{"Interface":{"Address":"10.0.0.9/24"}}"#,
        ),
    ]);
    let driver = plugin.driver().await.unwrap();

    let refused = driver.create_endpoint(&endpoint()).await;

    assert!(matches!(refused, Err(DriverError::Protocol { .. })));
    assert_eq!(plugin.methods().last().unwrap(), "DeleteEndpoint");
}

#[tokio::test]
async fn a_join_answered_badly_is_left_and_a_refusal_is_told_in_the_plugins_words() {
    let plugin = Plugin::start(&[
        ("GetCapabilities", r#"{"Scope":"global"}"#),
        ("Join", r#"{"Gateway":"somewhere"}"#),
        ("CreateNetwork", r#"{"Err":"no room"}"#),
    ]);
    let driver = plugin.driver().await.unwrap();

    let bad = driver.join(&endpoint()).await;
    let refused = driver.create_network(&network()).await;

    assert!(matches!(bad, Err(DriverError::Protocol { .. })));
    assert_eq!(plugin.methods()[2], "Leave");
    let Err(DriverError::Refused { reason, .. }) = refused else {
        panic!("refused: {refused:?}")
    };
    assert!(reason.contains("no room"));
}

const NETWORK: NetworkId = NetworkId(7);

type Heard = Arc<Mutex<Vec<(String, serde_json::Value)>>>;

/// A plugin; its thread waits for calls until the tests end.
struct Plugin {
    directory: tempfile::TempDir,
    heard: Heard,
}

impl Plugin {
    /// Answers these methods so, and all others with an empty object.
    fn start(answers: &[(&'static str, &'static str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("p.sock")).unwrap();
        let heard = Heard::default();
        let answers: BTreeMap<_, _> = answers.iter().copied().collect();
        let noted = heard.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answers, &noted);
            }
        });
        Self { directory, heard }
    }

    async fn driver(&self) -> Result<Remote, DriverError> {
        let address = Address::Unix(self.directory.path().join("p.sock"));
        let client = Client::new(address, Duration::from_secs(5));
        Remote::connect(&Name::new("wire").unwrap(), client, false).await
    }

    fn methods(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|(method, _)| method.clone()).collect()
    }
}

/// Answers one request.
fn serve(stream: UnixStream, answers: &BTreeMap<&str, &str>, heard: &Heard) {
    let mut stream = BufReader::new(stream);
    let (mut method, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let line = line.trim_end().to_lowercase() + "\n" + line.trim_end();
        let (lower, line) = line.split_once('\n').unwrap();
        if let Some(path) = line.strip_prefix("POST /NetworkDriver.") {
            method = path.split(' ').next().unwrap().to_owned();
        } else if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let request = serde_json::from_slice(&body).unwrap_or_default();
    let answer = answers.get(method.as_str()).copied().unwrap_or("{}");
    heard.lock().unwrap().push((method, request));
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
}

fn network() -> NetworkRecord {
    NetworkRecord {
        id: NETWORK,
        name: Name::new("app").unwrap(),
        driver: Name::new("wire").unwrap(),
        options: BTreeMap::new(),
        subnets: vec![Subnet {
            prefix: Prefix("10.0.0.0/24".parse().unwrap()),
            gateway: "10.0.0.1".parse().unwrap(),
            vni: None,
        }],
    }
}

fn endpoint() -> EndpointRecord {
    EndpointRecord {
        id: EndpointId(1),
        network: NETWORK,
        name: Name::new("web").unwrap(),
        address: Some(Prefix("10.0.0.2/24".parse().unwrap())),
        mac: Mac([2, 0, 0, 0, 0, 2]),
    }
}
