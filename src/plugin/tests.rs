//! The getter against small real servers on unix and TCP sockets. P1 to P11 are libnetwork's cases, each named at its test; P6,
//! TLS, is in `tls`.

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use super::*;

const NETWORK: Capability = Capability::NETWORK_DRIVER;
const IPAM: Capability = Capability::IPAM_DRIVER;

/// P1.
#[tokio::test]
async fn a_managed_plugin_is_used_and_its_users_are_counted() {
    let host = Host::new();
    let _engine = host.engine(json!([managed(
        "ab12",
        "mnet:latest",
        true,
        "docker.networkdriver/1.0"
    )]));
    let _server = host.serve("run/ab12/plug.sock", |_| {
        (200, json!({"Scope": "local"}).to_string())
    });
    let getter = host.getter();

    let plugin = getter.get("mnet", NETWORK, Mode::Acquire).await.unwrap();
    let answer: Value = plugin
        .client
        .call("NetworkDriver.GetCapabilities", &Value::Null)
        .await
        .unwrap();

    assert_eq!(plugin.origin, Origin::Managed("ab12".into()));
    assert_eq!(answer["Scope"], "local");
    assert_eq!(getter.users("ab12"), 1);
    getter.get("ab12", NETWORK, Mode::Lookup).await.unwrap();
    assert_eq!(getter.users("ab12"), 1);
    for _ in 0..2 {
        getter.release("ab12");
        assert_eq!(getter.users("ab12"), 0);
    }
}

/// P2, P3.
#[tokio::test]
async fn a_managed_plugin_that_cannot_be_used_does_not_let_a_v1_plugin_of_its_name_in() {
    let host = Host::new();
    let _engine = host.engine(json!([
        managed("ab12", "other:latest", true, "docker.volumedriver/1.0"),
        managed("cd34", "off:latest", false, "docker.networkdriver/1.0"),
    ]));
    let _other = host.plugin("run/other.sock", &["NetworkDriver"]);
    let _off = host.plugin("run/off.sock", &["NetworkDriver"]);
    let getter = host.getter();

    let wrong_kind = getter
        .get("other", NETWORK, Mode::Acquire)
        .await
        .unwrap_err();
    let disabled = getter.get("off", NETWORK, Mode::Acquire).await.unwrap_err();

    assert!(
        matches!(wrong_kind, GetError::NotImplemented { .. }),
        "{wrong_kind}"
    );
    assert!(matches!(disabled, GetError::Disabled(_)), "{disabled}");
    assert_eq!((getter.users("ab12"), getter.users("cd34")), (0, 0));
}

/// P4.
#[tokio::test]
async fn an_engine_that_fails_is_an_error_and_one_that_is_not_there_is_none() {
    let host = Host::new();
    let _plugin = host.plugin("run/net.sock", &["NetworkDriver"]);

    let without_engine = host
        .getter()
        .get("net", NETWORK, Mode::Lookup)
        .await
        .unwrap();
    let _engine = host.serve("engine.sock", |_| {
        (500, json!({"message": "broken"}).to_string())
    });
    let with_failing_engine = host
        .getter()
        .get("net", NETWORK, Mode::Lookup)
        .await
        .unwrap_err();

    assert_eq!(without_engine.origin, Origin::Legacy);
    assert_eq!(
        with_failing_engine.to_string(),
        "cannot ask the Docker engine for plugins: /plugins: broken"
    );
}

/// P9.
#[tokio::test]
async fn the_beginning_of_two_ids_is_ambiguous() {
    let host = Host::new();
    let _engine = host.engine(json!([
        managed("ab12", "one:latest", true, "docker.networkdriver/1.0"),
        managed("ab34", "two:1", true, "docker.networkdriver/1.0"),
    ]));

    let error = host
        .getter()
        .get("ab", NETWORK, Mode::Lookup)
        .await
        .unwrap_err();

    assert!(matches!(error, GetError::Ambiguous(_)), "{error}");
    assert_eq!(
        host.getter()
            .get("ab3", NETWORK, Mode::Lookup)
            .await
            .unwrap()
            .name,
        "two:1"
    );
}

/// P4.
#[tokio::test]
async fn where_a_plugin_is_found_follows_the_order_of_places() {
    let host = Host::new();
    // From the last choice to the first; each that is added wins over those before.
    let specs = [
        "lib/net/net.json",
        "lib/net.json",
        "lib/net/net.spec",
        "lib/net.spec",
        "etc/net/net.json",
        "etc/net.json",
        "etc/net/net.spec",
        "etc/net.spec",
    ];
    for (number, place) in specs.into_iter().enumerate() {
        let address = format!("unix:///socket-{number}");
        let json = json!({"Name": "net", "Addr": address}).to_string();
        host.write(
            place,
            if place.ends_with("spec") {
                &address
            } else {
                &json
            },
        );

        let found = discovery::find(&host.config().directories, "net")
            .await
            .unwrap();

        assert_eq!(found.unwrap().to_string(), address, "{place}");
    }
    for place in ["run/net/net.sock", "run/net.sock"] {
        let _listener = UnixListener::bind(host.make_parent(place)).unwrap();

        let found = discovery::find(&host.config().directories, "net")
            .await
            .unwrap();

        assert_eq!(found, Some(Address::Unix(host.path().join(place))));
    }
}

#[tokio::test]
async fn a_rootless_engine_has_its_own_places() {
    let home = |name: &str| (name == "HOME").then(|| "/home/u".into());
    let configured = |name: &str| match name {
        "HOME" => Some("/home/u".into()),
        "XDG_CONFIG_HOME" => Some("/cfg".into()),
        _ => None,
    };

    let by_home = Directories::rootless(home).specs;
    let by_configuration = Directories::rootless(configured).specs;

    let library = Path::new("/home/u/.local/lib/docker/plugins");
    assert_eq!(
        by_home,
        [Path::new("/home/u/.config/docker/plugins"), library]
    );
    assert_eq!(
        by_configuration,
        [Path::new("/cfg/docker/plugins"), library]
    );
}

/// P5.
#[tokio::test]
async fn a_spec_that_is_wrong_is_named() {
    let host = Host::new();
    host.write("etc/noscheme.spec", "/run/x.sock\n");
    host.write(
        "etc/tls.json",
        r#"{"Name":"tls","Addr":"tcp://h:1","TLSConfig":{}}"#,
    );
    host.write("etc/broken.json", "{");
    let getter = host.getter();

    for (name, expected) in [
        ("noscheme", "unknown protocol"),
        ("tls", "must name a CAFile"),
        ("broken", "EOF while parsing"),
        ("../etc/tls", "not found"),
        ("nosuch", "not found"),
    ] {
        let error = getter
            .get(name, NETWORK, Mode::Lookup)
            .await
            .unwrap_err()
            .to_string();

        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// P7.
#[tokio::test]
async fn a_plugin_that_lacks_the_capability_says_so() {
    let host = Host::new();
    let _plugin = host.plugin("run/net.sock", &["NetworkDriver", "weft.TableDriver/1.0"]);
    let getter = host.getter();

    let error = getter.get("net", IPAM, Mode::Lookup).await.unwrap_err();
    let plugin = getter.get("net", NETWORK, Mode::Lookup).await.unwrap();

    assert_eq!(
        error.to_string(),
        "plugin \"net\" does not implement IpamDriver"
    );
    assert!(
        plugin
            .capabilities()
            .any(|capability| capability == "weft.TableDriver/1.0")
    );
}

#[tokio::test]
async fn a_plugin_by_tcp_is_activated_once() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    host.write(
        "etc/net.spec",
        &format!("tcp://{}\n", listener.local_addr().unwrap()),
    );
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            answer(stream, &|_| {
                (200, r#"{"Implements":["NetworkDriver"]}"#.into())
            })
            .await;
        }
    });
    let getter = host.getter();

    getter.get("net", NETWORK, Mode::Lookup).await.unwrap();
    getter.get("net", NETWORK, Mode::Lookup).await.unwrap();

    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// P8.
#[test]
fn a_dead_socket_is_tried_again_after_1_2_4_and_8_seconds() {
    let timings = Timings::default();

    let waits: Vec<u64> = retries(timings.first_retry, timings.give_up)
        .map(|wait| wait.as_secs())
        .collect();

    assert_eq!(waits, [1, 2, 4, 8]);
}

/// P8.
#[tokio::test]
async fn a_dead_socket_is_an_error_that_is_remembered_until_another_is_in_its_place() {
    let host = Host::new();
    drop(UnixListener::bind(host.make_parent("run/net.sock")).unwrap());
    let getter = host.getter();

    let first = getter.get("net", NETWORK, Mode::Lookup).await.unwrap_err();
    let remembered = getter.get("net", NETWORK, Mode::Lookup).await.unwrap_err();

    assert!(
        matches!(&first, GetError::Activation { source, .. } if source.is_unreachable()),
        "{first}"
    );
    assert_eq!(remembered.to_string(), first.to_string());
    fs::remove_file(host.path().join("run/net.sock")).unwrap();
    let _plugin = host.plugin("run/net.sock", &["NetworkDriver"]);
    assert!(getter.get("net", NETWORK, Mode::Lookup).await.is_ok());
}

#[tokio::test]
async fn a_plugin_that_comes_up_late_is_found_by_a_later_attempt() {
    let host = Host::new();
    let path = host.make_parent("run/net.sock");
    drop(UnixListener::bind(&path).unwrap());
    let mut config = host.config();
    config.timings.give_up = Duration::from_secs(60);
    let getter = Getter::new(config);

    let (got, _server) = tokio::join!(getter.get("net", NETWORK, Mode::Lookup), async {
        fs::remove_file(&path).unwrap();
        host.plugin("run/net.sock", &["NetworkDriver"])
    });

    // The name may have been looked up while there was no file: that is "not found", and the next call finds it.
    let found = match got {
        Err(GetError::NotFound(_)) => getter.get("net", NETWORK, Mode::Lookup).await,
        other => other,
    };
    assert!(found.is_ok(), "{found:?}");
}

#[tokio::test]
async fn a_plugin_that_never_answers_meets_the_deadline() {
    let host = Host::new();
    let _listener = UnixListener::bind(host.make_parent("run/net.sock")).unwrap();
    let mut config = host.config();
    config.timings.handshake = Duration::from_millis(20);

    let error = Getter::new(config)
        .get("net", NETWORK, Mode::Lookup)
        .await
        .unwrap_err();

    assert!(
        matches!(&error, GetError::Activation { source, .. } if matches!(**source, CallError::Deadline { .. })),
        "{error}"
    );
}

/// P10.
#[tokio::test]
async fn activations_are_told_to_those_who_asked_before_and_after() {
    let host = Host::new();
    let _first = host.plugin("run/first.sock", &["NetworkDriver"]);
    let _second = host.plugin("run/second.sock", &["NetworkDriver"]);
    let _other = host.plugin("run/other.sock", &["IpamDriver"]);
    let getter = host.getter();
    let mut early = getter.activations(NETWORK);

    for (name, capability) in [("first", NETWORK), ("other", IPAM), ("second", NETWORK)] {
        getter.get(name, capability, Mode::Lookup).await.unwrap();
    }
    let mut late = getter.activations(NETWORK);

    for activations in [&mut early, &mut late] {
        assert_eq!(activations.next().await.name, "first");
        assert_eq!(activations.next().await.name, "second");
        assert!(activations.try_next().is_none());
    }
}

/// P11.
#[tokio::test]
async fn all_plugins_are_the_enabled_managed_ones_and_the_living_v1_ones() {
    let host = Host::new();
    let _engine = host.engine(json!([
        managed("ab12", "on:latest", true, "docker.networkdriver/1.0"),
        managed("cd34", "off:latest", false, "docker.networkdriver/1.0"),
    ]));
    let _flat = host.plugin("run/flat.sock", &["NetworkDriver"]);
    let _nested = host.plugin("run/nested/nested.sock", &["NetworkDriver"]);
    let _ipam = host.plugin("run/ipam.sock", &["IpamDriver"]);
    let _ours = host.plugin("run/weft.sock", &["NetworkDriver"]);
    drop(UnixListener::bind(host.make_parent("run/dead.sock")).unwrap());

    let found = host.getter().all(NETWORK).await.unwrap();

    let names: Vec<&str> = found.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["on:latest", "flat", "nested"]);
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status_its_error_field_and_its_length() {
    let host = Host::new();
    let _server = host.serve("run/net.sock", |path| match path {
        "/X.Ok" => (200, String::new()),
        "/X.Err" => (200, r#"{"Err":"no such network"}"#.into()),
        "/X.Ipam" => (200, r#"{"Error":"pool is full"}"#.into()),
        "/X.Status" => (500, r#"{"Err":"boom"}"#.into()),
        "/X.Text" => (500, "plain".into()),
        "/X.Malformed" => (200, "{".into()),
        "/X.Long" => (200, "x".repeat(client::ANSWER_MAX + 1)),
        _ => (404, "404 page not found".into()),
    });
    let client = Client::new(
        Address::Unix(host.path().join("run/net.sock")),
        Duration::from_secs(10),
    );
    let error = async |method: &str| client.call::<Value>(method, &json!({})).await.unwrap_err();

    assert_eq!(
        client.call::<Value>("X.Ok", &json!({})).await.unwrap(),
        json!({})
    );
    for (method, expected) in [
        ("X.Err", "X.Err: no such network"),
        ("X.Ipam", "X.Ipam: pool is full"),
        ("X.Status", "X.Status: boom"),
        ("X.Text", "X.Text: plain"),
    ] {
        assert_eq!(error(method).await.to_string(), expected);
    }
    assert!(matches!(
        error("X.Malformed").await,
        CallError::Malformed { .. }
    ));
    assert!(matches!(error("X.Long").await, CallError::TooLarge { .. }));
    assert!(matches!(
        error("X.Nothing").await,
        CallError::NotImplemented { .. }
    ));
}

/// A directory with the places where plugins are looked for, and servers in it.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self) -> Config {
        Config {
            engine: Some(self.path().join("engine.sock")),
            directories: Directories {
                sockets: self.path().join("run"),
                specs: vec![self.path().join("etc"), self.path().join("lib")],
            },
            ignored: BTreeSet::from(["weft".to_owned()]),
            timings: Timings {
                first_retry: Duration::from_millis(1),
                give_up: Duration::from_millis(7),
                ..Timings::default()
            },
        }
    }

    fn getter(&self) -> Getter {
        Getter::new(self.config())
    }

    fn make_parent(&self, place: &str) -> PathBuf {
        let path = self.path().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, place: &str, text: &str) {
        fs::write(self.make_parent(place), text).unwrap();
    }

    fn engine(&self, plugins: Value) -> JoinSet<()> {
        self.serve("engine.sock", move |path| match path {
            "/plugins" => (200, plugins.to_string()),
            _ => (404, r#"{"message":"page not found"}"#.into()),
        })
    }

    fn plugin(&self, place: &str, implements: &[&str]) -> JoinSet<()> {
        let activation = json!({ "Implements": implements }).to_string();
        self.serve(place, move |path| match path {
            "/Plugin.Activate" => (200, activation.clone()),
            _ => (404, "404 page not found".into()),
        })
    }

    /// Serves until the returned set is dropped.
    fn serve(
        &self,
        place: &str,
        reply: impl Fn(&str) -> (u16, String) + Send + Sync + 'static,
    ) -> JoinSet<()> {
        let listener = UnixListener::bind(self.make_parent(place)).unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                answer(stream, &reply).await;
            }
        });
        server
    }
}

fn managed(id: &str, name: &str, is_enabled: bool, capability: &str) -> Value {
    json!({
        "Id": id,
        "Name": name,
        "Enabled": is_enabled,
        "Config": {"Interface": {"Types": [capability], "Socket": "plug.sock"}},
    })
}

/// Answers one request and closes.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    reply: &(impl Fn(&str) -> (u16, String) + ?Sized),
) {
    let mut request = Vec::new();
    let head = loop {
        match stream.read_buf(&mut request).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0_usize) {
                break head.to_owned();
            }
        }
    };
    let (status, body) = reply(head.split(' ').nth(1).unwrap());
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    match stream.write_all(answer.as_bytes()).await {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
        Ok(()) | Err(_) => {}
    }
}
