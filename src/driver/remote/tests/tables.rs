//! The table-driver protocol, as `docs/table-driver-protocol.md` has it.

use std::time::Duration;

use super::{NETWORK, Plugin, Reaction, endpoint, network};
use crate::{
    core::model::{EndpointId, Key, NodeId, TableEntry, TableName, Value},
    driver::{Driver, DriverError, EventBatch, ObjectType, Position, Remote, TableEvent},
};

const SCOPE: (&str, &str) = ("GetCapabilities", r#"{"Scope":"global"}"#);

#[tokio::test]
async fn tables_and_entries_are_what_a_plugin_says() {
    let plugin = Plugin::start(&[
        SCOPE,
        (
            "CreateNetwork",
            r#"{"Tables":[{"Name":"ports","ObjectType":3},{"Name":"names"}]}"#,
        ),
        (
            "Join",
            r#"{"TableEntries":[{"TableName":"ports","Key":"aw==","Value":"dg=="},{"TableName":"names","Key":"aw=="}]}"#,
        ),
    ]);
    let driver = with_tables(&plugin).await;

    let interests = driver.create_network(&network()).await.unwrap();
    let joined = driver.join(&endpoint()).await.unwrap();

    let objects: Vec<_> = interests
        .iter()
        .map(|interest| (interest.table.as_str(), interest.object))
        .collect();
    assert_eq!(
        objects,
        [
            ("ports", ObjectType::Opaque),
            ("names", ObjectType::Endpoint)
        ]
    );
    assert_eq!(
        joined.entries,
        [entry("ports", b"k", b"v"), entry("names", b"k", b"")]
    );
}

/// D5, and every other thing that may be wrong with tables and entries: it is named, and the call is taken back.
#[tokio::test]
async fn tables_and_entries_that_are_not_allowed_are_refused_and_undone() {
    let many_tables = format!(
        r#"{{"Tables":[{}]}}"#,
        vec![r#"{"Name":"t"}"#; 65].join(",")
    );
    let networks = [
        (
            r#"{"Tables":[{"Name":"t","ObjectType":4}]}"#,
            "4 is no object type",
        ),
        (
            r#"{"Tables":[{"Name":""}]}"#,
            "a table name must not be empty",
        ),
        (r#"{"Tables":[{"Name":"a/b"}]}"#, "table \"a/b\""),
        (r#"{"Tables":[{"ObjectType":1}]}"#, "missing field `Name`"),
        (r#"{"Tables":7}"#, "invalid type"),
        (
            r#"{"Position":{"Stream":"no","Revision":1}}"#,
            "stream \"no\"",
        ),
        (&many_tables, "65 tables: at most 64"),
    ];
    for (answer, wrong) in networks {
        let plugin = Plugin::start(&[SCOPE, ("CreateNetwork", answer)]);
        let driver = with_tables(&plugin).await;

        let refused = driver.create_network(&network()).await.unwrap_err();

        check(&refused, "CreateNetwork", wrong);
        assert_eq!(plugin.methods().last().unwrap(), "DeleteNetwork");
    }
    let long_key = format!(
        r#"{{"TableEntries":[{{"TableName":"t","Key":"{}"}}]}}"#,
        "QUFB".repeat(100)
    );
    let many = format!(
        r#"{{"TableEntries":[{}]}}"#,
        vec![r#"{"TableName":"t","Key":"aw=="}"#; 1025].join(",")
    );
    let joins = [
        (
            r#"{"TableEntries":[{"TableName":"t","Key":"%%"}]}"#,
            "is no base64",
        ),
        (
            r#"{"TableEntries":[{"TableName":"t","Key":""}]}"#,
            "a key must not be empty",
        ),
        (
            r#"{"TableEntries":[{"TableName":"t","Key":"aw=="},{"TableName":"t","Key":"aw=="}]}"#,
            "twice",
        ),
        (
            r#"{"TableEntries":[{"Key":"aw=="}]}"#,
            "missing field `TableName`",
        ),
        (&long_key, "a key of 300 bytes is too long"),
        (&many, "1025 table entries: at most 1024"),
    ];
    for (answer, wrong) in joins {
        let plugin = Plugin::start(&[SCOPE, ("Join", answer)]);
        let driver = with_tables(&plugin).await;

        let refused = driver.join(&endpoint()).await.unwrap_err();

        check(&refused, "Join", wrong);
        assert_eq!(plugin.methods().last().unwrap(), "Leave");
    }
}

#[tokio::test]
async fn events_are_numbered_and_a_plugin_may_take_a_part() {
    let plugin = Plugin::start(&[SCOPE]);
    let driver = with_tables(&plugin).await;
    let events = [event(None, Some("new")), event(Some("new"), None)];

    let all = driver.event_batch(batch(&events)).await.unwrap();
    let told = plugin.last("EventNotify");
    plugin.react(
        "EventNotify",
        Reaction::Json(r#"{"Revision":42,"RetryAfterMs":7}"#.to_owned()),
    );
    let part = driver.event_batch(batch(&events)).await.unwrap();
    plugin.react(
        "EventNotify",
        Reaction::Json(r#"{"Revision":44}"#.to_owned()),
    );
    let too_far = driver.event_batch(batch(&events)).await.unwrap_err();

    assert_eq!((all.through, all.pause), (43, None));
    assert_eq!(
        (part.through, part.pause),
        (42, Some(Duration::from_millis(7)))
    );
    check(&too_far, "EventNotify", "but was told of 43 only");
    assert_eq!(told["Stream"], "000000000000000a");
    assert_eq!(told["After"], 41);
    let shown = |at: usize| {
        let event = &told["Events"][at];
        let text = |field: &str| event[field].as_str().unwrap_or("none").to_owned();
        (
            event["Revision"].as_u64().unwrap(),
            event["Type"].as_u64().unwrap(),
            text("Value"),
            text("Previous"),
        )
    };
    assert_eq!(shown(0), (42, 1, "bmV3".to_owned(), "none".to_owned()));
    assert_eq!(shown(1), (43, 3, "none".to_owned(), "bmV3".to_owned()));
    assert_eq!(told["Events"][0]["Owner"], NodeId(2).to_string());
}

#[tokio::test]
async fn a_plugin_that_has_kept_its_place_says_where_it_was() {
    let answer = r#"{"Tables":[{"Name":"t"}],"Position":{"Stream":"0a","Revision":43}}"#;
    let plugin = Plugin::start(&[SCOPE, ("CreateNetwork", answer)]);
    let driver = with_tables(&plugin).await;
    assert_eq!(driver.position(NETWORK), None);

    driver.create_network(&network()).await.unwrap();

    assert_eq!(
        driver.position(NETWORK),
        Some(Position {
            stream: 10,
            revision: 43
        })
    );
}

/// D11.
#[tokio::test]
async fn a_plugin_explains_an_entry_or_need_not() {
    let id = EndpointId(0xabc).to_string().repeat(2);
    let plugin = Plugin::start(&[SCOPE]);
    let driver = with_tables(&plugin).await;
    let asked = entry("t", b"k", b"v");

    plugin.react(
        "DecodeTableEntry",
        Reaction::Json(format!(r#"{{"EndpointID":"{id}","Info":{{"port":"7"}}}}"#)),
    );
    let explained = driver.decode(&asked).await.unwrap().unwrap();
    plugin.react("DecodeTableEntry", Reaction::Status(404, "no"));
    let silent = driver.decode(&asked).await.unwrap();
    plugin.react(
        "DecodeTableEntry",
        Reaction::Json(r#"{"EndpointID":"7"}"#.to_owned()),
    );
    let wrong = driver.decode(&asked).await.unwrap_err();

    assert_eq!(explained.endpoint, Some(EndpointId(0xabc)));
    assert_eq!(explained.says["port"], "7");
    assert_eq!(silent, None);
    check(&wrong, "DecodeTableEntry", "is no endpoint's id");
}

fn check(refused: &DriverError, method: &str, wrong: &str) {
    let text = refused.to_string();
    assert!(text.contains("driver wire broke the protocol"), "{text}");
    assert!(text.contains(&format!("NetworkDriver.{method}")), "{text}");
    assert!(text.contains(wrong), "{text}");
}

async fn with_tables(plugin: &Plugin) -> Remote {
    plugin.connect(Duration::from_secs(5), true).await.unwrap()
}

fn batch(events: &[TableEvent]) -> EventBatch<'_> {
    EventBatch {
        network: NETWORK,
        after: Position {
            stream: 10,
            revision: 41,
        },
        events,
    }
}

fn event(previous: Option<&str>, value: Option<&str>) -> TableEvent {
    let bytes = |text: &str| Value::new(text.as_bytes().to_vec()).unwrap();
    TableEvent {
        network: NETWORK,
        table: TableName::new("t").unwrap(),
        key: Key::new(&b"k"[..]).unwrap(),
        previous: previous.map(bytes),
        value: value.map(bytes),
        owner: NodeId(2),
    }
}

fn entry(table: &str, key: &'static [u8], value: &'static [u8]) -> TableEntry {
    TableEntry {
        table: TableName::new(table).unwrap(),
        key: Key::new(key).unwrap(),
        value: Value::new(value).unwrap(),
    }
}
