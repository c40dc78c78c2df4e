//! Tables through the control API: whose an entry is, what a key may be, what is too much, and every way to watch.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use super::{Node, change, eventually, name, named, refused};
use crate::{
    api::{
        client::{Client, ClientError, Watch},
        http::types::{
            Blob, ChangeKind, Code, CreateNetwork, Encoding, Failure, PutEntry, PutMode, SyncState,
            WatchEvent, WatchQuery,
        },
    },
    cli::up::daemon::Ended,
    core::model::{NetworkId, TableName},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_names_the_owner() {
    let directories = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Node::start(&directories.0, named("n1")).await.unwrap();
    first.until_led().await;
    create(&first.client, "app").await;
    let layer = first.invite("n2").await;
    let second = Node::start(&directories.1, layer).await.unwrap();
    let key = Blob::from("k");
    first
        .client
        .put("app", "t", &key, "1".into())
        .await
        .unwrap();
    eventually(async || second.client.entry("app", "t", &key).await.is_ok()).await;
    let owner = first.client.status().await.unwrap().node;
    let write = async |mode| {
        let entry = PutEntry {
            value: "2".into(),
            mode,
        };
        second.client.put_with("app", "t", &key, &entry).await
    };

    let refusals = [
        (Code::EntryExists, failure(write(PutMode::Create).await)),
        (Code::NotOwner, failure(write(PutMode::Update).await)),
        (Code::NotOwner, failure(write(PutMode::Upsert).await)),
        (
            Code::NotOwner,
            failure(second.client.remove("app", "t", &key).await),
        ),
    ];

    for (code, failure) in refusals {
        assert_eq!(failure.code, code);
        assert_eq!(failure.owner, Some(owner), "{failure}");
        assert!(failure.message.contains("n1 ("), "{failure}");
    }
    let kept = second.client.entry("app", "t", &key).await.unwrap();
    assert_eq!((kept.value, kept.ours), ("1".into(), false));
    for node in [second, first] {
        node.daemon.stop(Ended::Told).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_may_be_any_bytes_up_to_their_limits() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let client = &node.client;
    create(client, "app").await;
    let entries: [(Blob, Blob); 6] = [
        (Blob(vec![0xff, 0, 0x80].into()), Blob(vec![0; 4].into())),
        (Blob(vec![0xff; 256].into()), "256 bytes".into()),
        ("a b&c=d%2f/?#".into(), "".into()),
        ("ü\n".into(), Blob(vec![0xfe; 64 * 1024].into())),
        ("\0".into(), "nul".into()),
        ("base64".into(), "AAE=".into()),
    ];

    for (key, value) in &entries {
        client.put("app", "t", key, value.clone()).await.unwrap();
    }

    for (key, value) in &entries {
        let entry = client.entry("app", "t", key).await.unwrap();
        assert_eq!((&entry.key, &entry.value), (key, value));
    }
    let listed = client.entries("app", "t").await.unwrap();
    assert_eq!(listed.len(), entries.len());
    for (key, _) in &entries {
        client.remove("app", "t", key).await.unwrap();
    }
    assert_eq!(client.entries("app", "t").await.unwrap(), []);
    for (key, value, says) in [
        (
            Blob(vec![0xff; 257].into()),
            Blob::from("v"),
            "257 bytes is too long: at most 256",
        ),
        (
            "k".into(),
            Blob(vec![0xff; 64 * 1024 + 1].into()),
            "65537 bytes is too long: at most 65536",
        ),
    ] {
        let failure = failure(client.put("app", "t", &key, value).await);
        assert_eq!(failure.code, Code::TooLarge);
        assert!(failure.message.contains(says), "{failure}");
    }
    let empty = client.put("app", "t", &"".into(), "v".into()).await;
    assert_eq!(refused(empty), Code::Invalid);
    assert_eq!(client.entries("app", "t").await.unwrap(), []);
    node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_begin_alike_are_kept_apart_and_a_prefix_finds_them() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let client = &node.client;
    // A name goes before a number: network `1` is not the one with id 1.
    for network in ["app", "app2", "1"] {
        create(client, network).await;
    }
    for (network, table, key) in [
        ("app", "t", "k"),
        ("app", "t", "kk"),
        ("app", "t2", "k"),
        ("app2", "t", "k"),
        ("1", "t", "k"),
    ] {
        let value = format!("{network}/{table}/{key}");
        client
            .put(network, table, &key.into(), value.as_str().into())
            .await
            .unwrap();
    }

    client.remove("app", "t", &"k".into()).await.unwrap();

    let value = async |network: &str, table: &str, key: &str| {
        let entry = client.entry(network, table, &key.into()).await.ok()?;
        entry.value.as_text().map(str::to_owned)
    };
    assert_eq!(value("app", "t", "k").await, None);
    assert_eq!(value("app", "t", "kk").await.as_deref(), Some("app/t/kk"));
    assert_eq!(value("app", "t2", "k").await.as_deref(), Some("app/t2/k"));
    assert_eq!(value("app2", "t", "k").await.as_deref(), Some("app2/t/k"));
    assert_eq!(value("1", "t", "k").await.as_deref(), Some("1/t/k"));
    let query = WatchQuery {
        table: Some(table("t")),
        prefix: Some(Blob::from("kk").to_base64()),
        encoding: Encoding::Base64,
        ..of("app")
    };
    let (there, _) = begin(client, &query).await;
    assert_eq!(there, ["kk"]);
    node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_from_a_revision_or_lists_again() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let client = &node.client;
    create(client, "app").await;
    let query = WatchQuery {
        table: Some(table("t")),
        ..of("app")
    };
    let (there, mut watch) = begin(client, &query).await;
    assert_eq!(there, Vec::<String>::new());
    for (key, value) in [("a", "1"), ("a", "2"), ("b", "1")] {
        client
            .put("app", "t", &key.into(), value.into())
            .await
            .unwrap();
    }
    client.remove("app", "t", &"a".into()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(change(&mut watch).await);
    }
    let kinds: Vec<ChangeKind> = seen.iter().map(|change| change.kind).collect();
    assert_eq!(
        kinds,
        [
            ChangeKind::Created,
            ChangeKind::Updated,
            ChangeKind::Created,
            ChangeKind::Removed
        ]
    );
    assert!(seen.iter().all(|change| change.ours));
    assert_eq!(seen[1].previous, Some("1".into()));

    let resumed = WatchQuery {
        from: Some(seen[1].revision),
        ..query.clone()
    };
    let mut resumed = client.watch(&resumed).await.unwrap();
    let foreign = WatchQuery {
        from: Some(3),
        ..query.clone()
    };
    let mut foreign = client.watch(&foreign).await.unwrap();

    let first = resumed.next().await.unwrap().unwrap();
    let revision = seen[1].revision;
    assert_eq!(first, WatchEvent::Synced { revision });
    assert_eq!(change(&mut resumed).await, seen[2]);
    assert_eq!(change(&mut resumed).await, seen[3]);
    let events = [
        WatchEvent::Synced { revision: 3 },
        WatchEvent::Lagged,
        WatchEvent::Entry(client.entry("app", "t", &"b".into()).await.unwrap()),
    ];
    for event in events {
        assert_eq!(foreign.next().await.unwrap().unwrap(), event);
    }
    let came_back = with_last_event_id(&node, seen[2].revision);
    assert!(came_back.contains(r#""kind":"removed""#), "{came_back}");
    assert!(!came_back.contains("event: entry"), "{came_back}");
    node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_watches_and_too_long_a_wait_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let client = &node.client;
    create(client, "app").await;
    let mut watches = Vec::new();
    for _ in 0..256 {
        watches.push(client.watch(&of("app")).await.unwrap());
    }

    assert_eq!(refused(client.watch(&of("app")).await), Code::Busy);
    watches.pop();
    eventually(async || client.watch(&of("app")).await.is_ok()).await;
    let too_long = Duration::from_secs(601);
    let waited = client.applied("app", too_long).await;
    assert_eq!(refused(waited), Code::Invalid);
    let short = Duration::from_millis(1);
    let nowhere = client.applied("nope", short).await;
    assert_eq!(refused(nowhere), Code::NoSuchNetwork);
    drop(watches);
    node.daemon.stop(Ended::Told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_lists_and_watches_tell_how_far_a_network_has_come() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let client = &node.client;
    create(client, "app").await;

    let long = Duration::from_secs(20);
    let detail = client.network_until_synced("app", long).await.unwrap();

    let synced = Some(SyncState::Synced);
    assert_eq!(detail.sync, synced);
    assert_eq!(client.network_states().await.unwrap()[0].sync, synced);
    let status = client.status().await.unwrap();
    assert_eq!(status.cluster_sync, synced);
    assert_eq!((status.sync.synced, status.sync.syncing), (1, 0));
    let (_, mut watch) = begin(client, &of("app")).await;
    let state = WatchEvent::State {
        network: NetworkId(1),
        sync: synced,
    };
    assert_eq!(watch.next().await.unwrap().unwrap(), state);
    let metrics = client.metrics().await.unwrap();
    assert!(metrics.contains("weft_networks_sync{state=\"synced\"} 1"));
    node.daemon.stop(Ended::Told).await.unwrap();
}

async fn create(client: &Client, network: &str) {
    let wish = CreateNetwork::overlay(name(network));
    client.network_create(&wish).await.unwrap();
}

fn of(network: &str) -> WatchQuery {
    WatchQuery {
        network: network.to_owned(),
        ..WatchQuery::default()
    }
}

fn table(text: &str) -> TableName {
    TableName::new(text).unwrap()
}

fn failure<T>(answer: Result<T, ClientError>) -> Failure {
    match answer {
        Err(ClientError::Refused(failure)) => failure,
        Err(other) => panic!("not refused by the daemon: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Begins to watch; returns the keys that were there.
async fn begin(client: &Client, query: &WatchQuery) -> (Vec<String>, Watch) {
    let mut watch = client.watch(query).await.unwrap();
    let mut there = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Entry(entry) => there.push(entry.key.as_text().unwrap().to_owned()),
            WatchEvent::Synced { .. } => return (there, watch),
            other @ (WatchEvent::Change(_) | WatchEvent::State { .. } | WatchEvent::Lagged) => {
                panic!("a watch began with {other:?}")
            }
        }
    }
}

/// Reads a watch as a browser does that comes back, until its state.
fn with_last_event_id(node: &Node, revision: u64) -> String {
    let mut stream = UnixStream::connect(node.client.socket()).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    let request = format!(
        "GET /v1/watch?network=app&table=t HTTP/1.1\r\nhost: w\r\nlast-event-id: {revision}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut read = String::new();
    while !read.contains("event: state") {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece).unwrap();
        assert_ne!(len, 0, "{read}");
        read.push_str(std::str::from_utf8(&piece[..len]).unwrap());
    }
    read
}
