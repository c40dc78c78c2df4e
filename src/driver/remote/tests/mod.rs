//! Remote drivers against plugins in this process, over real sockets. M1 to M10 are libnetwork's cases.
//!
//! M1: `a_plugin_that_does_not_say_its_scope_is_no_driver`, `scopes_are_read_and_the_second_follows_the_first`. M2:
//! `what_a_plugin_says_beyond_the_protocol_is_skipped`. M3: `an_endpoint_whose_address_a_plugin_changes_is_rolled_back` and, for
//! what is no address at all, `bad`. M4: `a_join_answered_badly_is_left_and_a_refusal_is_told_in_the_plugins_words`. M5:
//! `what_reaches_the_outside_is_programmed_and_revoked_and_need_not_be_known`. M6: `a_plugin_hears_each_step_once`,
//! `routes_are_read_by_their_type`, and the bad ones in `bad`. M7 to M10, of IPAM: `ipam`.

mod allocator;
mod bad;
mod ipam;
mod managed;
mod plugin;
mod tables;

use std::net::IpAddr;

use self::plugin::{Plugin, Reaction};
use super::*;
use crate::{
    core::model::{Mac, Prefix, Subnet},
    driver::Route,
};

/// M6.
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

/// M1.
#[tokio::test]
async fn a_plugin_that_does_not_say_its_scope_is_no_driver() {
    for said in [
        "{}",
        r#"{"Scope":"galaxy"}"#,
        r#"{"ConnectivityScope":"global"}"#,
    ] {
        let plugin = Plugin::start(&[("GetCapabilities", said)]);

        let refused = plugin.driver().await.err();

        assert!(
            matches!(refused, Some(DriverError::Protocol { .. })),
            "{said}"
        );
    }
}

/// M1.
#[tokio::test]
async fn scopes_are_read_and_the_second_follows_the_first() {
    let cases = [
        (r#"{"Scope":"global"}"#, (Scope::Global, Scope::Global)),
        (
            r#"{"Scope":"local","ConnectivityScope":"global"}"#,
            (Scope::Local, Scope::Global),
        ),
    ];
    for (said, (data_scope, connectivity_scope)) in cases {
        let plugin = Plugin::start(&[("GetCapabilities", said)]);

        let capability = plugin.driver().await.unwrap().capability();

        assert_eq!(
            capability,
            Capability {
                data_scope,
                connectivity_scope
            }
        );
    }
}

/// M2. What a plugin written in Go sends for an empty list is one.
#[tokio::test]
async fn what_a_plugin_says_beyond_the_protocol_is_skipped() {
    let plugin = Plugin::start(&[
        ("GetCapabilities", r#"{"Scope":"global","Moons":[4]}"#),
        ("CreateNetwork", "null"),
        (
            "Join",
            r#"{"StaticRoutes":null,"InterfaceName":null,"Colour":{"red":1},"TableEntries":[{"TableName":"t","Key":"aw=="}]}"#,
        ),
    ]);
    let driver = plugin.driver().await.unwrap();

    assert_eq!(driver.create_network(&network()).await.unwrap(), []);
    let joined = driver.join(&endpoint()).await.unwrap();

    // It does not say that it speaks of tables.
    assert_eq!(joined, Joined::default());
}

/// Of later engines' protocol. A plugin that does not say that it checks is not asked.
#[tokio::test]
async fn a_plugin_is_told_of_no_gateway_that_it_does_without() {
    let both = NetworkRecord {
        subnets: vec![
            subnet("10.0.0.0/24", "10.0.0.1"),
            subnet("fd00::/64", "fd00::1"),
        ],
        ..network()
    };
    let cases = [
        (false, "{}", ["10.0.0.1/24", "fd00::1/64"]),
        (true, "{}", ["10.0.0.1/24", "fd00::1/64"]),
        (true, r#"{"SkipIPv4":true}"#, ["", "fd00::1/64"]),
        (true, r#"{"SkipIPv4":true,"SkipIPv6":true}"#, ["", ""]),
    ];
    for (checks, answer, gateways) in cases {
        let said = format!(r#"{{"Scope":"global","GwAllocChecker":{checks}}}"#);
        let plugin = Plugin::start(&[("GetCapabilities", &said), ("GwAllocCheck", answer)]);
        let driver = plugin.driver().await.unwrap();

        driver.create_network(&both).await.unwrap();

        let asked = plugin
            .methods()
            .iter()
            .any(|method| method == "GwAllocCheck");
        assert_eq!(asked, checks);
        let told = plugin.last("CreateNetwork");
        let of = |family: &str| {
            let gateway = &told[family][0]["Gateway"];
            // Left out, not empty: plugins in Go take only the one.
            assert_ne!(*gateway, "");
            gateway.as_str().unwrap_or_default().to_owned()
        };
        assert_eq!([of("IPv4Data"), of("IPv6Data")], gateways, "{answer}");
        if checks {
            let options = &plugin.last("GwAllocCheck")["Options"];
            assert_eq!(*options, told["Options"]);
        }
    }

    let said = r#"{"Scope":"global","GwAllocChecker":true}"#;
    let refusal = r#"{"Err":"no such mode"}"#;
    let plugin = Plugin::start(&[("GetCapabilities", said), ("GwAllocCheck", refusal)]);
    let driver = plugin.driver().await.unwrap();
    let refused = driver.create_network(&network()).await.unwrap_err();
    let expected = "driver wire: NetworkDriver.GwAllocCheck: no such mode";
    assert_eq!(refused.to_string(), expected);
    assert_eq!(plugin.methods(), ["GetCapabilities", "GwAllocCheck"]);
}

/// M6.
#[tokio::test]
async fn routes_are_read_by_their_type() {
    let answer = r#"{"GatewayIPv6":"fd00::1","StaticRoutes":[
        {"Destination":"10.1.0.0/16","RouteType":0,"NextHop":"10.0.0.9"},
        {"Destination":"10.2.0.0/16","RouteType":1}]}"#;
    let plugin = Plugin::start(&[
        ("GetCapabilities", r#"{"Scope":"global"}"#),
        ("Join", answer),
    ]);
    let driver = plugin.driver().await.unwrap();

    let joined = driver.join(&endpoint()).await.unwrap();

    let route = |to: &str, via: Option<&str>| Route {
        destination: Prefix(to.parse().unwrap()),
        via: via.map(|via| via.parse().unwrap()),
    };
    assert_eq!(joined.gateways, ["fd00::1".parse::<IpAddr>().unwrap()]);
    let expected = [
        route("10.1.0.0/16", Some("10.0.0.9")),
        route("10.2.0.0/16", None),
    ];
    assert_eq!(joined.routes, expected);
}

/// M5.
#[tokio::test]
async fn what_reaches_the_outside_is_programmed_and_revoked_and_need_not_be_known() {
    let plugin = Plugin::start(&[("GetCapabilities", r#"{"Scope":"local"}"#)]);
    let driver = plugin.driver().await.unwrap();
    driver.join(&endpoint()).await.unwrap();
    for _ in 0..2 {
        driver.connect_outside(&endpoint()).await.unwrap();
    }
    driver.leave(NETWORK, EndpointId(1)).await.unwrap();
    let expected = [
        "Join",
        "ProgramExternalConnectivity",
        "RevokeExternalConnectivity",
        "Leave",
    ];
    assert_eq!(plugin.methods()[1..], expected);
    let asked = plugin.last("ProgramExternalConnectivity");
    let nothing = serde_json::json!([]);
    assert_eq!(asked["Options"]["com.docker.network.portmap"], nothing);

    // One that knows nothing of it is not asked to revoke; one that refuses is heard.
    let method = "ProgramExternalConnectivity";
    plugin.react(method, Reaction::Status(404, "404 page not found"));
    driver.join(&endpoint()).await.unwrap();
    driver.connect_outside(&endpoint()).await.unwrap();
    driver.leave(NETWORK, EndpointId(1)).await.unwrap();
    assert_eq!(plugin.methods()[5..], ["Join", method, "Leave"]);
    plugin.react(
        method,
        Reaction::Json(r#"{"Err":"port 80 is in use"}"#.to_owned()),
    );
    driver.join(&endpoint()).await.unwrap();
    let refused = driver.connect_outside(&endpoint()).await.unwrap_err();
    let expected = "driver wire: NetworkDriver.ProgramExternalConnectivity: port 80 is in use";
    assert_eq!(refused.to_string(), expected);
    // What a plugin says to its revocation keeps nobody from leaving.
    plugin.react(method, Reaction::Json("{}".to_owned()));
    plugin.react("RevokeExternalConnectivity", Reaction::Status(500, "no"));
    driver.connect_outside(&endpoint()).await.unwrap();
    assert!(driver.leave(NETWORK, EndpointId(1)).await.is_ok());
}

/// What a daemon that died had a plugin do is taken back, though this one has never asked for it.
#[tokio::test]
async fn what_a_former_daemon_began_is_taken_back_for_sure() {
    let plugin = Plugin::start(&[("GetCapabilities", r#"{"Scope":"global"}"#)]);
    let driver = plugin.driver().await.unwrap();
    let (network, endpoint) = (NETWORK, EndpointId(1));

    driver.forget_join(network, endpoint).await.unwrap();
    plugin.react(
        "DeleteEndpoint",
        Reaction::Json(r#"{"Err":"no such endpoint"}"#.to_owned()),
    );
    driver.forget_endpoint(network, endpoint).await.unwrap();
    plugin.react("DeleteNetwork", Reaction::Raw(Vec::new()));
    let not_sure = driver.forget_network(network).await;

    assert!(
        matches!(not_sure, Err(DriverError::Unreachable { .. })),
        "{not_sure:?}"
    );
    let expected = ["Leave", "DeleteEndpoint", "DeleteNetwork"];
    assert_eq!(plugin.methods()[1..], expected);
}

/// After a restart of the daemon all is told again. Old plugins refuse that, and have what they are told.
#[tokio::test]
async fn what_a_plugin_has_from_before_a_restart_of_the_daemon_is_taken_over() {
    let plugin = Plugin::start(&[
        ("GetCapabilities", r#"{"Scope":"global"}"#),
        ("CreateNetwork", r#"{"Err":"network 9e37 already exists"}"#),
        (
            "CreateEndpoint",
            r#"{"Err":"Endpoint (7) already exists (Only one endpoint allowed)"}"#,
        ),
    ]);
    plugin.react(
        "Join",
        Reaction::InTurn(vec![
            r#"{"Err":"endpoint 7 already joined"}"#,
            r#"{"Gateway":"10.0.0.1"}"#,
        ]),
    );
    let driver = plugin.driver().await.unwrap();

    driver.create_network(&network()).await.unwrap();
    driver.create_endpoint(&endpoint()).await.unwrap();
    let joined = driver.join(&endpoint()).await.unwrap();
    driver
        .delete_endpoint(NETWORK, EndpointId(1))
        .await
        .unwrap();

    assert_eq!(joined.gateways.len(), 1);
    let expected = [
        "CreateNetwork",
        "CreateEndpoint",
        "Join",
        "Leave",
        "Join",
        "Leave",
        "DeleteEndpoint",
    ];
    assert_eq!(plugin.methods()[1..], expected);
}

/// A restarted plugin is another driver: this one's life is over at the next call, and the next one knows nothing yet.
#[tokio::test]
async fn a_plugin_that_is_restarted_ends_the_life_of_its_driver() {
    let scope = [("GetCapabilities", r#"{"Scope":"global"}"#)];
    let plugin = Plugin::start(&scope);
    let driver = plugin.driver().await.unwrap();
    driver.create_network(&network()).await.unwrap();
    let life = driver.life();

    let plugin = plugin.restart(&scope);
    let watched = tokio::time::timeout(Duration::from_secs(30), driver.watch_over()).await;

    assert_eq!(watched, Ok(()));
    assert!(life.is_cancelled());
    let refused = driver.create_endpoint(&endpoint()).await;
    assert!(matches!(refused, Err(DriverError::Restarted { .. })));
    let next = plugin.driver().await.unwrap();
    next.create_network(&network()).await.unwrap();
    assert_eq!(plugin.methods(), ["GetCapabilities", "CreateNetwork"]);
}

/// M3.
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

/// M4, M6.
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

fn network() -> NetworkRecord {
    NetworkRecord {
        id: NETWORK,
        name: Name::new("app").unwrap(),
        driver: Name::new("wire").unwrap(),
        options: BTreeMap::new(),
        subnets: vec![subnet("10.0.0.0/24", "10.0.0.1")],
    }
}

fn subnet(prefix: &str, gateway: &str) -> Subnet {
    Subnet {
        prefix: Prefix(prefix.parse().unwrap()),
        gateway: gateway.parse().unwrap(),
        vni: None,
    }
}

fn endpoint() -> EndpointRecord {
    EndpointRecord {
        id: EndpointId(1),
        network: NETWORK,
        name: Name::new("web").unwrap(),
        address: Some(Prefix("10.0.0.2/24".parse().unwrap())),
        second: None,
        mac: Mac([2, 0, 0, 0, 0, 2]),
    }
}

/// M3: a field that was empty is the plugin's to set.
#[tokio::test]
async fn a_plugin_gives_the_addresses_that_an_endpoint_lacks_and_keeps_them() {
    let plugin = Plugin::start(&[
        ("GetCapabilities", r#"{"Scope":"local"}"#),
        (
            "CreateEndpoint",
            r#"{"Interface":{"Address":"192.168.7.7/24"}}"#,
        ),
    ]);
    let driver = plugin.driver().await.unwrap();
    let bare = EndpointRecord {
        address: None,
        ..endpoint()
    };
    let plain = NetworkRecord {
        subnets: Vec::new(),
        ..network()
    };

    driver.create_network(&plain).await.unwrap();
    let given = driver.create_endpoint(&bare).await.unwrap();

    assert_eq!(given, [Prefix("192.168.7.7/24".parse().unwrap())]);
    let known = bare.with(&given);
    for again in [&bare, &known] {
        assert_eq!(driver.create_endpoint(again).await.unwrap(), given);
    }
    let other = driver.create_endpoint(&endpoint()).await.unwrap_err();
    assert!(matches!(other, DriverError::EndpointExists(_)));
    let created = plugin.last("CreateNetwork");
    let nothing =
        serde_json::json!({ "AddressSpace": "null", "Pool": "0.0.0.0/0", "AuxAddresses": {} });
    assert_eq!(created["IPv4Data"], serde_json::json!([nothing]));
    assert_eq!(created["IPv6Data"], serde_json::json!([]));
}

#[tokio::test]
async fn a_plugin_hears_once_of_each_node_that_comes_or_goes() {
    let plugin = Plugin::start(&[("GetCapabilities", r#"{"Scope":"global"}"#)]);
    let driver = plugin.driver().await.unwrap();
    let node = |last: u8, is_self: bool| NodePlace {
        address: IpAddr::from([192, 0, 2, last]),
        is_self,
    };

    driver
        .nodes(&[node(1, true), node(2, false)])
        .await
        .unwrap();
    driver
        .nodes(&[node(1, true), node(2, false)])
        .await
        .unwrap();
    driver
        .nodes(&[node(1, true), node(3, false)])
        .await
        .unwrap();

    let heard = plugin.heard.lock().unwrap().clone();
    let told: Vec<(&str, &str, bool)> = heard
        .iter()
        .filter(|(method, _)| method.starts_with("Discover"))
        .map(|(method, said)| {
            assert_eq!(said["DiscoveryType"], 1);
            let data = &said["DiscoveryData"];
            assert_eq!(data["Address"], data["BindAddress"]);
            let address = data["Address"].as_str().unwrap();
            (method.as_str(), address, data["Self"].as_bool().unwrap())
        })
        .collect();
    let expected = [
        ("DiscoverNew", "192.0.2.1", true),
        ("DiscoverNew", "192.0.2.2", false),
        ("DiscoverDelete", "192.0.2.2", false),
        ("DiscoverNew", "192.0.2.3", false),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_plugin_need_not_know_of_nodes() {
    let plugin = Plugin::start(&[("GetCapabilities", r#"{"Scope":"global"}"#)]);
    plugin.react("DiscoverNew", Reaction::Status(404, "404 page not found"));
    let driver = plugin.driver().await.unwrap();
    let node = NodePlace {
        address: IpAddr::from([192, 0, 2, 1]),
        is_self: true,
    };

    for _ in 0..2 {
        driver.nodes(&[node]).await.unwrap();
    }

    assert_eq!(plugin.methods(), ["GetCapabilities", "DiscoverNew"]);
}
