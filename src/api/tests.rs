//! Client and server meet over a real unix socket; the routes are the tests' own.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    response::sse::{Event, Sse},
    routing::{get, post},
};
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{Client, ClientError},
    http::{
        Door, serve,
        types::{
            Applied, Blob, Change, ChangeKind, Code, CreateNetwork, Entry, Failure, KeyQuery,
            Lacking, Network, SyncState, Version, WatchEvent, WatchQuery,
        },
    },
};
use crate::core::model::{Generation, Name, NetworkId, NodeId, TableName};

/// A served socket that stops with its test.
struct Served {
    directory: tempfile::TempDir,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Served {
    async fn start(routes: Router) -> Self {
        let served = Self {
            directory: tempfile::tempdir().unwrap(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let door = Door::open(&served.socket()).await.unwrap();
        served.tasks.spawn(serve(door, routes, served.stop.clone()));
        served
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn code(error: &ClientError) -> Code {
    let ClientError::Refused(failure) = error else {
        panic!("not refused: {error}");
    };
    failure.code
}

fn app() -> Network {
    Network {
        id: NetworkId(1),
        name: Name::new("app").unwrap(),
        driver: Name::new("overlay").unwrap(),
        options: [("mtu".to_owned(), "1400".to_owned())].into(),
        subnets: Vec::new(),
    }
}

async fn create(
    super::http::extract::Body(wish): super::http::extract::Body<CreateNetwork>,
) -> Json<Network> {
    Json(Network {
        name: wish.name,
        ..app()
    })
}

#[tokio::test]
async fn a_typed_call_comes_back_typed() {
    let routes = Router::new().route("/v1/networks", get(async || Json(vec![app()])).post(create));
    let served = Served::start(routes).await;
    let wish = CreateNetwork::overlay(Name::new("lab").unwrap());

    let listed = served.client().networks().await.unwrap();
    let created = served.client().network_create(&wish).await.unwrap();

    assert_eq!(listed, [app()]);
    assert_eq!(created.name.as_str(), "lab");
}

#[tokio::test]
async fn a_refusal_arrives_with_its_code_and_message() {
    let refuse = async || Failure::new(Code::NoLeader, "nobody leads");
    let served = Served::start(Router::new().route("/v1/members", get(refuse))).await;

    let refused = served.client().members().await.unwrap_err();

    assert_eq!(code(&refused), Code::NoLeader);
    assert_eq!(refused.to_string(), "nobody leads");
}

#[tokio::test]
async fn an_unknown_route_and_a_wrong_method_are_refused_in_json() {
    let served = Served::start(Router::new().route("/v1/leave", post(async || ()))).await;

    let unknown = served.client().status().await.unwrap_err();
    let method = served
        .raw("GET /v1/leave HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")
        .await;

    assert_eq!(code(&unknown), Code::NoSuchRoute);
    assert!(method.starts_with("HTTP/1.1 405"), "{method}");
    assert!(
        method.contains(r#""code":"method_not_allowed""#),
        "{method}"
    );
}

#[tokio::test]
async fn malformed_json_is_refused_with_what_is_wrong() {
    let served = Served::start(Router::new().route("/v1/networks", post(create))).await;
    let post = async |body: &str| {
        let length = body.len();
        let request = format!(
            "POST /v1/networks HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        served.raw(&request).await
    };

    let half = post(r#"{"name":"#).await;
    let unknown = post(r#"{"name":"app","colour":1}"#).await;
    let name = post(r#"{"name":"-"}"#).await;

    assert!(
        half.starts_with("HTTP/1.1 400") && half.contains("bad_request"),
        "{half}"
    );
    assert!(unknown.contains("unknown field `colour`"), "{unknown}");
    assert!(name.contains("a name may have letters"), "{name}");
}

#[tokio::test]
async fn a_body_over_its_bound_is_refused() {
    let served = Served::start(Router::new().route("/v1/networks", post(create))).await;
    let mut wish = CreateNetwork::overlay(Name::new("lab").unwrap());
    wish.options.insert("x".to_owned(), "x".repeat(1024 * 1024));

    let refused = served.client().network_create(&wish).await.unwrap_err();

    assert_eq!(code(&refused), Code::TooLarge);
}

#[tokio::test]
async fn names_with_any_characters_reach_their_route() {
    let echo =
        async |super::http::extract::At(network): super::http::extract::At<String>,
               super::http::extract::Ask(query): super::http::extract::Ask<KeyQuery>| {
            Failure::new(
                Code::NoSuchNetwork,
                format!("{network}|{}|{:?}", query.key, query.encoding),
            )
        };
    let routes = Router::new().route("/v1/networks/{network}/tables/t/entries", get(echo));
    let served = Served::start(routes).await;

    for (name, key, echoed) in [
        ("a/b?c#d", "x&y=z +%", "a/b?c#d|x&y=z +%|Utf8"),
        ("..", "ü", "..|ü|Utf8"),
        ("n", "\0", "n|AA==|Base64"),
    ] {
        let found = served.client().entry(name, "t", &Blob::from(key)).await;

        assert_eq!(found.unwrap_err().to_string(), echoed);
    }
}

fn entry() -> Entry {
    Entry {
        network: NetworkId(1),
        table: TableName::new("t").unwrap(),
        key: "k".into(),
        value: Blob(vec![0, 255].into()),
        owner: NodeId(3),
        written_ms: 9,
        ours: false,
    }
}

fn change() -> Change {
    Change {
        revision: 8,
        kind: ChangeKind::OwnerDown,
        network: NetworkId(1),
        table: TableName::new("t").unwrap(),
        key: "k".into(),
        value: None,
        previous: Some(Blob(vec![0, 255].into())),
        owner: NodeId(3),
        written_ms: 9,
        ours: false,
    }
}

#[tokio::test]
async fn a_watch_gives_each_event_and_ends_with_the_daemon() {
    let sent = [
        WatchEvent::Entry(entry()),
        WatchEvent::Synced { revision: 7 },
        WatchEvent::State {
            network: NetworkId(1),
            sync: Some(SyncState::Degraded),
        },
        WatchEvent::Change(change()),
        WatchEvent::Lagged,
    ];
    let told = sent.clone();
    let watch = async move || {
        let events = told.map(|event| {
            Ok::<_, Infallible>(Event::default().data(serde_json::to_string(&event).unwrap()))
        });
        Sse::new(stream::iter(events))
    };
    let served = Served::start(Router::new().route("/v1/watch", get(watch))).await;
    let query = WatchQuery {
        network: "app".to_owned(),
        ..WatchQuery::default()
    };

    let mut watch = served.client().watch(&query).await.unwrap();

    for event in sent {
        assert_eq!(watch.next().await.unwrap().unwrap(), event);
    }
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_refused_watch_is_an_error_at_once() {
    let refuse = async || Failure::new(Code::Busy, "256 watches run already");
    let served = Served::start(Router::new().route("/v1/watch", get(refuse))).await;

    let refused = served
        .client()
        .watch(&WatchQuery::default())
        .await
        .unwrap_err();

    assert_eq!(code(&refused), Code::Busy);
}

#[tokio::test]
async fn without_a_daemon_the_socket_is_named() {
    let client = Client::new("/nowhere/weft.sock");

    let error = client.status().await.unwrap_err();

    assert!(matches!(error, ClientError::NoDaemon { .. }));
    assert!(error.to_string().contains("/nowhere/weft.sock"));
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_given_up() {
    let served =
        Served::start(Router::new().route("/v1/status", get(std::future::pending::<()>))).await;
    let client = served.client().with_deadline(Duration::from_millis(50));

    let error = client.status().await.unwrap_err();

    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn stopping_ends_the_server_even_with_a_request_open() {
    let arrived = Arc::new(Notify::new());
    let tell = Arc::clone(&arrived);
    let never = async move || {
        tell.notify_one();
        std::future::pending::<()>().await;
    };
    let served = Served::start(Router::new().route("/v1/status", get(never))).await;
    let client = served.client();
    let open = served.tasks.spawn(async move { client.status().await });
    arrived.notified().await;

    served.stop.cancel();

    assert!(matches!(
        open.await.unwrap(),
        Err(ClientError::Broken { .. })
    ));
    served.tasks.close();
    served.tasks.wait().await;
    assert!(!served.socket().exists());
}

#[test]
fn the_json_of_a_watch_has_its_golden_shape() {
    let json = |event: &WatchEvent| serde_json::to_string(event).unwrap();

    assert_eq!(
        json(&WatchEvent::Entry(entry())),
        r#"{"event":"entry","network":1,"table":"t","key":"k","value":{"base64":"AP8="},"owner":"0000000000000003","written_ms":9,"ours":false}"#
    );
    assert_eq!(
        json(&WatchEvent::Change(change())),
        r#"{"event":"change","revision":8,"kind":"owner_down","network":1,"table":"t","key":"k","value":null,"previous":{"base64":"AP8="},"owner":"0000000000000003","written_ms":9,"ours":false}"#
    );
    assert_eq!(
        json(&WatchEvent::Synced { revision: 7 }),
        r#"{"event":"synced","revision":7}"#
    );
    let state = |sync| WatchEvent::State {
        network: NetworkId(1),
        sync,
    };
    assert_eq!(
        json(&state(Some(SyncState::Syncing))),
        r#"{"event":"state","network":1,"sync":"syncing"}"#
    );
    assert_eq!(
        json(&state(None)),
        r#"{"event":"state","network":1,"sync":null}"#
    );
    assert_eq!(json(&WatchEvent::Lagged), r#"{"event":"lagged"}"#);
}

#[test]
fn the_json_of_who_has_heard_has_its_golden_shape() {
    let applied = Applied {
        network: NetworkId(1),
        version: Version {
            generation: Generation(2),
            epoch: 5,
            seq: 40,
        },
        applied: false,
        lacking: vec![Lacking {
            node: NodeId(3),
            name: Some(Name::new("n3").unwrap()),
        }],
    };

    assert_eq!(
        serde_json::to_string(&applied).unwrap(),
        r#"{"network":1,"version":{"generation":2,"epoch":5,"seq":40},"applied":false,"lacking":[{"node":"0000000000000003","name":"n3"}]}"#
    );
}

#[tokio::test]
async fn a_call_that_waits_is_given_the_time_on_top_of_its_own() {
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Failure::new(Code::NoSuchNetwork, "it answered")
    };
    let routes = Router::new().route("/v1/networks/{network}/applied", post(slow));
    let served = Served::start(routes).await;
    let client = served.client().with_deadline(Duration::from_millis(50));

    let waited = client.applied("app", Duration::from_secs(20)).await;

    assert_eq!(waited.unwrap_err().to_string(), "it answered");
}

#[test]
fn the_json_of_a_network_has_its_golden_shape() {
    assert_eq!(
        serde_json::to_string(&app()).unwrap(),
        r#"{"id":1,"name":"app","driver":"overlay","options":{"mtu":"1400"},"subnets":[]}"#
    );
    let least: CreateNetwork = serde_json::from_str(r#"{"name":"app"}"#).unwrap();
    assert_eq!(least, CreateNetwork::overlay(Name::new("app").unwrap()));
}
