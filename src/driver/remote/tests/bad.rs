//! Plugins that answer badly, late or not at all: each is named with the call, what it may have done is taken back, and the driver
//! serves the next call all the same.

use std::{sync::Arc, time::Duration};

use super::{NETWORK, Plugin, Reaction, endpoint, network};
use crate::{
    core::model::{EndpointId, Instant, Name},
    driver::{Driver, DriverError, Origin, Registry, RegistryError},
};

const SCOPE: (&str, &str) = ("GetCapabilities", r#"{"Scope":"global"}"#);
/// Long enough for a plugin that answers, and short for the test of one that does not.
const DEADLINE: Duration = Duration::from_millis(400);

/// What a plugin may do, what is said of it, and whether the call may have been carried out.
fn reactions() -> Vec<(Reaction, &'static str, bool)> {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Inter".to_vec();
    let long = [
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        vec![b' '; 5 * 1024 * 1024],
    ]
    .concat();
    let json = |text: &str| Reaction::Json(text.to_owned());
    vec![
        (
            Reaction::Raw(b"\x00\xffgarbage\r\n\r\n".to_vec()),
            "broke in",
            true,
        ),
        (Reaction::Raw(Vec::new()), "broke in", true),
        (Reaction::Raw(half), "broke in", true),
        (Reaction::Raw(long), "is longer than 4194304 bytes", true),
        (json("<html>"), "is malformed", true),
        (json("[1]"), "is malformed", true),
        (
            json(r#"{"Interface":7,"Gateway":{},"InterfaceName":[]}"#),
            "is malformed",
            true,
        ),
        (Reaction::Hang, "did not answer", true),
        (json(r#"{"Err":"no room"}"#), "no room", false),
        (
            Reaction::Status(500, "boom at line 7"),
            "boom at line 7",
            false,
        ),
        (Reaction::Status(500, ""), "status 500", false),
        (
            Reaction::Status(404, "404 page not found"),
            "does not implement",
            false,
        ),
    ]
}

#[tokio::test]
async fn whatever_a_plugin_answers_to_a_join_the_error_names_it_and_nothing_stays() {
    check_all("Join", "Leave").await;
}

#[tokio::test]
async fn whatever_a_plugin_answers_to_an_endpoint_the_error_names_it_and_nothing_stays() {
    check_all("CreateEndpoint", "DeleteEndpoint").await;
}

async fn check_all(method: &str, undo: &str) {
    for (reaction, said, may_be_done) in reactions() {
        let case = format!("{said} in {method}");
        let plugin = Plugin::start(&[SCOPE]);
        let driver = plugin.connect(DEADLINE, true).await.unwrap();
        plugin.react(method, reaction);

        let refused = call(&driver, method).await.unwrap_err().to_string();

        assert!(refused.starts_with("driver wire"), "{case}: {refused}");
        assert!(
            refused.contains(&format!("NetworkDriver.{method}")),
            "{case}: {refused}"
        );
        assert!(refused.contains(said), "{case}: {refused}");
        let undone = plugin.methods().iter().any(|heard| heard == undo);
        assert_eq!(undone, may_be_done, "{case}: {:?}", plugin.methods());
        plugin.react(method, Reaction::Json("{}".to_owned()));
        let next = call(&driver, method).await;
        assert!(next.is_ok(), "{case}: {next:?}");
    }
}

async fn call(driver: &dyn Driver, method: &str) -> Result<(), DriverError> {
    match method {
        "Join" => driver.join(&endpoint()).await.map(drop),
        _ => driver.create_endpoint(&endpoint()).await.map(drop),
    }
}

/// M3, M6: what is no address, no MAC, or not the plugin's to give.
#[tokio::test]
async fn addresses_that_are_none_or_were_given_are_refused_and_undone() {
    let changed = "it changed an address or a MAC that was given";
    let endpoints = [
        (r#"{"Interface":{"Address":"10.0.0.2/24"}}"#, changed),
        (r#"{"Interface":{"Address":"192.168.7.7/24"}}"#, changed),
        (
            r#"{"Interface":{"MacAddress":"02:00:00:00:00:09"}}"#,
            changed,
        ),
        (r#"{"Interface":{"MacAddress":"no"}}"#, changed),
        (
            r#"{"Interface":{"AddressIPv6":"nowhere"}}"#,
            "address \"nowhere\": ",
        ),
        (
            r#"{"Interface":{"AddressIPv6":"10.0.0.9/24"}}"#,
            "address \"10.0.0.9/24\" is of the other family",
        ),
    ];
    for (answer, wrong) in endpoints {
        let plugin = Plugin::start(&[SCOPE, ("CreateEndpoint", answer)]);
        let driver = plugin.driver().await.unwrap();

        let refused = driver.create_endpoint(&endpoint()).await.unwrap_err();

        let expected =
            format!("driver wire broke the protocol: NetworkDriver.CreateEndpoint: {wrong}");
        let refused = refused.to_string();
        assert!(refused.starts_with(&expected), "{refused}");
        assert_eq!(plugin.methods().last().unwrap(), "DeleteEndpoint");
    }
    let joins = [
        (r#"{"Gateway":"10.0.0.1/24"}"#, "address \"10.0.0.1/24\""),
        (r#"{"GatewayIPv6":"?"}"#, "address \"?\""),
        (
            r#"{"StaticRoutes":[{"Destination":"x","RouteType":1}]}"#,
            "route to \"x\"",
        ),
        (
            r#"{"StaticRoutes":[{"Destination":"10.1.0.0/16","RouteType":0}]}"#,
            "address \"\"",
        ),
        (
            r#"{"StaticRoutes":[{"Destination":"10.1.0.0/16","RouteType":2}]}"#,
            "2 is no type of route",
        ),
    ];
    for (answer, wrong) in joins {
        let plugin = Plugin::start(&[SCOPE, ("Join", answer)]);
        let driver = plugin.driver().await.unwrap();

        let refused = driver.join(&endpoint()).await.unwrap_err().to_string();

        assert!(
            refused.contains("NetworkDriver.Join: ") && refused.contains(wrong),
            "{refused}"
        );
        assert_eq!(plugin.methods().last().unwrap(), "Leave");
    }
}

/// The crash takes the socket along: nobody can be asked to undo, and the next process knows nothing to undo.
#[tokio::test]
async fn a_plugin_that_crashes_in_a_join_ends_its_life_and_the_registry_is_still_of_use() {
    let plugin = Plugin::start(&[SCOPE]);
    let driver = Arc::new(plugin.connect(DEADLINE, true).await.unwrap());
    let registry = Registry::new();
    registry
        .register("wire", Origin::Plugin, driver.clone())
        .unwrap();
    registry
        .register("null", Origin::BuiltIn, Arc::new(crate::driver::Null))
        .unwrap();
    plugin.react("Join", Reaction::Crash);

    let refused = driver.join(&endpoint()).await.unwrap_err();

    assert!(
        matches!(refused, DriverError::Unreachable { .. }),
        "{refused}"
    );
    let next = driver.leave(NETWORK, EndpointId(9)).await;
    assert!(next.is_ok(), "what was never joined is left: {next:?}");
    let again = driver.join(&endpoint()).await;
    assert!(again.is_err());
    assert!(driver.life().is_cancelled());
    let (wire, null) = (Name::new("wire").unwrap(), Name::new("null").unwrap());
    let gone = registry.get(&wire, Instant::default()).await.err();
    assert!(matches!(gone, Some(RegistryError::NotFound(_))));
    assert!(registry.get(&null, Instant::default()).await.is_ok());
}

/// An undoing that did not work either is tried again before the next call of its kind.
#[tokio::test]
async fn what_could_not_be_undone_is_undone_before_the_next_try() {
    let plugin = Plugin::start(&[SCOPE]);
    let driver = plugin.driver().await.unwrap();
    plugin.react("CreateNetwork", Reaction::Raw(Vec::new()));
    plugin.react("DeleteNetwork", Reaction::Raw(Vec::new()));
    driver.create_network(&network()).await.unwrap_err();
    let still = driver.create_network(&network()).await.unwrap_err();

    plugin.react("CreateNetwork", Reaction::Json("{}".to_owned()));
    plugin.react(
        "DeleteNetwork",
        Reaction::Json(r#"{"Err":"no such network"}"#.to_owned()),
    );
    driver.create_network(&network()).await.unwrap();

    assert!(
        still
            .to_string()
            .contains("has not undone an earlier call yet"),
        "{still}"
    );
    let heard = plugin.methods();
    let expected = [
        "CreateNetwork",
        "DeleteNetwork",
        "DeleteNetwork",
        "DeleteNetwork",
        "CreateNetwork",
    ];
    assert_eq!(heard[1..], expected);
}

/// Megabytes of words are no error message.
#[tokio::test]
async fn a_long_refusal_is_cut() {
    let plugin = Plugin::start(&[SCOPE]);
    let driver = plugin.driver().await.unwrap();
    for answer in [
        format!(r#"{{"Err":"{}"}}"#, "é".repeat(1_000_000)),
        format!(r#"{{"Gateway":"{}"}}"#, "é".repeat(1_000_000)),
        format!(r#"{{"InterfaceName":"{}"}}"#, "é".repeat(1_000_000)),
    ] {
        plugin.react("Join", Reaction::Json(answer));

        let refused = driver.join(&endpoint()).await.unwrap_err().to_string();

        assert!(
            refused.len() < 1100 && refused.ends_with('…'),
            "{refused:.200}"
        );
        assert!(refused.contains("NetworkDriver.Join"), "{refused}");
    }
}

/// The circuit breaker: three late calls, and the next is refused at once.
#[tokio::test]
async fn a_plugin_that_hangs_is_left_alone_after_three_calls() {
    let plugin = Plugin::start(&[SCOPE]);
    let driver = plugin
        .connect(Duration::from_millis(50), true)
        .await
        .unwrap();
    plugin.react("EventNotify", Reaction::Hang);
    let batch = crate::driver::EventBatch {
        network: NETWORK,
        after: crate::driver::Position {
            stream: 1,
            revision: 0,
        },
        events: &[],
    };
    for _ in 0..3 {
        let late = driver.event_batch(batch).await.unwrap_err().to_string();
        assert!(
            late.contains("did not answer NetworkDriver.EventNotify within 50ms"),
            "{late}"
        );
    }

    let refused = driver.event_batch(batch).await.unwrap_err().to_string();

    assert!(
        refused.contains("it let too many calls in a row run out of time"),
        "{refused}"
    );
}
