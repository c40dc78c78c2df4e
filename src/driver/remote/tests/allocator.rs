//! Remote allocators: what they are asked, when they are not asked again, and answers that are not allowed. Section 1.5.

use std::{sync::Arc, time::Duration};

use super::{NETWORK, Plugin, Reaction, network};
use crate::driver::{DriverError, NetworkAllocator, Options};

const GLOBAL: (&str, &str) = ("GetCapabilities", r#"{"Scope":"global"}"#);

/// D10.
#[tokio::test]
async fn a_plugin_is_asked_once_and_frees_what_it_gave() {
    let plugin = Plugin::start(&[GLOBAL, ("AllocateNetwork", r#"{"Options":{"lane":"7"}}"#)]);
    let allocator = allocator(&plugin).await;
    let mut wanted = network();
    wanted.options.insert("colour".to_owned(), "red".to_owned());

    let first = allocator.allocate(&wanted).await.unwrap();
    let again = allocator.allocate(&wanted).await.unwrap();
    let held = allocator.holds(NETWORK);
    allocator.free(NETWORK).await.unwrap();

    assert_eq!(first, options(&[("lane", "7")]));
    assert_eq!((again, held), (first, true));
    assert!(!allocator.holds(NETWORK));
    let expected = ["GetCapabilities", "AllocateNetwork", "FreeNetwork"];
    assert_eq!(plugin.methods(), expected);
    let asked = plugin.last("AllocateNetwork");
    let freed = plugin.last("FreeNetwork");
    // Not within others, as those of CreateNetwork are.
    assert_eq!(asked["Options"], serde_json::json!({"colour": "red"}));
    assert_eq!(asked["IPv4Data"][0]["Pool"], "10.0.0.0/24");
    assert_eq!(asked["IPv4Data"][0]["Gateway"], "10.0.0.1/24");
    assert_eq!(asked["NetworkID"], freed["NetworkID"]);
    assert_eq!(asked["NetworkID"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn a_plugin_whose_data_is_local_is_no_allocator() {
    let local = (
        "GetCapabilities",
        r#"{"Scope":"local","ConnectivityScope":"global"}"#,
    );
    let plugin = Plugin::start(&[local]);

    assert!(plugin.driver().await.unwrap().found().allocator.is_none());
}

#[tokio::test]
async fn a_plugin_that_knows_no_allocation_allocates_nothing() {
    let plugin = Plugin::start(&[GLOBAL]);
    for method in ["AllocateNetwork", "FreeNetwork"] {
        plugin.react(method, Reaction::Status(404, "404 page not found"));
    }
    let allocator = allocator(&plugin).await;

    assert_eq!(
        allocator.allocate(&network()).await.unwrap(),
        Options::new()
    );
    assert!(allocator.free(NETWORK).await.is_ok());
}

/// A leader that died before its answer was agreed may have been given something: it is given back, and asked for anew.
#[tokio::test]
async fn what_an_earlier_leader_was_given_is_asked_for_anew() {
    let plugin = Plugin::start(&[GLOBAL]);
    let answers = vec![
        r#"{"Err":"network 9e37 is already allocated"}"#,
        r#"{"Options":{"lane":"7"}}"#,
    ];
    plugin.react("AllocateNetwork", Reaction::InTurn(answers));
    let allocator = allocator(&plugin).await;

    let given = allocator.allocate(&network()).await.unwrap();

    assert_eq!(given, options(&[("lane", "7")]));
    let expected = ["AllocateNetwork", "FreeNetwork", "AllocateNetwork"];
    assert_eq!(plugin.methods()[1..], expected);
}

/// O5: what is agreed is told with the options that are agreed, and kept whatever the plugin says.
#[tokio::test]
async fn a_network_that_has_its_share_is_told_once_and_keeps_it() {
    let plugin = Plugin::start(&[GLOBAL, ("AllocateNetwork", r#"{"Options":{"lane":"8"}}"#)]);
    let allocator = allocator(&plugin).await;
    let mut made = network();
    made.options.insert("lane".to_owned(), "7".to_owned());

    for _ in 0..2 {
        allocator.restore(&made).await.unwrap();
    }

    assert!(allocator.holds(NETWORK));
    assert_eq!(plugin.methods()[1..], ["AllocateNetwork"]);
    let asked = plugin.last("AllocateNetwork");
    assert_eq!(asked["Options"], serde_json::json!({"lane": "7"}));
    let refusing = Plugin::start(&[
        GLOBAL,
        ("AllocateNetwork", r#"{"Err":"network already exists"}"#),
    ]);
    let allocator = self::allocator(&refusing).await;
    assert!(allocator.restore(&made).await.is_ok());
    refusing.react(
        "AllocateNetwork",
        Reaction::Json(r#"{"Err":"lane 7 is in use"}"#.to_owned()),
    );
    let other = crate::core::model::NetworkRecord {
        id: crate::core::model::NetworkId(9),
        ..made
    };
    let refused = allocator.restore(&other).await.unwrap_err().to_string();
    assert!(
        refused.contains("NetworkDriver.AllocateNetwork: lane 7 is in use"),
        "{refused}"
    );
}

#[tokio::test]
async fn whatever_a_plugin_answers_the_error_names_it_and_nothing_stays() {
    let many: Vec<String> = (0..257).map(|n| format!(r#""o{n}":"""#)).collect();
    let many = format!(r#"{{"Options":{{{}}}}}"#, many.join(","));
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Opt".to_vec();
    let long = [
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        vec![b' '; 5 * 1024 * 1024],
    ]
    .concat();
    let json = |text: &str| Reaction::Json(text.to_owned());
    let cases = [
        (json("<html>"), "is malformed", true),
        (json(r#"{"Options":{"lane":7}}"#), "is malformed", true),
        (json(r#"{"Options":[]}"#), "is malformed", true),
        (json(&many), "257 options: at most 256", true),
        (
            json(r#"{"Options":{"weft.ipam.driver":"x"}}"#),
            "\"weft.ipam.driver\" is Weft's own",
            true,
        ),
        (Reaction::Raw(half), "broke in", true),
        (Reaction::Raw(long), "is longer than 4194304 bytes", true),
        (
            json(r#"{"Err":"no lane is left"}"#),
            "no lane is left",
            false,
        ),
        (Reaction::Status(500, "boom"), "boom", false),
    ];
    for (reaction, said, may_be_done) in cases {
        let plugin = Plugin::start(&[GLOBAL]);
        let allocator = allocator(&plugin).await;
        plugin.react("AllocateNetwork", reaction);

        let refused = allocator
            .allocate(&network())
            .await
            .unwrap_err()
            .to_string();

        assert!(refused.starts_with("driver wire"), "{said}: {refused}");
        assert!(
            refused.contains("NetworkDriver.AllocateNetwork"),
            "{said}: {refused}"
        );
        assert!(refused.contains(said), "{said}: {refused}");
        let undone = plugin.methods().iter().any(|heard| heard == "FreeNetwork");
        assert_eq!(undone, may_be_done, "{said}");
        assert!(!allocator.holds(NETWORK));
        plugin.react("AllocateNetwork", json("{}"));
        assert!(allocator.allocate(&network()).await.is_ok(), "{said}");
    }
}

/// Its process ends: what it has is gone with it, and the registry gets another one.
#[tokio::test]
async fn a_plugin_that_crashes_ends_the_life_of_its_allocator() {
    let plugin = Plugin::start(&[GLOBAL]);
    let allocator = allocator(&plugin).await;
    plugin.react("AllocateNetwork", Reaction::Crash);

    let refused = allocator.allocate(&network()).await;
    let next = allocator.allocate(&network()).await;

    assert!(refused.is_err());
    assert!(matches!(
        next,
        Err(DriverError::Restarted { .. } | DriverError::Unreachable { .. })
    ));
    assert!(allocator.life().is_cancelled());
}

async fn allocator(plugin: &Plugin) -> Arc<dyn NetworkAllocator> {
    let driver = plugin.connect(Duration::from_secs(5), false).await.unwrap();
    driver.found().allocator.unwrap()
}

fn options(pairs: &[(&str, &str)]) -> Options {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
